"""Experiment files that nobody wrote: each is refused in one line, or is an experiment that can be run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lenet_exp.base.errors import ConfigError
from lenet_exp.config.ablation import FACTORS
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.hyperparameters import HYPERPARAMETERS, Configuration, PartialConfiguration
from lenet_exp.config.loader import load, parse
from lenet_exp.config.space import SPACE_KEYS, Suggester


def accepted_or_refused(data: dict[str, Any]) -> Experiment | None:
    """Return the experiment; None if it was refused; nothing else is raised."""
    try:
        return parse(data)
    except ConfigError:
        return None


scalars: Any = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 40),
    st.floats(),
    st.floats(0, 1),
    st.text(max_size=5),
    st.sampled_from(["avg", "max", "same", "relu", "adam", "sgd", "auto", "mse"]),
)
ranges: Any = st.fixed_dictionaries(
    {"low": scalars, "high": scalars}, optional={"log": st.booleans(), "step": scalars}
)


@given(
    st.dictionaries(
        st.sampled_from(SPACE_KEYS), scalars | st.lists(scalars, max_size=3) | ranges, min_size=1, max_size=3
    ),
    st.sampled_from(["tpe", "grid"]),
)
@settings(max_examples=300, deadline=None)
def test_whatever_space_is_taken_can_be_searched(space: dict[str, Any], sampler: str) -> None:
    """It can be described and drawn from, and what is drawn is a configuration."""
    experiment = accepted_or_refused({"name": "a", "space": space, "search": {"sampler": sampler}})
    if experiment is None:
        return
    described = experiment.search_space.describe()
    assert parse({"name": "a", "space": described}).search_space.describe() == described
    assert len(experiment.search_space.grid()) >= 1 if sampler == "grid" else True
    drawn = experiment.search_space.suggest(cast("Suggester", Lowest()))
    assert drawn.hyperparameters().keys() == set(HYPERPARAMETERS)


class Lowest:
    """Draws the first and the smallest of everything, where Optuna would draw any."""

    def suggest_categorical(self, _: str, choices: Any) -> Any:
        """Return the first."""
        return choices[0]

    def suggest_int(self, _: str, low: int, high: int, *, step: int = 1, **__: bool) -> int:
        """Return the smallest."""
        assert low <= high
        assert step >= 1
        return low

    def suggest_float(self, _: str, low: float, high: float, **__: Any) -> float:
        """Return the smallest."""
        assert low <= high
        return low


@given(
    st.dictionaries(
        st.sampled_from(list(PartialConfiguration.model_fields)), scalars | st.lists(scalars, max_size=4)
    ),
    st.sampled_from(["baseline", "run"]),
)
@settings(max_examples=300, deadline=None)
def test_whatever_configuration_is_taken_is_one(table: dict[str, Any], where: str) -> None:
    """A baseline or a run that the file may have can be named and written out."""
    experiment = accepted_or_refused({"name": "a", where: [table] if where == "run" else table})
    if experiment is not None:
        named = [experiment.baseline_configuration, *(c for _, c in experiment.runs())]
        assert all(isinstance(c, Configuration) and c.id for c in named)


@given(
    st.dictionaries(
        st.sampled_from([*FACTORS, "seeds", "network"]),
        scalars | st.lists(scalars | st.dictionaries(st.sampled_from(FACTORS), scalars), max_size=3),
    )
)
@settings(max_examples=200, deadline=None)
def test_whatever_ablation_is_taken_is_one(written: dict[str, Any]) -> None:
    """Its alternatives are checked before anything begins."""
    accepted_or_refused({"name": "a", "ablate": written})


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_bytes_a_file_has_it_is_an_experiment_or_one_line(tmp_path: Path, content: bytes) -> None:
    """No other exception leaves `load`."""
    path = tmp_path / "e.toml"
    path.write_bytes(b'name = "a"\n' + content)
    with suppress(ConfigError):
        load(path)


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_set_it_is_an_experiment_or_one_line(tmp_path: Path, override: str) -> None:
    """No other exception leaves `load`, whatever follows ``--set``."""
    path = tmp_path / "e.toml"
    path.write_text('name = "a"')
    for text in (override, f"search.{override}", f"space.lr={override}"):
        with suppress(ConfigError):
            load(path, [text])

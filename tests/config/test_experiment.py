from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lenet_exp.base.errors import ConfigError
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.loader import load, parse
from tests.labs.places import PROJECT

SHIPPED = sorted((PROJECT / "experiments").glob("*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_experiment_that_comes_with_the_project_is_valid(path: Path) -> None:
    """The files in experiments/ can be run as they are."""
    experiment = load(path)

    assert experiment.question
    assert experiment.baseline_configuration.optimizer == "adam"


def test_runs_differ_from_the_baseline_only_in_what_they_say() -> None:
    """A listed run takes the rest from the baseline, or from the preset that it names."""
    experiment = parse(
        {
            "name": "x",
            "baseline": {"lr": 0.01},
            "training": {"epochs": 3},
            "run": [{"pooling": "avg"}, {"preset": "classic", "name": "book"}],
        }
    )

    (first_label, first), (second_label, second) = experiment.runs()

    assert (first_label, first.pooling, first.lr, first.epochs) == ("run 1", "avg", 0.01, 3)
    assert (second_label, second.activation, second.lr, second.epochs) == ("book", "sigmoid", 0.9, 3)


def test_an_alternative_differs_from_the_baseline_only_in_what_it_says() -> None:
    """The rest is the baseline's own, or the preset's that a table names; precision is everybody's."""
    experiment = parse(
        {
            "name": "x",
            "baseline": {"lr": 0.01},
            "training": {"epochs": 3, "precision": "float32"},
            "ablate": {
                "conv_layers": [3],
                "epochs": [7],
                "net": [{"name": "book", "preset": "classic", "pooling": "max"}],
            },
        }
    )

    (_, deep), (_, long), (_, book) = experiment.alternatives()

    assert (deep.conv_layers, deep.lr, deep.epochs) == (3, 0.01, 3)
    assert (long.conv_layers, long.lr, long.epochs) == (2, 0.01, 7)
    assert (book.activation, book.pooling, book.lr, book.epochs) == ("sigmoid", "max", 0.9, 3)
    resolved = parse({"name": "x", "ablate": {"lr": [0.1]}}).with_precision("bfloat16")
    assert [configuration.precision for _, configuration in resolved.alternatives()] == ["bfloat16"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ({"space": {"lr": [0.1, 0.2]}}, r"a \[space\] to search"),
        ({"ablate": {"lr": [0.1]}}, r"an \[ablate\]"),
    ],
)
def test_what_chooses_may_not_see_the_test_split(kind: dict[str, Any], said: str) -> None:
    """The file is refused, in one line; a fixed list, which chooses nothing, is not."""
    watch = {"watch": {"test_split": True}}
    with pytest.raises(
        ConfigError, match=rf"watch.test_split: not allowed with {said}, which chooses .* as \[\[run\]\]"
    ):
        parse({"name": "x"} | kind | watch)

    listed = {"name": "x", "run": [{"lr": 0.1}]} | watch
    assert parse(listed).watch.test_split
    with pytest.raises(ConfigError, match=r"watch.test_split: not allowed with \[confirm\], which chooses"):
        parse(listed | {"confirm": {"seeds": 3}})
    assert not parse({"name": "x"} | kind | {"watch": {"diagnostics": True}}).watch.test_split


@pytest.mark.parametrize(
    "name",
    ["../../etc", "/etc", "a/b", "a\0", "x" * 300, "", ".", "..", "a\nb", " a", "-a", "a..b", "\x1b]0;x"],
)
def test_a_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    """Names are letters, digits, spaces, dots, dashes and underscores."""
    with pytest.raises(ConfigError, match="name: must be 1 to 100 letters"):
        parse({"name": name})


@pytest.mark.parametrize("name", ["Größe 5", "실험", "fashion-mnist", "a.b", "日本 1"])
def test_names_of_every_script_work(name: str) -> None:
    """A name is kept as it is written, composed."""
    assert parse({"name": name}).name == name


junk: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(list(Experiment.model_fields)), junk, max_size=4))
def test_no_table_makes_anything_but_an_experiment_or_an_error(data: dict[str, Any]) -> None:
    """Whatever a file says, the answer is an experiment or one line."""
    message = ""
    try:
        parse(data)
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message

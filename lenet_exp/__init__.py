"""Which LeNet is better than the baseline, by how much, and how sure are we?

    import lenet_exp

    results = lenet_exp.run_sweep("quick", root="mlruns")
    results.leaderboard, results.curves, results.verdicts, results.champion

This is the public API for notebooks and scripts. Importing it is fast: torch, Optuna and MLflow are imported
when a function first needs them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_exp.base.faces import face

if TYPE_CHECKING:
    from lenet_exp.base.errors import LenetExpError
    from lenet_exp.config.experiment import Experiment
    from lenet_exp.results.leaderboard import read_leaderboard
    from lenet_exp.results.views.notebook import Results

__version__ = "0.1.0"

#: The longest time limit, as in the command line: a longer one is a mistake.
_LONGEST_S = 365 * 86_400

__all__ = ["LenetExpError", "Results", "load_experiment", "open_results", "read_leaderboard", "run_sweep"]

# Each is imported when it is first accessed.
__getattr__, _ = face(
    __name__,
    **{
        "base.errors": "LenetExpError",
        "results.leaderboard": "read_leaderboard",
        "results.views.notebook": "Results",
    },
)


def __dir__() -> list[str]:
    return __all__


def load_experiment(
    name_or_path: str | Path, overrides: Mapping[str, Any] | Iterable[str] | None = None
) -> Experiment:
    """Check an experiment file and return the experiment that it describes.

    Args:
        name_or_path: Path of a TOML file, or the bare name of one that comes with the project, such as
            ``quick``.
        overrides: Values that replace those of the file: a mapping by dotted key, such as
            ``{"search.trials": 8}``, or texts as for ``--set``, such as ``["search.trials=8"]``.

    Raises:
        ConfigError: If the file does not exist, or the file or an override is invalid.
    """
    from lenet_exp.base.environment import check_system

    check_system()
    from lenet_exp.config import loader

    _check(name_or_path=name_or_path, overrides=overrides)
    if isinstance(overrides, str):
        overrides = [overrides]
    return loader.load(loader.experiment_path(name_or_path), overrides or ())


def run_sweep(
    experiment: Experiment | str | Path,
    root: str | Path | None = None,
    *,
    workers: int | None = None,
    timeout_s: float | None = None,
    device: str = "auto",
    confirm: bool = True,
    tracking_uri: str | None = None,
    storage: str | None = None,
) -> Results:
    """Run an experiment, as the command ``lenet-exp sweep`` does, and return its results.

    A sweep trains the baseline, searches the space, and confirms the best configurations on fresh seeds. It
    shows how it stands: as a board in a notebook, else in lines on standard error. If it was interrupted, the
    next call continues it; once all is done, a call trains nothing.

    Args:
        experiment: Return value of `load_experiment`, or a name or path that `load_experiment` accepts.
        root: Root folder of all results; None for ``LENET_EXP_ROOT`` or, if that is not set, ``mlruns``.
        workers: Number of trainings to run at the same time, at least 1; None for what the machine allows.
        timeout_s: Seconds after which no more trainings are started; None for no limit.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or ``auto`` for an accelerator if there is one.
        confirm: False to stop after the search, without opening the test split.
        tracking_uri: MLflow store; None for ``MLFLOW_TRACKING_URI`` or, if not set, ``root``/mlflow.db.
        storage: URL of a PostgreSQL database for the study; None for ``LENET_EXP_STORAGE`` or, if that is
            not set, ``study.db`` in ``root``.

    Raises:
        LenetExpError: If the sweep cannot run, fails or is interrupted. Its class is one of those in
            `lenet_exp.base.errors`; its text is what the command line would print.
    """
    from lenet_exp.base.environment import check_system

    check_system()
    _check(workers=workers, timeout_s=timeout_s, device=device, confirm=confirm, tracking_uri=tracking_uri)
    chosen, folder, url = _experiment(experiment), _root(root), _storage(storage)
    from lenet_exp.execution.processes import start_fork_server

    start_fork_server()  # imports torch while this process imports the rest
    from lenet_exp.progress.display import shown

    with shown(in_terminal=False) as reporter:
        from lenet_exp.sweep import run

        request = run.Request(
            chosen,
            folder,
            workers=workers,
            timeout_s=timeout_s,
            device=device,
            confirm=confirm,
            tracking_uri=tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or None,
            storage=url,
            prints=False,
        )
        run.run_main_job(request, reporter)
    return open_results(chosen, folder, storage=url)


def open_results(
    experiment: Experiment | str | Path, root: str | Path | None = None, *, storage: str | None = None
) -> Results:
    """Return the recorded results of an experiment, even while a sweep of it runs. Nothing is written.

    Args:
        experiment: Return value of `load_experiment`, or a name or path that `load_experiment` accepts.
        root: Root folder of all results; None for ``LENET_EXP_ROOT`` or, if that is not set, ``mlruns``.
        storage: URL of the PostgreSQL database with the study; None for ``LENET_EXP_STORAGE`` or, if that is
            not set, ``study.db`` in ``root``.

    Raises:
        NoResultError: If the experiment was never run under ``root``.
        ConfigError: If the experiment file does not exist or is invalid.
        StoreError: If the study's storage is damaged, or was written by another version.
    """
    chosen = _experiment(experiment)
    from lenet_exp.results.lookup import read_results
    from lenet_exp.results.views.notebook import Results

    return Results(read_results(chosen, _root(root), _storage(storage)))


def _experiment(experiment: Experiment | str | Path) -> Experiment:
    from lenet_exp.config.experiment import Experiment

    return experiment if isinstance(experiment, Experiment) else load_experiment(experiment)


def _root(root: str | Path | None) -> Path:
    _check(root=root)
    return Path(root or os.environ.get("LENET_EXP_ROOT") or "mlruns")


def _storage(url: str | None) -> str | None:
    _check(storage=url)
    return url or os.environ.get("LENET_EXP_STORAGE") or None


def _check(**arguments: Any) -> None:
    """Refuse arguments of a wrong kind before anything runs.

    Args:
        **arguments: Values of parameters of this module's functions, by name.

    Raises:
        ConfigError: With the parameter, the rule and the value.
    """
    from lenet_exp.base.errors import ConfigError, shorten

    for name, value in arguments.items():
        is_valid, rule = _RULES[name]
        if not (is_valid(value) or (value is None and rule.endswith("None"))):
            raise ConfigError(f"{name} must be {rule}, found {shorten(value)}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_path(value: Any) -> bool:
    return _is_text(value) or isinstance(value, Path)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name_or_path": (_is_path, "a file, or a name such as 'quick'"),
    "overrides": (
        lambda value: isinstance(value, Iterable) and not isinstance(value, bytes),
        "a mapping by dotted key, texts such as 'search.trials=8', or None",
    ),
    "root": (_is_path, "a folder or None"),
    "workers": (
        lambda value: _is_positive(value) and isinstance(value, int),
        "a whole number above zero or None",
    ),
    "timeout_s": (
        lambda value: _is_positive(value) and value <= _LONGEST_S,
        f"a number of seconds above zero and at most {_LONGEST_S:,}, a year, or None",
    ),
    "device": (_is_text, "auto, cpu, cuda, cuda:1 or mps"),
    "confirm": (lambda value: isinstance(value, bool), "True or False"),
    "tracking_uri": (_is_text, "a URI or None"),
    "storage": (_is_text, "a URL or None"),
}

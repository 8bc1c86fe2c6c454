"""Which LeNet is better than the baseline, by how much, and how sure are we?

    import lenet_exp

    results = lenet_exp.run_sweep("quick", root="mlruns")
    results.leaderboard, results.curves, results.verdicts, results.champion

This is the face for notebooks and scripts. Importing it loads nothing heavy.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_exp.base.faces import face

if TYPE_CHECKING:
    from lenet_exp.base.errors import LenetExpError
    from lenet_exp.config.experiment import Experiment
    from lenet_exp.results.leaderboard import read_leaderboard
    from lenet_exp.results.views.notebook import Results

__version__ = "0.1.0"

__all__ = ["LenetExpError", "Results", "load_experiment", "open_results", "read_leaderboard", "run_sweep"]

# Loaded when they are first asked for.
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
    """Read and check an experiment file.

    Args:
        name_or_path: A TOML file, or the bare name of one that comes with the project, such as ``quick``.
        overrides: Values stronger than the file's, by dotted key, as in ``{"search.trials": 8}``, or as
            ``--set`` takes them, as in ``["search.trials=8"]``; None for none.

    Raises:
        ConfigError: If there is no such file, or it or an override is wrong.
    """
    from lenet_exp.base.environment import check_system

    check_system()
    from lenet_exp.config import loader

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
    """Run the main job, as the command ``lenet-exp sweep`` does, and return what is recorded afterwards.

    The baseline is trained, the space searched, the best confirmed on fresh seeds. Progress is told on
    standard error. Interrupted, or called again, it goes on where it was; when all is done it does nothing.

    Args:
        experiment: The return value of `load_experiment`, or a name or file that it would take.
        root: Folder of everything that runs write; None for ``LENET_EXP_ROOT``, or else ``mlruns``.
        workers: Trainings at once, at least 1; None for what the machine can take.
        timeout_s: Seconds after which no training is begun; None for no limit.
        device: Device to train on: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        confirm: False to stop after the search; the test split is then not read.
        tracking_uri: Address of an MLflow store; None for ``MLFLOW_TRACKING_URI``, or else one in ``root``.
        storage: URL of a PostgreSQL that holds the study; None for ``LENET_EXP_STORAGE``, or else a file
            in ``root``.

    Raises:
        LenetExpError: One of its subclasses in `lenet_exp.base.errors`, whose text is the line that the
            command line would print.
    """
    from lenet_exp.base.environment import check_system
    from lenet_exp.base.errors import ConfigError

    check_system()
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise ConfigError(f"workers must be a whole number above zero or None, found {workers!r}")
    if timeout_s is not None and not timeout_s > 0:
        raise ConfigError(f"timeout_s must be above zero or None, found {timeout_s!r}")
    chosen, folder, url = _experiment(experiment), _root(root), _storage(storage)
    from lenet_exp.execution.processes import start_fork_server

    start_fork_server()  # it loads torch while this process loads the rest
    from lenet_exp.sweep import run

    run.run_main_job(
        run.Request(
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
    )
    return open_results(chosen, folder, storage=url)


def open_results(
    experiment: Experiment | str | Path, root: str | Path | None = None, *, storage: str | None = None
) -> Results:
    """Return what was recorded of an experiment; it is only read, also while a sweep runs.

    Args:
        experiment: The return value of `load_experiment`, or a name or file that it would take.
        root: Folder that the runs were written to; None for ``LENET_EXP_ROOT``, or else ``mlruns``.
        storage: URL of a PostgreSQL that holds the study; None for ``LENET_EXP_STORAGE``, or else a file
            in ``root``.

    Raises:
        NoResultError: If it was never run there.
        ConfigError: If there is no such experiment.
        StoreError: If the study's storage is damaged or of another version.
    """
    chosen = _experiment(experiment)
    from lenet_exp.results.lookup import read_results
    from lenet_exp.results.views.notebook import Results

    return Results(read_results(chosen, _root(root), _storage(storage)))


def _experiment(experiment: Experiment | str | Path) -> Experiment:
    from lenet_exp.config.experiment import Experiment

    return experiment if isinstance(experiment, Experiment) else load_experiment(experiment)


def _root(root: str | Path | None) -> Path:
    return Path(root or os.environ.get("LENET_EXP_ROOT") or "mlruns")


def _storage(url: str | None) -> str | None:
    return url or os.environ.get("LENET_EXP_STORAGE") or None

"""The main job for a notebook or a script of one's own; `lenet_exp` shows these names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_exp.base.errors import ConfigError
from lenet_exp.config import loader
from lenet_exp.config.experiment import Experiment

if TYPE_CHECKING:
    from lenet_exp.results.views.notebook import Results


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
        experiment: What to run: the return value of `load_experiment`, or a name or file it would take.
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
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise ConfigError(f"workers must be a whole number above zero or None, found {workers!r}")
    if timeout_s is not None and not timeout_s > 0:
        raise ConfigError(f"timeout_s must be above zero or None, found {timeout_s!r}")
    loaded, folder, url = _loaded(experiment), _root(root), storage or os.environ.get("LENET_EXP_STORAGE")
    from lenet_exp.execution.processes import start_fork_server

    start_fork_server()  # it loads torch while this process loads the rest
    from lenet_exp.sweep import run

    run.run_sweep(
        run.Request(
            loaded,
            folder,
            workers=workers,
            timeout_s=timeout_s,
            device=device,
            confirm=confirm,
            tracking_uri=tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or None,
            storage=url or None,
            prints=False,
        )
    )
    return open_results(loaded, folder, storage=url)


def open_results(
    experiment: Experiment | str | Path, root: str | Path | None = None, *, storage: str | None = None
) -> Results:
    """Return what was recorded of an experiment; it is only read, also while a sweep runs.

    Args:
        experiment: The return value of `load_experiment`, or a name or file it would take.
        root: Folder that the runs were written to; None for ``LENET_EXP_ROOT``, or else ``mlruns``.
        storage: URL of a PostgreSQL that holds the study; None for ``LENET_EXP_STORAGE``, or else a file
            in ``root``.

    Raises:
        NoResultError: If it was never run there.
        ConfigError: If there is no such experiment.
        StoreError: If the study's storage is damaged or of another version.
    """
    from lenet_exp.results.lookup import read_results
    from lenet_exp.results.views.notebook import Results

    url = storage or os.environ.get("LENET_EXP_STORAGE") or None
    return Results(read_results(_loaded(experiment), _root(root), url))


def _loaded(experiment: Experiment | str | Path) -> Experiment:
    return experiment if isinstance(experiment, Experiment) else load_experiment(experiment)


def _root(root: str | Path | None) -> Path:
    return Path(root or os.environ.get("LENET_EXP_ROOT") or "mlruns")

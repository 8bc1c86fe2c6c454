"""The main job from end to end: data, baseline, sweep, leaderboard; and reading its results again."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_exp import __version__, data
from lenet_exp.config import Configuration
from lenet_exp.errors import ConfigError, NoResultError, SweepInterruptedError, printable
from lenet_exp.executor import TRAINER, LocalExecutor, Machine
from lenet_exp.experiment import Experiment
from lenet_exp.files import lock, writable_folder, write_atomically
from lenet_exp.limits import DEFAULT, Limits, check_room
from lenet_exp.spool import DatasetFacts, Spool, StudyFacts
from lenet_exp.stopping import signals_to, terminable

if TYPE_CHECKING:
    import pandas as pd

    from lenet_exp.tracking import Tracker


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        path: The experiment file.
        experiment: What it says, flags applied.
        root: Folder of everything that runs write.
        workers: Trials at once; None to choose.
        timeout_s: Seconds after which no trial is begun.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        tracking_uri: Of an MLflow store; None for the one below ``root``.
        limits: Of an attempt, and of the disk.
        trainer: The module that trains; see `lenet_exp.worker.Trainer`.
    """

    path: Path
    experiment: Experiment
    root: Path
    workers: int | None = None
    timeout_s: float | None = None
    device: str = "auto"
    tracking_uri: str | None = None
    limits: Limits = DEFAULT
    trainer: str = TRAINER


def run_sweep(request: Request) -> None:
    """Run the main job and print the leaderboard.

    Raises:
        LenetExpError: One of `lenet_exp.errors`, each with the exit code of the command.
    """
    experiment, root = request.experiment, request.root.absolute()
    # First of all: it loads torch in a process of its own while this one goes on.
    executor = LocalExecutor(request.trainer)
    try:
        with terminable():
            folder = writable_folder(root / experiment.folder_name)
            check_room(folder, request.limits.min_free_bytes)
            with lock(folder / ".lock"):
                _sweep(request, executor, root, folder)
    except KeyboardInterrupt:  # before or after the part in which the driver obeys
        raise SweepInterruptedError("interrupted; run the same command again to go on") from None
    finally:
        executor.close()


def _sweep(request: Request, executor: LocalExecutor, root: Path, folder: Path) -> None:
    images = prepare_images(request.experiment)
    from lenet_exp.repair import reconcile
    from lenet_exp.storage import full_disk_named
    from lenet_exp.study import open_study

    machine = executor.probe(request.device)
    experiment = request.experiment.resolved(machine.precision)
    options = _options(request, machine)
    study = open_study(experiment, root)
    spool = Spool(folder / "spool")
    study.check_identity(identity(experiment, images))
    reconcile(study, spool)
    write_atomically(folder / "experiment.toml", request.path.read_bytes())
    _say(f"{experiment.name}: {experiment.trials} trials, {options.workers} at once, on {machine.name}")
    with _tracked(experiment, request.tracking_uri, root, spool, images) as tracker:
        from lenet_exp.driver import Driver
        from lenet_exp.recorder import Recorder

        recorder = Recorder(study, spool, folder, tracker.wake)
        driver = Driver(
            experiment,
            study=study,
            executor=executor,
            recorder=recorder,
            images=images,
            machine=machine,
            folder=folder,
            options=options,
            announce=_say,
        )
        with signals_to(driver.interrupt), full_disk_named(root):
            driver.run()
        # Once more, when MLflow has given every run its id.
        tracker.drain()
        recorder.write_leaderboard()
    _conclude(experiment, root, folder)


def prepare_images(experiment: Experiment) -> data.ImageSet:
    """Return the experiment's training images, found and verified.

    Raises:
        DataError: If they are missing or damaged.
        ConfigError: If they cannot be divided as the experiment says.
    """
    chosen = experiment.data
    folder = Path(chosen.folder).expanduser() if chosen.folder else None
    return data.prepare(chosen.dataset, folder=folder, resize=chosen.resize)


def identity(experiment: Experiment, images: data.ImageSet) -> dict[str, Any]:
    """Return what makes a study this study: with any of it changed, its trials could not be compared."""
    chosen = experiment.data
    split = data.validation_split(images.open()[1], chosen.validation, chosen.seed, chosen.limit)
    search = experiment.search
    return {
        "objective": "val_accuracy after the last epoch",
        "space": experiment.search_space.describe(),
        "baseline": _plain(experiment.baseline_configuration),
        "data": {
            "dataset": chosen.dataset,
            "digest": images.digest,
            "resize": chosen.resize,
            "validation": chosen.validation,
            "limit": chosen.limit,
            "seed": chosen.seed,
            # Should the division itself ever change, those three would not tell.
            "split": split.digest[:12],
        },
        "search": {
            "sampler": search.sampler,
            "pruner": search.pruner,
            "seed": search.seed,
            "startup_trials": search.startup_trials,
            "min_epochs": search.min_epochs,
            "reduction_factor": search.reduction_factor,
        },
    }


def _plain(configuration: Configuration) -> dict[str, Any]:
    return configuration.hyperparameters() | {"epochs": configuration.epochs}


def _options(request: Request, machine: Machine) -> Any:
    from lenet_exp.driver import Options

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # One-thread processes side by side beat one process with many threads on networks this small.
    chosen = request.workers or (cores if machine.device == "cpu" else 1)
    workers = min(chosen, max(1, cores))
    if chosen > workers:
        _say(f"--workers {chosen} is more than this machine's {cores} cores; using {workers}")
    return Options(
        workers=workers,
        threads=max(1, cores // workers),
        device=request.device,
        timeout_s=request.timeout_s,
        limits=request.limits,
    )


@contextmanager
def _tracked(
    experiment: Experiment, tracking_uri: str | None, root: Path, spool: Spool, images: data.ImageSet
) -> Iterator[Tracker]:
    """Give a tracker that follows the spool, and end the study's run in the way the sweep ended."""
    from lenet_exp.mlflow_store import local_uri
    from lenet_exp.tracking import Tracker

    facts = StudyFacts(
        # Two folders may record the same experiment on one server, and are two studies there.
        study=f"{experiment.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}",
        experiment=experiment.name,
        params=_study_params(experiment),
        tags={"mlflow.note.content": experiment.question, "version": __version__},
        dataset=DatasetFacts(experiment.data.dataset, images.digest, str(images.images)),
        files=("experiment.toml", "leaderboard.csv"),
        image_size=images.image_size,
    )
    tracker = Tracker(
        spool,
        facts,
        tracking_uri=tracking_uri or local_uri(root),
        artifact_root=None if tracking_uri else root / "artifacts",
        on_problem=lambda problem: _say(f"warning: {problem}"),
        on_recovered=lambda: _say("MLflow answers again; nothing was lost"),
    )
    tracker.start()
    patience_s = 30.0
    try:
        yield tracker
    except (SweepInterruptedError, KeyboardInterrupt) as stop:
        deadline = getattr(stop, "deadline", None)
        patience_s = 15 if deadline is None else max(1.0, min(15.0, deadline - time.monotonic()))
        tracker.finish("PRUNED", "interrupted")
        raise
    except BaseException as error:
        tracker.finish("FAIL", (str(error).splitlines() or [type(error).__name__])[0])
        raise
    else:
        tracker.finish("COMPLETE")
    finally:
        if not tracker.close(patience_s):
            _say("MLflow has not got everything yet; nothing is lost: the same command carries the rest")


def _study_params(experiment: Experiment) -> dict[str, Any]:
    """Return what the study's run shows as its parameters: how it searched and on what."""
    return experiment.search.model_dump() | {
        "dataset": experiment.data.dataset,
        "validation": experiment.data.validation,
        "epochs": experiment.base["epochs"],
    }


def _conclude(experiment: Experiment, root: Path, folder: Path) -> None:
    from lenet_exp.tables import print_leaderboard

    print_leaderboard(read_leaderboard(experiment, root))
    sys.stdout.write(f"leaderboard: {folder / 'leaderboard.csv'}\nMLflow's UI: lenet-exp ui --root {root}\n")


def read_leaderboard(experiment: Experiment, root: Path) -> pd.DataFrame:
    """Return the leaderboard of what was recorded below ``root``; the study is only read.

    Raises:
        NoResultError: If the experiment was never started there.
    """
    from lenet_exp import study as studies
    from lenet_exp.leaderboard import leaderboard

    root = root.absolute()
    records = studies.read_records(experiment.name, root)
    if records is None:
        raise NoResultError(f"{experiment.name!r} was never run under {root}; run: lenet-exp sweep")
    run_ids = Spool(root / experiment.folder_name / "spool").run_ids()
    return leaderboard(records, run_ids)


def show_leaderboard(
    experiment: Experiment, root: Path, *, csv: Path | None, style: Any, top: int | None
) -> None:
    """Print the leaderboard, or write it to ``csv``.

    Raises:
        NoResultError: If nothing was recorded.
        DiskError: If ``csv`` cannot be written.
    """
    from lenet_exp.leaderboard import render, to_csv
    from lenet_exp.tables import print_leaderboard

    frame = read_leaderboard(experiment, root)
    shown = frame if top is None else frame.head(top)
    if csv is not None:
        if csv.is_dir():
            raise ConfigError(f"--csv names a file, found the folder {csv}")
        write_atomically(csv, to_csv(shown).encode())
    if style is not None:
        sys.stdout.write(render(shown, style))
    elif csv is None:
        print_leaderboard(frame, top)


def _say(line: str) -> None:
    # A terminal or a pipe that is gone is no reason to stop.
    with suppress(OSError):
        sys.stderr.write(f"{printable(line)}\n")

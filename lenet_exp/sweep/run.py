"""The main job from end to end: data, baseline, sweep, leaderboard; and reading its results again."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from lenet_exp import __version__
from lenet_exp.base.errors import SweepInterruptedError, UnreachableError, mask_url
from lenet_exp.base.files import lock, writable_folder, write_atomically
from lenet_exp.base.layout import Layout, artifacts
from lenet_exp.base.messages import say
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.config.trainings import Job, fixed_jobs
from lenet_exp.data.images import ImageSet, training_images
from lenet_exp.data.split import division
from lenet_exp.data.testset import shown_test_images
from lenet_exp.execution.capacity import measure, plan
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.execution.limits import DEFAULT, Limits, check_room
from lenet_exp.execution.processes import TRAINER
from lenet_exp.execution.signals import signals_to, terminable
from lenet_exp.results.evaluation import READINGS, SPEEDS, findings
from lenet_exp.results.outcome import own_files, write_own_files
from lenet_exp.results.read import show_leaderboard
from lenet_exp.sweep import confirmation, finalists
from lenet_exp.tracking import store as mlflow_store
from lenet_exp.tracking.events import DatasetFacts, StudyFacts
from lenet_exp.tracking.spool import Spool

if TYPE_CHECKING:
    from lenet_exp.tracking.uploader import Tracker


#: Of the leaderboard, at the end of a sweep.
SHOWN_ROWS = 10
#: With --require-tracking, seconds without an answer that stop a sweep; a restart takes less.
LOST_AFTER_S = 120.0


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
        require_tracking: Whether to stop if that store does not answer.
        storage: URL of the study's storage in PostgreSQL; None for the file below ``root``.
        limits: Of an attempt, and of the disk.
        trainer: The module that trains; see `lenet_exp.execution.worker.Trainer`.
        search: Whether to search before anything is confirmed.
        confirm: Whether to confirm what a finished search found.
        again: Whether to read the test split once more if it was read.
        dataset: Confirm on this data set what the experiment found on its own.
        dataset_folder: Where the files of ``dataset`` lie, if the user said so.
    """

    path: Path
    experiment: Experiment
    root: Path
    workers: int | None = None
    timeout_s: float | None = None
    device: str = "auto"
    tracking_uri: str | None = None
    require_tracking: bool = False
    storage: str | None = None
    limits: Limits = DEFAULT
    trainer: str = TRAINER
    search: bool = True
    confirm: bool = True
    again: bool = False
    dataset: str | None = None
    dataset_folder: str | None = None

    @property
    def conducted(self) -> Experiment:
        """The experiment that is run: with a data set of its own, it is another one."""
        return finalists.on_dataset(self.experiment, self.dataset, self.dataset_folder)


def run_sweep(request: Request) -> None:
    """Run the main job and print the leaderboard.

    Raises:
        LenetExpError: One of `lenet_exp.base.errors`, each with the exit code of the command.
    """
    experiment, root = request.conducted, request.root.absolute()
    if not request.search:
        finalists.ensure_there_are_some(request.experiment, root, request.storage)
    # First of all: it loads torch in a process of its own while this one goes on.
    executor = LocalExecutor(request.trainer)
    try:
        with terminable():
            store(request.tracking_uri, root)
            layout = Layout.of(root, experiment.name)
            layout.check_links()
            check_room(writable_folder(layout.home), request.limits.min_free_bytes)
            with lock(layout.lock), storage_lock(request.storage, experiment.name) as held:
                _sweep(request, executor, layout, held)
    except KeyboardInterrupt:  # before or after the part in which the driver obeys
        raise SweepInterruptedError("interrupted; run the same command again to go on") from None
    finally:
        executor.close()


@contextmanager
def storage_lock(url: str | None, name: str) -> Iterator[Callable[[], None]]:
    """Hold the study where other machines could reach it too; give what makes sure that it is still held."""
    if url is None:
        yield lambda: None
        return
    from lenet_exp.study.postgres import study_lock

    with study_lock(url, name) as held:
        yield held.hold


@cache
def _load_plots() -> None:
    """Load the libraries that draw, which takes a second, while a core is spare."""
    Thread(target=import_module, args=["lenet_exp.results.views.page"], name="plots", daemon=True).start()


def _sweep(request: Request, executor: LocalExecutor, layout: Layout, held: Callable[[], None]) -> None:
    root = layout.root
    if request.require_tracking:
        mlflow_store.check_reachable(*store(request.tracking_uri, root), timeout_s=15)
    from lenet_exp.study.storage import full_disk_named, preload
    from lenet_exp.sweep.repair import reconcile

    began = time.monotonic()
    images = training_images(request.conducted.data)
    confirmed = request.confirm and (request.conducted.is_confirmed or not request.search)
    if confirmed:
        confirmation.ensure_available(request.conducted)
    test_images = shown_test_images(request.conducted)
    from lenet_exp.study.study import open_study
    from lenet_exp.sweep.driver import Driver, Options
    from lenet_exp.sweep.writer import Recorder

    preload()  # The fork server is still loading torch.
    machine = executor.probe(request.device)
    experiment = request.conducted.resolved(machine.precision)
    accelerators = 0 if machine.devices == ("cpu",) else len(machine.devices)
    chosen = plan(measure(accelerators), request.workers)
    study = open_study(experiment, root, request.storage)
    study.when_gone(lambda problem: say(f"warning: {problem}"), held)
    spool = Spool(layout.spool)
    study.when_kept(spool.keep)
    study.check_identity(identity(experiment, images))
    reconcile(study, spool, layout)
    write_atomically(layout.experiment_file, mask_url(request.path.read_bytes().decode()).encode())
    amount = _amount(experiment) if request.search else "confirmation"
    say(f"{experiment.name}: {amount}, {chosen.workers} at once ({chosen.reason}), on {machine.name}")
    if request.search and 0 < experiment.trials <= study.n_finished:
        say(f"already {study.n_finished} of {experiment.trials} trials done")
    facts = study_facts(experiment, layout, images)
    with _tracked(facts, request.tracking_uri, root, spool) as tracker:
        recorder = Recorder(study, spool, layout, tracker.wake)
        recorder.findings = findings(study.kept(READINGS), study.kept(SPEEDS))

        def train(jobs: Sequence[Job] | None) -> bool:
            """Train the jobs, or search; return whether all of it was done."""
            spent_s = time.monotonic() - began
            limit_s = None if request.timeout_s is None else max(0.0, request.timeout_s - spent_s)
            driver = Driver(
                experiment,
                study=study,
                executor=executor,
                recorder=recorder,
                images=images,
                machine=machine,
                layout=layout,
                options=Options(chosen.workers, chosen.threads, limit_s, request.limits),
                test_images=test_images,
                announce=say,
                when_spare=_load_plots,
                jobs=jobs,
            )
            if request.require_tracking:
                tracker.when_lost(lambda: driver.interrupt(UnreachableError.exit_code), LOST_AFTER_S)
            with signals_to(driver.interrupt), full_disk_named(root), _said_why(tracker):
                driver.run()
            return driver.is_complete

        is_searched = not request.search or train(None)
        if confirmed and is_searched:
            confirmation.Confirmation(
                experiment,
                study=study,
                spool=spool,
                device=machine.devices[0],
                images=images,
                layout=layout,
                threads=chosen.threads,
                train=train,
                settle=tracker.drain,
                announce=say,
                is_alone=experiment.name != request.experiment.name,
            ).run(
                lambda: finalists.chosen(experiment, request.experiment, root, request.storage),
                again=request.again,
            )
            recorder.findings = findings(study.kept(READINGS), study.kept(SPEEDS))
            tracker.wake()
        elif confirmed:
            say("not confirmed, as the search has yet to end: the same command goes on with it")
        # Once more, when MLflow has given every run its id.
        tracker.drain()
        recorder.write_leaderboard()
        write_own_files(experiment, layout, study.records(), spool)
        # Not before, see `_load_plots`.
        from lenet_exp.results.views.page import write_report

        write_report(experiment, root, storage=request.storage)
    _conclude(experiment, layout, request.storage)


def _amount(experiment: Experiment) -> str:
    if experiment.space:
        return f"{experiment.trials} trials"
    count = len(fixed_jobs(experiment))
    return f"{count} training{'s' if count > 1 else ''}"


def identity(experiment: Experiment, images: ImageSet) -> dict[str, Any]:
    """Return what makes a study this study: with any of it changed, its trials could not be compared."""
    chosen = experiment.data
    split = division(chosen, images.open()[1])
    search = experiment.search
    return {
        "objective": "val_accuracy after the last epoch",
        "space": experiment.search_space.describe(),
        "baseline": _plain(experiment.baseline_configuration),
        "compile": experiment.training.compile,
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


@contextmanager
def _tracked(facts: StudyFacts, tracking_uri: str | None, root: Path, spool: Spool) -> Iterator[Tracker]:
    """Give a tracker that follows the spool, and end the study's run in the way the sweep ended."""
    from lenet_exp.tracking.uploader import Tracker

    uri, artifact_root = store(tracking_uri, root)
    tracker = Tracker(
        spool,
        facts,
        tracking_uri=uri,
        artifact_root=artifact_root,
        on_problem=lambda problem: say(f"warning: {problem}"),
        on_recovered=lambda: say("MLflow answers again; nothing was lost"),
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
            say("MLflow has not got everything yet; nothing is lost: 'lenet-exp sync' carries the rest")


def study_facts(experiment: Experiment, layout: Layout, images: ImageSet) -> StudyFacts:
    """Return what the study's own run says."""
    return StudyFacts(
        # Two folders may record the same experiment on one server, and are two studies there.
        study=f"{experiment.name}-{hashlib.sha256(str(layout.root).encode()).hexdigest()[:8]}",
        experiment=experiment.name,
        params=_study_params(experiment),
        tags={"mlflow.note.content": mask_url(experiment.question), "version": __version__},
        dataset=DatasetFacts(experiment.data.dataset, images.digest, str(images.images)),
        files=tuple(
            layout.relative(file)
            for file in (
                layout.experiment_file,
                layout.leaderboard,
                layout.readings,
                layout.overview,
                layout.report,
                *own_files(experiment, layout),
            )
        ),
        image_size=images.image_size,
        identity=identity(experiment, images),
    )


@contextmanager
def _said_why(tracker: Tracker) -> Iterator[None]:
    """Say of a sweep that was stopped for want of its tracking store that this is why."""
    try:
        yield
    except SweepInterruptedError as stop:
        if stop.exit_code != UnreachableError.exit_code:
            raise
        raise SweepInterruptedError(
            f"{tracker.problem}; stopped, as --require-tracking asks; run the same command again to go on",
            stop.exit_code,
        ) from None


def store(tracking_uri: str | None, root: Path) -> tuple[str, Path | None]:
    """Return the tracking URI, and where new experiments keep their files if that is not the server's affair.

    Args:
        tracking_uri: As the user named it; None for the store below ``root``.
        root: Of everything that runs write.
    """
    return (tracking_uri, None) if tracking_uri else (mlflow_store.local_uri(root), artifacts(root))


def _study_params(experiment: Experiment) -> dict[str, Any]:
    """Return what the study's run shows as its parameters: how it searched and on what."""
    return (
        experiment.search.model_dump()
        | {
            "dataset": experiment.data.dataset,
            "validation": experiment.data.validation,
            "epochs": experiment.base["epochs"],
        }
        | ({"test_split": "shown after every epoch"} if experiment.watch.test_split else {})
    )


def _conclude(experiment: Experiment, layout: Layout, storage: str | None) -> None:
    top = None if experiment.ablate else SHOWN_ROWS
    show_leaderboard(experiment, layout.root, csv=None, style=None, top=top, storage=storage)
    for file in (layout.leaderboard, *own_files(experiment, layout), layout.report):
        sys.stdout.write(f"{file.stem}: {file}\n")
    sys.stdout.write(f"MLflow's UI: lenet-exp ui --root {layout.root}\n")

"""The main job from end to end: data, baseline, sweep, confirmation, leaderboard."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from lenet_exp.base.errors import SweepInterruptedError, UnreachableError, mask_url
from lenet_exp.base.files import lock, writable_folder, write_atomically
from lenet_exp.base.layout import Layout
from lenet_exp.base.messages import say
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.trainings import FixedTraining, fixed_trainings
from lenet_exp.data.images import training_images
from lenet_exp.data.testset import shown_test_images
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.execution.processes import TRAINER
from lenet_exp.execution.protocol import Conditions
from lenet_exp.execution.resources import DEFAULT, Limits, check_room, measure, plan
from lenet_exp.execution.signals import signals_to, terminable
from lenet_exp.results.evaluation import READINGS, SPEEDS, confirmation_summary
from lenet_exp.results.read import own_files, show_leaderboard, write_own_files
from lenet_exp.sweep import confirmation, finalists
from lenet_exp.sweep.fingerprint import fingerprint, study_metadata
from lenet_exp.tracking import store
from lenet_exp.tracking.spool import Spool

if TYPE_CHECKING:
    from lenet_exp.study.study import Study
    from lenet_exp.tracking.events import StudyMetadata
    from lenet_exp.tracking.uploader import Tracker

#: Rows of the leaderboard that are shown at the end of a sweep.
SHOWN_ROWS = 10
#: With --require-tracking, seconds without an answer that stop a sweep; a restart takes less.
LOST_AFTER_S = 120.0


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        experiment: The experiment, flags and overrides applied.
        root: Folder of everything that runs write.
        workers: Trials at once; None to choose.
        timeout_s: Seconds after which no trial is begun.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        tracking_uri: Address of an MLflow store; None for the one below ``root``.
        require_tracking: Whether to stop if that store does not answer.
        storage: URL of the study's storage in PostgreSQL; None for the file below ``root``.
        limits: What an attempt may take, and what is to be left of the disk.
        trainer: The module that trains; see `lenet_exp.execution.protocol.Trainer`.
        search: Whether to search before anything is confirmed.
        confirm: Whether to confirm what a finished search found.
        again: Whether to read the test split once more if it was read.
        dataset: Confirm on this data set what the experiment found on its own.
        dataset_folder: Folder of ``dataset``'s files, if the user named it.
        prints: True to print the leaderboard and where the files lie at the end.
    """

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
    prints: bool = True

    @property
    def conducted(self) -> Experiment:
        """The experiment that is run: with a data set of its own, it is another one."""
        return finalists.on_dataset(self.experiment, self.dataset, self.dataset_folder)

    @property
    def confirms(self) -> bool:
        """Whether there is to be a confirmation."""
        return self.confirm and (self.conducted.is_confirmed or not self.search)


def run_sweep(request: Request) -> None:
    """Run the main job and print the leaderboard.

    Raises:
        LenetExpError: One of `lenet_exp.base.errors`, each with the exit code of the command.
    """
    layout = Layout.of(request.root, request.conducted.name)
    if not request.search:
        finalists.ensure_there_are_some(request.experiment, layout.root, request.storage)
    # First of all: it loads torch in a process of its own while this one goes on.
    executor = LocalExecutor(request.trainer)
    try:
        with terminable():
            tracking = store.locate(request.tracking_uri, layout.root)
            layout.check_links()
            check_room(writable_folder(layout.home), request.limits.min_free_bytes)
            with lock(layout.lock), storage_lock(request.storage, request.conducted.name) as held:
                began = time.monotonic()
                if request.require_tracking:
                    store.check_reachable(*tracking, timeout_s=15)
                conditions = _conditions(request, executor, layout)
                study, spool = _opened(request, conditions, held)
                metadata = study_metadata(conditions.experiment, layout, conditions.images)
                with _tracked(metadata, tracking, spool) as tracker:
                    MainJob(request, conditions, executor, study, spool, tracker, began).run()
                if request.prints:
                    _conclude(conditions.experiment, layout, request.storage)
    except KeyboardInterrupt:  # before or after the part in which the driver obeys
        raise SweepInterruptedError("interrupted; run the same command again to go on") from None
    finally:
        executor.close()


def _conditions(request: Request, executor: LocalExecutor, layout: Layout) -> Conditions:
    """Return what all attempts share, once data and device are there."""
    experiment = request.conducted
    images = training_images(experiment.data)
    if request.confirms:
        confirmation.ensure_available(experiment)
    test_images = shown_test_images(experiment)
    from lenet_exp.study.storage import preload

    preload()  # The fork server is still loading torch.
    machine = executor.probe(request.device)
    accelerators = 0 if machine.devices == ("cpu",) else len(machine.devices)
    return Conditions(
        experiment.with_precision(machine.precision),
        images,
        machine,
        layout,
        plan(measure(accelerators), request.workers),
        request.limits,
        test_images,
    )


def _opened(request: Request, conditions: Conditions, held: Callable[[], None]) -> tuple[Study, Spool]:
    """Open study and spool, put right what a dead driver left in them, and say what is to be done."""
    from lenet_exp.study.study import open_study
    from lenet_exp.sweep.recovery import reconcile

    experiment, layout = conditions.experiment, conditions.layout
    study = open_study(experiment, layout.root, request.storage)
    study.when_gone(lambda problem: say(f"warning: {problem}"), held)
    spool = Spool(layout.spool)
    study.when_kept(spool.keep)
    study.check_fingerprint(fingerprint(experiment, conditions.images))
    reconcile(study, spool, layout)
    write_atomically(layout.experiment_file, mask_url(request.experiment.text).encode())
    amount, workers = _amount(experiment) if request.search else "confirmation", conditions.plan
    say(
        f"{experiment.name}: {amount}, {workers.workers} at once ({workers.reason}),"
        f" on {conditions.machine.name}"
    )
    if request.search and 0 < experiment.trials <= study.n_finished:
        say(f"already {study.n_finished} of {experiment.trials} trials done")
    return study, spool


class MainJob:
    """One main job under way, everything opened: search, confirmation, and what is left for people."""

    def __init__(
        self,
        request: Request,
        conditions: Conditions,
        executor: LocalExecutor,
        study: Study,
        spool: Spool,
        tracker: Tracker,
        began: float,
    ) -> None:
        """Prepare; `run` does it.

        Args:
            request: What the user asked for.
            conditions: What all attempts share.
            executor: Runs the attempts.
            study: Checked and reconciled.
            spool: Where every epoch is written first.
            tracker: Carries the spool to MLflow meanwhile.
            began: When the command's time began, by the monotonic clock.
        """
        from lenet_exp.sweep.writer import Writer

        self._request, self._conditions = request, conditions
        self._executor, self._study, self._spool, self._tracker = executor, study, spool, tracker
        self._began = began
        self._writer = Writer(study, spool, conditions.layout, tracker.notify)
        self._know_findings()

    def run(self) -> None:
        """Search, confirm, and write what people look at."""
        is_searched = not self._request.search or self._train(None)
        if self._request.confirms and is_searched:
            self._confirm()
        elif self._request.confirms:
            say("not confirmed, as the search has yet to end: the same command goes on with it")
        # Once more, when MLflow has given every run its id.
        self._tracker.drain()
        self._writer.write_leaderboard()
        experiment, layout = self._conditions.experiment, self._conditions.layout
        write_own_files(experiment, layout, self._study.records(), self._spool)
        # Not before, see `_load_plots`.
        from lenet_exp.results.views.page import write_report

        write_report(experiment, layout.root, storage=self._request.storage)

    def _train(self, fixed: Sequence[FixedTraining] | None) -> bool:
        """Train these, or the experiment's own and its search; return whether all of it was done."""
        from lenet_exp.study.storage import full_disk_named
        from lenet_exp.sweep.driver import Driver

        request = self._request
        spent_s = time.monotonic() - self._began
        driver = Driver(
            self._conditions,
            self._study,
            self._executor,
            self._writer,
            fixed=fixed,
            timeout_s=None if request.timeout_s is None else max(0.0, request.timeout_s - spent_s),
            announce=say,
            when_spare=_load_plots,
        )
        if request.require_tracking:
            self._tracker.when_lost(lambda: driver.interrupt(UnreachableError.exit_code), LOST_AFTER_S)
        root = self._conditions.layout.root
        with signals_to(driver.interrupt), full_disk_named(root), _tracking_error_told(self._tracker):
            driver.run()
        return driver.is_complete

    def _confirm(self) -> None:
        request, experiment = self._request, self._conditions.experiment
        confirmation.Confirmation(
            self._conditions,
            study=self._study,
            spool=self._spool,
            train=self._train,
            settle=self._tracker.drain,
            announce=say,
            is_alone=experiment.name != request.experiment.name,
        ).run(
            lambda: finalists.chosen(experiment, request.experiment, request.root, request.storage),
            again=request.again,
        )
        self._know_findings()
        self._tracker.notify()

    def _know_findings(self) -> None:
        self._writer.confirmation = confirmation_summary(self._study.kept(READINGS), self._study.kept(SPEEDS))


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
    room = "lenet_exp.results.views.page"
    Thread(target=import_module, args=[room], name="plots", daemon=True).start()


def _amount(experiment: Experiment) -> str:
    if experiment.space:
        return f"{experiment.trials} trials"
    count = len(fixed_trainings(experiment))
    return f"{count} training{'s' if count > 1 else ''}"


@contextmanager
def _tracked(metadata: StudyMetadata, tracking: tuple[str, Path | None], spool: Spool) -> Iterator[Tracker]:
    """Give a tracker that follows the spool, and end the study's run in the way the sweep ended."""
    from lenet_exp.tracking.uploader import Tracker

    tracker = Tracker(
        spool,
        metadata,
        tracking_uri=tracking[0],
        artifact_root=tracking[1],
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


@contextmanager
def _tracking_error_told(tracker: Tracker) -> Iterator[None]:
    """Re-raise an interrupt caused by --require-tracking with the tracking error as its message."""
    try:
        yield
    except SweepInterruptedError as stop:
        if stop.exit_code != UnreachableError.exit_code:
            raise
        raise SweepInterruptedError(
            f"{tracker.problem}; stopped, as --require-tracking asks; run the same command again to go on",
            stop.exit_code,
        ) from None


def _conclude(experiment: Experiment, layout: Layout, storage: str | None) -> None:
    top = None if experiment.ablate else SHOWN_ROWS
    show_leaderboard(experiment, layout.root, csv=None, style=None, top=top, storage=storage)
    for file in (layout.leaderboard, *own_files(experiment, layout), layout.report):
        sys.stdout.write(f"{file.stem}: {file}\n")
    sys.stdout.write(f"MLflow's UI: lenet-exp ui --root {layout.root}\n")

"""The main job from end to end: data, baseline, search, confirmation, leaderboard and page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from lenet_exp.base.errors import (
    LockedError,
    NoResultError,
    SweepInterruptedError,
    UnreachableError,
    mask_url,
)
from lenet_exp.base.files import lock, writable_folder, write_atomically
from lenet_exp.base.layout import Layout
from lenet_exp.base.messages import counted, say, store_flags
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.trainings import FixedTraining, fixed_trainings
from lenet_exp.data.images import training_images
from lenet_exp.data.testset import shown_test_images
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.execution.processes import TRAINER
from lenet_exp.execution.protocol import Conditions
from lenet_exp.execution.resources import DEFAULT, Limits, check_room, measure, plan
from lenet_exp.execution.signals import signals_to, terminable, unwinding
from lenet_exp.progress.reporter import Reporter
from lenet_exp.results.conclusion import confirmation_summary
from lenet_exp.results.read import print_results, write_own_files
from lenet_exp.sweep import confirmation, finalists
from lenet_exp.sweep.fingerprint import fingerprint, study_metadata, study_result
from lenet_exp.tracking import store
from lenet_exp.tracking.spool import Spool

if TYPE_CHECKING:
    from lenet_exp.study.postgres import AdvisoryLock
    from lenet_exp.study.study import Study
    from lenet_exp.tracking.tracker import Tracker

#: With --require-tracking, a sweep stops after an outage of this many seconds; a server restarts in less.
LOST_AFTER_S = 120.0


@dataclass(frozen=True)
class Request:
    """What the user asks the main job to do: an experiment, and the flags of the command.

    Attributes:
        experiment: Experiment, overrides and flags applied; the text of its file is stored with the results.
        root: Folder that holds all results.
        workers: Number of attempts to run at once; None for as many as cores and memory allow.
        timeout_s: Seconds after which no further attempt is started; None for no limit.
        device: Device to train on: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        tracking_uri: URI of the MLflow store; None for ``mlflow.db`` in ``root``.
        require_tracking: True to stop if the MLflow store does not answer; False to go on without it.
        storage: URL of the PostgreSQL database that holds the study; None for ``study.db`` in ``root``.
        limits: Memory and time that an attempt may take, and disk space to leave free.
        trainer: Dotted name of the module that trains; see `lenet_exp.execution.protocol.Trainer`.
        search: True to train and search before the confirmation; False to confirm only.
        confirm: True to confirm the finalists once the search is finished; False to stop after the search.
        again: True to choose finalists anew and read the test split once more, although it has been read.
        dataset: Name of the data set on which the finalists are confirmed; None for the experiment's own.
        dataset_folder: Folder with the files of ``dataset``; None if the user named none.
        prints: True to print the leaderboard and the paths of the files at the end.
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
        """The experiment to run: the user's own, or the one that confirms its finalists on ``dataset``."""
        return finalists.on_dataset(self.experiment, self.dataset, self.dataset_folder)

    @property
    def confirms(self) -> bool:
        """True if finalists are to be confirmed, be it after a search or without one."""
        return self.confirm and (self.conducted.is_confirmed or not self.search)


def run_main_job(request: Request, reporter: Reporter | None = None) -> None:
    """Search, confirm and record as the request asks, and print the leaderboard.

    Args:
        request: Everything that the user asked for.
        reporter: Reporter that is told how the sweep stands; None for one that shows nothing.

    Raises:
        LenetExpError: If a file, a store or the device cannot be used, or the job fails or is interrupted.
            Each of its subclasses has the exit code with which the command ends.
    """
    layout = Layout.of(request.root, request.conducted.name)
    reporter = reporter or Reporter()
    from lenet_exp.tracking.tracker import tracked

    if not request.search:
        finalists.ensure_there_are_some(request.experiment, layout.root, request.storage)
    # The executor comes first: its fork server loads torch while this process goes on.
    executor = LocalExecutor(request.trainer)
    try:
        with terminable():
            tracking = store.locate(request.tracking_uri, layout.root)
            layout.check_links()
            check_room(writable_folder(layout.home), request.limits.min_free_bytes)
            with (
                lock(layout.lock) as ensure_held,
                storage_lock(request.storage, request.conducted.name) as held,
            ):
                began = time.monotonic()
                if request.require_tracking:
                    store.check_reachable(*tracking, timeout_s=15)
                conditions = _conditions(request, executor, layout)
                study, spool = _open(request, conditions, held)
                study.guard(ensure_held)
                study.guard(layout.check_stores)
                stores = store_flags(request.storage, request.tracking_uri)
                sync_command = conditions.experiment.command("sync", layout.root) + stores
                metadata = study_metadata(conditions.experiment, layout, conditions.images, study.lineage)
                # A sweep that was refused before leaves what the last one has said of itself.
                with (
                    reporter.recording(layout.progress),
                    unwinding(),
                    closing(study),
                    tracked(metadata, tracking, spool, sync_command) as tracker,
                ):
                    reporter.begin_experiment(
                        conditions.experiment, conditions.plan.workers, study.records(), tracker.state
                    )
                    MainJob(request, conditions, executor, study, spool, tracker, reporter, began, held).run()
                reporter.close()  # results go to a terminal that is free
                if request.prints:
                    study.patiently(lambda: print_results(conditions.experiment, layout, request.storage))
    finally:
        executor.close()


def _conditions(request: Request, executor: LocalExecutor, layout: Layout) -> Conditions:
    """Check that data and device can be used, and return the conditions that all attempts share."""
    experiment = request.conducted
    images = training_images(experiment.data)
    if request.confirms:
        confirmation.ensure_available(experiment)
    test_images = shown_test_images(experiment)
    from lenet_exp.study.storage import preload

    preload()  # while we would only wait for the fork server
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


def _open(request: Request, conditions: Conditions, held: AdvisoryLock | None) -> tuple[Study, Spool]:
    """Open study and spool, repair what a killed driver left in them, and print how much is to be trained.

    Args:
        request: Everything that the user asked for.
        conditions: Experiment, images, machine and limits, which all attempts share.
        held: Lock on the study in PostgreSQL; None if the study is a file.
    """
    from lenet_exp.results.lookup import ensure_related
    from lenet_exp.study.study import open_study
    from lenet_exp.sweep.recovery import reconcile

    experiment, layout = conditions.experiment, conditions.layout
    spool = Spool(layout.spool)
    check = partial(ensure_related, spool, experiment.name, layout.root, request.storage)
    study = open_study(experiment, layout.root, request.storage, check)
    if held is not None:
        study.when_gone(lambda problem: say(f"warning: {problem}"), held.hold)
    study.when_kept(spool.keep)
    study.check_fingerprint(fingerprint(experiment, conditions.images))
    reconcile(study, spool, layout)
    study.begin_sweep(spool.lineage(study.lineage.keys))
    write_atomically(layout.experiment_file, mask_url(request.experiment.text).encode())
    amount, workers = _amount(experiment) if request.search else "confirmation", conditions.plan
    say(
        f"{experiment.name}: {amount}, {workers.workers} at once ({workers.reason}),"
        f" on {conditions.machine.name}"
    )
    return study, spool


class MainJob:
    """The main job once its stores are open: it searches, confirms, and writes tables and page."""

    def __init__(
        self,
        request: Request,
        conditions: Conditions,
        executor: LocalExecutor,
        study: Study,
        spool: Spool,
        tracker: Tracker,
        reporter: Reporter,
        began: float,
        held: AdvisoryLock | None = None,
    ) -> None:
        """Set up the job without training anything; `run` does the work.

        Args:
            request: Everything that the user asked for.
            conditions: Experiment, images, machine and limits, which all attempts share.
            executor: Executor that starts a process for each attempt.
            study: Study whose fingerprint has been checked, and in which no attempt is RUNNING.
            spool: Spool to which every epoch is written first.
            tracker: Tracker whose thread is already uploading the spool to MLflow.
            reporter: Reporter that is told how the job stands.
            began: Time from which ``request.timeout_s`` counts, in seconds of the monotonic clock.
            held: Lock on the study in PostgreSQL; None if the study is a file.
        """
        from lenet_exp.sweep.writer import Writer

        self._request, self._conditions = request, conditions
        self._executor, self._study, self._spool, self._tracker = executor, study, spool, tracker
        self._reporter, self._began, self._held = reporter, began, held
        self._writer = Writer(study, spool, conditions.layout, tracker.notify)
        self._refresh_summary()

    def run(self) -> None:
        """Search and confirm, as far as the request asks for it, and write leaderboard, tables and page.

        Raises:
            NoResultError: If nothing completed, or what a verdict needs did not; the files are written first.
        """
        if self._request.search:
            self._reporter.search(is_confirmed=self._request.confirms)
        is_searched = not self._request.search or self._train(None)
        missing = finalists.missing_result(self._study.records()) if self._request.search else None
        if not is_searched:
            undone = (
                "not confirmed, as the search has not finished" if self._request.confirms else "not finished"
            )
            say(f"the time is up: {undone}; run the same command again to go on")
        elif self._request.confirms and missing is None:
            try:
                self._confirm()
            except NoResultError as error:
                missing = str(error)
        self._reporter.phase("uploading", line="uploading to MLflow")
        self._tracker.drain()
        self._reporter.phase("page", line="writing tables and page")
        experiment, layout = self._conditions.experiment, self._conditions.layout
        # Once more, as MLflow has now given every run its id.
        self._writer.write_leaderboard()
        write_own_files(experiment, layout, self._study.records(), self._spool)
        # Imported late: `_load_plots` may have loaded it while the last trainings ran.
        from lenet_exp.results.lookup import read_results
        from lenet_exp.results.views.page.report import write_report

        # Results, finalists, printed leaderboard: read through connections of their own, which do not wait.
        results = self._study.patiently(lambda: read_results(experiment, layout.root, self._request.storage))
        self._tracker.result = study_result(results)
        write_report(results, layout.root, tracking_uri=self._request.tracking_uri)
        self._reporter.phase("uploading")
        if missing is not None:
            raise NoResultError(missing)
        if limited := finalists.cut_short(self._study.records()):
            say(limited)

    def _train(self, fixed: Sequence[FixedTraining] | None) -> bool:
        """Train with the driver until nothing is left to train or the time is up.

        Args:
            fixed: Fixed trainings to do; None for the experiment's own, followed by its search.

        Returns:
            True if nothing is left to train; False if the time was up first.
        """
        from lenet_exp.study.storage import full_disk_named
        from lenet_exp.sweep.driver import Driver
        from lenet_exp.tracking.tracker import outage_told

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
            reporter=self._reporter,
        )
        n_finished, n_trials = self._study.n_finished, self._conditions.experiment.trials
        if fixed is None and 0 < n_trials <= n_finished:
            say(f"already {n_finished} of {counted(n_trials, 'trial')} done")
        if request.require_tracking:
            self._tracker.when_lost(lambda: driver.interrupt(UnreachableError.exit_code), LOST_AFTER_S)
        root = self._conditions.layout.root

        def stop_at_once() -> None:
            for _ in range(2):  # the second time drops the running epochs
                driver.interrupt(LockedError.exit_code)

        if self._held is not None:
            self._held.on_lost = stop_at_once
        with signals_to(driver.interrupt), full_disk_named(root), outage_told(self._tracker):
            try:
                driver.run()
            except SweepInterruptedError as interrupt:
                if interrupt.exit_code == LockedError.exit_code:
                    self._study.ensure_ours()
                self._reporter.stopping("")  # no epoch is waited for any more
                self._reporter.phase("uploading")
                raise
        return driver.is_complete

    def _confirm(self) -> None:
        """Confirm the finalists, or go on with a confirmation that was cut off."""
        request, experiment = self._request, self._conditions.experiment
        confirmation.Confirmation(
            self._conditions,
            study=self._study,
            spool=self._spool,
            executor=self._executor,
            train=self._train,
            settle=self._tracker.drain,
            announce=say,
            reporter=self._reporter,
            is_transferred=experiment.name != request.experiment.name,
        ).run(
            lambda: self._study.patiently(
                lambda: finalists.chosen(experiment, request.experiment, request.root, request.storage)
            ),
            again=request.again,
        )
        self._refresh_summary()
        self._tracker.notify()

    def _refresh_summary(self) -> None:
        """Give the writer the results of the last completed confirmation, for the leaderboard."""
        experiment, root = self._conditions.experiment, self._request.root
        kept, n_finished = self._study.all_kept(), self._study.n_finished
        self._writer.confirmation = confirmation_summary(kept, experiment, root, n_finished)


def storage_lock(url: str | None, name: str) -> AbstractContextManager[AdvisoryLock | None]:
    """Return a context manager that holds a lock on a study in PostgreSQL, against other machines too.

    Args:
        url: URL of the study's storage; None if it is a file, which the lock of its folder protects already.
        name: Name of the study.
    """
    if url is None:
        return nullcontext()
    from lenet_exp.study.postgres import AdvisoryLock

    return closing(AdvisoryLock(url, name))


@cache
def _load_plots() -> None:
    """Start a thread that imports the plotting libraries, which takes a second; later calls do nothing."""
    module = "lenet_exp.results.views.page.report"
    Thread(target=import_module, args=[module], name="plots", daemon=True).start()


def _amount(experiment: Experiment) -> str:
    """Return how much an experiment trains, such as ``60 trials`` or ``1 training``."""
    if experiment.space:
        return counted(experiment.trials, "trial")
    return counted(len(fixed_trainings(experiment)), "training")

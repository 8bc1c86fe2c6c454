"""The loop of a sweep: ask, submit, report, prune, tell, record."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lenet_exp.base.errors import DiskError, NoResultError, SweepInterruptedError
from lenet_exp.base.layout import Layout
from lenet_exp.base.records import EpochResult, RunKey, TrialRecord
from lenet_exp.config.architecture import InfeasibleError, cost
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.trainings import Job, fixed_jobs
from lenet_exp.data.images import ImageSet
from lenet_exp.execution import signals
from lenet_exp.execution.executor import Ended, Epoch, LocalExecutor, Machine, Task, Warned
from lenet_exp.execution.limits import DEFAULT, Limits, check_room
from lenet_exp.study.study import Attempt, Study
from lenet_exp.sweep.failures import Bugs
from lenet_exp.sweep.writer import Recorder

#: A space in which this many draws in a row have no network is taken to have none at all.
MAX_INFEASIBLE = 50


@dataclass(frozen=True)
class Options:
    """How a sweep is run on this machine; none of it changes a result.

    Attributes:
        workers: Attempts at once.
        threads: For each of them.
        timeout_s: Seconds after which no trial is begun; None for no limit.
        limits: Of an attempt, and of the disk.
    """

    workers: int = 1
    threads: int = 1
    timeout_s: float | None = None
    limits: Limits = DEFAULT


@dataclass
class _Running:
    attempt: Attempt
    co_runners: int
    device: str
    due: float | None
    overdue: bool = False
    last: EpochResult | None = field(default=None)


class Driver:
    """One sweep under way. It alone asks, tells and prunes."""

    def __init__(
        self,
        experiment: Experiment,
        *,
        study: Study,
        executor: LocalExecutor,
        recorder: Recorder,
        images: ImageSet,
        machine: Machine,
        layout: Layout,
        options: Options,
        test_images: ImageSet | None = None,
        announce: Callable[[str], None] = lambda _: None,
        when_spare: Callable[[], object] = lambda: None,
        jobs: Sequence[Job] | None = None,
    ) -> None:
        """Prepare a sweep; `run` runs it.

        Args:
            experiment: What to find out.
            study: Already checked and reconciled.
            executor: Runs the attempts.
            recorder: Writes down what happens.
            images: The training images.
            machine: What the attempts run on.
            layout: Of the experiment; attempts leave their files there, and a bug its traceback.
            options: How to run.
            test_images: What a fixed list shows beside its curves; None in every search.
            announce: Called with a line for people, about each attempt that ended.
            when_spare: Called when a worker is spare, as only the last attempts are running; perhaps often.
            jobs: What to train, and no search; None for the experiment's own jobs and its search.
        """
        self._experiment = experiment
        self._study = study
        self._executor = executor
        self._recorder = recorder
        self._images = images
        self._machine = machine
        self._layout = layout
        self._options = options
        self._test_images = test_images
        self._announce = announce
        self._when_spare = when_spare
        self._jobs = deque(fixed_jobs(experiment) if jobs is None else jobs)
        self._trials = experiment.trials if jobs is None else 0
        self._job_of: dict[RunKey, Job] = {}
        self._running: dict[RunKey, _Running] = {}
        self._parked: dict[str, list[Attempt]] = {}
        self._known: dict[str, TrialRecord] = {}
        for record in study.records():
            self._remember(record)
        self._infeasible_in_a_row = 0
        self._bugs = Bugs(layout.traceback)
        #: Asked already, and waiting until nothing else runs.
        self._held: deque[Attempt] = deque()
        self._stop_level = 0
        self._exit_code = 130
        self._drop_at: float | None = None
        self._deadline: float | None = None
        self._no_room: DiskError | None = None
        self._exhausted = False
        self._begin_until = time.monotonic() + options.timeout_s if options.timeout_s is not None else None

    def interrupt(self, exit_code: int = 130, patience_s: float | None = None) -> None:
        """Ask the sweep to stop, or at the second call to drop its epochs. Safe in a signal handler.

        Args:
            exit_code: Of the command.
            patience_s: Seconds after which running epochs are dropped without another call; None for never.
        """
        self._stop_level += 1
        self._exit_code = exit_code
        if patience_s is not None and self._drop_at is None:
            self._drop_at = time.monotonic() + patience_s
            self._deadline = time.monotonic() + signals.PATIENCE_S
        self._executor.wake()

    def run(self) -> None:
        """Train until the budget is met, the time is over or somebody interrupts.

        Raises:
            SweepInterruptedError: If `interrupt` was called; the same command goes on.
            NoResultError: If the space has no network, or every attempt fails alike.
            DiskError: If the disk is full, or about to be.
        """
        self._recorder.write_leaderboard()
        try:
            self._loop()
        finally:
            self._abandon()
        if self._stop_level:
            raise SweepInterruptedError(
                "interrupted; run the same command again to go on", self._exit_code, self._deadline
            )
        if self._no_room:
            raise self._no_room

    @property
    def is_complete(self) -> bool:
        """Whether everything was trained that was to be."""
        idle = not (self._jobs or self._held)
        return idle and (self._exhausted or self._study.n_finished >= self._trials)

    def _loop(self) -> None:
        obeyed = 0
        while True:
            if not self._stop_level and not self._timed_out():
                self._fill()
            if not self._running:
                return
            for event in self._executor.events(self._remaining_s()):
                match event:
                    case Epoch():
                        self._epoch(event)
                    case Warned():
                        self._announce(f"warning: {event.key.stem}: {event.warning}")
                    case Ended():
                        self._ended(event)
            self._watch_time()
            if self._stop_level > obeyed:
                obeyed = self._stop_level
                self._obey()

    def _abandon(self) -> None:
        """Leave nothing RUNNING: what has not ended is queued for the next call."""
        full: DiskError | None = None
        for key in list(self._running):
            self._executor.stop(key)
            try:
                self._ended(Ended(key, "stopped", "interrupted"))
            except DiskError as error:  # the others may fit
                full = error
        for attempt in [*itertools.chain(*self._parked.values()), *self._held]:
            self._study.fail(attempt.key, "interrupted", retry=True, crashed=False)
        self._parked.clear()
        self._held.clear()
        if full:
            raise full

    def _timed_out(self) -> bool:
        return self._begin_until is not None and time.monotonic() >= self._begin_until

    def _remaining_s(self) -> float | None:
        """Return how long to wait for events until something is due at a time of its own; None for ever."""
        now = time.monotonic()
        due = [self._drop_at, None if self._timed_out() else self._begin_until]
        due += [running.due for running in self._running.values() if not running.overdue]
        # A wait of more than 24 days is more than the system can be asked for.
        return min((min(86_400.0, max(0.0, at - now)) for at in due if at is not None), default=None)

    def _watch_time(self) -> None:
        """End the attempts whose time is over, and all of them when a stop is."""
        now = time.monotonic()
        for key, running in self._running.items():
            if running.due is not None and now >= running.due and not running.overdue:
                running.overdue = True
                self._executor.terminate(key)
        if self._drop_at is not None and now >= self._drop_at:
            self._stop_level = max(self._stop_level, 2)

    def _obey(self) -> None:
        for key in list(self._running):
            if self._stop_level == 1:
                self._executor.finish_epoch(key)
            else:
                self._executor.stop(key)
                self._ended(Ended(key, "stopped", "interrupted"))

    def _fill(self) -> None:
        """Begin attempts until every worker has one, or there is nothing to begin."""
        while len(self._running) < self._options.workers and self._has_room():
            if any(running.attempt.alone for running in self._running.values()):
                return
            if self._held and self._running:
                return
            attempt = self._held.popleft() if self._held else self._next()
            if attempt is None:
                if self._running:
                    self._when_spare()
                return
            if not self._settled_without_training(attempt):
                self._begin(attempt)

    def _has_room(self) -> bool:
        """Return whether the disk can take another attempt; once it could not, none is begun."""
        if self._no_room is None:
            try:
                check_room(self._layout.home, self._options.limits.min_free_bytes)
            except DiskError as error:
                self._no_room = error
        return self._no_room is None

    def _begin(self, attempt: Attempt) -> None:
        """Train it now, or when nothing else runs."""
        if attempt.alone and self._running:
            self._held.append(attempt)
        else:
            self._submit(attempt)

    def _next(self) -> Attempt | None:
        while self._jobs:
            job = self._jobs.popleft()
            attempt = self._study.ask_fixed(job.name, job.role, job.label, job.configuration, job.seed)
            if attempt is not None:
                self._job_of[attempt.key] = job
                return attempt
        asked = sum(key.role == "trial" for key in self._running) + sum(map(len, self._parked.values()))
        asked += sum(attempt.key.role == "trial" for attempt in self._held)
        if self._exhausted or self._study.n_finished + asked >= self._trials:
            return None
        attempt = self._study.ask()
        self._exhausted = attempt is None
        return attempt

    def _settled_without_training(self, attempt: Attempt) -> bool:
        """Tell what is infeasible or known, put aside what is being found out; return whether it was one."""
        try:
            cost(attempt.configuration, self._images.image_size)
        except InfeasibleError as error:
            self._settle_infeasible(attempt, str(error))
            return True
        if attempt.key.role != "trial":
            return False
        identity = attempt.configuration.identity
        if identity in self._known:
            self._settle_duplicate(attempt, self._known[identity])
            return True
        if any(
            r.attempt.configuration.identity == identity
            for k, r in self._running.items()
            if k.role == "trial"
        ):
            self._parked.setdefault(identity, []).append(attempt)
            return True
        return False

    def _settle_infeasible(self, attempt: Attempt, error: str) -> None:
        reason = f"infeasible: {error}"
        self._recorder.begin(attempt, {})
        self._end(attempt, "PRUNED", None, {"reason": reason})
        if attempt.key.role != "trial":
            self._announce(f"{attempt.label}: {reason}")
            return
        self._infeasible_in_a_row += 1
        if self._infeasible_in_a_row >= MAX_INFEASIBLE:
            raise NoResultError(
                f"{MAX_INFEASIBLE} configurations in a row have no network; the last: {reason}"
            )

    def _settle_duplicate(self, attempt: Attempt, original: TrialRecord) -> None:
        """Tell the value that the same configuration had; its epochs are shown as the original's."""
        self._infeasible_in_a_row = 0
        tags = {"lenet_exp.duplicate_of": str(original.key.trial)}
        self._recorder.begin(attempt, tags)
        self._recorder.copy_epochs(attempt.key, original.key)
        result_facts = dict(original.result) | {"duplicate_of": original.key.trial}
        state: Literal["COMPLETE", "PRUNED"] = "COMPLETE" if original.state == "COMPLETE" else "PRUNED"
        self._end(attempt, state, original.value, result_facts, weights_of=original.key)
        self._announce(f"{attempt.label}: same configuration as {original.label}")

    def _submit(self, attempt: Attempt) -> None:
        self._infeasible_in_a_row = 0
        data = self._experiment.data
        co_runners = len(self._running)
        job = self._job_of.get(attempt.key)
        train_on = job.train_on if job else "train"
        tags = {"lenet_exp.co_runners": str(co_runners), "lenet_exp.train_on": train_on}
        self._recorder.begin(attempt, tags)
        in_use = [running.device for running in self._running.values()]
        device = min(self._machine.devices, key=in_use.count)
        limit_s = self._options.limits.trial_timeout_s
        due = time.monotonic() + limit_s if limit_s is not None else None
        self._running[attempt.key] = _Running(attempt, co_runners, device, due)
        self._executor.submit(
            Task(
                key=attempt.key,
                configuration=attempt.configuration,
                seed=attempt.seed,
                images=self._images,
                validation=data.validation,
                split_seed=data.seed,
                limit=data.limit,
                device=device,
                threads=self._options.threads,
                compiled=self._experiment.training.compile,
                weights=self._layout.weights(attempt.key),
                test_images=self._test_images,
                diagnostics=self._experiment.watch.diagnostics,
                checkpoints=self._layout.training(attempt.origin),
                memory_bytes=self._options.limits.trial_memory_bytes,
                train_on=train_on,
            )
        )

    def _epoch(self, event: Epoch) -> None:
        running = self._running.get(event.key)
        if running is None:  # pruned a moment ago
            return
        running.last = event.result
        # What an attempt before this one went on from is not judged again.
        if self._recorder.epoch(event.key, event.result) and not event.replayed:
            self._executor.stop(event.key)
            self._settle(event.key, "PRUNED", f"pruned after epoch {event.result.epoch}")

    def _ended(self, event: Ended) -> None:
        running = self._running.get(event.key)
        if running is None:
            return
        match event.how:
            case "completed":
                self._settle(event.key, "COMPLETE", "")
            case "diverged":
                self._settle(event.key, "PRUNED", event.reason)
            case "died" if running.overdue:
                limit_s = self._options.limits.trial_timeout_s
                self._settle(event.key, "PRUNED", f"timeout: not done after {limit_s:g} s")
            case "oom" if running.attempt.alone:
                self._settle(event.key, "PRUNED", f"oom: {event.reason}")
            case "oom":
                self._failed(event, retry=True, crashed=False, alone=True)
            case "stopped":
                self._failed(event, retry=True, crashed=False)
            case "died":
                # What ends the sweep may have ended its processes too.
                self._failed(event, retry=True, crashed=not self._stop_level)
            case "failed":
                self._failed(event, retry=False, crashed=True)

    def _settle(self, key: RunKey, state: Literal["COMPLETE", "PRUNED"], reason: str) -> None:
        """End a trained attempt with what its last epoch gave."""
        running = self._running.pop(key)
        last = running.last
        facts: dict[str, Any] = last.measured() if last is not None else {}
        weighs = cost(running.attempt.configuration, self._images.image_size)
        facts |= {"n_parameters": weighs.n_parameters, "macs": weighs.macs}
        facts |= self._machine.facts(
            threads=self._options.threads, compiled=self._experiment.training.compile
        ) | {"co_runners": running.co_runners}
        if reason:
            facts["reason"] = reason
        self._bugs.forget()
        self._end(running.attempt, state, last.val_accuracy if last else None, facts)
        shown = _accuracy(last) if last and state == "COMPLETE" else reason
        speed = f", {last.examples_per_s:,.0f} examples/s" if last else ""
        self._announce(f"{running.attempt.label}: {shown}{speed}")

    def _failed(self, event: Ended, *, retry: bool, crashed: bool, alone: bool = False) -> None:
        running = self._running.pop(event.key)
        again = self._recorder.fail(event.key, event.reason, retry=retry, crashed=crashed, alone=alone)
        if event.how == "stopped":
            return
        more = f"; trying again{' alone' if alone else ''}" if again else ""
        self._announce(f"{running.attempt.label}: {event.reason}{more}")
        if again and event.key in self._job_of:
            self._jobs.append(self._job_of[event.key])
        if not again:
            self._release_parked(running.attempt.configuration.identity)
        if event.how == "failed":
            self._bugs.note(event.reason, event.details)

    def _end(
        self,
        attempt: Attempt,
        state: Literal["COMPLETE", "PRUNED"],
        value: float | None,
        facts: dict[str, Any],
        weights_of: RunKey | None = None,
    ) -> None:
        self._remember(self._recorder.end(attempt.key, state, value, facts, weights_of))
        self._release_parked(attempt.configuration.identity)

    def _remember(self, record: TrialRecord) -> None:
        settled = record.state in ("COMPLETE", "PRUNED") and not record.infeasible
        if record.key.role == "trial" and settled:
            self._known.setdefault(record.identity, record)

    def _release_parked(self, identity: str) -> None:
        """Settle those that waited for ``identity``; where it failed for good, the next of them trains."""
        for attempt in self._parked.pop(identity, []):
            if not self._settled_without_training(attempt):
                self._begin(attempt)


def _accuracy(last: EpochResult) -> str:
    """Return the accuracy to tell people: on the training images if none were kept to validate on."""
    if math.isnan(last.val_accuracy):
        return f"train_accuracy {last.train_accuracy:.4f}"
    return f"val_accuracy {last.val_accuracy:.4f}"

"""The loop of a sweep: draw an attempt from the study, train it in a worker, report epochs, prune, record."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lenet_exp.base.errors import DiskError, NoResultError, SweepInterruptedError
from lenet_exp.base.messages import counted
from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.config.architecture import InfeasibleError, cost
from lenet_exp.config.trainings import FixedTraining
from lenet_exp.data.split import division_seed
from lenet_exp.execution import signals
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.execution.protocol import Conditions, Ended, Epoch, Task, Warned
from lenet_exp.execution.resources import RunningTime, check_room
from lenet_exp.progress.reporter import Reporter, ended_as
from lenet_exp.study.records import Attempt, TrialRecord
from lenet_exp.study.study import Study
from lenet_exp.sweep.agenda import Agenda, Failures
from lenet_exp.sweep.writer import Writer

#: After this many infeasible configurations in a row, the space is taken to have no feasible one.
MAX_INFEASIBLE = 50


@dataclass
class _Running:
    """An attempt that a worker is training; ``clock`` has the time that counts against its limit."""

    attempt: Attempt
    co_runners: int
    device: str
    clock: RunningTime = field(default_factory=RunningTime)
    overdue: bool = False
    last: EpochResult | None = None


class Driver:
    """Runs one sweep. Only the driver asks the study for attempts, tells it how they ended, and prunes."""

    def __init__(
        self,
        conditions: Conditions,
        study: Study,
        executor: LocalExecutor,
        writer: Writer,
        *,
        fixed: Sequence[FixedTraining] | None = None,
        timeout_s: float | None = None,
        announce: Callable[[str], None] = lambda _: None,
        when_spare: Callable[[], object] = lambda: None,
        reporter: Reporter | None = None,
    ) -> None:
        """Queue what is left to train, without starting it; `run` does the work.

        Args:
            conditions: Experiment, images, machine and limits, which all attempts share.
            study: Study whose fingerprint has been checked, and in which no attempt is RUNNING.
            executor: Executor that starts a process for each attempt.
            writer: Writer that records how each attempt starts, goes on and ends.
            fixed: Fixed trainings to do, without a search; None for the experiment's own, then its search.
            timeout_s: Seconds from now after which no attempt is started; None for no limit.
            announce: Function that gets a line of text for the user when an attempt ends or gives a warning.
            when_spare: Function called, perhaps often, while a worker is idle as only the last attempts run.
            reporter: Reporter that is told how the sweep stands; None for one that shows nothing.
        """
        self._conditions = conditions
        self._reporter = reporter or Reporter()
        self._agenda = Agenda(study, fixed, conditions.limits)
        self._study = study
        self._executor = executor
        self._writer = writer
        self._announce = announce
        self._when_spare = when_spare
        self._running: dict[RunKey, _Running] = {}
        self._infeasible_in_a_row = 0
        self._failures = Failures(conditions.layout.traceback)
        self._stop_level = 0
        self._exit_code = 130
        self._drop_at: float | None = None
        self._deadline: float | None = None
        self._no_room: DiskError | None = None
        self._begin_until = time.monotonic() + timeout_s if timeout_s is not None else None
        if n_again := self._agenda.n_again:
            announce(f"trying again what a limit or a failure ended before: {counted(n_again, 'training')}")

    def interrupt(self, exit_code: int = 130, patience_s: float | None = None) -> None:
        """End the sweep after the running epochs, or at once if called again. Safe in a signal handler.

        Args:
            exit_code: Exit code with which the command is to end.
            patience_s: Seconds that the epochs may still take without a second call; None for no limit.
        """
        self._stop_level += 1
        self._exit_code = exit_code
        if patience_s is not None and self._drop_at is None:
            self._drop_at = time.monotonic() + patience_s
            self._deadline = time.monotonic() + signals.PATIENCE_S
        self._executor.wake()
        if self._stop_level == 1 and self._running:
            labels = " and ".join(running.attempt.label for running in self._running.values())
            until = (
                "Ctrl-C again drops them" if patience_s is None else f"in {patience_s:g} s they are dropped"
            )
            self._announce(f"finishing the running epochs of {labels}; {until}")
            self._reporter.stopping(f"finishing the running epochs; {until}")

    def run(self) -> None:
        """Train until nothing is left to train, the time is up, or `interrupt` is called.

        Raises:
            SweepInterruptedError: If `interrupt` was called; the same command continues the sweep.
            NoResultError: If `MAX_INFEASIBLE` configurations in a row are infeasible, or `MAX_SAME_FAILURES`
                attempts in a row fail with the same traceback.
            DiskError: If the disk is full, or has less free space than the limits ask for.
        """
        self._writer.write_leaderboard()
        try:
            self._loop()
        finally:
            self._abandon()
            self._writer.write_leaderboard()
        if self._stop_level:
            raise SweepInterruptedError(
                "interrupted; run the same command again to go on", self._exit_code, self._deadline
            )
        if self._no_room:
            raise self._no_room

    @property
    def is_complete(self) -> bool:
        """True if nothing is left to train."""
        return self._agenda.is_complete

    def _loop(self) -> None:
        obeyed_level = 0
        while True:
            if not self._stop_level and not self._timed_out():
                self._fill()
            self._reporter.position(*self._agenda.position(self._attempts()))
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
            if self._stop_level > obeyed_level:
                obeyed_level = self._stop_level
                self._obey()

    def _abandon(self) -> None:
        """End all running and waiting attempts as failed, each to be tried again by the next sweep."""
        full: DiskError | None = None
        for key in list(self._running):
            self._executor.stop(key)
            if self._study.lost:  # neither study nor spool is ours to write any more
                continue
            try:
                self._ended(Ended(key, "stopped", "interrupted"))
            except DiskError as error:  # there may be room for the others
                full = error
        for key in self._agenda.abandon() if not self._study.lost else ():
            self._study.fail(key, "interrupted", retry=True, crashed=False)
        if full:
            raise full

    # Time limits.

    def _timed_out(self) -> bool:
        return self._begin_until is not None and time.monotonic() >= self._begin_until

    def _remaining_s(self) -> float | None:
        """Return the seconds until the next time limit, or None if there is no limit to watch."""
        now = time.monotonic()
        due = [self._drop_at, None if self._timed_out() else self._begin_until]
        # The system refuses to wait for more than 24 days.
        waits = [min(86_400.0, max(0.0, at - now)) for at in due if at is not None]
        limit_s = self._conditions.limits.trial_timeout_s
        if limit_s is not None:
            clocks = [running.clock for running in self._running.values() if not running.overdue]
            waits += [clock.next_look_s(limit_s) for clock in clocks]
        return min(waits, default=None)

    def _watch_time(self) -> None:
        """End attempts that are past their time limit, and all once the patience of an interrupt is over."""
        now = time.monotonic()
        limit_s = self._conditions.limits.trial_timeout_s
        if limit_s is not None:
            for key, running in self._running.items():
                ran_s = running.clock.count(self._executor.processes.get(key))
                if ran_s >= limit_s and not running.overdue:
                    running.overdue = True
                    self._executor.terminate(key)
        if self._drop_at is not None and now >= self._drop_at:
            self._stop_level = max(self._stop_level, 2)

    def _obey(self) -> None:
        """After one interrupt, let running attempts finish their epoch; after two, stop them at once."""
        for key in list(self._running):
            if self._stop_level == 1:
                self._executor.finish_epoch(key)
            else:
                self._executor.stop(key)
                self._ended(Ended(key, "stopped", "interrupted"))

    # Starting attempts.

    def _fill(self) -> None:
        """Start attempts until every worker has one, or there is none to start."""
        while len(self._running) < self._conditions.plan.workers and self._has_room():
            attempt = self._agenda.next(self._attempts())
            if attempt is None:
                if self._running:
                    self._when_spare()
                return
            self._begin(attempt)

    def _attempts(self) -> list[Attempt]:
        return [running.attempt for running in self._running.values()]

    def _has_room(self) -> bool:
        """Return True if the disk has room for another attempt; once it had none, always return False."""
        if self._no_room is None:
            try:
                check_room(self._conditions.layout.home, self._conditions.limits.min_free_bytes)
            except DiskError as error:
                self._no_room = error
        return self._no_room is None

    def _begin(self, attempt: Attempt) -> None:
        """Train an attempt, put it aside if it has to wait, or end it at once if it needs no training."""
        try:
            cost(attempt.configuration, self._conditions.images.image_size)
        except InfeasibleError as error:
            self._settle_infeasible(attempt, str(error))
            return
        if original := self._agenda.known(attempt):
            self._settle_duplicate(attempt, original)
        elif self._agenda.park(attempt, self._attempts()):
            pass
        elif attempt.exclusive and self._running:
            self._agenda.hold(attempt)
        else:
            self._submit(attempt)

    def _settle_infeasible(self, attempt: Attempt, error: str) -> None:
        reason = f"infeasible: {error}"
        self._writer.begin(attempt, {})
        self._end(attempt, "PRUNED", None, {"reason": reason})
        if attempt.fixed is not None:
            self._announce(f"{attempt.label}: {reason}")
            return
        self._infeasible_in_a_row += 1
        if self._infeasible_in_a_row >= MAX_INFEASIBLE:
            raise NoResultError(
                f"{MAX_INFEASIBLE} configurations in a row have no network, the last as {reason};"
                " narrow the [space] of the experiment"
            )

    def _settle_duplicate(self, attempt: Attempt, original: TrialRecord) -> None:
        """End a trial with the epochs and the result of an earlier trial of the same configuration."""
        self._infeasible_in_a_row = 0
        self._writer.begin(attempt, {"lenet_exp.duplicate_of": str(original.trial)})
        self._writer.copy_epochs(attempt.key, original.key)
        result = {**original.result, "duplicate_of": original.trial}
        state: Literal["COMPLETE", "PRUNED"] = "COMPLETE" if original.state == "COMPLETE" else "PRUNED"
        self._end(attempt, state, original.value, result, weights_of=original.key)
        self._announce(f"{attempt.label}: same configuration as {original.label}")

    def _submit(self, attempt: Attempt) -> None:
        self._infeasible_in_a_row = 0
        co_runners = len(self._running)
        divided_by = division_seed(self._conditions.experiment.data, attempt.train_on, attempt.seed)
        tags = {
            "lenet_exp.co_runners": str(co_runners),
            "lenet_exp.train_on": attempt.train_on,
            "lenet_exp.division_seed": str(divided_by),
        }
        self._writer.begin(attempt, tags)
        in_use = [running.device for running in self._running.values()]
        device = min(self._conditions.machine.devices, key=in_use.count)
        self._running[attempt.key] = _Running(attempt, co_runners, device)
        self._executor.submit(Task(attempt, self._conditions, device))
        self._reporter.begin(attempt)

    # Events from the workers.

    def _epoch(self, event: Epoch) -> None:
        running = self._running.get(event.key)
        if running is None:  # pruned a moment ago
            return
        running.last = event.result
        self._reporter.epoch(event.key, event.result)
        # A replayed epoch was judged in the attempt that trained it.
        if self._writer.epoch(event.key, event.result) and not event.replayed:
            self._executor.stop(event.key)
            self._settle(event.key, "PRUNED", f"pruned after epoch {event.result.epoch}")

    def _ended(self, event: Ended) -> None:
        running = self._running.get(event.key)
        if running is None:
            return
        match event.how:
            case "completed" if not running.overdue:
                self._settle(event.key, "COMPLETE", "")
            case "diverged":
                self._settle(event.key, "PRUNED", event.reason)
            case "completed" | "died" if running.overdue:
                limit_s = self._conditions.limits.trial_timeout_s
                self._settle(event.key, "PRUNED", f"timeout: not done after {limit_s:g} s")
            case "oom" if running.attempt.exclusive:
                self._settle(event.key, "PRUNED", f"oom: {event.reason}")
            case "oom":
                self._failed(event, retry=True, crashed=False, exclusive=True)
            case "stopped":
                self._failed(event, retry=True, crashed=False)
            case "died":
                # A signal that stops the sweep may have reached its workers too.
                self._failed(event, retry=True, crashed=not self._stop_level)
            case "failed":
                self._failed(event, retry=False, crashed=True)

    def _settle(self, key: RunKey, state: Literal["COMPLETE", "PRUNED"], reason: str) -> None:
        """End an attempt that was trained, with the result of its last epoch."""
        running = self._running.pop(key)
        last = running.last
        result: dict[str, Any] = last.measured() if last is not None else {}
        size = cost(running.attempt.configuration, self._conditions.images.image_size)
        result |= {"n_parameters": size.n_parameters, "macs": size.macs}
        result |= self._conditions.metadata() | {"co_runners": running.co_runners}
        if reason:
            # From its limits a later sweep sees whether it allows more.
            result |= {"reason": reason} | self._conditions.limits.of_attempt()
        self._failures.forget()
        self._end(running.attempt, state, last.val_accuracy if last else None, result)
        outcome = _accuracy(last) if last and state == "COMPLETE" else reason
        speed = f", {last.examples_per_s:,.0f} examples/s" if last else ""
        self._reporter.position(*self._agenda.position(self._attempts()))
        self._announce(self._reporter.with_position(f"{running.attempt.label}: {outcome}{speed}"))

    def _failed(self, event: Ended, *, retry: bool, crashed: bool, exclusive: bool = False) -> None:
        """End an attempt as failed; see `Writer.fail` for what the flags mean."""
        attempt = self._running.pop(event.key).attempt
        # A library without memory may raise any error, or end the process.
        limits = self._conditions.limits.of_attempt() if crashed else {}
        is_retried = self._writer.fail(
            event.key, event.reason, retry=retry, crashed=crashed, exclusive=exclusive, limits=limits
        )
        self._reporter.end(event.key, attempt.label, "retried" if is_retried else "failed")
        if event.how == "stopped":
            return
        retrying = f"; trying again{' alone' if exclusive else ''}" if is_retried else ""
        self._announce(f"{attempt.label}: {event.reason}{retrying}")
        if is_retried and attempt.fixed is not None:
            self._agenda.repeat(attempt.fixed)
        if not is_retried:
            self._release(attempt)
        if event.how == "failed":
            self._failures.note(event.reason, event.details)

    def _end(
        self,
        attempt: Attempt,
        state: Literal["COMPLETE", "PRUNED"],
        value: float | None,
        result: Mapping[str, Any],
        weights_of: RunKey | None = None,
    ) -> None:
        """Record how an attempt ended, as `Writer.end` does, and start the trials that waited for it."""
        record = self._writer.end(attempt.key, state, value, result, weights_of)
        self._reporter.end(attempt.key, attempt.label, ended_as(record), record.value)
        self._agenda.remember(record)
        self._release(attempt)

    def _release(self, attempt: Attempt) -> None:
        """Start the trials that waited for the attempt; if it failed, the first of them is trained."""
        for waiting in self._agenda.release(attempt.configuration.id):
            self._begin(waiting)


def _accuracy(last: EpochResult) -> str:
    """Return an epoch's accuracy with its name: the training accuracy if there is no validation split."""
    if math.isnan(last.val_accuracy):
        return f"train_accuracy {last.train_accuracy:.4f}"
    return f"val_accuracy {last.val_accuracy:.4f}"

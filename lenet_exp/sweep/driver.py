"""The loop of a sweep: ask, submit, report, prune, tell, record."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lenet_exp.base.errors import DiskError, NoResultError, SweepInterruptedError
from lenet_exp.base.files import write_atomically
from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.config.architecture import InfeasibleError, cost
from lenet_exp.config.trainings import FixedTraining
from lenet_exp.execution import signals
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.execution.protocol import Conditions, Ended, Epoch, Task, Warned
from lenet_exp.execution.resources import check_room
from lenet_exp.study.records import Attempt, TrialRecord
from lenet_exp.study.study import Study
from lenet_exp.sweep.agenda import Agenda
from lenet_exp.sweep.writer import Writer

#: A space in which this many draws in a row have no network is taken to have none at all.
MAX_INFEASIBLE = 50
#: A bug that ends this many attempts in a row will end the next one too.
MAX_SAME_FAILURES = 5


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
        conditions: Conditions,
        study: Study,
        executor: LocalExecutor,
        writer: Writer,
        *,
        fixed: Sequence[FixedTraining] | None = None,
        timeout_s: float | None = None,
        announce: Callable[[str], None] = lambda _: None,
        when_spare: Callable[[], object] = lambda: None,
    ) -> None:
        """Prepare a sweep; `run` runs it.

        Args:
            conditions: What all attempts share.
            study: Already checked and reconciled.
            executor: Runs the attempts.
            writer: Writes down what happens.
            fixed: The trainings to do, and no search; None for the experiment's own and its search.
            timeout_s: Seconds after which no attempt is begun; None for no limit.
            announce: Called with a line for people, about each attempt that ended.
            when_spare: Called when a worker is spare, as only the last attempts are running; perhaps often.
        """
        self._conditions = conditions
        self._agenda = Agenda(study, fixed)
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

    def interrupt(self, exit_code: int = 130, patience_s: float | None = None) -> None:
        """Ask the sweep to stop, or at the second call to drop its epochs. Safe in a signal handler.

        Args:
            exit_code: What the command is to end with.
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
        """Whether everything was trained that was to be."""
        return self._agenda.is_complete

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
        for key in self._agenda.abandon():
            self._study.fail(key, "interrupted", retry=True, crashed=False)
        if full:
            raise full

    # Time, and what it ends.

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

    # Beginning.

    def _fill(self) -> None:
        """Begin attempts until every worker has one, or there is nothing to begin."""
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
        """Return whether the disk can take another attempt; once it could not, none is begun."""
        if self._no_room is None:
            try:
                check_room(self._conditions.layout.home, self._conditions.limits.min_free_bytes)
            except DiskError as error:
                self._no_room = error
        return self._no_room is None

    def _begin(self, attempt: Attempt) -> None:
        """Settle what needs no training, put aside what has to wait, and train the rest."""
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
                f"{MAX_INFEASIBLE} configurations in a row have no network; the last: {reason}"
            )

    def _settle_duplicate(self, attempt: Attempt, original: TrialRecord) -> None:
        """Tell the value that the same configuration had; its epochs are shown as the original's."""
        self._infeasible_in_a_row = 0
        self._writer.begin(attempt, {"lenet_exp.duplicate_of": str(original.key.trial)})
        self._writer.copy_epochs(attempt.key, original.key)
        result = {**original.result, "duplicate_of": original.key.trial}
        state: Literal["COMPLETE", "PRUNED"] = "COMPLETE" if original.state == "COMPLETE" else "PRUNED"
        self._end(attempt, state, original.value, result, weights_of=original.key)
        self._announce(f"{attempt.label}: same configuration as {original.label}")

    def _submit(self, attempt: Attempt) -> None:
        self._infeasible_in_a_row = 0
        co_runners = len(self._running)
        self._writer.begin(
            attempt, {"lenet_exp.co_runners": str(co_runners), "lenet_exp.train_on": attempt.train_on}
        )
        in_use = [running.device for running in self._running.values()]
        device = min(self._conditions.machine.devices, key=in_use.count)
        limit_s = self._conditions.limits.trial_timeout_s
        due = time.monotonic() + limit_s if limit_s is not None else None
        self._running[attempt.key] = _Running(attempt, co_runners, device, due)
        self._executor.submit(Task(attempt, self._conditions, device))

    # What comes back.

    def _epoch(self, event: Epoch) -> None:
        running = self._running.get(event.key)
        if running is None:  # pruned a moment ago
            return
        running.last = event.result
        # What an attempt before this one went on from is not judged again.
        if self._writer.epoch(event.key, event.result) and not event.replayed:
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
                limit_s = self._conditions.limits.trial_timeout_s
                self._settle(event.key, "PRUNED", f"timeout: not done after {limit_s:g} s")
            case "oom" if running.attempt.exclusive:
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
        result: dict[str, Any] = last.measured() if last is not None else {}
        weighs = cost(running.attempt.configuration, self._conditions.images.image_size)
        result |= {"n_parameters": weighs.n_parameters, "macs": weighs.macs}
        result |= self._conditions.metadata() | {"co_runners": running.co_runners}
        if reason:
            result["reason"] = reason
        self._failures.forget()
        self._end(running.attempt, state, last.val_accuracy if last else None, result)
        shown = _accuracy(last) if last and state == "COMPLETE" else reason
        speed = f", {last.examples_per_s:,.0f} examples/s" if last else ""
        self._announce(f"{running.attempt.label}: {shown}{speed}")

    def _failed(self, event: Ended, *, retry: bool, crashed: bool, alone: bool = False) -> None:
        attempt = self._running.pop(event.key).attempt
        again = self._writer.fail(event.key, event.reason, retry=retry, crashed=crashed, alone=alone)
        if event.how == "stopped":
            return
        more = f"; trying again{' alone' if alone else ''}" if again else ""
        self._announce(f"{attempt.label}: {event.reason}{more}")
        if again and attempt.fixed is not None:
            self._agenda.repeat(attempt.fixed)
        if not again:
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
        self._agenda.remember(self._writer.end(attempt.key, state, value, result, weights_of))
        self._release(attempt)

    def _release(self, attempt: Attempt) -> None:
        """Settle those that waited for the same configuration; where it failed, the next of them trains."""
        for waiting in self._agenda.release(attempt.configuration.id):
            self._begin(waiting)


class Failures:
    """The tracebacks of the attempts that failed in a row."""

    def __init__(self, path: Path) -> None:
        """Keep the newest traceback at ``path``."""
        self._path = path
        self._in_a_row: deque[str] = deque(maxlen=MAX_SAME_FAILURES)

    def note(self, reason: str, traceback: str) -> None:
        """Note that an attempt raised.

        Args:
            reason: What it raised, in one line.
            traceback: Whole; written to the file once for each kind.

        Raises:
            NoResultError: If this many in a row were alike.
            DiskError: If the file cannot be written.
        """
        # Numbers in it, such as a trial's, do not make it another bug.
        bug = re.sub(r"\d+", "#", traceback)
        if bug not in self._in_a_row:
            write_atomically(self._path, traceback.encode())
        self._in_a_row.append(bug)
        if self._in_a_row.count(bug) == MAX_SAME_FAILURES:
            raise NoResultError(
                f"{MAX_SAME_FAILURES} attempts in a row failed alike: {reason}; "
                f"the traceback is in {self._path}"
            )

    def forget(self) -> None:
        """Note that an attempt did not raise."""
        self._in_a_row.clear()


def _accuracy(last: EpochResult) -> str:
    """Return the accuracy to tell people: on the training images if none were kept to validate on."""
    if math.isnan(last.val_accuracy):
        return f"train_accuracy {last.train_accuracy:.4f}"
    return f"val_accuracy {last.val_accuracy:.4f}"

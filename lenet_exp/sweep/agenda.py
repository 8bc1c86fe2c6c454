"""What a sweep has left to train, in which order, which results are only copied, and when to give up."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Sequence
from operator import attrgetter
from pathlib import Path

from lenet_exp.base.errors import NoResultError
from lenet_exp.base.files import write_atomically
from lenet_exp.base.records import RunKey
from lenet_exp.config.trainings import FixedTraining, fixed_trainings
from lenet_exp.execution.resources import DEFAULT, Limits
from lenet_exp.study.records import Attempt, TrialRecord
from lenet_exp.study.study import Study

#: After this many attempts in a row with the same traceback, the sweep stops: the next would fail as well.
MAX_SAME_FAILURES = 5


class Agenda:
    """The trainings that are left: fixed ones first, then trials of the search until the budget is met."""

    def __init__(
        self, study: Study, fixed: Sequence[FixedTraining] | None = None, limits: Limits = DEFAULT
    ) -> None:
        """Queue everything that the study has not finished, and what may end otherwise this time.

        Args:
            study: Study that gives the attempts, and knows which trainings are done.
            fixed: Fixed trainings to do, without a search; None for the experiment's own, then its search.
            limits: Limits of the attempts; what lower ones have ended is tried again.
        """
        self._study = study
        experiment = study.experiment
        self._fixed = deque(fixed_trainings(experiment) if fixed is None else fixed)
        self._n_fixed = len(self._fixed)
        #: Number of fixed trainings that have not begun, or begin again.
        self._n_fixed_left = 0
        self._trials = experiment.trials if fixed is None else 0
        #: Number of trainings that had ended, and are tried again.
        self.n_again = self._try_again(limits, is_confirmation=fixed is not None)
        self._exhausted = False
        #: Attempts that wait until no other attempt is running.
        self._held: deque[Attempt] = deque()
        #: Trials that wait until another trial of their configuration has ended, by the configuration's hash.
        self._parked: dict[str, list[Attempt]] = {}
        self._known: dict[str, TrialRecord] = {}
        for record in study.records():
            # A result that a lower limit cut short is not what the configuration gives under this one.
            if not (record.superseded or allows_more(limits, record)):
                self.remember(record)

    def _try_again(self, limits: Limits, *, is_confirmation: bool) -> int:
        """Queue the ended trainings that may end otherwise this time, and return their number."""
        baseline = self._study.experiment.baseline_configuration.id
        again = []
        for training in self._fixed:
            record = self._study.fixed_record(training)
            self._n_fixed_left += record is None
            # No verdict can do without them, so whatever ended them is worth another try.
            is_needed = is_confirmation or training.configuration.id == baseline
            if record and (_is_missing(record) if is_needed else allows_more(limits, record)):
                again.append(record)
        self._n_fixed_left += len(again)
        cut = [r for r in self._study.records() if r.key.role == "trial" and allows_more(limits, r)]
        # If the budget is met without them, they stay as they are.
        if self._study.n_finished - len(cut) < self._trials:
            again += sorted(cut, key=attrgetter("key"))
        for record in again:
            self._study.try_again(record)
        return len(again)

    @property
    def is_complete(self) -> bool:
        """True if nothing is left to train."""
        idle = not (self._fixed or self._held)
        return idle and (self._exhausted or self._study.n_finished >= self._trials)

    def position(self, running: Collection[Attempt]) -> tuple[int, int, int]:
        """Return how many trainings have ended, of how many, and how many have not begun.

        The first two numbers count trials if there is a search; the third counts fixed trainings too.

        Args:
            running: All attempts that are being trained.
        """
        n_parked = sum(map(len, self._parked.values()))
        aside = [*running, *self._held]
        n_fixed_open = sum(attempt.fixed is not None for attempt in aside)
        n_open = n_parked + len(aside) - n_fixed_open
        n_undrawn = max(0, self._trials - self._study.n_finished - n_open) if not self._exhausted else 0
        n_waiting = self._n_fixed_left + n_undrawn + n_parked + len(self._held)
        if self._trials:
            return self._study.n_finished, self._trials, n_waiting
        return self._n_fixed - self._n_fixed_left - n_fixed_open, self._n_fixed, n_waiting

    def next(self, running: Collection[Attempt]) -> Attempt | None:
        """Return the attempt to start next, or None if none is left or a running one has to end first.

        Args:
            running: All attempts that are being trained.
        """
        if any(attempt.exclusive for attempt in running) or (self._held and running):
            return None
        return self._held.popleft() if self._held else self._ask(running)

    def hold(self, attempt: Attempt) -> None:
        """Put an attempt aside until no other attempt is running; `next` then returns it."""
        self._held.append(attempt)

    def repeat(self, fixed: FixedTraining) -> None:
        """Put a fixed training at the end of the queue again, because an attempt at it failed."""
        self._fixed.append(fixed)
        self._n_fixed_left += 1

    def known(self, attempt: Attempt) -> TrialRecord | None:
        """Return the trial whose result the attempt can take instead of training; None if there is none."""
        return self._known.get(attempt.configuration.id) if attempt.fixed is None else None

    def park(self, attempt: Attempt, running: Collection[Attempt]) -> bool:
        """Put an attempt at a trial aside while another trial of the same configuration is being trained.

        Args:
            attempt: Attempt that is about to start; never put aside if its training is not a trial.
            running: All attempts that are being trained.

        Returns:
            True if the attempt was put aside; `release` returns it later. False if it may start now.
        """
        config = attempt.configuration.id
        trials = [other for other in running if other.fixed is None]
        if attempt.fixed is not None or all(other.configuration.id != config for other in trials):
            return False
        self._parked.setdefault(config, []).append(attempt)
        return True

    def release(self, config: str) -> list[Attempt]:
        """Return the trials that `park` put aside for a configuration whose attempt has now ended.

        Args:
            config: Hash of the configuration.
        """
        return self._parked.pop(config, [])

    def remember(self, record: TrialRecord) -> None:
        """Store a record if it is a trial's result, for later trials of the same configuration to take."""
        settled = record.state in ("COMPLETE", "PRUNED") and not record.infeasible
        if record.key.role == "trial" and settled:
            self._known.setdefault(record.config, record)

    def abandon(self) -> list[RunKey]:
        """Drop the attempts that were put aside, and return their keys; they will not start."""
        left = [*self._held, *(attempt for parked in self._parked.values() for attempt in parked)]
        self._held.clear()
        self._parked.clear()
        return [attempt.key for attempt in left]

    def _ask(self, running: Collection[Attempt]) -> Attempt | None:
        """Draw an attempt from the study: a fixed training first, else a trial while the budget lasts."""
        while self._fixed:
            attempt = self._study.ask_fixed(self._fixed.popleft())
            if attempt is not None:
                self._n_fixed_left -= 1
                return attempt
        n_parked = sum(map(len, self._parked.values()))
        n_open = n_parked + sum(attempt.fixed is None for attempt in (*running, *self._held))
        if self._exhausted or self._study.n_finished + n_open >= self._trials:
            return None
        trial = self._study.ask()
        self._exhausted = trial is None
        return trial


def allows_more(limits: Limits, record: TrialRecord) -> bool:
    """Return True if a limit ended a training, and the limits of now would let it go on.

    Args:
        limits: Limits of the attempts that start now.
        record: Record of the training's last attempt.
    """
    return not record.superseded and limits.allow_more(record.time_limit_s, record.memory_limit_bytes)


def _is_missing(record: TrialRecord) -> bool:
    """Return True if a training gave no network, for a reason that need not stop another attempt."""
    return record.state != "COMPLETE" and not record.hopeless


class Failures:
    """Stops a sweep in which attempt after attempt fails with the same traceback."""

    def __init__(self, path: Path) -> None:
        """Start without failures; `note` writes the newest traceback to ``path``."""
        self._path = path
        self._in_a_row: deque[str] = deque(maxlen=MAX_SAME_FAILURES)

    def note(self, reason: str, traceback: str) -> None:
        """Count a failed attempt, and write its traceback to the file.

        Args:
            reason: Exception that ended the attempt, in one line.
            traceback: Whole traceback; not written again if one of the failures before had the same.

        Raises:
            NoResultError: If `MAX_SAME_FAILURES` attempts in a row had the same traceback.
            DiskError: If the file cannot be written.
        """
        # Tracebacks that differ only in numbers, such as a trial's, count as the same.
        kind = re.sub(r"\d+", "#", traceback)
        if kind not in self._in_a_row:
            write_atomically(self._path, traceback.encode())
        self._in_a_row.append(kind)
        if self._in_a_row.count(kind) == MAX_SAME_FAILURES:
            raise NoResultError(
                f"{MAX_SAME_FAILURES} attempts in a row failed with the same error: {reason}; "
                f"see the traceback in {self._path}"
            )

    def forget(self) -> None:
        """Start counting anew, because an attempt ended without an exception."""
        self._in_a_row.clear()

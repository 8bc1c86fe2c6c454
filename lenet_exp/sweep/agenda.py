"""What a sweep has left to train, in which order, and which trials get a result without training."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from lenet_exp.base.records import RunKey
from lenet_exp.config.trainings import FixedTraining, fixed_trainings
from lenet_exp.study.records import Attempt, TrialRecord
from lenet_exp.study.study import Study


class Agenda:
    """The trainings that are left: fixed ones first, then trials of the search until the budget is met."""

    def __init__(self, study: Study, fixed: Sequence[FixedTraining] | None = None) -> None:
        """Queue everything that the study has not finished.

        Args:
            study: Study that gives the attempts, and knows which trainings are done.
            fixed: Fixed trainings to do, without a search; None for the experiment's own, then its search.
        """
        self._study = study
        experiment = study.experiment
        self._fixed = deque(fixed_trainings(experiment) if fixed is None else fixed)
        self._trials = experiment.trials if fixed is None else 0
        self._exhausted = False
        #: Attempts that wait until no other attempt is running.
        self._held: deque[Attempt] = deque()
        #: Trials that wait until another trial of their configuration has ended, by the configuration's hash.
        self._parked: dict[str, list[Attempt]] = {}
        self._known: dict[str, TrialRecord] = {}
        for record in study.records():
            self.remember(record)

    @property
    def is_complete(self) -> bool:
        """True if nothing is left to train."""
        idle = not (self._fixed or self._held)
        return idle and (self._exhausted or self._study.n_finished >= self._trials)

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
                return attempt
        n_parked = sum(map(len, self._parked.values()))
        n_open = n_parked + sum(attempt.fixed is None for attempt in (*running, *self._held))
        if self._exhausted or self._study.n_finished + n_open >= self._trials:
            return None
        trial = self._study.ask()
        self._exhausted = trial is None
        return trial

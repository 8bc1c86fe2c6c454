"""What a sweep has left to train, in which order, and which results are known without training."""

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
        """Begin with everything that the study has not finished.

        Args:
            study: The study, which is asked for attempts.
            fixed: Trainings to do instead of a search; None for the experiment's own and its search.
        """
        self._study = study
        experiment = study.experiment
        self._fixed = deque(fixed_trainings(experiment) if fixed is None else fixed)
        self._trials = experiment.trials if fixed is None else 0
        self._exhausted = False
        #: Attempts that wait until nothing else runs.
        self._held: deque[Attempt] = deque()
        #: Trials that wait for the result of the same configuration, by the configuration's hash.
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
        """Return the attempt to begin next; None if none is left, or the running ones have to end first."""
        if any(attempt.exclusive for attempt in running) or (self._held and running):
            return None
        return self._held.popleft() if self._held else self._ask(running)

    def hold(self, attempt: Attempt) -> None:
        """Keep an attempt until nothing else runs."""
        self._held.append(attempt)

    def repeat(self, fixed: FixedTraining) -> None:
        """Put a fixed training that failed at the end of the line, to be tried again."""
        self._fixed.append(fixed)

    def known(self, attempt: Attempt) -> TrialRecord | None:
        """Return an earlier trial of the same configuration that has a result; None if there is none."""
        return self._known.get(attempt.configuration.id) if attempt.fixed is None else None

    def park(self, attempt: Attempt, running: Collection[Attempt]) -> bool:
        """Put a trial aside if another trial of the same configuration is being trained.

        Args:
            attempt: The attempt that would begin.
            running: All attempts that are being trained.

        Returns:
            True if it was put aside, until `release`.
        """
        config = attempt.configuration.id
        trials = [other for other in running if other.fixed is None]
        if attempt.fixed is not None or all(other.configuration.id != config for other in trials):
            return False
        self._parked.setdefault(config, []).append(attempt)
        return True

    def release(self, config: str) -> list[Attempt]:
        """Return the trials that waited for a configuration whose training has ended.

        Args:
            config: The configuration's hash.
        """
        return self._parked.pop(config, [])

    def remember(self, record: TrialRecord) -> None:
        """Keep the result of a trial for later trials of the same configuration."""
        settled = record.state in ("COMPLETE", "PRUNED") and not record.infeasible
        if record.key.role == "trial" and settled:
            self._known.setdefault(record.config, record)

    def abandon(self) -> list[RunKey]:
        """Return the attempts that were drawn and will not be begun."""
        left = [*self._held, *(attempt for parked in self._parked.values() for attempt in parked)]
        self._held.clear()
        self._parked.clear()
        return [attempt.key for attempt in left]

    def _ask(self, running: Collection[Attempt]) -> Attempt | None:
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

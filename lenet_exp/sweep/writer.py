"""What is written down of an attempt, and in which order, so that a crash between two writes is harmless.

The worker's weights and the spool come first, then `Study.tell`, which is the commit, then the CSV, which
can be made anew. MLflow follows in a thread of its own. What is in the spool and was not told, because the
driver died in between, `lenet_exp.sweep.recovery` tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from lenet_exp.base import failpoints
from lenet_exp.base.environment import version_of_code
from lenet_exp.base.errors import DiskError
from lenet_exp.base.files import write_atomically
from lenet_exp.base.layout import Layout
from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.execution import checkpoint
from lenet_exp.results.evaluation import NOT_CONFIRMED
from lenet_exp.results.leaderboard import ranked
from lenet_exp.results.table import to_csv
from lenet_exp.study.records import Attempt, TrialRecord
from lenet_exp.study.study import Study
from lenet_exp.tracking.spool import Spool

#: Share of the time, at most, that is spent on the leaderboard while a sweep goes on.
LEADERBOARD_SHARE = 0.01


class Writer:
    """Writes down what the attempts of one sweep do."""

    def __init__(
        self, study: Study, spool: Spool, layout: Layout, notify: Callable[[], None] = lambda: None
    ) -> None:
        """Write into these.

        Args:
            study: The truth.
            spool: Where every epoch is written before anything else.
            layout: Of the experiment; the leaderboard and the weights are there.
            notify: Called when there is something new in the spool.
        """
        self._study = study
        self._spool = spool
        self._layout = layout
        self._notify = notify
        self._leaderboard_due = 0.0
        self._origins: dict[RunKey, RunKey] = {}
        #: What the leaderboard says beyond the trials.
        self.confirmation = NOT_CONFIRMED

    def begin(self, attempt: Attempt, tags: Mapping[str, str]) -> None:
        """Note that an attempt began."""
        configuration = attempt.configuration
        self._origins[attempt.key] = attempt.origin
        if attempt.retry_of:
            tags = {**tags, "lenet_exp.retry_of": attempt.retry_of.stem}
        self._spool.start(
            attempt.key,
            {
                "label": attempt.label,
                "params": configuration.to_dict(),
                "seed": attempt.seed,
                "config": configuration.id,
                "tags": dict(tags),
                "study": self._study.drawn(attempt.key),
            },
        )
        self._notify()

    def epoch(self, key: RunKey, result: EpochResult) -> bool:
        """Note what an epoch gave; return whether the pruner would end the attempt here."""
        self._spool.epoch(key, result)
        self._notify()
        return self._study.report(key, result)

    def copy_epochs(self, key: RunKey, original: RunKey) -> None:
        """Note the epochs of ``original`` as those of ``key``, which is the same training."""
        trained = self._spool.read(original)
        for result in trained.epochs if trained else ():
            self.epoch(key, result)

    def end(
        self,
        key: RunKey,
        state: Literal["COMPLETE", "PRUNED"],
        value: float | None,
        result: Mapping[str, Any],
        weights_of: RunKey | None = None,
    ) -> TrialRecord:
        """Note how an attempt ended; from here on it is never lost or changed.

        Args:
            key: The attempt.
            state: How it ended.
            value: ``val_accuracy`` after the last epoch, for COMPLETE.
            result: What was measured, and the ``reason`` why it ended early.
            weights_of: The attempt that left the weights, if it is another one.
        """
        result = {**version_of_code(), **result}
        # A trainer that only plays leaves none.
        weights = self._layout.kept_weights(weights_of or key) if state == "COMPLETE" else None
        full: DiskError | None = None
        try:
            self._spool.end(key, state, result.get("reason", ""), weights=weights, result=result)
        except DiskError as error:
            full = error  # the study may have room in its file yet
        failpoints.point("before_tell")
        self._study.tell(key, state, value, result)
        if full:
            raise full
        failpoints.point("after_tell")
        self._forget_checkpoints(key)
        self._notify()
        # Of a study of thousands it takes a tenth of a second, which is not spent after each of its trials.
        if time.monotonic() >= self._leaderboard_due:
            self.write_leaderboard()
        return self._study.record(key)

    def fail(self, key: RunKey, reason: str, *, retry: bool, crashed: bool, alone: bool = False) -> bool:
        """Note that an attempt failed; return whether it will be tried again (see `Study.fail`)."""
        full: DiskError | None = None
        try:
            self._spool.end(key, "FAIL", reason, result={"retry": retry, "crashed": crashed, "alone": alone})
        except DiskError as error:
            full = error
        again = self._study.fail(key, reason, retry=retry, crashed=crashed, exclusive=alone)
        if full:
            raise full
        if not again:
            self._forget_checkpoints(key)
        self._notify()
        return again

    def _forget_checkpoints(self, key: RunKey) -> None:
        """Delete the checkpoints of a training that is over; its weights stay."""
        origin = self._origins.pop(key, key)
        checkpoint.discard(self._layout.training(origin))

    def write_leaderboard(self) -> None:
        """Replace the CSV by one of all that has ended."""
        began = time.monotonic()
        table = ranked(self._study.records(), self._spool.run_ids(), self.confirmation)
        write_atomically(self._layout.leaderboard, to_csv(table).encode())
        took_s = time.monotonic() - began
        self._leaderboard_due = began + took_s / LEADERBOARD_SHARE

"""Records an attempt in spool, study and CSV, in an order that makes a crash between two writes harmless.

The worker's weights and the spool come first, then `Study.tell`, which is the commit, then the CSV, which
can be rebuilt. MLflow follows in a thread of its own. If the driver dies between spool and study,
`lenet_exp.sweep.recovery` tells the study what the spool has.
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
from lenet_exp.results.conclusion import NOT_CONFIRMED
from lenet_exp.results.leaderboard import ranked
from lenet_exp.results.table import Table, to_csv
from lenet_exp.study.records import DIGEST, Attempt, TrialRecord
from lenet_exp.study.study import Study
from lenet_exp.sweep.fingerprint import source_tags
from lenet_exp.tracking.spool import Spool
from lenet_exp.training.weights import SHA256, weights_digest

#: Largest share of a sweep's time that may be spent on rewriting the leaderboard, in [0, 1].
LEADERBOARD_SHARE = 0.01


class Writer:
    """Records how a sweep's attempts start, go on and end: in the spool, the study and the leaderboard."""

    def __init__(
        self, study: Study, spool: Spool, layout: Layout, notify: Callable[[], None] = lambda: None
    ) -> None:
        """Set up a writer for an open study and its spool; nothing is written yet.

        Args:
            study: Study, which decides what counts as done.
            spool: Spool, to which everything is written first.
            layout: Paths of the experiment's leaderboard, weights and checkpoints.
            notify: Function that is called when the spool has new lines.
        """
        self._study = study
        self._spool = spool
        self._layout = layout
        self._notify = notify
        self._leaderboard_due = 0.0
        self._origins: dict[RunKey, RunKey] = {}
        #: Results of the last completed confirmation, which the leaderboard shows.
        self.confirmation = NOT_CONFIRMED

    def begin(self, attempt: Attempt, tags: Mapping[str, str]) -> None:
        """Record that an attempt starts.

        Args:
            attempt: Attempt that is about to be trained, or ended without training.
            tags: Tags for its MLflow run.
        """
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
                "tags": {**source_tags(self._study.experiment.name), **tags},
                "study_id": self._study.lineage.id,
                "study": self._study.drawn(attempt.key),
            },
        )
        self._notify()

    def epoch(self, key: RunKey, result: EpochResult) -> bool:
        """Record the result of an epoch, and ask the pruner.

        Args:
            key: Attempt that was trained for the epoch.
            result: Losses, accuracies and times of the epoch.

        Returns:
            True if the pruner would end the attempt here.
        """
        self._spool.epoch(key, result)
        self._notify()
        return self._study.report(key, result)

    def copy_epochs(self, key: RunKey, original: RunKey) -> None:
        """Record the epochs of one trial for another one of the same configuration too.

        Args:
            key: Trial that is not trained, and gets the epochs.
            original: Earlier trial that was trained.
        """
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
        """Record how an attempt ended, and return its record, which is never lost or changed after that.

        Args:
            key: Attempt that has ended.
            state: State to record: COMPLETE after all epochs, PRUNED if it ended early.
            value: ``val_accuracy`` after the last epoch; None if there was no epoch.
            result: Measurements and, if it ended early, the ``reason``.
            weights_of: Attempt that saved the weights; None if ``key`` itself did.

        Raises:
            DiskError: If spool or study cannot be written.
        """
        self._study.ensure_ours()  # else the spool would say what the study may not
        # A duplicate has the result of another record, but not its digest.
        result = version_of_code() | {name: result[name] for name in result if name != DIGEST}
        # The trainers of some tests save no weights.
        weights = self._layout.kept_weights(weights_of or key) if state == "COMPLETE" else None
        if weights is not None and SHA256 not in result:  # a duplicate has that of its original
            result[SHA256] = weights_digest(self._layout.weights(weights_of or key))
        full: DiskError | None = None
        try:
            self._spool.end(key, state, result.get("reason", ""), weights=weights, result=result)
        except DiskError as error:
            full = error  # the study may still have room in its file
        failpoints.point("before_tell")
        self._study.tell(key, state, value, result)
        if full:
            raise full
        failpoints.point("after_tell")
        if not self._study.record(key).limited:  # with a higher limit it goes on from there
            self._forget_checkpoints(key)
        self._notify()
        # 0.16 s for 5,000 trials, too long after each of them (experiments/LOG.md, What was weighed when the
        # house was divided).
        if time.monotonic() >= self._leaderboard_due:
            self.write_leaderboard()
        return self._study.record(key)

    def fail(
        self,
        key: RunKey,
        reason: str,
        *,
        retry: bool,
        crashed: bool,
        exclusive: bool = False,
        limits: Mapping[str, float] | None = None,
    ) -> bool:
        """Record that an attempt failed.

        Args:
            key: Attempt that failed.
            reason: Cause of the failure, in one line.
            retry: True if another attempt can help; none follows after too many crashes.
            crashed: True if this counts as a crash; False if the sweep was stopped, or memory ran out.
            exclusive: True to run the next attempt with nothing beside it.
            limits: Limits of the attempt that may be the cause, by name; None if there are none.

        Returns:
            True if another attempt will follow.

        Raises:
            DiskError: If spool or study cannot be written.
        """
        self._study.ensure_ours()
        full: DiskError | None = None
        limits = limits or {}
        result = {"retry": retry, "crashed": crashed, "alone": exclusive, **limits}
        try:
            self._spool.end(key, "FAIL", reason, result=result)
        except DiskError as error:
            full = error
        is_retried = self._study.fail(
            key, reason, retry=retry, crashed=crashed, exclusive=exclusive, limits=limits
        )
        if full:
            raise full
        if not is_retried:
            self._forget_checkpoints(key)
        self._notify()
        return is_retried

    def _forget_checkpoints(self, key: RunKey) -> None:
        """Delete the checkpoints of a training that needs no other attempt; its weights stay."""
        origin = self._origins.pop(key, key)
        checkpoint.discard(self._layout.training(origin))

    def write_leaderboard(self) -> Table:
        """Rewrite ``leaderboard.csv`` from all attempts that have ended, and return the leaderboard."""
        began = time.monotonic()
        table = ranked(self._study.records(), self._spool.run_ids(), self.confirmation)
        write_atomically(self._layout.leaderboard, to_csv(table).encode())
        took_s = time.monotonic() - began
        self._leaderboard_due = began + took_s / LEADERBOARD_SHARE
        return table

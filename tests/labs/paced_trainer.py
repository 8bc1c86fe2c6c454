"""The real trainer, made to take a while: for tests in which a sweep has to last, which costs no arithmetic.

Set ``LENET_EXP_TRAINER=paced_trainer``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from lenet_exp.base.records import EpochResult
from lenet_exp.execution.protocol import Task
from lenet_exp.training.trainer import LeNetTraining, probe

__all__ = ["PacedTraining", "begin", "probe"]

#: Seconds that each epoch takes longer.
PAUSE_S = 0.25


class PacedTraining(LeNetTraining):
    """Computes the same, later."""

    def epochs(self) -> Iterator[EpochResult]:
        """Train the epochs that are left."""
        for result in super().epochs():
            time.sleep(PAUSE_S)
            yield result


def begin(task: Task) -> PacedTraining:
    """Return the training before its first epoch."""
    return PacedTraining(task)

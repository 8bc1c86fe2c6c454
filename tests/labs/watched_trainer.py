"""The real trainer, which also tells what its process takes of memory after each epoch, in bytes.

`LocalExecutor` takes its name. What it tells is in the ``watched`` of each epoch's result.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from dataclasses import replace

import torch

from lenet_exp.base.records import EpochResult
from lenet_exp.execution.protocol import Task
from lenet_exp.training.trainer import LeNetTraining, probe

__all__ = ["NAME", "WatchedTraining", "begin", "memory", "probe"]

NAME = __name__


class WatchedTraining(LeNetTraining):
    """Computes the same, and looks at its own memory."""

    def epochs(self) -> Iterator[EpochResult]:
        """Train the epochs that are left."""
        for result in super().epochs():
            yield replace(result, watched={**result.watched, **memory(self._state.device)})


def memory(device: torch.device) -> dict[str, float]:
    """Return what this process has had at most, and what is free on its device, in bytes.

    The peak of resident memory counts pages that are shared with other processes, such as libraries.
    """
    # Kilobytes, but on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    found: dict[str, float] = {"peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        found["allocated"] = torch.cuda.max_memory_allocated(device)
        found["reserved"] = torch.cuda.max_memory_reserved(device)
        found["free"], _ = torch.cuda.mem_get_info(device)
    return found


def begin(task: Task) -> WatchedTraining:
    """Return the training before its first epoch."""
    return WatchedTraining(task)

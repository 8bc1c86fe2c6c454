"""What a sweep takes beside its training: one is run as a user does, and its records are read."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from lenet_exp.base.errors import NoResultError
from lenet_exp.base.layout import layouts
from lenet_exp.tracking.events import RunLog
from lenet_exp.tracking.spool import Spool

#: What a user has set must not send the runs to a store of theirs.
_STORES = ("MLFLOW_TRACKING_URI", "LENET_EXP_STORAGE")


@dataclass(frozen=True)
class Harness:
    """What a sweep takes beside its training, from one that was run.

    Attributes:
        first_step_s: Seconds from the command to the first training step, its data in the cache.
        trial_s: Seconds of a trial outside its training passes and evaluations, median.
    """

    first_step_s: float
    trial_s: float


def small_sweep(path: Path, overrides: Sequence[str], *, workers: int, device: str) -> Harness:
    """Run a sweep as a user does, three trials a worker, and return what it took beside training.

    Args:
        path: The experiment file.
        overrides: ``section.key=value`` each.
        workers: Trials at once.
        device: The device, as the user names it.

    Raises:
        NoResultError: If the sweep fails.
    """
    with tempfile.TemporaryDirectory() as root:
        # The baseline is trained too, and is the first.
        flags = {"root": root, "workers": workers, "trials": 3 * workers - 1, "device": device}
        command = [sys.executable, "-m", "lenet_exp.sweep", str(path), "--no-confirm"]
        command += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        command += [word for override in overrides for word in ("--set", override)]
        environment = {name: value for name, value in os.environ.items() if name not in _STORES}
        began = time.time()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise NoResultError(f"the sweep to be measured ended with {done.returncode}: {said}")
        (layout,) = layouts(Path(root))
        return read_harness(list(Spool(layout.spool).run_logs()), workers, began)


def read_harness(records: Sequence[RunLog], workers: int, began: float) -> Harness:
    """Return what a sweep took beside training, from what its spool has.

    A trial's time goes from the end of the one whose place it takes to its own end, so that asking, starting,
    building, reporting, recording and telling are all in it. The trials that found a free place are left
    out, unless there are no others.

    Args:
        records: What the spool has of all attempts, each ended.
        workers: Attempts at once.
        began: When the command was given, in seconds since 1970.
    """
    first_step_s = float("inf")
    free: list[int] = []
    outside: list[float] = []
    for number, record in enumerate(sorted(records, key=lambda record: record.start_ms)):
        assert record.end is not None
        inside = record.epochs[-1].train_s + sum(result.evaluation_s for result in record.epochs)
        first = record.epochs[0]
        first_step_s = min(
            first_step_s, record.epoch_ms[0] / 1000 - first.train_s - first.evaluation_s - began
        )
        left = record.start_ms if number < workers else free.pop(free.index(min(free)))
        outside.append((record.end.time_ms - left) / 1000 - inside)
        free.append(record.end.time_ms)
    return Harness(first_step_s, median(outside[workers:] or outside))

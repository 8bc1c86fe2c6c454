"""Measures the time that a sweep takes besides training, by running one as a user does."""

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

#: Environment variables that are hidden from the sweep, so that it does not write to the user's stores.
_STORES = ("MLFLOW_TRACKING_URI", "LENET_EXP_STORAGE")


@dataclass(frozen=True)
class Harness:
    """The time that a sweep takes besides training.

    Attributes:
        first_step_s: Seconds from the command to the first training step; the data is on the disk already.
        trial_s: Median seconds of a trial outside its training passes and evaluations.
    """

    first_step_s: float
    trial_s: float


def small_sweep(path: Path, overrides: Sequence[str], *, workers: int, device: str) -> Harness:
    """Run a sweep as a user does, with three trainings for each worker; return its time besides training.

    Args:
        path: Experiment file.
        overrides: Texts ``section.key=value``, which replace values of the file.
        workers: Number of trainings to run at once.
        device: Device to train on: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        NoResultError: If the sweep fails.
    """
    with tempfile.TemporaryDirectory() as root:
        # The baseline is trained too, as the first of 3 * workers trainings.
        flags = {"root": root, "workers": workers, "trials": 3 * workers - 1, "device": device}
        command = [sys.executable, "-m", "lenet_exp.sweep", str(path), "--no-confirm"]
        command += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        command += [word for override in overrides for word in ("--set", override)]
        environment = {name: value for name, value in os.environ.items() if name not in _STORES}
        began = time.time()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise NoResultError(f"the measured sweep ended with exit code {done.returncode}: {last_line}")
        (layout,) = layouts(Path(root))
        return read_harness(list(Spool(layout.spool).run_logs()), workers, began)


def read_harness(logs: Sequence[RunLog], workers: int, began: float) -> Harness:
    """Return the time that a sweep took besides training, from the logs of its attempts.

    The time of an attempt runs from the end of the attempt before it on the same worker to its own end, so
    it includes drawing a configuration, starting a process, building the network, and recording. The first
    attempt of each worker is left out, unless there are no others.

    Args:
        logs: Logs of all attempts, each of which has ended.
        workers: Number of attempts that ran at once.
        began: Time at which the command was started, in seconds since 1970.
    """
    first_step_s = float("inf")
    free_since_ms: list[int] = []
    outside: list[float] = []
    for number, log in enumerate(sorted(logs, key=lambda log: log.start_ms)):
        assert log.end is not None
        inside = log.epochs[-1].train_s + sum(result.evaluation_s for result in log.epochs)
        first = log.epochs[0]
        first_step_s = min(first_step_s, log.epoch_ms[0] / 1000 - first.train_s - first.evaluation_s - began)
        start_ms = log.start_ms
        if number >= workers:
            start_ms = free_since_ms.pop(free_since_ms.index(min(free_since_ms)))
        outside.append((log.end.time_ms - start_ms) / 1000 - inside)
        free_since_ms.append(log.end.time_ms)
    return Harness(first_step_s, median(outside[workers:] or outside))

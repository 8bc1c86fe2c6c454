"""Fail points: places between two writes where a test can kill the process, to prove that the order is safe.

``LENET_EXP_FAULT=point[:n]:kill|raise|hang|enospc`` makes a process fail in that way when it passes the point
for the ``n``-th time (by default the first). This holds for every process that inherits the variable. With
``LENET_EXP_FAULT_ONCE=PATH`` only one of them fails, the one that creates the file ``PATH``. If
``LENET_EXP_FAULT`` is not set, passing a point costs one comparison.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

Point = Literal[
    "after_ask",  # Optuna has created a trial; its record is not stored yet
    "epoch",  # in the worker: an epoch is trained, but not yet in a checkpoint
    "checkpoint",  # in the worker: a checkpoint is written, but not yet renamed to its final name
    "before_send",  # in the worker: the checkpoint is in place; the driver has not been told of the epoch
    "completed",  # in the worker: the weights are saved; the driver has not been told
    "spool",  # a line is about to be appended to the spool
    "before_tell",  # the spool has the end of an attempt; the study has not been told
    "in_tell",  # the study has the result of an ended attempt, but not its state
    "after_tell",  # both the spool and the study have the end of an attempt
    "after_retry",  # a retry is queued; the attempt that it repeats is not yet in state FAIL
    "in_csv",  # a CSV file is written, but not yet renamed to its final name
    "after_mlflow",  # an MLflow run is complete; the spool does not yet record that it is uploaded
]
Kind = Literal["kill", "raise", "hang", "enospc"]


@dataclass
class _Fault:
    point: str
    kind: Kind
    passages_left: int
    marker: Path | None


def _parse(text: str, marker: str | None) -> _Fault:
    match = re.fullmatch(r"(\w+)(?::(\d+))?:(\w+)", text)
    if not match or match[1] not in get_args(Point) or match[3] not in get_args(Kind):
        raise ValueError(f"LENET_EXP_FAULT is point[:n]:kill|raise|hang|enospc, found {text!r}")
    return _Fault(match[1], cast(Kind, match[3]), int(match[2] or 1), Path(marker) if marker else None)


_fault = (
    _parse(text, os.environ.get("LENET_EXP_FAULT_ONCE"))
    if (text := os.environ.get("LENET_EXP_FAULT"))
    else None
)


def point(name: Point) -> None:
    """Mark the place in the code called ``name``, and fail here if ``LENET_EXP_FAULT`` names it."""
    if _fault is not None:
        _pass(_fault, name)


def arm(text: str | None, marker: Path | None = None) -> None:
    """Set the fault of this process, in place of the one that the environment sets.

    Args:
        text: Fault as ``LENET_EXP_FAULT`` writes it; None for no fault.
        marker: File whose creation makes the fault happen in one process only; None for every process.
    """
    global _fault  # noqa: PLW0603 - one comparison is all that an unarmed point may cost
    _fault = _parse(text, str(marker) if marker else None) if text else None


def _pass(fault: _Fault, name: Point) -> None:
    if name != fault.point:
        return
    fault.passages_left -= 1
    if fault.passages_left != 0 or not _is_first(fault.marker):
        return
    if fault.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    while fault.kind == "hang":
        time.sleep(3600)
    if fault.kind == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise RuntimeError(f"fault at {name}")


def _is_first(marker: Path | None) -> bool:
    if marker is None:
        return True
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

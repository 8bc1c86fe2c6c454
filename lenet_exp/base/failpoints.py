"""Fail points: places between two writes at which a test can have the process die, and so prove the order.

``LENET_EXP_FAULT=point[:n]:kill|raise|hang|enospc`` makes the ``n``-th passage of a point (the first, unless
said otherwise) end in that way, in every process that inherits the variable. With
``LENET_EXP_FAULT_ONCE=PATH`` only one of them all does, the one that creates the file ``PATH``.
Unset, a point costs one comparison.
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
    "after_ask",  # a trial was taken, and nothing is recorded of it
    "epoch",  # in the worker: an epoch is trained
    "checkpoint",  # in the worker: a checkpoint is written, and is not in its place yet
    "before_send",  # in the worker: the driver is to be told of an epoch
    "completed",  # in the worker: the weights are saved, and the driver is to be told
    "spool",  # a line is to be added
    "before_tell",  # the spool has how an attempt ended
    "in_tell",  # the study has the facts of an ended attempt, and not its state
    "after_tell",  # the study has it too
    "after_retry",  # a retry is queued, and what it retries has not failed yet
    "in_csv",  # the leaderboard is written, and is not in its place yet
    "after_mlflow",  # a run has got its end, and the spool does not know
]
Kind = Literal["kill", "raise", "hang", "enospc"]


@dataclass
class _Fault:
    point: str
    kind: Kind
    left: int
    once: Path | None


def _parse(text: str, once: str | None) -> _Fault:
    found = re.fullmatch(r"(\w+)(?::(\d+))?:(\w+)", text)
    if not found or found[1] not in get_args(Point) or found[3] not in get_args(Kind):
        raise ValueError(f"LENET_EXP_FAULT is point[:n]:kill|raise|hang|enospc, found {text!r}")
    return _Fault(found[1], cast(Kind, found[3]), int(found[2] or 1), Path(once) if once else None)


_fault = (
    _parse(text, os.environ.get("LENET_EXP_FAULT_ONCE"))
    if (text := os.environ.get("LENET_EXP_FAULT"))
    else None
)


def point(name: Point) -> None:
    """Pass the point called ``name``; what happens there is up to the environment."""
    if _fault is not None:
        _pass(_fault, name)


def arm(text: str | None, once: Path | None = None) -> None:
    """Set what the environment sets, for this process alone; None for nothing."""
    global _fault  # noqa: PLW0603 - one comparison is all that an unarmed point may cost
    _fault = _parse(text, str(once) if once else None) if text else None


def _pass(fault: _Fault, name: Point) -> None:
    if name != fault.point:
        return
    fault.left -= 1
    if fault.left != 0 or not _is_first(fault.once):
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

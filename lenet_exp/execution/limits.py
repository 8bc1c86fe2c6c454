"""What a sweep may take of this machine, and how running out of it is told apart from a bug."""

from __future__ import annotations

import os
import re
import resource
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from lenet_exp.base.errors import ConfigError, DiskError

#: Free space below which no trial is begun: SQLite needs some to the end, and so do others.
MIN_FREE_BYTES = 200 * 10**6


@dataclass(frozen=True)
class Limits:
    """What an attempt may take, and what is to be left.

    Attributes:
        trial_timeout_s: Seconds after which an attempt is ended as pruned; None for no limit.
        trial_memory_bytes: What an attempt may allocate; likewise.
        min_free_bytes: Free space on the disk below which no trial is begun.
    """

    trial_timeout_s: float | None = None
    trial_memory_bytes: int | None = None
    min_free_bytes: int = MIN_FREE_BYTES


DEFAULT = Limits()

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
# What torch's allocators say, on a CPU and on accelerators, where they have no exception of their own.
_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|bad_alloc|ALLOC_FAILED", re.I)


def size_bytes(text: str, flag: str) -> int:
    """Return a size in bytes.

    Args:
        text: A whole number with k, M, G or T, of 1000 each; bytes if it has none.
        flag: What the user gave it to, for the message.

    Raises:
        ConfigError: If it is none.

    Example:
        >>> size_bytes("200M", "--min-free"), size_bytes("1.5G", "--min-free")
        (200000000, 1500000000)
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([kmgt]?)b?", text.strip().lower())
    if not found:
        raise ConfigError(f"{flag} must be a size such as 500M or 2G, found {text!r}")
    return round(float(found[1]) * _UNITS[found[2]])


def check_room(folder: Path, min_free_bytes: int) -> None:
    """Make sure that the disk of ``folder`` has room, before it is full in the middle of a write.

    Raises:
        DiskError: If less than ``min_free_bytes`` are free, with what is needed.
    """
    free = shutil.disk_usage(folder).free
    if free < min_free_bytes:
        raise DiskError(
            f"{folder}: no space: {free / 1e6:,.0f} MB are free on its disk, and a sweep needs "
            f"{min_free_bytes / 1e6:,.0f} MB; make room and run the same command again (or see --min-free)"
        )


def limit_memory(size: int) -> None:
    """Let this process allocate at most ``size`` bytes more than it has now; beyond that allocation fails.

    What is shared, as the mapped images and libraries are, does not count.
    """
    if sys.platform != "linux":
        return  # elsewhere the limit can be set and means nothing
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^VmData:\s+(\d+) kB", status, re.MULTILINE)
    limit = size + (int(found[1]) * 1024 if found else 0)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(
        resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that there was no memory, on the host or on the device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


class OomKills:
    """Notices when the kernel has killed a process of this container for want of memory."""

    def __init__(self, file: Path | None = None) -> None:
        """Begin to watch.

        Args:
            file: With the kernel's counter in a line ``oom_kill N``; None for that of our own control group.
        """
        self._file = file or _memory_events()
        self._seen = self._count()

    def noticed(self) -> bool:
        """Return whether there was one that was not noticed yet; each is noticed once."""
        if self._count() <= self._seen:
            return False
        self._seen += 1
        return True

    def _count(self) -> int:
        try:
            text = self._file.read_text() if self._file else ""
        except OSError:
            return 0
        found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        return int(found[1]) if found else 0


def _memory_events() -> Path | None:
    """Return the file in which the kernel counts; None if neither version of control groups has it."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    root = Path("/sys/fs/cgroup")
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            candidates = [
                root / "memory" / path[1:] / "memory.oom_control",
                root / "memory/memory.oom_control",
            ]
        elif controllers == "":
            candidates = [root / path[1:] / "memory.events", root / "memory.events"]
        else:
            continue
        for file in candidates:
            if os.access(file, os.R_OK):
                return file
    return None

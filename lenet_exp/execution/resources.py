"""What this machine has: how many attempts it takes at once, what each may take, and when it runs out."""

from __future__ import annotations

import os
import re
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
    import resource  # Windows has none, and is to be told so by the command line

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


#: Memory of a worker on the full data: 0.65 GB was measured for the baseline, and wide networks take more.
WORKER_BYTES = 1_000_000_000
#: Left for the driver, MLflow and everything else.
RESERVE_BYTES = 1_500_000_000
#: Attempts that share an accelerator, of which networks this small leave most idle.
PER_ACCELERATOR = 4


@dataclass(frozen=True)
class Capacity:
    """What there is to share.

    Attributes:
        cores: That this process may use.
        memory_bytes: That is free; None if nobody knows.
        accelerators: How many the attempts may use; 0 on a CPU.
    """

    cores: int
    memory_bytes: int | None = None
    accelerators: int = 0


@dataclass(frozen=True)
class WorkerPlan:
    """How attempts are run.

    Attributes:
        workers: Attempts at once.
        threads: Of each.
        reason: Why, in a few words.
    """

    workers: int
    threads: int
    reason: str


def plan(capacity: Capacity, wanted: int | None = None) -> WorkerPlan:
    """Return how many attempts to run at once.

    Args:
        capacity: Of this machine.
        wanted: What the user asked for; None to choose.

    Example:
        >>> plan(Capacity(cores=8, memory_bytes=64_000_000_000))
        WorkerPlan(workers=8, threads=1, reason='one for each of 8 cores')
        >>> plan(Capacity(cores=8, memory_bytes=64_000_000_000), wanted=2)
        WorkerPlan(workers=2, threads=4, reason='as asked')
    """
    cores = max(1, capacity.cores)
    if wanted is not None:
        workers = min(wanted, cores)
        there = "there is 1 core" if cores == 1 else f"there are {cores} cores"
        reason = "as asked" if workers == wanted else f"{wanted} asked, but {there}"
        return WorkerPlan(workers, cores // workers, reason)
    # One-thread processes side by side beat one process with many threads on networks this small.
    workers, reason = cores, f"one for each of {cores} cores" if cores > 1 else "one core"
    if capacity.accelerators and PER_ACCELERATOR * capacity.accelerators < cores:
        workers = PER_ACCELERATOR * capacity.accelerators
        shared = (
            "the accelerator"
            if capacity.accelerators == 1
            else f"each of {capacity.accelerators} accelerators"
        )
        reason = f"{PER_ACCELERATOR} for {shared}"
    if capacity.memory_bytes is not None:
        fit = max(1, (capacity.memory_bytes - RESERVE_BYTES) // WORKER_BYTES)
        if fit < workers:
            workers, reason = (
                fit,
                f"{capacity.memory_bytes / 1e9:.1f} GB of memory are free, a worker takes 1",
            )
    return WorkerPlan(workers, cores // workers, reason)


def measure(accelerators: int = 0) -> Capacity:
    """Return this machine's capacity, as far as this process may use it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Capacity(cores, _free_bytes(Path("/proc/meminfo"), Path("/sys/fs/cgroup")), accelerators)


def _free_bytes(meminfo: Path, cgroup: Path) -> int | None:
    """Return the smaller of what the machine and the container have free."""
    found = [_available(meminfo), _container(cgroup)]
    return min((size for size in found if size is not None), default=None)


def _available(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _container(cgroup: Path) -> int | None:
    """Return what a container's limit (cgroup v2) leaves; None without one."""
    try:
        limit = int((cgroup / "memory.max").read_text())  # "max" is no number, and no limit
        used = int((cgroup / "memory.current").read_text())
        statistics = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        # Files that were read once are dropped when somebody needs the room.
        return max(0, limit - used + int(statistics.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None

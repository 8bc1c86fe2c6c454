"""How many attempts run in parallel, what each may use, and how a lack of memory or disk space is noticed."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from lenet_exp.base.errors import ConfigError, DiskError

#: Free disk space below which no attempt starts, as the study and other programs still have to write.
MIN_FREE_BYTES = 200 * 10**6


@dataclass(frozen=True)
class Limits:
    """Time and memory that an attempt may take, and disk space to leave free.

    Attributes:
        trial_timeout_s: Seconds after which an attempt is ended as PRUNED; None for no limit.
        trial_memory_bytes: Bytes that an attempt may allocate; None for no limit.
        min_free_bytes: Free disk space in bytes, below which no attempt starts.
    """

    trial_timeout_s: float | None = None
    trial_memory_bytes: int | None = None
    min_free_bytes: int = MIN_FREE_BYTES


DEFAULT = Limits()

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
# Messages of torch's allocators, on a CPU and on accelerators, that come without an exception of their own.
_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|bad_alloc|ALLOC_FAILED", re.I)


def size_bytes(text: str, flag: str) -> int:
    """Parse a size such as 500M, and return it in bytes.

    Args:
        text: Number of bytes, or a number followed by k, M, G or T for 10**3, 10**6, 10**9 or 10**12 bytes.
        flag: Flag that the user gave the size to, for the error message.

    Raises:
        ConfigError: If ``text`` is not such a number.

    Example:
        >>> size_bytes("200M", "--min-free"), size_bytes("1.5G", "--min-free")
        (200000000, 1500000000)
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([kmgt]?)b?", text.strip().lower())
    if not match:
        raise ConfigError(f"{flag} must be a size such as 500M or 2G, found {text!r}")
    return round(float(match[1]) * _UNITS[match[2]])


def check_room(folder: Path, min_free_bytes: int) -> None:
    """Check that a disk has enough free space, before it is full in the middle of a write.

    Args:
        folder: Folder on the disk.
        min_free_bytes: Free space that is needed, in bytes.

    Raises:
        DiskError: If less space is free.
    """
    free = shutil.disk_usage(folder).free
    if free < min_free_bytes:
        raise DiskError(
            f"{folder}: no space: {free / 1e6:,.0f} MB are free on its disk, and a sweep needs "
            f"{min_free_bytes / 1e6:,.0f} MB; make room and run the same command again (or see --min-free)"
        )


def limit_memory(extra_bytes: int) -> None:
    """Make allocations of this process fail once they exceed what it has allocated now by ``extra_bytes``.

    Shared memory, such as the mapped images and libraries, does not count. Has an effect on Linux only.
    """
    if sys.platform != "linux":
        return  # elsewhere the limit can be set, but has no effect
    import resource  # Windows has none, and is to be told so by the command line

    status = Path("/proc/self/status").read_text()
    data_kib = re.search(r"^VmData:\s+(\d+) kB", status, re.MULTILINE)
    limit = extra_bytes + (int(data_kib[1]) * 1024 if data_kib else 0)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(
        resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an exception says that memory ran out, on the host or on an accelerator."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


class OomKills:
    """Notices when the kernel has killed a process of this container because memory ran out."""

    def __init__(self, file: Path | None = None) -> None:
        """Start to watch the kernel's counter of such kills.

        Args:
            file: File with the counter in a line ``oom_kill N``; None for the file of this process's control
                group.
        """
        self._file = file or _memory_events()
        self._seen = self._count()

    def noticed(self) -> bool:
        """Return True if there was a kill that no earlier call has reported; each kill is reported once."""
        if self._count() <= self._seen:
            return False
        self._seen += 1
        return True

    def _count(self) -> int:
        try:
            text = self._file.read_text() if self._file else ""
        except OSError:
            return 0
        count = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        return int(count[1]) if count else 0


def _memory_events() -> Path | None:
    """Return the file with the kernel's counter, or None if neither version of control groups has one."""
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


#: Memory planned for a worker: 0.65 GB was measured for the baseline on the full data, and wide networks
#: take more.
WORKER_BYTES = 1_000_000_000
#: Memory left for the driver, MLflow and everything else.
RESERVE_BYTES = 1_500_000_000
#: Attempts that share an accelerator, most of which is idle with one network this small.
PER_ACCELERATOR = 4


@dataclass(frozen=True)
class Capacity:
    """Resources that the attempts share.

    Attributes:
        cores: CPU cores that this process may use.
        memory_bytes: Free memory; None if unknown.
        accelerators: Accelerators that the attempts may use; 0 on a CPU.
    """

    cores: int
    memory_bytes: int | None = None
    accelerators: int = 0


@dataclass(frozen=True)
class WorkerPlan:
    """How many attempts run in parallel, each in a worker process.

    Attributes:
        workers: Attempts to run in parallel, at least 1.
        threads: CPU threads of each attempt, at least 1.
        reason: Reason for this number of workers, in a few words for the user.
    """

    workers: int
    threads: int
    reason: str


def plan(capacity: Capacity, wanted: int | None = None) -> WorkerPlan:
    """Return how many attempts to run in parallel, and with how many threads.

    Args:
        capacity: Resources of this machine.
        wanted: Number of attempts that the user asked for, cut to the number of cores; None to choose.

    Example:
        >>> plan(Capacity(cores=8, memory_bytes=64_000_000_000))
        WorkerPlan(workers=8, threads=1, reason='one for each of 8 cores')
        >>> plan(Capacity(cores=8, memory_bytes=64_000_000_000), wanted=2)
        WorkerPlan(workers=2, threads=4, reason='as requested')
    """
    cores = max(1, capacity.cores)
    if wanted is not None:
        workers = min(wanted, cores)
        limit = "there is 1 core" if cores == 1 else f"there are {cores} cores"
        reason = "as requested" if workers == wanted else f"{wanted} requested, but {limit}"
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
        fitting = max(1, (capacity.memory_bytes - RESERVE_BYTES) // WORKER_BYTES)
        if fitting < workers:
            workers = fitting
            reason = f"{capacity.memory_bytes / 1e9:.1f} GB of memory are free, and a worker takes 1 GB"
    return WorkerPlan(workers, cores // workers, reason)


def measure(accelerators: int = 0) -> Capacity:
    """Return the cores and the free memory that this process may use.

    Args:
        accelerators: Number of accelerators to put into the result; they are not looked for.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Capacity(cores, _free_bytes(Path("/proc/meminfo"), Path("/sys/fs/cgroup")), accelerators)


def _free_bytes(meminfo: Path, cgroup: Path) -> int | None:
    """Return the free memory of machine or container, whichever is less, or None if both are unknown."""
    sizes = [_available(meminfo), _container(cgroup)]
    return min((size for size in sizes if size is not None), default=None)


def _available(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _container(cgroup: Path) -> int | None:
    """Return the memory that a container's limit (cgroup v2) leaves, or None without a limit."""
    try:
        limit = int((cgroup / "memory.max").read_text())  # "max" is no number, and no limit
        used = int((cgroup / "memory.current").read_text())
        statistics = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        # The kernel drops cached files, which count as used, when their memory is needed.
        return max(0, limit - used + int(statistics.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None

"""How many attempts run in parallel, what each may use, and how a lack of memory or disk space is noticed."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from dataclasses import dataclass, field
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

    def of_attempt(self) -> dict[str, float]:
        """Return the limits of time and memory that are set, by name."""
        limits = {"trial_timeout_s": self.trial_timeout_s, "trial_memory_bytes": self.trial_memory_bytes}
        return {name: limit for name, limit in limits.items() if limit is not None}

    def allow_more(self, time_s: float | None, memory_bytes: int | None) -> bool:
        """Return True if an attempt that limits have ended may take more now: more time, or more memory.

        Args:
            time_s: Limit of time that ended it, in seconds; None if none did.
            memory_bytes: Limit of memory that ended it, in bytes; None if none did.
        """
        pairs = ((time_s, self.trial_timeout_s), (memory_bytes, self.trial_memory_bytes))
        return any(then is not None and (now is None or now > then) for then, now in pairs)


DEFAULT = Limits()

#: Sizes that a flag may have; what is beyond is a mistake, and the operating system may refuse it later on.
_SMALLEST_BYTES, _LARGEST_BYTES, LARGEST = 10**6, 10**15, "1000T"

#: Seconds between two looks at the time of an attempt, and between looks of a process that was suspended.
_LOOK_EVERY_S, _SUSPENDED_AFTER_S = 0.25, 1.0
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
# Messages of torch's allocators, on a CPU and on accelerators, that come without an exception of their own,
# and of what else finds no memory: oneDNN, and a new thread for its stack.
_NO_MEMORY = re.compile(
    "can't allocate memory|not enough memory|out of memory|bad_alloc|ALLOC_FAILED"
    "|could not create a (?:memory )?(?:object|primitive)|can't start new thread|Cannot allocate memory",
    re.IGNORECASE,
)


def size_bytes(text: str, flag: str, *, smallest: int = 0) -> int:
    """Parse a size such as 500M, and return it in bytes.

    Args:
        text: Number of bytes, or a number followed by k, M, G or T for 10**3, 10**6, 10**9 or 10**12 bytes.
        flag: Flag that the user gave the size to, for the error message.
        smallest: Smallest size that makes sense, in bytes; the largest is 1000T.

    Raises:
        ConfigError: If ``text`` is not such a number, or out of range.

    Example:
        >>> size_bytes("200M", "--min-free"), size_bytes("1.5G", "--min-free")
        (200000000, 1500000000)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgt]?)b?", text.strip().lower())
    if not match:
        raise ConfigError(f"{flag} must be a size such as 500M or 2G, found {text!r}")
    size = float(match[1]) * _UNITS[match[2]]  # of too many digits, infinity
    if not smallest <= size <= _LARGEST_BYTES:
        least = f"{smallest // _UNITS['m']}M" if smallest else "0"
        raise ConfigError(f"{flag} must be from {least} to {LARGEST}, found {text!r}")
    return round(size)


def trial_memory(text: str) -> int:
    """Return the bytes of ``--trial-memory``; see `size_bytes`.

    Raises:
        ConfigError: If ``text`` is not a size, or less than any training takes.
    """
    return size_bytes(text, "--trial-memory", smallest=_SMALLEST_BYTES)


def check_room(folder: Path, min_free_bytes: int) -> None:
    """Check that a disk has enough free space, before it is full in the middle of a write.

    Args:
        folder: Folder on the disk.
        min_free_bytes: Free space that is needed, in bytes.

    Raises:
        DiskError: If less space is free.
    """
    disk = shutil.disk_usage(folder)
    if disk.free < min_free_bytes:
        remedy = "make room and run the same command again (or see --min-free)"
        if min_free_bytes > disk.total:
            remedy = f"the disk has {disk.total / 1e6:,.0f} MB in all, so lower --min-free"
        raise DiskError(
            f"{folder}: no space: {disk.free / 1e6:,.0f} MB are free on its disk, and a sweep needs "
            f"{min_free_bytes / 1e6:,.0f} MB; {remedy}"
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


def is_suspended(pid: int | None) -> bool:
    """Return True if a process was stopped by a signal or a debugger; always False but on Linux."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in ("T", "t")


@dataclass
class RunningTime:
    """The time that an attempt has run, without that in which its process or this one was suspended.

    Attributes:
        ran_s: Seconds that have been counted.
    """

    ran_s: float = 0.0
    _counted_until: float = field(default_factory=time.monotonic)

    def count(self, pid: int | None) -> float:
        """Count the time since the last look, and return the seconds that the attempt has run in all.

        Args:
            pid: Process of the attempt; None if it has ended.
        """
        now = time.monotonic()
        passed_s, self._counted_until = now - self._counted_until, now
        if not is_suspended(pid):
            # Looks that are far apart show that this process was suspended, and perhaps the whole machine.
            self.ran_s += passed_s if passed_s < _SUSPENDED_AFTER_S else _LOOK_EVERY_S
        return self.ran_s

    def next_look_s(self, limit_s: float) -> float:
        """Return the seconds after which `count` is to be called again, if ``limit_s`` are allowed in all."""
        return min(_LOOK_EVERY_S, max(0.001, limit_s - self.ran_s))


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an exception says that memory ran out, on the host or on an accelerator."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError | OSError) and bool(_NO_MEMORY.search(str(error)))


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

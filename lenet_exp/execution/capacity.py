"""How many attempts this machine takes at once, and why."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

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
class Plan:
    """How attempts are run.

    Attributes:
        workers: Attempts at once.
        threads: Of each.
        reason: Why, in a few words.
    """

    workers: int
    threads: int
    reason: str


def plan(capacity: Capacity, wanted: int | None = None) -> Plan:
    """Return how many attempts to run at once.

    Args:
        capacity: Of this machine.
        wanted: What the user asked for; None to choose.

    Example:
        >>> plan(Capacity(cores=8, memory_bytes=64_000_000_000))
        Plan(workers=8, threads=1, reason='one for each of 8 cores')
        >>> plan(Capacity(cores=8, memory_bytes=64_000_000_000), wanted=2)
        Plan(workers=2, threads=4, reason='as asked')
    """
    cores = max(1, capacity.cores)
    if wanted is not None:
        workers = min(wanted, cores)
        there = "there is 1 core" if cores == 1 else f"there are {cores} cores"
        reason = "as asked" if workers == wanted else f"{wanted} asked, but {there}"
        return Plan(workers, cores // workers, reason)
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
    return Plan(workers, cores // workers, reason)


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

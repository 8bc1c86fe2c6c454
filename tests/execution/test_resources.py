import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import disk_usage

import pytest

from lenet_exp.base.errors import ConfigError, DiskError
from lenet_exp.execution import resources
from lenet_exp.execution.resources import (
    Capacity,
    OomKills,
    RunningTime,
    WorkerPlan,
    check_room,
    is_out_of_memory,
    is_suspended,
    plan,
    size_bytes,
    trial_memory,
)


@pytest.mark.parametrize("text", ["", "lots", "-1", "1e9", "5X", "nan"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    """In one line that names the flag."""
    with pytest.raises(ConfigError, match="--trial-memory must be a size such as 500M or 2G, found"):
        size_bytes(text, "--trial-memory")


@pytest.mark.parametrize("text", ["0", "999999999T", "9" * 400])
def test_a_size_that_no_machine_has_is_refused_with_the_range(text: str) -> None:
    """Before any training: the operating system would refuse it in each of them."""
    with pytest.raises(ConfigError, match="--trial-memory must be from 1M to 1000T, found"):
        trial_memory(text)


def test_too_little_room_is_said_before_it_is_none(tmp_path: Path) -> None:
    """With what there is, what it takes and what to do."""
    check_room(tmp_path, 0)
    with pytest.raises(DiskError, match=r"no space: [\d,]+ MB are free .*; make room"):
        check_room(tmp_path, disk_usage(tmp_path).free + 10**9)
    with pytest.raises(DiskError, match=r"needs 10,000,000,000 MB; the disk has [\d,]+ MB in all, so lower"):
        check_room(tmp_path, 10**16)


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (MemoryError(), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("could not create a primitive"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_want_of_memory_is_told_apart_from_a_bug(error: Exception, is_it: bool) -> None:
    """Whatever says it: Python, or an allocator of torch's."""
    assert is_out_of_memory(error) == is_it


@pytest.mark.parametrize("text", ["low 0\nmax 3\noom 9\noom_kill {}\n", "under_oom 0\noom_kill {}\n"])
def test_a_kill_of_the_kernel_s_is_noticed_once(tmp_path: Path, text: str) -> None:
    """Of either version of control groups; where there is no counter nothing is."""
    file = tmp_path / "memory.events"
    file.write_text(text.format(4))
    kills = OomKills(file)
    assert not kills.noticed()

    file.write_text(text.format(5))

    assert kills.noticed()
    assert not kills.noticed()
    assert not OomKills(tmp_path / "none").noticed()


@pytest.mark.skipif(sys.platform != "linux", reason="no other system counts private memory alone")
def test_torch_cannot_allocate_beyond_the_limit() -> None:
    """It says so in an exception that is taken for what it is; below the limit all is as ever."""
    code = """
import torch
from lenet_exp.execution.resources import is_out_of_memory, limit_memory
limit_memory(200_000_000)
torch.ones(10_000_000).sum()
try:
    torch.ones(100_000_000)
except Exception as error:
    print(is_out_of_memory(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "True\n", done.stderr


GB = 1_000_000_000


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        (Capacity(1), None, WorkerPlan(1, 1, "one core")),
        (Capacity(16, 128 * GB), None, WorkerPlan(16, 1, "one for each of 16 cores")),
        (Capacity(16, 5 * GB), None, WorkerPlan(3, 5, "5.0 GB of memory are free, and a worker takes 1 GB")),
        (Capacity(16, GB), None, WorkerPlan(1, 16, "1.0 GB of memory are free, and a worker takes 1 GB")),
        (Capacity(16, 128 * GB, 1), None, WorkerPlan(4, 4, "4 for the accelerator")),
        (Capacity(16, 128 * GB, 2), None, WorkerPlan(8, 2, "4 for each of 2 accelerators")),
        (Capacity(2, 24 * GB, 8), None, WorkerPlan(2, 1, "one for each of 2 cores")),
        (Capacity(2, 24 * GB), 2, WorkerPlan(2, 1, "as requested")),
        (Capacity(2, 24 * GB), 1, WorkerPlan(1, 2, "as requested")),
        (Capacity(2, 24 * GB), 1_000_000, WorkerPlan(2, 1, "1000000 requested, but there are 2 cores")),
    ],
)
def test_the_plan_fits_the_machine_and_says_why(
    found: Capacity, wanted: int | None, expected: WorkerPlan
) -> None:
    """Cores, memory and accelerators bound it, in that order; a user's wish is bounded by the cores."""
    assert plan(found, wanted) == expected


def test_a_container_s_limit_counts(tmp_path: Path) -> None:
    """What the machine has free is not all ours in a container."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 32000000 kB\nMemAvailable: 16000000 kB\n")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert resources._free_bytes(meminfo, tmp_path) == 16_000_000 * 1024

    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 300\n")
    assert resources._free_bytes(meminfo, tmp_path) == 4300


def test_a_machine_that_tells_nothing_has_no_memory_limit(tmp_path: Path) -> None:
    """Elsewhere than on Linux only the cores count."""
    assert resources._free_bytes(tmp_path / "none", tmp_path) is None


def test_this_machine_has_at_least_a_core() -> None:
    """The real one can be measured."""
    assert resources.measure().cores >= 1


def test_time_in_which_a_process_is_suspended_does_not_count() -> None:
    """Neither its own nor that of the process which counts."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        os.kill(process.pid, signal.SIGSTOP)
        while not is_suspended(process.pid):
            time.sleep(0.01)
        clock = RunningTime()
        time.sleep(0.1)
        assert clock.count(process.pid) == 0
        os.kill(process.pid, signal.SIGCONT)
        while is_suspended(process.pid):
            time.sleep(0.01)
        clock.count(process.pid)
        time.sleep(0.1)
        ran_s = clock.count(process.pid)
        assert ran_s >= 0.1
        clock._counted_until -= 3600  # as after an hour without a look
        assert clock.count(process.pid) <= ran_s + 0.5
        assert clock.next_look_s(limit_s=3600) <= 1
    finally:
        process.kill()
        process.wait()

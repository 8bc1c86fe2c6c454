import subprocess
import sys
from pathlib import Path

import pytest

from lenet_exp.base.errors import ConfigError, DiskError
from lenet_exp.execution.limits import OomKills, check_room, is_out_of_memory, size_bytes


@pytest.mark.parametrize("text", ["", "lots", "-1", "1e9", "5X", "nan", "1" * 10])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    """In one line that names the flag."""
    with pytest.raises(ConfigError, match="--trial-memory must be a size such as 500M or 2G, found"):
        size_bytes(text, "--trial-memory")


def test_too_little_room_is_said_before_it_is_none(tmp_path: Path) -> None:
    """With what there is, what it takes and what to do."""
    check_room(tmp_path, 0)
    with pytest.raises(DiskError, match=r"no space: [\d,]+ MB are free .*needs 10,000,000,000 MB; make room"):
        check_room(tmp_path, 10**16)


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (MemoryError(), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True),
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
from lenet_exp.execution.limits import is_out_of_memory, limit_memory
limit_memory(200_000_000)
torch.ones(10_000_000).sum()
try:
    torch.ones(100_000_000)
except Exception as error:
    print(is_out_of_memory(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "True\n", done.stderr

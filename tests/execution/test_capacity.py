from pathlib import Path

import pytest

from lenet_exp.execution import capacity
from lenet_exp.execution.capacity import Capacity, Plan, plan

GB = 1_000_000_000


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        (Capacity(1), None, Plan(1, 1, "one core")),
        (Capacity(16, 128 * GB), None, Plan(16, 1, "one for each of 16 cores")),
        (Capacity(16, 5 * GB), None, Plan(3, 5, "5.0 GB of memory are free, a worker takes 1")),
        (Capacity(16, GB), None, Plan(1, 16, "1.0 GB of memory are free, a worker takes 1")),
        (Capacity(16, 128 * GB, 1), None, Plan(4, 4, "4 for the accelerator")),
        (Capacity(16, 128 * GB, 2), None, Plan(8, 2, "4 for each of 2 accelerators")),
        (Capacity(2, 24 * GB, 8), None, Plan(2, 1, "one for each of 2 cores")),
        (Capacity(2, 24 * GB), 2, Plan(2, 1, "as asked")),
        (Capacity(2, 24 * GB), 1, Plan(1, 2, "as asked")),
        (Capacity(2, 24 * GB), 1_000_000, Plan(2, 1, "1000000 asked, but there are 2 cores")),
    ],
)
def test_the_plan_fits_the_machine_and_says_why(found: Capacity, wanted: int | None, expected: Plan) -> None:
    """Cores, memory and accelerators bound it, in that order; a user's wish is bounded by the cores."""
    assert plan(found, wanted) == expected


def test_a_container_s_limit_counts(tmp_path: Path) -> None:
    """What the machine has free is not all ours in a container."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 32000000 kB\nMemAvailable: 16000000 kB\n")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert capacity._free_bytes(meminfo, tmp_path) == 16_000_000 * 1024

    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 300\n")
    assert capacity._free_bytes(meminfo, tmp_path) == 4300


def test_a_machine_that_tells_nothing_has_no_memory_limit(tmp_path: Path) -> None:
    """Elsewhere than on Linux only the cores count."""
    assert capacity._free_bytes(tmp_path / "none", tmp_path) is None


def test_this_machine_has_at_least_a_core() -> None:
    """The real one can be measured."""
    assert capacity.measure().cores >= 1

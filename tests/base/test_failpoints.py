import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lenet_exp.base import failpoints


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm(None)


def test_an_armed_point_ends_as_asked_at_its_nth_passage_and_at_no_other() -> None:
    """Other points, and passages before and after, are as if there were no fault."""
    failpoints.arm("spool:2:raise")

    failpoints.point("before_tell")
    failpoints.point("spool")
    with pytest.raises(RuntimeError, match="fault at spool"):
        failpoints.point("spool")
    failpoints.point("spool")


def test_a_full_disk_is_what_python_says_of_one() -> None:
    """Whoever handles it cannot tell the difference."""
    failpoints.arm("checkpoint:enospc")

    with pytest.raises(OSError, match="No space left") as error:
        failpoints.point("checkpoint")

    assert error.value.errno == errno.ENOSPC


def test_only_one_process_meets_a_fault_that_is_to_happen_once(tmp_path: Path) -> None:
    """The same command, started again with the same environment, goes on."""
    environment = os.environ | {
        "LENET_EXP_FAULT": "epoch:kill",
        "LENET_EXP_FAULT_ONCE": str(tmp_path / "marker"),
    }
    command = [sys.executable, "-c", "from lenet_exp.base import failpoints; failpoints.point('epoch')"]

    codes = [subprocess.run(command, env=environment, check=False).returncode for _ in range(2)]

    assert codes == [-signal.SIGKILL, 0]


@pytest.mark.parametrize("text", ["spool", "nowhere:kill", "spool:explode", "spool:x:kill", "spool:1:2:kill"])
def test_a_fault_that_would_never_happen_is_refused(text: str) -> None:
    """A test that proves nothing is worse than none."""
    with pytest.raises(ValueError, match="LENET_EXP_FAULT is"):
        failpoints.arm(text)


def test_a_point_costs_nothing_unless_armed() -> None:
    """A million passages take less than a second."""
    began = time.perf_counter()
    for _ in range(1_000_000):
        failpoints.point("spool")

    assert time.perf_counter() - began < 1

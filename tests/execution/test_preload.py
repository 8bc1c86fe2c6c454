from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, socket
from lenet_exp.execution.executor import LocalExecutor
if __name__ == "__main__":
    executor = LocalExecutor("tests.labs.fake_trainer")
    from multiprocessing.forkserver import _forkserver
    with socket.socket(socket.AF_UNIX) as driver:
        driver.connect(_forkserver._forkserver_address)
    _, status = os.waitpid(_forkserver._forkserver_pid, 0)
    print(os.waitstatus_to_exitcode(status))
"""


def test_it_ends_without_a_word_when_a_request_is_cut_off() -> None:
    """The driver was killed between connecting and saying what it wants."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stderr == ""
    assert done.stdout == "1\n"


def test_a_bug_is_still_told() -> None:
    """Everything else has its traceback."""
    program = "import lenet_exp.execution.preload; 1 / 0"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert "ZeroDivisionError" in done.stderr

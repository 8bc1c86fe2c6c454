import os
import signal
import subprocess
import sys

import pytest

from lenet_exp.base.errors import DataError, NoResultError
from lenet_exp.execution.calls import run_in_process


def add(first: int, second: int) -> tuple[int, int]:
    return first + second, os.getpid()


def refuse() -> None:
    raise DataError("no such file")


def break_down() -> None:
    raise ValueError("a bug\nand more")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_answer_comes_from_another_process() -> None:
    """What travels there and back is plain."""
    answer, process = run_in_process(add, 2, 3)

    assert answer == 5
    assert process != os.getpid()


def test_a_user_s_mistake_is_the_same_one_here() -> None:
    """With its message and its exit code."""
    with pytest.raises(DataError, match=r"^no such file$"):
        run_in_process(refuse)


def test_a_bug_or_a_death_is_one_line() -> None:
    """It names the function; the caller lives on."""
    with pytest.raises(NoResultError, match=r"^break_down: ValueError: a bug$"):
        run_in_process(break_down)
    with pytest.raises(NoResultError, match=r"^die: its process died with exit code -9$"):
        run_in_process(die)


def test_an_answer_for_which_nobody_waits_any_more_is_no_traceback() -> None:
    """As after Ctrl-C in a script, which closes its end while the function is at work."""
    program = """
import multiprocessing
from lenet_exp.execution import calls
calls._end_with_caller = lambda pipe: None
ours, its = multiprocessing.Pipe()
ours.close()
calls._answer(its, sum, ([1, 2],))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (1, "")

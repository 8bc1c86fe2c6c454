import gc
import multiprocessing
import os
import subprocess
import sys
from multiprocessing.connection import Connection

from lenet_exp.execution.calls import call
from lenet_exp.execution.processes import start_fork_server

#: Prints whether the second call starts another process, and what the first one has loaded when it answers.
_TWICE = """
import multiprocessing.forkserver as forkserver
from lenet_exp.execution.processes import start_fork_server
start_fork_server("json.tool")
first = forkserver._forkserver._forkserver_pid
start_fork_server("json.tool")
print(first is not None and first == forkserver._forkserver._forkserver_pid)
"""


def own() -> tuple[bool, bool, bool]:
    """Return whether garbage is looked for, but not in what was there before, and the group is its own."""
    return gc.isenabled(), gc.get_freeze_count() > 1_000, os.getpgid(0) == os.getpid()


def test_the_fork_server_is_started_once() -> None:
    """Whoever is first does it, and it loads while all others go on."""
    done = subprocess.run([sys.executable, "-c", _TWICE], capture_output=True, text=True, check=True)

    assert done.stdout == "True\n"


def tell(pipe: Connection) -> None:
    pipe.send(gc.isenabled())


def test_the_fork_server_does_not_look_for_garbage_while_it_loads() -> None:
    """A process has that from it until it settles in."""
    start_fork_server()
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=tell, args=(theirs,))
    process.start()

    assert ours.recv() is False
    process.join()


def test_a_process_looks_for_its_own_garbage_alone() -> None:
    """What the fork server has loaded stays shared; a signal to the caller's group does not reach it."""
    start_fork_server()

    assert call(own) == (True, True, True)

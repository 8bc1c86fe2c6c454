import gc
import os
import subprocess
import sys

import pytest

from lenet_exp.execution.calls import run_in_process
from lenet_exp.execution.processes import start_fork_server

#: Takes and frees 40 MB again and again, and prints the page faults that it cost, once it has settled.
_STEPS = """
import resource, torch
from lenet_exp.execution.processes import keep_freed_memory
kept = {keep} and keep_freed_memory()
for step in range(20):
    if step == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10_000_000)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

#: Prints whether the second call starts another process, and what the first one has loaded when it answers.
_TWICE = """
import multiprocessing.forkserver as forkserver
from lenet_exp.execution.processes import start_fork_server
start_fork_server("json.tool")
first = forkserver._forkserver._forkserver_pid
start_fork_server("json.tool")
print(first is not None and first == forkserver._forkserver._forkserver_pid)
"""

#: Prints whether garbage is looked for in a process that has just come from the fork server.
_AS_STARTED = """
import gc, multiprocessing
from lenet_exp.execution.processes import start_fork_server
start_fork_server("json.tool")
pool = multiprocessing.get_context("forkserver").Pool(1)
print(pool.apply(gc.isenabled))
# Not terminated, as it is by ``with``: a process that has not settled in holds SIGTERM back.
pool.close()
pool.join()
"""


def own() -> tuple[bool, bool, bool]:
    """Return whether garbage is looked for, but not in what was there before, and the group is its own."""
    return gc.isenabled(), gc.get_freeze_count() > 1_000, os.getpgid(0) == os.getpid()


def printed(program: str) -> str:
    """Run a program in a process of its own, with a fork server of its own, and return what it prints."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_the_fork_server_is_started_once() -> None:
    """Whoever is first does it, and it loads while all others go on."""
    assert printed(_TWICE) == "True\n"


def test_the_fork_server_does_not_look_for_garbage_while_it_loads() -> None:
    """A process has that from it until it settles in."""
    assert printed(_AS_STARTED) == "False\n"


def test_a_process_looks_for_its_own_garbage_alone() -> None:
    """What the fork server has loaded stays shared; a signal to the caller's group does not reach it."""
    start_fork_server()

    assert run_in_process(own) == (True, True, True)


def faults(*, keep: bool) -> tuple[str, int]:
    said = printed(_STEPS.format(keep=keep)).split()
    return said[0], int(said[1])


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_memory_that_is_freed_is_taken_again_without_page_faults() -> None:
    """With the C library's own settings every large buffer comes from the system anew."""
    told, kept = faults(keep=True)
    _, given_back = faults(keep=False)

    assert told == "True"
    assert kept < given_back / 10

"""The fork server, which has torch loaded, and what the processes made of it do first."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.forkserver import ensure_running
from types import ModuleType

#: The module that trains; a test of everything around it names another one.
TRAINER = "lenet_exp.training.trainer"

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # <malloc.h>


def start_fork_server(trainer: str = TRAINER) -> None:
    """Start the fork server, unless it runs; it loads the trainer, for seconds, while the caller goes on.

    Args:
        trainer: The module that trains; see `lenet_exp.execution.protocol.Trainer`.
    """
    preloaded = ["lenet_exp.execution.preload", trainer]
    multiprocessing.get_context("forkserver").set_forkserver_preload(preloaded)
    # Blocked in the fork server and so in all its children: what Ctrl-C, or a scheduler's warning to all
    # processes of a job, asks for is the driver's affair.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1})
    try:
        ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def main_module_hidden() -> Iterator[None]:
    """Start processes that do not import the caller's main module.

    A process needs nothing of it, and importing it would run a script without an
    ``if __name__ == "__main__"`` a second time.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def settle_in() -> None:
    """Make a process of the fork server one of its own; called first of all in it."""
    # So that a signal to the caller's group does not reach it.
    os.setpgid(0, 0)
    # What the fork server has loaded is shared with it for as long as nobody looks through it for garbage.
    gc.freeze()
    gc.enable()


def keep_freed_memory() -> bool:
    """Keep memory that is freed in this process, and return whether the C library could be told so.

    glibc hands large buffers back to the system and gets them again, zeroed, a page fault every 4 KiB; a
    training step frees and allocates the same tens of megabytes. Call it once, before training.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 1 << 30), (_M_TOP_PAD, 64 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)

"""The fork server, which has torch loaded, and the first steps of the processes that it starts."""

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
from multiprocessing import forkserver, resource_tracker
from types import ModuleType

from lenet_exp.execution.signals import ENDING

#: Dotted name of the module that trains; tests of the processes around it name another one.
TRAINER = "lenet_exp.training.trainer"

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # <malloc.h>


def start_fork_server(trainer: str = TRAINER) -> None:
    """Start the fork server unless it is running; do not wait while it imports the trainer, for seconds.

    Args:
        trainer: Dotted name of the module that trains; see `lenet_exp.execution.protocol.Trainer`.
    """
    preloaded = ["lenet_exp.execution.preload", trainer]
    multiprocessing.get_context("forkserver").set_forkserver_preload(preloaded)
    with _deaf():
        forkserver.ensure_running()


@contextmanager
def _deaf() -> Iterator[None]:
    """Context manager: a fork server that is started in the ``with`` block never hears `ENDING`.

    Nor do its children. Only the driver reacts to Ctrl-C, to SIGTERM, and to the SIGUSR1 with which a
    scheduler warns a job; it ends the others, each at its time.
    """
    # Started first, as it would unblock SIGINT and SIGTERM in this process again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def main_module_hidden() -> Iterator[None]:
    """Context manager: processes started in the ``with`` block do not import the caller's main module.

    They need nothing of it, and importing it would run a script without an ``if __name__ == "__main__"`` a
    second time.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        with _deaf():  # a fork server that has died is started again
            yield
    finally:
        sys.modules["__main__"] = main


def settle_in() -> None:
    """Prepare the new process that calls this; it must do so before anything else.

    Signals to the process group that started it no longer reach it, and garbage collection leaves the memory
    that it shares with the fork server alone.
    """
    # A signal to the caller's process group does not reach a group of its own; one that did a moment ago is
    # forgotten, as ignoring a signal drops it. From then on SIGTERM is what the driver sends.
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    # The fork server's memory stays shared as long as no garbage collection goes through it.
    gc.freeze()
    gc.enable()


def keep_freed_memory() -> bool:
    """Make glibc keep the memory that this process frees; return False if the C library is another one.

    By default glibc returns large buffers to the system and gets them again, zeroed, with a page fault for
    every 4 KiB. A training step frees and allocates the same tens of megabytes, so this saves 9 to 15 % of
    its CPU time (experiments/LOG.md, Speed: where the time of a training step goes, what helped and what did
    not). Call it once, before training.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 1 << 30), (_M_TOP_PAD, 64 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)

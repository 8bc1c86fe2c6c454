"""The fork server: the process that has torch loaded, and that every attempt's process is a copy of."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from multiprocessing.forkserver import ensure_running

#: The module that trains; a test of everything around it names another one.
TRAINER = "lenet_exp.training.trainer"


def start_fork_server(trainer: str = TRAINER) -> None:
    """Start the fork server, unless it runs; it loads the trainer, for seconds, while the caller goes on.

    Args:
        trainer: The module that trains; see `lenet_exp.execution.worker.Trainer`.
    """
    # A child imports the caller's main module, which may be the CLI.
    preloaded = ["lenet_exp.execution.preload", trainer, "lenet_exp.cli.program"]
    multiprocessing.get_context("forkserver").set_forkserver_preload(preloaded)
    # Blocked in the fork server and so in all its children: what Ctrl-C, or a scheduler's warning to all
    # processes of a job, asks for is the driver's affair.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1})
    try:
        ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def settle_in() -> None:
    """Make a process of the fork server one of its own; called first of all in it."""
    # So that a signal to the caller's group does not reach it.
    os.setpgid(0, 0)
    # What the fork server has loaded is shared with it for as long as nobody looks through it for garbage.
    gc.freeze()
    gc.enable()

"""Signal handlers: what Ctrl-C, SIGTERM and a scheduler's SIGUSR1 ask of a sweep, and how soon."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lenet_exp.base.errors import SweepInterruptedError

#: Seconds after SIGTERM within which a running epoch may finish, and within which the whole sweep ends: a
#: cluster sends SIGKILL after 30.
EPOCH_PATIENCE_S = 12.0
PATIENCE_S = 20.0

#: Slurm's warning (``--signal=USR1``) is obeyed as SIGTERM is.
_TERMINATING = (signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def signals_to(interrupt: Callable[[int, float | None], None]) -> Iterator[None]:
    """Context manager: call ``interrupt`` on SIGINT, SIGTERM or SIGUSR1 in the ``with`` block.

    The second signal calls it again, to stop at once; a third ends the process.

    Args:
        interrupt: Function of the exit code, and of the seconds that running epochs may still take, None for
            no limit. It must be safe in a signal handler.
    """
    calls = 0

    def obey(number: int, _: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if number in _TERMINATING:
            interrupt(128 + signal.SIGTERM, EPOCH_PATIENCE_S)
        else:
            interrupt(128 + number, None)

    with _handling(obey, (signal.SIGINT, *_TERMINATING)):
        yield


@contextmanager
def terminable() -> Iterator[None]:
    """Context manager: SIGTERM and SIGUSR1 raise an exception in the ``with`` block, as Ctrl-C does.

    Raises:
        SweepInterruptedError: On either signal, with exit code 143.
    """

    def stop(_: int, __: object) -> None:
        raise SweepInterruptedError("interrupted; run the same command again to go on", 128 + signal.SIGTERM)

    with _handling(stop, _TERMINATING):
        yield


@contextmanager
def _handling(handler: Callable[[int, object], None], numbers: tuple[signal.Signals, ...]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change what a signal does, and only that thread is interrupted
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, signal.SIG_DFL if former is None else former)

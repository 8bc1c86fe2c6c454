"""Signal handlers: what Ctrl-C, SIGTERM and a scheduler's SIGUSR1 ask of a command, and how soon.

Every result is on disk before anybody is told of it, so a process may end at any instant. A command's own
process therefore ends at once, in `end_process`, wherever nobody waits for an orderly end: an exception that
a handler raises in the middle of an import or of a destructor is lost, or comes out as something else. Epochs
that are being trained are finished (`signals_to`), and while MLflow has a run of ours to end, the signal is
an exception (`unwinding`).
"""

from __future__ import annotations

import _thread
import atexit
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lenet_exp.base.errors import LenetExpError, SweepInterruptedError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

#: Seconds after SIGTERM within which a running epoch may finish, and within which the whole sweep ends: a
#: cluster sends SIGKILL after 30.
EPOCH_PATIENCE_S = 12.0
PATIENCE_S = 20.0
#: Seconds after `PATIENCE_S`, or after a second Ctrl-C, after which a process ends although something hangs.
LAST_PATIENCE_S = 3.0

#: Slurm's warning (``--signal=USR1``) is obeyed as SIGTERM is.
_TERMINATING = (signal.SIGTERM, signal.SIGUSR1)
#: Signals that ask a command to end.
ENDING = (signal.SIGINT, *_TERMINATING)

#: What a command says that was asked to end.
INTERRUPTED = "interrupted; run the same command again to go on"


class _State:
    """What this process has been asked so far.

    Attributes:
        is_own: True in the process of a command; False where a notebook or a script calls us.
        asked: Exit code of the first signal in the process of a command; None before it.
        exit_code: Exit code that a command has ended with; None before that.
        is_ending: True once `end_process` has begun.
        before_end: Function that restores the terminal before `end_process` ends the process.
    """

    is_own = False
    asked: int | None = None
    exit_code: int | None = None
    is_ending = False
    before_end: Callable[[], None] | None = None


class Interrupt(KeyboardInterrupt):
    """A signal asks this process to end with ``exit_code``."""

    def __init__(self, exit_code: int) -> None:
        """Create the exception that carries an exit code."""
        super().__init__(exit_code)
        self.exit_code = exit_code


def own_process() -> None:
    """From now on, end this process at once when a signal asks for it; for the process of a command only.

    `signals_to` and `unwinding` end it in better order for as long as their ``with`` blocks last.
    """
    if _State.is_own:
        return
    _State.is_own = True
    _open_standard_streams()
    atexit.register(_end)  # registered first, so it is called last
    sys.unraisablehook = _unraisable
    for number in ENDING:
        signal.signal(number, lambda number, _: end_process(_exit_code(number)))


def _open_standard_streams() -> None:
    """Open what the caller has closed of standard input, output and error, as ``cron`` or ``>&-`` may do.

    Else the next files that are opened get their numbers, and what is meant for a reader ends in a store.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def exit_command(exit_code: int) -> NoReturn:
    """Exit as `sys.exit` does: with blocks are left, and the functions that `atexit` has are called.

    The process of a command then ends without tearing down its interpreter, which takes longer the more was
    imported, and aborts where a thread is just then in C++ code, such as a library that is being loaded.
    """
    _State.exit_code = exit_code
    sys.exit(exit_code)


def _end() -> None:
    _kill_descendants()  # a fork server takes a second or two to end by itself
    if _State.exit_code is not None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        os._exit(_State.exit_code)


def when_ending(restore: Callable[[], None] | None) -> None:
    """Set what `end_process` calls before it says anything, in whichever thread it is; it must end soon."""
    _State.before_end = restore


def end_process(exit_code: int) -> None:
    """Say that the command was interrupted, and end this process and all that it has started, at once."""
    if _State.is_ending:
        return
    _State.is_ending = True
    if restore := _State.before_end:
        with suppress(Exception):  # the process has to end whatever the terminal is like
            restore()
    with suppress(OSError):  # nobody may read it; `sys.stderr` may be in the middle of a line
        os.write(2, f"error: {INTERRUPTED}\n".encode())
    _kill_descendants()
    if util := sys.modules.get("multiprocessing.util"):  # the folder of the fork server's socket
        shutil.rmtree(util.get_temp_dir(), ignore_errors=True)
    os._exit(exit_code)


def _kill_descendants() -> None:
    for pid in _descendants(os.getpid()):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    """Return the processes below a process, where the system tells them; elsewhere they notice its end."""
    pids = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, file.read_text().split()):
                pids += [child, *_descendants(child)]
    return pids


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
        code, terminates = _exit_code(number), number in _TERMINATING
        if _State.is_own:
            _State.asked = _State.asked or code
        if calls > 2:
            _end_now(number)
        if calls > 1:
            _end_within(LAST_PATIENCE_S, code)
        elif terminates:
            _end_within(PATIENCE_S + LAST_PATIENCE_S, code)
        interrupt(code, EPOCH_PATIENCE_S if terminates else None)

    with _handling(obey):
        yield


@contextmanager
def unwinding(message: str = INTERRUPTED) -> Iterator[None]:
    """Context manager: a signal in the ``with`` block ends it by an exception, the second ends the process.

    Args:
        message: Message of the exception.

    Raises:
        SweepInterruptedError: On SIGINT, SIGTERM or SIGUSR1, with the exit code of the signal.
    """
    asked: list[int] = []

    def stop(number: int, _: object) -> None:
        code = _exit_code(number)
        if _State.asked is not None:
            _end_now(number)
        asked.append(code)
        if _State.is_own:
            _State.asked = code
            if number in _TERMINATING:
                _end_within(PATIENCE_S + LAST_PATIENCE_S, code)
        raise Interrupt(code)

    try:
        with _handling(stop):
            yield
            if code := _State.asked or next(iter(asked), None):
                raise Interrupt(code)  # the first one was caught by somebody on its way
    except SweepInterruptedError:
        raise
    except BaseException as error:
        # On its way through a library the exception may have become another one, and that one of ours.
        told = asked if isinstance(error, LenetExpError) or not _State.asked else [_State.asked]
        if isinstance(error, KeyboardInterrupt) or told:
            raise SweepInterruptedError(message, next(iter(told), 128 + signal.SIGINT)) from None
        raise


def terminable() -> AbstractContextManager[None]:
    """Return `unwinding`, or nothing in the process of a command, which ends at once meanwhile."""
    return nullcontext() if _State.is_own else unwinding()


def _exit_code(number: int) -> int:
    return 128 + (signal.SIGTERM if number in _TERMINATING else number)


def _end_now(number: int) -> None:
    """End the process: as a command does or, where it is not ours, as the signal does by itself."""
    if _State.is_own:
        end_process(_exit_code(number))
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _end_within(seconds: float, exit_code: int) -> None:
    """End a command's process after ``seconds`` whatever its main thread is doing then."""

    def wait() -> None:
        time.sleep(seconds)
        end_process(exit_code)

    if _State.is_own:
        # The handler may have interrupted `threading` itself, whose locks this function does not take.
        _thread.start_new_thread(wait, ())


def _unraisable(problem: sys.UnraisableHookArgs) -> None:
    """End the process where a destructor or a callback would only report our exception, and go on."""
    if isinstance(problem.exc_value, Interrupt):
        end_process(problem.exc_value.exit_code)
    sys.__unraisablehook__(problem)


@contextmanager
def _handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change what a signal does, and only that thread is interrupted
        return
    before = {number: signal.signal(number, handler) for number in ENDING}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, signal.SIG_DFL if former is None else former)

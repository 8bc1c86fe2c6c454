"""Calls a function in a process of its own, because it needs torch or may crash."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from lenet_exp.base.errors import LenetExpError, NoResultError
from lenet_exp.execution.processes import main_module_hidden, settle_in

_T = TypeVar("_T")


def run_in_process(function: Callable[..., _T], *arguments: Any) -> _T:
    """Call ``function`` in a new process, and return what it returns; the process ends with this call.

    The process comes from the fork server. After `start_fork_server` that has torch loaded already, so the
    function starts within some 20 ms.

    Args:
        function: Function at the top level of a module; the process imports it by its name.
        *arguments: Arguments for the function, which must be picklable.

    Raises:
        LenetExpError: If the function raises a `LenetExpError`.
        NoResultError: If the function raises anything else, or its process dies.
    """
    context = multiprocessing.get_context("forkserver")
    our_end, its_end = context.Pipe()
    process = context.Process(target=_answer, args=(its_end, function, arguments), daemon=True)
    with main_module_hidden():
        process.start()
    its_end.close()
    try:
        answer: _T | Exception = our_end.recv()
    except (EOFError, OSError):
        process.join()
        answer = NoResultError(f"{function.__name__}: its process died with exit code {process.exitcode}")
    finally:
        # Reached on Ctrl-C too.
        process.kill()
        process.join()
        process.close()
        our_end.close()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _answer(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Call ``function``, and send back through ``pipe`` what it returns or the error that it raises."""
    settle_in()
    threading.Thread(target=_end_with_caller, args=(pipe,), daemon=True).start()
    answer: Any
    try:
        answer = function(*arguments)
    except LenetExpError as error:
        answer = error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        answer = NoResultError(f"{function.__name__}: {reason}")
    try:
        pipe.send(answer)
    except OSError:  # the caller was interrupted, and does not wait any more
        os._exit(1)


def _end_with_caller(pipe: Connection) -> None:
    """End this process once the caller's has died, as nobody waits for the answer then."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)

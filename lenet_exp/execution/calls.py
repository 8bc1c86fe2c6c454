"""A function called in a process of its own: what needs torch, or may die, does not do it in the caller's."""

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
    """Return what ``function`` gives in a process of its own, which ends with this call.

    The process comes from the fork server that the executor has started, so it computes at once.

    Args:
        function: Of a module that a worker may import.
        arguments: What it is called with; they travel to the process.

    Raises:
        LenetExpError: What the function raises of them.
        NoResultError: If it raises anything else, or its process dies.
    """
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, function, arguments), daemon=True)
    with main_module_hidden():
        process.start()
    theirs.close()
    try:
        found: _T | Exception = ours.recv()
    except (EOFError, OSError):
        process.join()
        found = NoResultError(f"{function.__name__}: its process died with exit code {process.exitcode}")
    finally:
        # Also where Ctrl-C ends the waiting.
        process.kill()
        process.join()
        process.close()
        ours.close()
    if isinstance(found, Exception):
        raise found
    return found


def _answer(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Send what ``function`` gives, or why it gave nothing."""
    settle_in()
    threading.Thread(target=_end_with_caller, args=(pipe,), daemon=True).start()
    found: Any
    try:
        found = function(*arguments)
    except LenetExpError as error:
        found = error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        found = NoResultError(f"{function.__name__}: {reason}")
    pipe.send(found)


def _end_with_caller(pipe: Connection) -> None:
    """End the process when its caller is gone: nobody waits for the answer."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)

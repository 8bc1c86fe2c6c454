"""How a command's process ends: its exit code, and what it says of an error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from lenet_exp.base.errors import LenetExpError, mask_url, printable
from lenet_exp.base.messages import say
from lenet_exp.execution.signals import exit_command


def exit_after(run: Callable[[], int | None]) -> NoReturn:
    """Run a command and exit the process; an error is one line on standard error, and the exit code.

    Args:
        run: Function that runs the command, and returns its exit code; None for 0.
    """
    try:
        try:
            code = run()
        finally:
            sys.stdout.flush()
    except LenetExpError as error:
        _tell(str(error))
        exit_command(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has closed the pipe, as `| head` does. Python flushes once more when it
        # ends, and would complain. Typer exits with the same code when it notices first.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        exit_command(1)
    except typer.Abort:  # Ctrl-C
        exit_command(130)
    except Exception as error:
        # Typer's usage errors have `format_message`; their class has moved between packages.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        if text := message().rstrip("."):  # empty without a command, when the help has been shown
            _tell(f"{text}; see lenet-exp --help")
        exit_command(2)
    exit_command(code or 0)


def _tell(message: str) -> None:
    """Write an error message to standard error, on one line and without secrets."""
    message = printable(mask_url(message))
    # A message may quote what the user has written, at any length.
    say(f"error: {message if len(message) <= 1000 else message[:999] + '…'}")

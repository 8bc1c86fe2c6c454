"""Messages for people, which go to standard error; a command's result goes to standard output."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from lenet_exp.base.errors import mask_url, printable


def counted(n: int, noun: str) -> str:
    """Return a number with its noun.

    Args:
        n: Number of things.
        noun: The noun in the singular, which takes an s in the plural.

    Example:
        >>> counted(1, "epoch"), counted(2_000, "trial")
        ('1 epoch', '2,000 trials')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def say(line: str) -> None:
    """Print a line on standard error, with control characters escaped.

    If standard error is closed, or nobody reads it any more, the line is lost and no error is raised.
    """
    # A closed stream raises ValueError; sys.stderr is None if the process started without one. In a signal
    # handler, a stream that is being written to raises RuntimeError.
    with suppress(OSError, ValueError, RuntimeError):
        if sys.stderr is not None:
            sys.stderr.write(f"{printable(line)}\n")


def repair_command(root: Path, url: str | None = None) -> str:
    """Return the command, for a user to paste, that repairs what is stored below a root.

    Args:
        root: Folder that holds all results.
        url: URL of the studies' storage in PostgreSQL; None for the file below ``root``.
    """
    words = ["lenet-exp", "doctor", "--repair"]
    if root != Path("mlruns"):
        words += ["--root", str(root)]
    if url and url != os.environ.get("LENET_EXP_STORAGE"):
        words += ["--storage", mask_url(url)]
    return shlex.join(words)

"""Messages for people, which go to standard error; a command's result goes to standard output."""

from __future__ import annotations

import sys
from contextlib import suppress

from lenet_exp.base.errors import printable


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

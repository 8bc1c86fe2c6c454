"""Messages for people: lines on standard error, beside a command's result on standard output."""

from __future__ import annotations

import sys
from contextlib import suppress

from lenet_exp.base.errors import printable


def say(line: str) -> None:
    """Print a line on standard error, its control characters escaped.

    If standard error is closed, or its reader is gone, the line is lost and the work goes on.
    """
    # A closed stream raises ValueError; sys.stderr is None if the process started without one.
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(f"{printable(line)}\n")

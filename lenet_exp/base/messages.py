"""What people are told beside a command's result: lines on standard error."""

from __future__ import annotations

import sys
from contextlib import suppress

from lenet_exp.base.errors import printable


def say(line: str) -> None:
    """Print a line on standard error, its control characters escaped.

    A standard error that is closed, or whose reader is gone, is no reason to stop what is told of.
    """
    # A stream closed at our end raises ValueError; Python sets None where there was none from the start.
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(f"{printable(line)}\n")

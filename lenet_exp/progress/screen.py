"""Draws in place in a terminal, so that nothing is garbled by a resize or by others who write there.

Between two frames the cursor stands on an empty row above what is drawn. A terminal that is resized keeps the
cursor with its row, so the next frame begins where the last one began, however rows were broken anew; and
what a library writes stands on the empty row, which the next frame leaves above itself.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

from rich.console import Console, RenderableType

_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_REST_OF_ROW, _REST_OF_SCREEN = "\x1b[K", "\x1b[J"


def is_terminal(stream: TextIO) -> bool:
    """Return True if a board can be drawn on a stream: on the terminal of a person, with UTF-8."""
    try:
        if not stream.isatty() or "utf" not in (stream.encoding or "").lower():
            return False
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False
    return os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("CI")


class Screen:
    """The lower part of a terminal."""

    def __init__(self, descriptor: int) -> None:
        """Take the terminal with a file descriptor as it is; nothing is drawn yet."""
        self._descriptor = descriptor
        self._text = io.StringIO()
        self._console = Console(file=self._text, force_terminal=True, highlight=False)
        self._n_drawn = 0
        #: True while something is drawn.
        self.is_drawn = False

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows that can be drawn on; the last column and two rows stay free."""
        columns, rows = 0, 0
        with suppress(OSError):
            columns, rows = os.get_terminal_size(self._descriptor)
        return max(10, (columns or 80) - 1), max(3, (rows or 24) - 2)

    @property
    def is_ours(self) -> bool:
        """False while this process is in the background, where drawing would disturb the shell."""
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:  # it is not the terminal that controls this process
            return True

    def draw(self, lines: Sequence[str], shown: RenderableType) -> None:
        """Write lines, which stay, and below them what is shown instead of what was drawn before.

        Args:
            lines: Lines without control characters, of any length.
            shown: Rows to draw, no higher than `size` says.

        Raises:
            OSError: If the terminal is gone.
        """
        width, rows = self.size
        # Each row is drawn over and then cleared to its end, which does not flicker as clearing first does.
        text = [_HIDE, "\r"]
        text += [f"{line}{_REST_OF_ROW}\r\n" for line in lines]
        drawn = self._rendered(shown, width)[:rows]
        text += [_REST_OF_ROW, *(f"\r\n{row}{_REST_OF_ROW}" for row in drawn), _REST_OF_SCREEN]
        text += [f"\x1b[{len(drawn)}A" if drawn else "", "\r", _SHOW]
        self._write("".join(text))
        self.is_drawn, self._n_drawn = True, len(drawn)

    def clear(self, lines: Sequence[str] = ()) -> None:
        """Remove what is drawn, and write lines in its place.

        Args:
            lines: Lines without control characters.

        Raises:
            OSError: If the terminal is gone.
        """
        begin = f"\r{_REST_OF_SCREEN}{_SHOW}" if self.is_drawn else ""
        self.is_drawn = False
        self._write(begin + "".join(f"{line}\r\n" for line in lines))

    def leave(self) -> None:
        """Leave what is drawn, and go on below it."""
        if self.is_drawn:
            self.is_drawn = False
            self._write(f"\x1b[{self._n_drawn}B\r\n" if self._n_drawn else "\r\n")

    def _rendered(self, shown: RenderableType, width: int) -> list[str]:
        self._text.seek(0)
        self._text.truncate()
        self._console.width = width
        self._console.print(shown)
        return [row.rstrip() for row in self._text.getvalue().splitlines()]

    def _write(self, text: str) -> None:
        """Write all at once, past `sys.stderr`, which the main thread may be in the middle of using."""
        left = text.encode()
        while left:
            left = left[os.write(self._descriptor, left) :]

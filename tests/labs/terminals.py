"""A terminal whose screen a test can look at."""

from __future__ import annotations

import os
import pty
import struct
import termios
from fcntl import ioctl

import pyte


class Terminal:
    """A terminal whose screen can be looked at."""

    def __init__(self, columns: int = 60, rows: int = 12) -> None:
        self.ours, theirs = pty.openpty()
        self._screen = pyte.HistoryScreen(columns, rows, history=1000)
        self._stream = pyte.ByteStream(self._screen)
        self.file = os.fdopen(theirs, "w", encoding="utf-8")
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size, as a user does with the mouse."""
        self._screen.resize(rows, columns)
        ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def rows(self) -> list[str]:
        """Return what stands on the screen, above the cursor and below."""
        self.file.flush()
        os.set_blocking(self.ours, False)
        try:
            while read := os.read(self.ours, 65536):
                self._stream.feed(read)
        except (BlockingIOError, OSError):  # nothing is left to read, or the other side is closed
            pass
        return [row.rstrip() for row in self._screen.display if row.strip()]

    def is_usable(self) -> bool:
        """Return True if a shell could go on: the cursor is seen, at the beginning of a row."""
        return not self._screen.cursor.hidden and self._screen.cursor.x == 0

    def scrolled_away(self) -> list[str]:
        """Return what a user sees who scrolls up."""
        lines = ("".join(line[x].data for x in range(200)) for line in self._screen.history.top)
        return [line.rstrip() for line in lines]

    def close(self) -> None:
        """Close both sides."""
        self.file.close()
        os.close(self.ours)

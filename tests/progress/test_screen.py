from __future__ import annotations

import os
import pty
import struct
import termios
from collections.abc import Iterator
from fcntl import ioctl

import pyte
import pytest
from rich.text import Text

from lenet_exp.progress.screen import Screen, is_terminal


class Terminal:
    """A terminal whose screen can be looked at."""

    def __init__(self) -> None:
        self.ours, theirs = pty.openpty()
        self._screen = pyte.HistoryScreen(60, 12)
        self._stream = pyte.ByteStream(self._screen)
        self.file = os.fdopen(theirs, "w", encoding="utf-8")
        self.resize(60, 12)

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
        except BlockingIOError:
            pass
        return [row.rstrip() for row in self._screen.display if row.strip()]

    def is_usable(self) -> bool:
        """Return True if a shell could go on: the cursor is seen, at the begin of a row."""
        return not self._screen.cursor.hidden and self._screen.cursor.x == 0


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.file.close()
    os.close(terminal.ours)


def shown(*rows: str) -> Text:
    return Text("\n".join(rows), no_wrap=True, overflow="ellipsis")


def test_each_frame_takes_the_place_of_the_last_and_lines_stay_above(terminal: Terminal) -> None:
    """Also if it is smaller, and if the lines are longer than the terminal is wide."""
    screen = Screen(terminal.file.fileno())

    screen.draw([], shown("one", "two", "three"))
    screen.draw(["a line"], shown("four", "five"))
    assert terminal.rows() == ["a line", "four", "five"]
    assert terminal.is_usable()

    screen.draw(["x" * 70], shown("six"))
    assert terminal.rows() == ["a line", "x" * 60, "x" * 10, "six"]

    screen.clear(["the end"])
    assert terminal.rows() == ["a line", "x" * 60, "x" * 10, "the end"]
    assert terminal.is_usable()


@pytest.mark.parametrize(("columns", "rows"), [(30, 12), (100, 12), (60, 5)])
def test_a_resize_leaves_nothing_behind(terminal: Terminal, columns: int, rows: int) -> None:
    """The next frame is drawn for the new size, over all of the old one."""
    screen = Screen(terminal.file.fileno())
    screen.draw(["kept"], shown("w" * 55, "second", "third"))
    terminal.rows()

    terminal.resize(columns, rows)
    screen.draw([], shown("w" * (columns - 5), "second"))

    assert [row for row in terminal.rows() if row != "kept"] == ["w" * (columns - 5), "second"]


def test_what_others_write_stays_above_the_board(terminal: Terminal) -> None:
    """A library's warning is neither lost nor mixed with the board."""
    screen = Screen(terminal.file.fileno())
    screen.draw([], shown("board"))
    terminal.file.write("a warning of a library\n")
    terminal.rows()

    screen.draw([], shown("board"))

    assert terminal.rows() == ["a warning of a library", "board"]


@pytest.mark.parametrize(
    ("name", "value", "is_one"),
    [("TERM", "xterm", True), ("TERM", "dumb", False), ("TERM", None, False), ("CI", "true", False)],
)
def test_a_board_needs_a_terminal_of_a_person(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, is_one: bool
) -> None:
    """A dumb terminal and a CI's get plain lines."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)

    assert is_terminal(terminal.file) is is_one

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rich.text import Text

from lenet_exp.progress.screen import Screen, is_terminal
from tests.labs.terminals import Terminal


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


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

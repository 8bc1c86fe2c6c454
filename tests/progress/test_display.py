from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from lenet_exp.base.messages import say
from lenet_exp.progress import display
from lenet_exp.progress.state import Progress


class Wall:
    """A place that remembers what was drawn on it, and may fail."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.said, self.drawn = fails, list[str](), list[Progress]()

    def n_notes(self) -> int:
        """Return two, so that a third scrolls away."""
        return 2

    def draw(self, lines: list[str], progress: Progress) -> None:
        """Remember, or fail."""
        if self.fails:
            raise RuntimeError("no paint")
        self.said += lines
        self.drawn.append(progress)

    def end(self, lines: list[str], progress: Progress) -> None:
        """Remember."""
        self.said, self.drawn = self.said + lines, [*self.drawn, progress]

    def leave(self) -> None:
        """Fail: only who watches leaves a board."""
        raise AssertionError


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[Wall], Wall]:
    def choose(wall: Wall) -> Wall:
        monkeypatch.setattr(display, "find_place", lambda **_: wall)
        monkeypatch.setattr(display, "FRAME_S", 0.01)
        return wall

    return choose


def test_notes_scroll_away_above_the_board_and_none_is_lost(
    on: Callable[[Wall], Wall], capsys: pytest.CaptureFixture[str]
) -> None:
    """The last ones stand on the board, the others and finally all of them above it, in their order."""
    wall = on(Wall())

    with display.shown():
        for n in range(5):
            say(f"line {n}\x1b[2J")
        deadline = time.monotonic() + 5
        while len(wall.said) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        above = list(wall.said)
    say("afterwards")

    assert above == [f"line {n}\\x1b[2J" for n in range(3)]
    assert wall.said == [f"line {n}\\x1b[2J" for n in range(5)]
    assert wall.drawn[0].phase == "loading"
    assert capsys.readouterr().err == "afterwards\n"


def test_a_board_that_fails_is_dropped_and_lines_go_on(
    on: Callable[[Wall], Wall], capsys: pytest.CaptureFixture[str]
) -> None:
    """No sweep fails for want of a board."""
    on(Wall(fails=True))

    with display.shown() as reporter:
        say("a line")

    assert reporter.is_plain
    warning, line = capsys.readouterr().err.splitlines()
    assert warning == "warning: the board is dropped, and the sweep goes on: RuntimeError: no paint"
    assert line == "a line"


def test_without_a_terminal_there_are_plain_lines_and_no_escape_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each is kept for whoever watches from elsewhere."""
    with display.shown() as reporter:
        say("a line")
        assert [note.text for note in reporter.progress().notes] == ["a line"]

    assert capsys.readouterr().err == "a line\n"


def test_a_notebook_s_cell_shows_the_board_and_keeps_the_warnings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One display is replaced by the next state; IPython is only used where it runs already."""
    shown: list[dict[str, str]] = []
    handle = SimpleNamespace(update=lambda data, **_: shown.append(data))
    ipython: Any = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    cell: Any = SimpleNamespace(display=lambda *_, **__: handle)
    monkeypatch.setitem(sys.modules, "IPython.display", cell)

    with display.shown(in_terminal=False) as reporter:
        say("warning: no answer")
        say("trial 1: 0.5")
        reporter.phase("done")

    assert "loading libraries" in shown[0]["text/html"]
    assert "<pre" in shown[0]["text/html"]
    assert "loading libraries" in shown[0]["text/plain"]
    assert shown[-1]["text/plain"].startswith("sweep  done")
    assert capsys.readouterr().err == "warning: no answer\n"

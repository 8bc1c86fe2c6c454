"""Shows how a sweep stands: as a board in a terminal or a notebook, or as plain lines, as the place allows.

Everything is drawn by a thread of its own, twice a second at most. If it fails, the board is dropped and
the sweep goes on with plain lines.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any, Protocol

from lenet_exp.base.errors import printable
from lenet_exp.base.messages import listen, say, step
from lenet_exp.execution.signals import when_ending
from lenet_exp.progress.reporter import Reporter
from lenet_exp.progress.state import PHASES, Progress

#: Seconds between two frames at least, and the largest share of a core that drawing may take.
FRAME_S, SHARE = 0.5, 0.01


class Place(Protocol):
    """Where a board is drawn."""

    def draw(self, lines: list[str], progress: Progress) -> None:
        """Write lines that stay, and draw how the sweep stands.

        Args:
            lines: Lines, the oldest first.
            progress: State of the sweep.
        """

    def end(self, lines: list[str], progress: Progress) -> None:
        """End what is drawn, and write lines that stay.

        Args:
            lines: Lines, the oldest first.
            progress: State of the sweep.
        """

    def leave(self) -> None:
        """Leave what is drawn where it is."""

    def n_notes(self) -> int:
        """Return how many of the last notes are part of what is drawn."""


class TerminalPlace:
    """The terminal at standard error; notes that have no place on the board any more scroll away above it."""

    def __init__(self) -> None:
        """Take the terminal as it is."""
        # Loading rich takes a tenth of a second, which plain lines need not wait for.
        from lenet_exp.progress.screen import Screen

        self._screen = Screen(sys.stderr.fileno())

    def n_notes(self) -> int:
        """Return how many of the last notes are part of what is drawn."""
        rows = self._screen.size[1]
        return 0 if rows < 14 else 4 if rows < 22 else 6

    def draw(self, lines: list[str], progress: Progress) -> None:
        """Write lines that stay, and draw how the sweep stands.

        Args:
            lines: Lines, the oldest first.
            progress: State of the sweep.
        """
        from lenet_exp.progress.board import board

        if self._screen.is_ours:
            width, height = self._screen.size
            notes = progress.notes[max(0, len(progress.notes) - self.n_notes()) :]
            self._screen.draw(lines, board(replace(progress, notes=notes), width, height))
        elif lines:
            self._screen.is_drawn = False
            self._screen.clear(lines)

    def end(self, lines: list[str], progress: Progress) -> None:  # noqa: ARG002 - what is over is not shown
        """Remove what is drawn, and write lines in its place.

        Args:
            lines: Lines, the oldest first.
            progress: State of the sweep, which is not shown any more.
        """
        self._screen.clear(lines)

    def leave(self) -> None:
        """Leave what is drawn where it is, and go on below it."""
        self._screen.leave()


class NotebookPlace:
    """The output of a notebook's cell, which is replaced by each new state."""

    def __init__(self, show: Callable[..., Any]) -> None:
        """Show an empty board.

        Args:
            show: IPython's function ``display``.
        """
        self._handle = show({"text/plain": "…"}, raw=True, display_id=True)

    def n_notes(self) -> int:
        """Return how many of the last notes are part of what is drawn."""
        return 8

    def draw(self, lines: list[str], progress: Progress) -> None:
        """Draw how the sweep stands.

        Args:
            lines: Lines, of which the warnings stay on standard error.
            progress: State of the sweep.
        """
        self._handle.update(as_html(progress), raw=True)
        with suppress(OSError, ValueError):
            for line in lines:
                if line.startswith(("warning", "error")):
                    sys.stderr.write(f"{line}\n")

    def end(self, lines: list[str], progress: Progress) -> None:
        """Show how the sweep has ended.

        Args:
            lines: Lines, of which the warnings stay on standard error.
            progress: State of the sweep.
        """
        self.draw(lines, progress)

    def leave(self) -> None:
        """Leave what is shown."""


def as_html(progress: Progress) -> dict[str, str]:
    """Return a board for a notebook, by MIME type: as HTML, and as text for whoever shows no HTML."""
    from rich.console import Console

    from lenet_exp.progress.board import board

    # In a notebook rich would show what it prints by itself, beside our display.
    settings: dict[str, Any] = {"record": True, "force_terminal": True, "force_jupyter": False}
    console = Console(file=io.StringIO(), width=100, highlight=False, **settings)
    console.print(board(progress, 100))
    style = "font-family: ui-monospace, Menlo, Consolas, monospace; line-height: 1.35; overflow-x: auto"
    code = console.export_html(
        inline_styles=True, clear=False, code_format=f'<pre style="{style}">{{code}}</pre>'
    )
    return {"text/html": code, "text/plain": console.export_text()}


class _Board:
    """The thread that draws, and what passes between it and the others."""

    def __init__(self, reporter: Reporter, place: Place) -> None:
        self._reporter, self._place = reporter, place
        self._lines: deque[str] = deque()
        self._stop = threading.Event()
        self._drawing = threading.Lock()
        self._is_open = True
        self._before: Any = None  # what SIGTSTP did until the board came
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)

    def start(self) -> None:
        listen(self._hear)
        when_ending(lambda: self.close(0.5))
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTSTP, self._suspend)
        self._frame()  # at once, before others keep the interpreter busy with imports
        self._thread.start()

    def _suspend(self, number: int, _: object) -> None:
        """Stop this process, as Ctrl-Z asks, once the terminal is free for the shell."""
        is_free = self._drawing.acquire(timeout=0.5)
        with suppress(Exception):
            if self._is_open:
                self._place.end([], self._reporter.progress())
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, self._suspend if self._is_open else signal.SIG_DFL)
        if is_free:
            self._drawing.release()

    def _hear(self, line: str) -> bool:
        """Take a line from any thread, or from a signal handler, without waiting for anything."""
        line = printable(line)
        self._lines.append(line)
        self._reporter.note(line)
        return True

    def _run(self) -> None:
        wait_s = FRAME_S
        while not self._stop.wait(wait_s):
            began = time.thread_time()
            self._frame()
            wait_s = max(FRAME_S, (time.thread_time() - began) / SHARE)

    def _frame(self) -> None:
        try:
            with self._drawing:
                if self._is_open:
                    self._place.draw(self._scrolled(self._place.n_notes()), self._reporter.progress())
        except Exception as error:
            self.close(0.5)
            say(f"warning: the board is dropped, and the sweep goes on: {type(error).__name__}: {error}")
            self._reporter.is_plain = True

    def _scrolled(self, n_kept: int) -> list[str]:
        """Return the lines that leave the board's notes, and forget them."""
        return [self._lines.popleft() for _ in range(len(self._lines) - n_kept)]

    def close(self, patience_s: float = 2.0) -> None:
        """Remove the board, write the notes that were on it, and leave the lines to standard error again.

        Args:
            patience_s: Seconds to wait for a frame that is being drawn.
        """
        if not self._is_open:
            return
        self._is_open = False
        listen(self._reporter.note)
        when_ending(None)
        self._stop.set()
        # A terminal that was halted (Ctrl-S) holds up the frame, and would hold up this.
        if self._drawing.acquire(timeout=patience_s):
            with suppress(Exception):  # the terminal may be gone
                self._place.end(self._scrolled(0), self._reporter.progress())
            self._drawing.release()
        if self._before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTSTP, self._before)


@contextmanager
def shown(*, plain: bool = False, in_terminal: bool = True) -> Iterator[Reporter]:
    """Context manager: show how a sweep stands, as the place allows; yield what the sweep tells it to.

    Args:
        plain: True for plain lines wherever it is.
        in_terminal: False for plain lines in a terminal too, which a script of the user's may use otherwise.
    """
    reporter = Reporter()
    place = None if plain else find_place(in_terminal=in_terminal)
    try:
        with ExitStack() as loading:
            if place is None:
                reporter.is_plain = True
                listen(reporter.note)
                loading.enter_context(step(PHASES["loading"]))
                reporter.loaded = loading.close
            else:
                drawn = _Board(reporter, place)
                reporter.close = drawn.close
                drawn.start()
            yield reporter
    finally:
        reporter.close()
        listen(None)


def find_place(*, in_terminal: bool = True) -> Place | None:
    """Return where a board can be drawn: a notebook or, if ``in_terminal``, a terminal; None if nowhere."""
    with suppress(Exception):  # whatever is wrong with the place, there are plain lines
        ipython = sys.modules.get("IPython")
        shell = ipython.get_ipython() if ipython else None
        if shell is not None and hasattr(shell, "kernel"):
            from importlib import import_module

            return NotebookPlace(import_module("IPython.display").display)
        from lenet_exp.progress.screen import is_terminal

        if in_terminal and is_terminal(sys.stderr):
            return TerminalPlace()
    return None

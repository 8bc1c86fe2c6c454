"""Watches a sweep that runs elsewhere on a root, from its ``progress.json``; writes nothing, locks nothing.

The stamps in the file are of the sweep's own clock, which may be another machine's. They are only compared
with each other; how long nothing has changed is told by this process's clock.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lenet_exp.base.errors import LenetExpError, NoResultError, printable
from lenet_exp.base.files import read_file
from lenet_exp.base.layout import Layout, layouts
from lenet_exp.base.messages import counted
from lenet_exp.execution.signals import unwinding
from lenet_exp.progress.display import Place, find_place
from lenet_exp.progress.estimate import duration_in_words, in_words
from lenet_exp.progress.state import Note, Progress

#: Seconds between two looks at the file.
LOOK_EVERY_S = 0.5
#: Seconds without a change, of a file that is rewritten every five, after which the sweep counts as dead.
DEAD_AFTER_S = 30.0


def watch_sweep(name: str | None, root: Path, *, plain: bool = False) -> None:
    """Show how a sweep stands until it ends, as a board or as lines on standard output.

    Args:
        name: Name of its experiment; None for the one whose sweep runs.
        root: Root folder of all results.
        plain: True for plain lines wherever it is.

    Raises:
        NoResultError: If no such sweep was run, or it died.
        SweepInterruptedError: On Ctrl-C, which ends the watching only.
    """
    layout = Layout.of(root, name) if name is not None else sweep_to_watch(root)
    with unwinding("stopped watching; the sweep goes on"):
        follow(layout, None if plain else find_place(), _say)


def _say(line: str) -> None:
    sys.stdout.write(f"{printable(line)}\n")
    sys.stdout.flush()


def sweep_to_watch(root: Path) -> Layout:
    """Return the paths of the sweep that runs on a root.

    Raises:
        NoResultError: If none runs, or several do; the message names them.
    """
    known = [(layout, progress) for layout in layouts(root.absolute()) if (progress := read(layout))]
    running = [layout for layout, progress in known if not progress.has_ended and is_alive(progress)]
    if len(running) == 1:
        return running[0]
    if running:
        names = ", ".join(layout.folder for layout in running)
        raise NoResultError(f"{counted(len(running), 'sweep')} run on {root}: {names}; name the one to watch")
    names = ", ".join(f"{layout.folder} ({_how(progress)})" for layout, progress in known)
    raise NoResultError(
        f"no sweep runs on {root}; {f'the last ones: {names}' if names else 'none has run there'}"
    )


def read(layout: Layout) -> Progress | None:
    """Return how an experiment's sweep stood when it last said so, or None if it never did."""
    try:
        return Progress.from_json(read_file(layout.progress).decode())
    except (OSError, ValueError, LenetExpError):
        return None


def is_alive(progress: Progress) -> bool:
    """Return False if the process of a sweep is gone; on another machine that cannot be seen."""
    if progress.host != platform.node() or progress.pid < 1:
        return True
    try:
        os.kill(progress.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's process
        return True
    return True


def _how(progress: Progress) -> str:
    return progress.phase if progress.has_ended else "ended without saying so"


def follow(
    layout: Layout,
    place: Place | None,
    say: Callable[[str], None],
    *,
    wait: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Progress:
    """Show how a sweep stands until it ends, and return how it stood at its end.

    Args:
        layout: Paths of its experiment.
        place: Place to draw a board; None for plain lines.
        say: Function that gets each plain line.
        wait: Function that waits for some seconds.
        clock: Clock in seconds, which no other clock is compared with.

    Raises:
        NoResultError: If the experiment was never run on this root, or its sweep died.
    """
    progress = read(layout)
    if progress is None:
        raise NoResultError(f"no sweep of {layout.folder} was run on {layout.root}; see lenet-exp sweep")
    stamp, changed = progress.updated, clock()
    told = _Lines(say)
    try:
        while not progress.has_ended:
            still_s = clock() - changed
            if not is_alive(progress) or still_s > DEAD_AFTER_S:
                # It may have ended in between, having said so.
                progress = read(layout) or progress
                if not progress.has_ended and progress.updated == stamp:
                    raise NoResultError(_dead(layout, progress))
            if place is None:
                told.tell(progress)
            else:
                place.draw([], _after(progress, still_s))
            wait(LOOK_EVERY_S)
            progress = read(layout) or progress
            if progress.updated != stamp:
                stamp, changed = progress.updated, clock()
        if place is None:
            told.tell(progress)
        else:
            place.draw([], progress)
    finally:
        if place is not None:
            place.leave()
    return progress


def _dead(layout: Layout, progress: Progress) -> str:
    where = f"pid {progress.pid} on host {printable(progress.host)}"
    return (
        f"the sweep of {layout.folder} ({where}) died or hangs, in the phase {progress.phase};"
        " the same sweep command goes on with what is there"
    )


def _after(progress: Progress, seconds: float) -> Progress:
    """Return how a sweep stands some seconds after it said so, with a note if it has been still for long."""
    running = tuple(replace(run, ran_s=run.ran_s + seconds) for run in progress.running)
    notes = progress.notes
    if seconds > DEAD_AFTER_S / 2:
        notes = (*notes, Note(time.time(), f"warning: no sign of life for {duration_in_words(seconds)}"))
    return replace(progress, running=running, ran_s=progress.ran_s + seconds, notes=notes)


class _Lines:
    """Says what is new as plain lines: the sweep's own notes, and how far it is."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last: Note | None = None
        self._position: tuple[object, ...] = ()

    def tell(self, progress: Progress) -> None:
        notes = progress.notes
        if self._last in notes:
            notes = notes[notes.index(self._last) + 1 :]
        for note in notes:
            self._say(note.text)
        self._last = progress.notes[-1] if progress.notes else None
        position = (progress.phase, progress.n_done, progress.n_total)
        if position != self._position:
            self._position = position
            left = f", {in_words(progress.left)} left" if progress.left else ""
            amount = f": {progress.n_done} of {counted(progress.n_total, progress.unit)}{left}"
            detail = f": {progress.detail}" if progress.detail and not progress.n_total else ""
            self._say(
                f"{progress.experiment or 'sweep'}: {progress.phase}{amount if progress.n_total else detail}"
            )

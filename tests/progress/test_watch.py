from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lenet_exp.base.errors import NoResultError
from lenet_exp.base.layout import Layout
from lenet_exp.progress.state import Note, Progress
from lenet_exp.progress.watch import DEAD_AFTER_S, follow, sweep_to_watch
from tests.labs.progresses import HALFWAY


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout.of(tmp_path, "fashion")
    layout.spool.mkdir(parents=True)
    return layout


def write(layout: Layout, progress: Progress) -> None:
    layout.progress.write_text(progress.to_json())


@pytest.fixture
def gone() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_sweep_is_followed_to_its_end_in_plain_lines(layout: Layout) -> None:
    """Each note once, and a line when it is further on; nothing is written and nothing locked."""
    write(layout, HALFWAY)
    last = Note(1e9 + 70, "trial 7: val_accuracy 0.9000")
    further = replace(HALFWAY, n_done=8, notes=(*HALFWAY.notes, last), updated=1e9 + 70)
    steps = iter([further, replace(further, phase="done", n_done=14, left=None, updated=1e9 + 80)])
    lines: list[str] = []

    ended = follow(layout, None, lines.append, wait=lambda _: write(layout, next(steps)))

    assert ended.phase == "done"
    assert lines == [
        "trial 2: val_accuracy 0.8931",
        "warning: no answer",
        "fashion: search: 7 of 14 trials, about 6 min (4 to 9) left",
        "trial 7: val_accuracy 0.9000",
        "fashion: search: 8 of 14 trials, about 6 min (4 to 9) left",
        "fashion: done: 14 of 14 trials",
    ]
    assert sorted(path.name for path in layout.home.iterdir()) == ["progress.json", "spool"]


def test_a_sweep_whose_process_is_gone_or_that_stands_still_is_said_to_have_died(
    layout: Layout, gone: int
) -> None:
    """On this machine at once; on another one after a while, by the clock of whoever watches."""
    write(layout, replace(HALFWAY, pid=gone))
    with pytest.raises(NoResultError, match=rf"fashion \(pid {gone} .*\) died or hangs, in the phase search"):
        follow(layout, None, lambda _: None)

    write(layout, replace(HALFWAY, host="elsewhere", updated=0.0))
    now = iter(range(0, 1000, 5))
    waits: list[float] = []
    with pytest.raises(NoResultError, match="on host elsewhere"):
        follow(layout, None, lambda _: None, wait=waits.append, clock=lambda: float(next(now)))
    assert 5 * len(waits) >= DEAD_AFTER_S


def test_what_was_never_run_is_not_watched(layout: Layout) -> None:
    """An unreadable file is as good as none."""
    layout.progress.write_text("{")

    with pytest.raises(NoResultError, match="no sweep of fashion was run on"):
        follow(layout, None, lambda _: None)


def test_without_a_name_the_one_sweep_that_runs_is_watched(layout: Layout, gone: int, tmp_path: Path) -> None:
    """If there is none, or several, the line names what there is."""

    def other(name: str, change: Callable[[Progress], Progress]) -> None:
        another = Layout.of(tmp_path, name)
        another.spool.mkdir(parents=True, exist_ok=True)
        write(another, change(replace(HALFWAY, experiment=name, pid=os.getpid(), host=platform.node())))

    with pytest.raises(NoResultError, match=r"no sweep runs on .*; none has run there"):
        sweep_to_watch(tmp_path)
    other("killed", lambda progress: replace(progress, pid=gone))
    other("over", lambda progress: replace(progress, phase="done"))
    with pytest.raises(NoResultError, match=r"killed \(ended without saying so\), over \(done\)"):
        sweep_to_watch(tmp_path)

    other("alive", lambda progress: progress)
    assert sweep_to_watch(tmp_path).folder == "alive"

    other("second", lambda progress: progress)
    with pytest.raises(NoResultError, match=r"2 sweeps run on .*: alive, second; name the one to watch"):
        sweep_to_watch(tmp_path)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lenet_exp.base.records import RunKey
from lenet_exp.results.figures.chart import Bars, Line, Points, Reference
from lenet_exp.results.figures.search import history, throughput, timeline
from tests.labs.charts import listed, marks, record, results

STUDY = [
    record(-1, 0.85),
    record(0, 0.84),
    record(1, 0.60, "PRUNED"),
    record(2, 0.88),
    record(3, 0.10),
    record(4, 0.86),
    record(5, 0.83, "PRUNED"),
    record(7, float("nan"), "PRUNED"),
    replace(record(6, 0.9), state="FAIL", value=None, result={"retried": True}),
]


def test_the_history_shows_what_trials_are_judged_by(tmp_path: Path) -> None:
    """The incumbent goes to the last trial, failures far below stand at the edge, and NaN is not drawn."""
    chart = history(results(STUDY, tmp_path))
    drawn = marks(chart)

    assert list(drawn) == ["pruned, at its last epoch", "complete", "best so far", "baseline"]
    done, best, baseline = drawn["complete"], drawn["best so far"], drawn["baseline"]
    assert isinstance(done, Points)
    assert (list(done.x), done.symbols[2]) == ([0, 2, 3, 4], "triangle-down")
    assert done.y[2] > 0.5  # type: ignore[operator]
    assert "0.1000" in done.hover[2]
    assert isinstance(best, Line)
    assert list(zip(best.x, best.y, strict=True)) == [(0, 0.84), (2, 0.88), (3, 0.88), (4, 0.88), (5, 0.88)]
    assert isinstance(baseline, Reference)
    assert baseline.at == 0.85
    assert chart is not None
    assert "best of 4 complete trials is trial 2 with 0.8800, +0.0300" in chart.caption
    assert "Without an accuracy, so not shown: 1 pruned. Triangles" in chart.caption


def test_listed_runs_have_their_names_and_no_incumbent(tmp_path: Path) -> None:
    """They are in no order; all seeds of a name stand in its row."""
    runs = listed([record(0, 0.8), record(1, 0.9), record(2, 0.7)], "a, seed 1", "a, seed 2", "b")
    chart = history(results(runs, tmp_path, run=[{"name": "a", "lr": 0.1}]))

    drawn = marks(chart)["complete"]
    assert isinstance(drawn, Points)
    assert list(zip(drawn.x, drawn.y, strict=True)) == [(0.8, "a"), (0.9, "a"), (0.7, "b")]
    assert chart is not None
    assert chart.panels[0].y is not None
    assert list(chart.panels[0].y.categories) == ["a", "b"]
    assert "best so far" not in marks(chart)


def test_no_two_attempts_of_a_worker_overlap(tmp_path: Path) -> None:
    """Attempts at the same time have rows of their own, and how long nothing ran is told."""
    made = results([record(i, 0.8) for i in range(3)], tmp_path)
    logs = {log.key: log for log in made.run_logs.values()}
    second = logs[RunKey("trial", 1, 1)]
    logs[second.key] = replace(second, start_ms=11_500)
    made.__dict__["run_logs"] = logs

    chart = timeline(made)

    bars = marks(chart)["complete"]
    assert isinstance(bars, Bars)
    assert list(zip(bars.start, bars.end, bars.y, strict=True)) == [
        (0.0, 2.0, "worker 1"),
        (1.5, 12.0, "worker 2"),
        (20.0, 22.0, "worker 1"),
    ]
    assert chart is not None
    assert "for 0.33 of the 22.0 s" in chart.caption


def test_a_pause_between_two_sweeps_is_cut_out(tmp_path: Path) -> None:
    """Bars keep their length when a sweep goes on after hours; a line and the caption tell the pause."""
    made = results([record(i, 0.8) for i in range(3)], tmp_path)
    logs = {log.key: log for log in made.run_logs.values()}
    last = logs[RunKey("trial", 2, 1)]
    assert last.end is not None
    later = replace(last.end, time_ms=last.end.time_ms + 7_200_000)
    logs[last.key] = replace(last, start_ms=last.start_ms + 7_200_000, end=later)
    made.__dict__["run_logs"] = logs

    chart = timeline(made)

    bars, pause = marks(chart)["complete"], marks(chart)["pause, cut out"]
    assert isinstance(bars, Bars)
    assert isinstance(pause, Reference)
    lengths = [end - start for start, end in zip(bars.start, bars.end, strict=True)]
    assert lengths == pytest.approx([2.0, 2.0, 2.0])
    assert bars.end[1] < pause.at < bars.start[2] < bars.end[1] + 1
    assert chart is not None
    assert "Cut out: 1 pause in which nothing ran, 120.1 min in all." in chart.caption


def test_throughput_tells_trials_apart_by_their_neighbours(tmp_path: Path) -> None:
    """The median of each number of neighbours is in the caption, and the baseline is the reference."""
    speeds = {0: (0, 900.0), 1: (1, 500.0), 2: (1, 700.0)}
    made = [record(-1, 0.8)] + [
        replace(record(i, 0.8), result={"co_runners": beside, "examples_per_s": speed})
        for i, (beside, speed) in speeds.items()
    ]

    chart = throughput(results(made, tmp_path))

    beside = marks(chart)["with 1 beside"]
    assert isinstance(beside, Points)
    assert list(beside.y) == [500.0, 700.0]
    assert chart is not None
    assert "900 of 1 trial alone, 600 of 2 trials with 1 beside. 3 of 3 were slower" in chart.caption

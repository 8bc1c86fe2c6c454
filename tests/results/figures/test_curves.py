from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lenet_exp.results.figures.chart import Line
from lenet_exp.results.figures.curves import MAX_COLOURED, MAX_CURVES, learning_curves
from tests.labs.charts import listed, marks, record, results


def test_the_best_and_the_baseline_stand_out(tmp_path: Path) -> None:
    """Their lines are thick and in front of the others; pruned ones are behind."""
    records = [record(-1, 0.85), record(0, 0.84), record(1, 0.6, "PRUNED"), record(2, 0.88)]

    chart = learning_curves(results(records, tmp_path))

    assert list(marks(chart)) == ["pruned or failed", "complete", "baseline", "best: trial 2"]
    assert chart is not None
    for panel, values in zip(chart.panels, ([0.44, 0.88], [0.56, 0.12]), strict=True):
        front = panel.marks[-1]
        assert isinstance(front, Line)
        assert front.width == max(line.width for line in panel.marks if isinstance(line, Line))
        assert [round(y, 6) for y in front.y if isinstance(y, float)] == values
    assert chart.caption.startswith("Best: trial 2 ends at 0.8800 after epoch 2 (+0.4400 in that epoch)")


def test_after_one_epoch_each_curve_is_a_point_within_the_axes(tmp_path: Path) -> None:
    """The caption says so, and no axis starts where a point is."""
    records = [replace(record(i, 0.8 + i / 100), history={1: 0.8 + i / 100}) for i in range(3)]

    chart = learning_curves(results(records, tmp_path))

    assert chart is not None
    assert "After a single epoch a curve is a point." in chart.caption
    for panel in chart.panels:
        assert panel.y is not None
        low, high = panel.y.ends(panel.values("y"))
        assert all(low < y < high for y in panel.values("y") if isinstance(y, float))


def test_of_many_trials_the_same_sample_is_drawn_every_time(tmp_path: Path) -> None:
    """The best is always there, and the caption tells how many are not."""
    made = results([record(i, 0.5 + i / 10_000) for i in range(500)], tmp_path)

    first, second = learning_curves(made), learning_curves(made)

    assert first == second
    assert first is not None
    drawn = [mark.hover for mark in first.panels[0].marks if isinstance(mark, Line)]
    assert len(drawn) == MAX_CURVES + 1
    assert drawn[198:] == ["trial 494: 0.5494", "trial 496: 0.5496", "trial 499: 0.5499"]
    assert "best: trial 499" in marks(first)
    assert "Of 499 other trials a sample of 200 is shown" in first.caption


def test_each_of_a_few_listed_runs_has_a_look_of_its_own(tmp_path: Path) -> None:
    """Neighbours differ in colour and in dash; all but the best eight are told by pointing at them."""
    names = [f"run {number}" for number in range(10)]
    runs = listed([record(i, 0.8 + i / 100) for i in range(10)], *names)

    drawn = marks(learning_curves(results(runs, tmp_path, run=[{"name": "a", "lr": 0.1}])))

    assert list(drawn) == ["other runs", *names[-MAX_COLOURED:]]
    looks = [(m.colour, m.dash) for m in drawn.values() if isinstance(m, Line)]
    assert len(set(looks)) == len(looks)

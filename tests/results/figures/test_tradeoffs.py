from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from lenet_exp.results.conclusion import ConfirmationSummary
from lenet_exp.results.figures.chart import BASELINE, Line, Panel, Points
from lenet_exp.results.figures.tradeoffs import pareto_fronts
from lenet_exp.results.leaderboard import ranked
from tests.labs.charts import STUDY, record

#: Of the trials 0 to 4, number 1 is pruned, and 5 was tried again: sizes 2,000 to 6,000, speeds falling.
SIZES = [1000, 2000, 4000, 5000, 6000]


def results(records: list[Any]) -> Any:
    return SimpleNamespace(records=records)


def points(panel: Panel, name: str) -> list[tuple[Any, Any]]:
    """Return the points of one name."""
    marks = [mark for mark in panel.marks if isinstance(mark, Points) and mark.name == name]
    return [point for mark in marks for point in zip(mark.x, mark.y, strict=True)]


def test_the_fronts_are_those_of_the_leaderboard() -> None:
    """The same configurations, before a confirmation and after it, which measures other speeds."""
    best = STUDY[1]
    cells = {"test_accuracy": 0.5, "verdict": "worse", "examples_per_s": 1.0}
    chart = pareto_fronts(results(STUDY))
    assert chart is not None
    size, speed = chart.panels

    for summary in (ConfirmationSummary({}), ConfirmationSummary({best.config: cells})):
        rows = ranked(STUDY, {}, summary).rows
        by_size = {(row["n_parameters"], row["val_accuracy"]) for row in rows if row["pareto_parameters"]}
        by_speed = {row["val_accuracy"] for row in rows if row["pareto_speed"]}
        (line,) = [mark for mark in size.marks if isinstance(mark, Line)]
        assert set(zip(line.x, line.y, strict=True)) == by_size == {(1000, 0.85), (4000, 0.88)}
        assert {y for _, y in points(speed, "on the front")} | {0.85} == by_speed == {0.85, 0.88}


def test_every_complete_configuration_is_a_point() -> None:
    """The baseline is a diamond of its own, and a failure far below lies at the edge, as the caption says."""
    chart = pareto_fronts(results(STUDY))

    assert chart is not None
    size = chart.panels[0]
    assert points(size, "baseline") == [(1000, 0.85)]
    assert points(size, "on the front") == [(4000, 0.88)]
    assert [x for x, _ in points(size, "not on the front")] == [2000, 5000, 6000]
    (others,) = [mark for mark in size.marks if isinstance(mark, Points) and "not" in mark.name]
    assert others.symbols == ["circle", "triangle-down", "circle"]
    assert [m.colour for m in size.marks if isinstance(m, Points) and m.name == "baseline"] == [BASELINE]
    assert "Of 5 configurations, 2 lie on the front" in chart.caption
    assert "1 configuration below" in chart.caption
    fast = [replace(r, result={**r.result, "n_parameters": None}) for r in STUDY]
    by_speed = pareto_fronts(results(fast))
    assert by_speed is not None
    assert "The baseline is on it: none is both better and faster." in by_speed.caption


def test_without_a_trade_off_there_is_no_figure() -> None:
    """With nothing, one configuration, or all of one size and speed."""
    same = [replace(record(n, 0.5, lr=0.1 + n), result={"n_parameters": 5}) for n in range(3)]

    assert [pareto_fronts(results(records)) for records in ([], STUDY[:1], same)] == [None] * 3

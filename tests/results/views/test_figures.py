from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lenet_exp.base.records import RunKey
from lenet_exp.results.figures.selection import Curve
from lenet_exp.results.views.figures import fronts, history, learning_curves, slices
from lenet_exp.study.records import TrialRecord
from tests.results.figures.test_selection import EVIL, STUDY, epochs, record


def test_failures_far_below_do_not_flatten_the_rest() -> None:
    """They are shown at the lower edge, and their value is in what is shown when pointed at."""
    figure = history(STUDY)
    done = next(trace for trace in figure.data if trace.name == "complete")

    place = list(done.x).index(3)
    assert done.y[place] > 0.5
    assert done.marker.symbol[place] == "triangle-down"
    assert "0.1000" in done.hovertext[place]
    assert "triangles" in figure.layout.title.text


def test_the_history_has_the_baseline_and_the_best_so_far() -> None:
    """The two lines that trials are judged by."""
    lines = {trace.name: trace for trace in history(STUDY).data if "lines" in trace.mode}

    assert list(lines["best so far"].y) == [0.84, 0.88, 0.88, 0.88]
    assert set(lines["baseline"].y) == {0.85}


def test_runs_of_a_list_have_their_names() -> None:
    """They are in no order, so there is no best so far; each has its label on the axis."""
    runs = [replace(record(i, 0.8), key=RunKey("run", i, 1), label=f"<i>{i}") for i in (1, 2)]

    figure = history(runs)

    assert [trace.name for trace in figure.data] == ["complete"]
    assert list(figure.layout.xaxis.ticktext) == ["&lt;i&gt;1", "&lt;i&gt;2"]


def test_only_what_was_varied_is_sliced() -> None:
    """A hyper-parameter that was the same in all trials has no plot; a wide range has a logarithmic axis."""
    figure = slices(STUDY)

    assert figure is not None
    assert (figure.layout.xaxis.type, figure.layout.xaxis2.type) == ("category", "log")
    assert slices([record(0, 0.8), record(1, 0.9)]) is None


def test_the_fronts_hold_the_best() -> None:
    """The line of each front goes through the points that none beats."""
    small, fast = [trace for trace in fronts(STUDY).data if trace.name == "Pareto front"]

    assert list(small.y) == [0.85, 0.88]
    assert list(fast.y) == [0.88, 0.85]


def test_learning_curves_have_training_and_validation() -> None:
    """Four lines a training, of one colour; the baseline's is its own."""
    figure = learning_curves([Curve("trial 2", epochs(0.5, 0.8)), Curve("baseline", epochs(0.4), True)])

    assert len(figure.data) == 8
    assert len({trace.line.color for trace in figure.data}) == 2
    assert [trace.name for trace in figure.data if trace.showlegend] == ["trial 2", "baseline"]


@pytest.mark.parametrize("records", [[], [STUDY[0]], [STUDY[1]], STUDY[:4], [STUDY[3]]])
def test_any_study_can_be_drawn(records: list[TrialRecord]) -> None:
    """With nothing, the baseline alone, no baseline, or nothing completed."""
    curves = [Curve(r.label, epochs(0.5)) for r in records]
    for figure in (history(records), fronts(records), slices(records), learning_curves(curves)):
        assert figure is None or json.loads(figure.to_json())


def test_names_are_shown_and_not_obeyed() -> None:
    """Neither plotly's tags nor control characters get through."""
    named = replace(STUDY[1], label=EVIL, result={**STUDY[1].result, "reason": EVIL})

    written = history([named]).to_json() + learning_curves([Curve(EVIL, epochs(0.5))]).to_json()

    for tag in ("<script", "<b>x", "\x1b", "\\u003cscript", "\\u003cb\\u003ex", "\\u001b", "%{y} "):
        assert tag not in written

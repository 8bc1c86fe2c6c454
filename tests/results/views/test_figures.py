from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from lenet_exp.base.records import EpochResult, RunKey, State
from lenet_exp.config.hyperparameters import PRESETS, configuration
from lenet_exp.results.views.figures import (
    Curve,
    baseline_of,
    complete,
    floor,
    fronts,
    history,
    incumbent,
    learning_curves,
    on_front,
    overview,
    slices,
    tried,
    varied,
)
from lenet_exp.study.records import TrialRecord

LENET = configuration(PRESETS["lenet"] | {"epochs": 2})
EVIL = "<b>x</b> %{y} $\\frac \x1b[31m </script><script>alert(1)</script>"


def record(number: int, value: float, state: State = "COMPLETE", **changes: Any) -> TrialRecord:
    """Return a trial, the baseline if its number is negative."""
    role = "baseline" if number < 0 else "trial"
    return TrialRecord(
        key=RunKey(role, max(0, number), 1),
        state=state,
        label="baseline" if number < 0 else f"trial {number}",
        configuration=LENET.model_copy(update=changes),
        seed=0,
        history={1: value / 2, 2: value},
        result={"n_parameters": 1000 * (number + 2), "examples_per_s": 10_000.0 - 100 * number},
        value=value if state == "COMPLETE" else None,
    )


def epochs(*accuracies: float) -> list[EpochResult]:
    return [EpochResult(i, 1 / i, a, 1.1 / i, a, 1e4, 1.0) for i, a in enumerate(accuracies, 1)]


STUDY = [
    record(-1, 0.85),
    record(2, 0.88, lr=0.1, activation="tanh"),
    record(0, 0.84, lr=0.001),
    record(1, 0.60, "PRUNED", lr=0.01),
    record(3, 0.10, lr=0.3),
    record(4, 0.86, lr=0.03),
    replace(record(5, 0.9), state="FAIL", value=None, result={"retried": True}),
]


def test_trials_are_shown_in_their_order() -> None:
    """Attempts that were tried again are not shown, and only completed ones can be the best so far."""
    assert [r.key.trial for r in tried(STUDY)] == [0, 1, 2, 3, 4]
    assert [r.key.trial for r in complete(STUDY)] == [0, 2, 3, 4]
    assert incumbent(STUDY) == [(0, 0.84), (2, 0.88), (3, 0.88), (4, 0.88)]


def test_the_front_is_drawn_from_one_end_to_the_other() -> None:
    """What has both an accuracy and a size that no other beats, the smallest first."""
    records = [
        replace(STUDY[0], value=value, history={1: value}, result={"n_parameters": size})
        for value, size in ((0.9, 300), (0.8, 100), (0.7, 200), (0.85, 200))
    ]

    assert [r.result["n_parameters"] for r in on_front(records, "n_parameters", -1)] == [100, 200, 300]
    assert [r.value for r in on_front(records, "n_parameters", -1)] == [0.8, 0.85, 0.9]
    assert [r.value for r in on_front(records, "n_parameters", 1)] == [0.9]


def test_failures_far_below_do_not_flatten_the_rest() -> None:
    """They are shown at the lower edge, and their value is in what is shown when pointed at."""
    figure = history(STUDY)
    done = next(trace for trace in figure.data if trace.name == "complete")

    assert floor([0.8, 0.85, 0.9]) == 0.8
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

    assert varied(STUDY) == ["activation", "lr"]
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
    with Image.open(io.BytesIO(overview(records, curves))) as picture:
        assert picture.size == (1200, 800)
    assert baseline_of(records) in (None, STUDY[0])


def test_names_are_shown_and_not_obeyed() -> None:
    """Neither plotly's tags nor matplotlib's formulas nor control characters get through."""
    named = replace(STUDY[1], label=EVIL, result={**STUDY[1].result, "reason": EVIL})

    written = history([named]).to_json() + learning_curves([Curve(EVIL, epochs(0.5))]).to_json()

    for tag in ("<script", "<b>x", "\x1b", "\\u003cscript", "\\u003cb\\u003ex", "\\u001b", "%{y} "):
        assert tag not in written
    overview([named], [Curve(EVIL, epochs(0.5))])

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lenet_exp.base.records import EpochResult, RunKey, State
from lenet_exp.config.hyperparameters import PRESETS, configuration
from lenet_exp.results.figures.selection import (
    baseline_of,
    complete,
    floor,
    incumbent,
    on_front,
    summary,
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
    assert [baseline_of(records) for records in (STUDY, STUDY[1:])] == [STUDY[0], None]


def test_what_is_not_the_same_in_all_completed_trials_is_varied() -> None:
    """The trial that was pruned does not count."""
    assert varied(STUDY) == ["activation", "lr"]
    assert varied(STUDY[:2]) == []


def test_an_axis_begins_where_a_few_failures_do_not_flatten_the_rest() -> None:
    """At the worst value, unless that is far below the others."""
    assert floor([0.8, 0.85, 0.9]) == 0.8
    assert floor([0.1, 0.85, 0.86, 0.87, 0.88, 0.89]) > 0.7
    assert floor([]) == 0.0


def test_the_front_is_drawn_from_one_end_to_the_other() -> None:
    """What has both an accuracy and a size that no other beats, the smallest first."""
    records = [
        replace(STUDY[0], value=value, history={1: value}, result={"n_parameters": size})
        for value, size in ((0.9, 300), (0.8, 100), (0.7, 200), (0.85, 200))
    ]

    assert [r.result["n_parameters"] for r in on_front(records, "n_parameters", -1)] == [100, 200, 300]
    assert [r.value for r in on_front(records, "n_parameters", -1)] == [0.8, 0.85, 0.9]
    assert [r.value for r in on_front(records, "n_parameters", 1)] == [0.9]


def test_a_long_reason_is_cut_without_a_piece_of_a_secret() -> None:
    """A password whose "@" would be cut off is not recognised any more."""
    reason = f"{'x' * 170} https://ann:wr0ng-pass-phrase@example.org/"
    failed = replace(record(1, 0.5, "FAIL"), result={"reason": reason})

    assert "ann" not in summary(failed, [])

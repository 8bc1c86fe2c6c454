from __future__ import annotations

from dataclasses import replace

from lenet_exp.results.figures.selection import (
    baseline_of,
    complete,
    floor,
    incumbent,
    summary,
    tried,
    varied,
)
from tests.labs.charts import STUDY, record


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


def test_a_long_reason_is_cut_without_a_piece_of_a_secret() -> None:
    """A password whose "@" would be cut off is not recognised any more."""
    reason = f"{'x' * 170} https://ann:wr0ng-pass-phrase@example.org/"
    failed = replace(record(1, 0.5, "FAIL"), result={"reason": reason})

    assert "ann" not in summary(failed, [])

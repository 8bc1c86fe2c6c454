from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lenet_exp.config.loader import parse
from lenet_exp.results.conclusion import ConfirmationSummary
from lenet_exp.results.figures.chart import Chart, Intervals, Points, Reference
from lenet_exp.results.figures.comparisons import ablation, confirmation
from tests.labs.readings import GOOD, judged, reading
from tests.results.test_ablation import experiment, trained


def drawn(chart: Chart | None, kind: type[Any]) -> list[Any]:
    assert chart is not None
    return [mark for mark in chart.panels[0].marks if isinstance(mark, kind)]


def confirmed(evaluation: Any) -> Any:
    return SimpleNamespace(confirmation=ConfirmationSummary({}, evaluation=evaluation))


def test_a_confirmation_shows_each_seed_and_its_intervals() -> None:
    """Paired differences of the finalist, the interval that the verdict has, 0 as the reference."""
    evaluation = judged([0.01, 0.02, 0.03])
    verdict = evaluation.verdicts[0]

    chart = confirmation(confirmed(evaluation))

    (seeds,), (reference,) = drawn(chart, Points), drawn(chart, Reference)
    assert seeds.x == pytest.approx([0.01, 0.02, 0.03])
    assert set(seeds.y) == {f"trial 3: +0.0200, {verdict['verdict']}"}
    assert (reference.at, reference.axis) == (0, "x")
    ours, other_images = drawn(chart, Intervals)
    assert (ours.low, ours.high) == ((verdict["delta_low"],), (verdict["delta_high"],))
    assert other_images.low == ()  # without predictions there is none
    assert chart is not None
    assert "Trial 3 is more accurate than the baseline on 3 of 3 paired seeds" in chart.caption
    assert "so the seeds do not tell them apart" in chart.caption
    # The interval of what is better may begin at 0.
    clear = replace(evaluation, verdicts=({**verdict, "verdict": "better", "delta_low": 0.0},))
    shown = confirmation(confirmed(clear))
    assert shown is not None
    assert "[+0.0000, +0.0480], so it is better" in shown.caption
    assert chart.legend().keys() == {"interval for other seeds, these images", "a seed", "baseline"}


def test_an_old_reading_is_shown_as_far_as_it_goes() -> None:
    """Without an end of the interval, without a baseline, or without any reading."""
    chart = confirmation(confirmed(reading()))

    assert [mark.low for mark in drawn(chart, Intervals)] == [(), ()]
    lacking = reading(scores=tuple(score for score in reading().scores if score.config == GOOD))
    assert confirmation(confirmed(lacking)) is None
    assert confirmation(confirmed(None)) is None


def test_an_ablation_shows_each_alternative_that_can_be_compared() -> None:
    """Its difference and interval are the table's; one that diverged is left out, as the caption says."""
    section = experiment()
    records = trained(section, {"pooling avg": -0.02, "lr 0.5": None})

    chart = ablation(SimpleNamespace(experiment=section, records=records))  # type: ignore[arg-type]

    (means,), (interval,) = drawn(chart, Points), drawn(chart, Intervals)
    assert means.x == pytest.approx([-0.02, 0.0], abs=1e-3)
    assert [name.partition(":")[0] for name in means.y] == ["pooling = avg", "lr = 0.001"]
    assert interval.low[0] < means.x[0] < interval.high[0] < 0
    assert chart is not None
    assert chart.caption.startswith("The largest difference is that of pooling = avg, -0.02")
    assert "1 of 2 alternatives differ" in chart.caption
    assert chart.caption.endswith("Left out, without a result on every seed: 1.")
    search = SimpleNamespace(experiment=parse({"name": "a", "space": {"lr": [0.1, 0.2]}}), records=records)
    assert ablation(search) is None  # type: ignore[arg-type]

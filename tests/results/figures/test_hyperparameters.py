from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lenet_exp.results.figures.chart import Axis, Heat, Parallel, Points
from lenet_exp.results.figures.hyperparameters import (
    _cells,
    contour,
    importance,
    importances,
    parallel,
    slices,
)
from lenet_exp.results.figures.picture import chart_png
from tests.labs.charts import marks, record, results

RANDOM = np.random.default_rng(0)
ACTIVATIONS = ("relu", "tanh", "gelu")
#: A search in which the activation decides nearly all, and lr nothing.
DEEP = {"padding": (2, 2, 0), "channels": (6, 8, 9)}
SEARCH = [
    record(
        i,
        0.5 + 0.1 * (i % 3) + 0.02 * float(RANDOM.random()),
        "COMPLETE",
        activation=ACTIVATIONS[i % 3],
        lr=float(10 ** RANDOM.uniform(-4, -1)),
        **(DEEP | {"kernel_size": (5, 5, 3 + 2 * (i // 4 % 2))} if i % 2 == 0 else {}),
    )
    for i in range(36)
]


def test_importance_is_the_kruskal_wallis_effect_size() -> None:
    """Epsilon squared is (H - k + 1) / (n - k); what decides comes first, and what does not may be 0."""
    by_name = {estimate.name: estimate for estimate in importances(SEARCH)}

    groups = [[r.value or 0.0 for r in SEARCH if r.values["activation"] == name] for name in ACTIVATIONS]
    h = stats.kruskal(*groups).statistic
    assert by_name["activation"].share == pytest.approx((h - 2) / (36 - 3))
    assert next(iter(by_name)) == "activation"
    assert by_name["activation"].low > 0.5
    assert by_name["lr"].low == 0


def test_a_conditional_hyper_parameter_is_judged_among_those_that_use_it(tmp_path: Path) -> None:
    """It has their number; the one that too few use is left out, and so is all below ten trials."""
    used = {estimate.name: estimate.n_trials for estimate in importances(SEARCH)}

    assert used["kernel_size_3"] == 18
    few = importance(results(SEARCH[:16], tmp_path))
    assert few is not None
    assert "used by fewer than 10 trials: kernel_size_3" in few.caption
    assert importance(results(SEARCH[:9], tmp_path)) is None
    chart = importance(results(SEARCH, tmp_path))
    assert chart is not None
    assert "Clearly above chance: activation" in chart.caption
    assert "not what causes what" in chart.caption


def test_slices_say_when_a_hyper_parameter_is_used(tmp_path: Path) -> None:
    """Each that varied has a panel, with the scale that it was drawn from, and the baseline in it."""
    chart = slices(results([record(-1, 0.55), *SEARCH], tmp_path))

    assert chart is not None
    panels = {panel.title: panel for panel in chart.panels}
    assert "kernel_size_3: only with 3 conv_layers" in panels
    lr = panels["lr"]
    assert lr.x is not None
    assert lr.x.scale == "log"
    trials, baseline = lr.marks
    assert isinstance(trials, Points)
    assert list(trials.x) == [r.values["lr"] for r in SEARCH]
    assert isinstance(baseline, Points)
    assert (list(baseline.x), list(baseline.symbols)) == ([0.009], ["diamond"])
    assert len({panel.y for panel in chart.panels}) == 1  # one range, so that panels can be compared
    # With one accuracy for all, no hyper-parameter can have made a difference, and nothing is the best.
    alike = results([replace(r, value=0.5) for r in SEARCH], tmp_path)
    assert [build(alike) for build in (slices, importance, contour, parallel)] == [None] * 4
    assert slices(results([record(0, 0.8), record(1, 0.9)], tmp_path)) is None


def test_the_contour_has_the_mean_of_each_cell(tmp_path: Path) -> None:
    """Cells without a trial are empty, and the caption names the highest."""
    chart = contour(results(SEARCH, tmp_path))

    assert chart is not None
    assert chart.panels[0].x is not None
    assert chart.panels[0].y is not None
    heat = chart.panels[0].marks[0]
    assert isinstance(heat, Heat)
    shown = heat.z[np.isfinite(heat.z)]
    assert chart.panels[0].x.title == "activation"
    assert shown.max() in heat.z[:, list(heat.x).index("gelu")]
    gelu = [r.value for r in SEARCH if r.values["activation"] == "gelu" and r.values[chart.panels[0].y.title]]
    assert min(v for v in gelu if v) <= shown.max() <= max(v for v in gelu if v)
    assert f"The highest mean, {shown.max():.4f}" in chart.caption
    assert "activation gelu" in chart.caption
    # The outermost points lie within a cell too.
    axis, centres, cells = _cells(Axis("lr", "log"), [1e-4, 1e-2, 1e-1], [1e-4, 1e-2, 1e-1])
    assert axis.low is not None
    assert axis.high is not None
    assert axis.low < 1e-4 < 1e-1 < axis.high
    assert (len(centres), cells.tolist()) == (5, [0, 3, 4])


def test_a_value_without_a_place_on_a_logarithmic_axis_is_told(tmp_path: Path) -> None:
    """A baseline's weight_decay of 0 is said in words where the search's axis is logarithmic."""
    log = {"low": 1e-9, "high": 1.0, "log": True}
    search = [
        record(i, 0.5 + 0.01 * i, lr=10 ** (i - 10.0), weight_decay=10 ** (i - 10.0)) for i in range(11)
    ]
    space = {"lr": log, "weight_decay": log}
    drawn = results([record(-1, 0.55, weight_decay=0.0), *search], tmp_path, space=space)

    cells, panels = contour(drawn), slices(drawn)

    assert cells is not None
    assert panels is not None
    assert "weight_decay 0, has no place here" in cells.caption
    assert "baseline" not in marks(cells)
    assert [panel.title for panel in panels.panels] == ["lr", "weight_decay: baseline 0, off the axis"]
    for chart in (cells, panels):
        assert chart_png(chart)


def test_parallel_coordinates_show_what_is_not_used(tmp_path: Path) -> None:
    """A line has None where its trial has no such hyper-parameter, and its accuracy at the end."""
    chart = parallel(results(SEARCH, tmp_path))

    assert chart is not None
    drawn = chart.panels[0].marks[0]
    assert isinstance(drawn, Parallel)
    titles = [axis.title for axis in drawn.dimensions]
    assert (titles[0], titles[-1]) == ("activation", "val_accuracy")
    unused = [values[titles.index("kernel_size_3")] for values in drawn.values].count(None)
    assert unused == 18
    # Three decades of lr are not alike, though they are near each other on a linear axis.
    assert "The best 3 of 36 all have activation gelu." in chart.caption
    assert not marks(chart)

"""Stand-in until the gallery is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lenet_exp.base.layout import Layout
from lenet_exp.results.figures import comparisons, curves, search, tradeoffs
from lenet_exp.results.figures.chart import Chart
from lenet_exp.results.lookup import ExperimentResults


def gallery(results: ExperimentResults) -> list[Chart]:
    """Return the charts."""
    makers = (
        *(comparisons.confirmation, tradeoffs.pareto_fronts, search.history, curves.learning_curves),
        *(search.timeline, search.throughput, comparisons.ablation),
    )
    return [chart for make in makers if (chart := make(results))]


def draw_pictures(charts: Sequence[Chart], layout: Layout) -> list[Path]:
    """Write no picture."""
    return []

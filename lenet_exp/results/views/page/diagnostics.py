"""What a list's ``[watch]`` measured, as figures: a panel for each layer, a curve for each run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lenet_exp.base.records import EpochResult, without_seed
from lenet_exp.results.figures.chart import BASELINE, COLOURS, FAINT, Axis, Chart, Dash, Line, Panel
from lenet_exp.results.lookup import ExperimentResults

_DASHES: tuple[Dash, ...] = ("solid", "dash", "dot")


@dataclass(frozen=True)
class _Kind:
    """A kind of metric that is measured layer by layer.

    Attributes:
        title: Heading of its figure.
        unit: Title of the upright axis.
        about: Sentence that says what is measured.
        is_share: True if it is a share, of which much is telling; False if little is.
    """

    title: str
    unit: str
    about: str
    is_share: bool = True


_KINDS = {
    "dead_share": _Kind("Dead units", "share of units", "A channel or unit is dead if it is 0 everywhere."),
    "saturated_share": _Kind(
        "Saturated units",
        "share of outputs",
        "An output of sigmoid or tanh is saturated if the slope there is below 1 % of its largest.",
    ),
    "grad_norm": _Kind(
        "Gradients",
        "L2 norm",
        "The gradient of a layer's weights and biases; 0 is not drawn.",
        is_share=False,
    ),
}


def diagnostics(results: ExperimentResults) -> list[Chart]:
    """Return the figures of what ``[watch]`` measured of each listed run, from its first seed."""
    if not results.experiment.run:
        return []
    runs = _runs(results)
    names = list(dict.fromkeys(name for epochs in runs.values() for e in epochs for name in e.watched))
    charts = []
    if tested := [name for name in names if name.startswith("test_")]:
        panels = [Panel(_lines(runs, name), Axis("epoch", is_integer=True), Axis(name)) for name in tested]
        text = "Measured on the test images after every epoch, which a list may do as it chooses nothing."
        charts.append(Chart("watched", "On the test images", text, panels))
    for key, kind in _KINDS.items():
        layers = [name for name in names if name.startswith(f"{key}_")]
        upright = Axis(kind.unit, low=0, high=1) if kind.is_share else Axis(kind.unit, "log")
        drawn = {name: _lines(runs, name, is_log=not kind.is_share) for name in layers}
        panels = [
            Panel(lines, Axis("epoch", is_integer=True), upright, name.removeprefix(f"{key}_"), height=260)
            for name, lines in drawn.items()
            if any(value for line in lines for value in line.y)
        ]
        if panels:
            charts.append(Chart(key, kind.title, f"{_extreme(runs, layers, kind)} {kind.about}", panels, 3))
    return charts


def _runs(results: ExperimentResults) -> dict[str, Sequence[EpochResult]]:
    """Return the epochs of the baseline and of each listed run by name, of the first seed that has any."""
    runs: dict[str, Sequence[EpochResult]] = {}
    for record in sorted(results.records, key=lambda r: (r.key.role != "baseline", r.trial)):
        log = results.run_logs.get(record.key)
        if record.key.role in ("baseline", "run") and not record.superseded and log and log.epochs:
            runs.setdefault(without_seed(record.label), log.epochs)
    return runs


def _lines(runs: Mapping[str, Sequence[EpochResult]], metric: str, *, is_log: bool = False) -> list[Line]:
    """Return the curve of each run, in the colours of the learning curves; the baseline's is on top.

    Args:
        runs: Epochs of each run, by name.
        metric: Name of a watched metric.
        is_log: True to leave out what a logarithmic axis cannot show.
    """
    lines = []
    listed = [name for name in runs if name != "baseline"]
    for name, epochs in runs.items():
        points = [(e.epoch, value) for e in epochs if math.isfinite(value := e.watched.get(metric, math.nan))]
        points = [(epoch, value) for epoch, value in points if value > 0 or not is_log]
        x, y = [epoch for epoch, _ in points], [value for _, value in points]
        at = listed.index(name) if name in listed else -1
        if name == "baseline":
            lines.append(Line(x, y, name, BASELINE, width=3, hover=name))
        elif at < len(COLOURS):
            lines.append(Line(x, y, name, COLOURS[at], _DASHES[at % len(_DASHES)], hover=name))
        else:
            lines.append(Line(x, y, "other runs", FAINT, opacity=0.6, hover=name, width=1.5))
    return sorted(lines, key=lambda line: line.name == "baseline")


def _extreme(runs: Mapping[str, Sequence[EpochResult]], metrics: Sequence[str], kind: _Kind) -> str:
    """Return a sentence on the run and the layer that stand out after the last epoch.

    Args:
        runs: Epochs of each run, by name.
        metrics: Names of a kind's metrics, one for each layer.
        kind: Kind of the metrics.
    """
    last = [
        (value, name, metric.rpartition("_")[2])
        for name, epochs in runs.items()
        for metric in metrics
        if math.isfinite(value := epochs[-1].watched.get(metric, math.nan))
    ]
    if not last:
        return "Nothing is known of the last epoch."
    value, name, layer = max(last) if kind.is_share else min(last)
    if kind.is_share and value == 0:
        return "After the last epoch there is none in any run."
    extreme = "largest" if kind.is_share else "smallest"
    return f"After the last epoch the {extreme} is {value:.3g}, of {name} in {layer}."

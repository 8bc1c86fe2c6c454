"""The figure of what accuracy costs: against size, operations and speed, with the Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence

from lenet_exp.base.errors import printable
from lenet_exp.base.messages import counted
from lenet_exp.base.records import without_seed
from lenet_exp.results.aggregate import configurations, is_compared, on_front
from lenet_exp.results.figures.chart import (
    BASELINE,
    FRONT,
    Axis,
    Chart,
    Line,
    Mark,
    Panel,
    Points,
    Scale,
    Symbol,
)
from lenet_exp.results.figures.selection import floor
from lenet_exp.results.lookup import ExperimentResults
from lenet_exp.study.records import TrialRecord

#: Measurements that accuracy is set against: name, title of the axis, and 1 if more of it is better, else -1.
_COSTS = (
    ("n_parameters", "parameters (fewer is better)", -1),
    ("macs", "multiply-adds per image (fewer is better)", -1),
    ("examples_per_s", "training examples/s (more is better)", 1),
)


def pareto_fronts(results: ExperimentResults) -> Chart | None:
    """Return the figure of the Pareto fronts, those of the leaderboard; None without a trade-off."""
    compared = [record for record in configurations(results.records) if is_compared(record)]
    low = floor([_accuracy(record) for record in compared])
    panels, sentence = [], ""
    for name, title, sign in _COSTS:
        known = [record for record in compared if record.result.get(name)]
        if len({record.result[name] for record in known}) < 2:
            continue
        front = [r for r, is_on in zip(known, on_front(known, name, sign), strict=True) if is_on]
        # From the cheapest on, so that a step holds for what costs more and is no better.
        front.sort(key=lambda record: (-sign * record.result[name], _accuracy(record)))
        values = [record.result[name] for record in known]
        scale: Scale = "log" if max(values) > 3 * min(values) else "linear"
        axes = Axis(title, scale), Axis("val_accuracy (share of images)")
        panels.append(Panel(_marks(known, front, name, low), *axes, title=f"accuracy and {name}", height=300))
        sentence = sentence or _sentence(known, front, name, sign)
    if not panels:
        return None
    below = sum(_accuracy(record) < low for record in compared)
    lie = "lies" if below == 1 else "lie"
    note = f" {counted(below, 'configuration')} below {low:.3f} {lie} at the lower edge." if below else ""
    how = " Compared are all complete configurations on validation images, before any confirmation."
    title = "What accuracy costs: no other configuration is better than one on the Pareto front in both"
    return Chart("pareto", title, f"{sentence}{how}{note}", panels, columns=3)


def _marks(known: Sequence[TrialRecord], front: Sequence[TrialRecord], name: str, low: float) -> list[Mark]:
    on = {id(record) for record in front}
    others = [r for r in known if id(r) not in on and r.key.role != "baseline"]
    best = [r for r in front if r.key.role != "baseline"]
    baseline = [r for r in known if r.key.role == "baseline"]
    line = [record.result[name] for record in front], [max(_accuracy(record), low) for record in front]
    step = Line(*line, name="Pareto front", colour=FRONT, is_step=True)
    marks: list[Mark] = [step] if len(front) > 1 else []
    marks.append(_points(others, name, low, "not on the front"))
    marks.append(_points(best, name, low, "on the front", colour=FRONT))
    marks.append(_points(baseline, name, low, "baseline", "diamond", colour=BASELINE, size=11))
    return marks


def _points(
    records: Sequence[TrialRecord],
    name: str,
    low: float,
    legend: str,
    symbol: Symbol = "circle",
    **style: object,
) -> Points:
    """Return the points of some records; those below ``low`` are triangles there."""
    return Points(
        [record.result[name] for record in records],
        [max(_accuracy(record), low) for record in records],
        legend,
        symbols=["triangle-down" if _accuracy(record) < low else symbol for record in records],
        hover=[f"{without_seed(r.label)}: {_accuracy(r):.4f}, {name} {r.result[name]:,.0f}" for r in records],
        **style,  # type: ignore[arg-type]
    )


def _sentence(known: Sequence[TrialRecord], front: Sequence[TrialRecord], name: str, sign: int) -> str:
    """Return what to see in the first panel.

    Args:
        known: Configurations that are compared.
        front: Configurations on the front, the cheapest first.
        name: Measurement that accuracy is set against.
        sign: 1 if more of it is better, else -1.
    """
    first, last = front[0], front[-1]
    lie = "lies" if len(front) == 1 else "lie"
    of = counted(len(known), "configuration")
    text = f"Of {of}, {len(front)} {lie} on the front of accuracy and {name}"
    text += f": {_named(first, name)}" + (f" to {_named(last, name)}" if last is not first else "") + "."
    baseline = next((r for r in known if r.key.role == "baseline"), None)
    if baseline is None:
        return text
    if any(record is baseline for record in front):
        return f"{text} The baseline is on it: none is both better and {'faster' if sign > 0 else 'smaller'}."
    value, cost = _accuracy(baseline), sign * baseline.result[name]
    beating = sum(_accuracy(r) >= value and sign * r.result[name] >= cost for r in known if r is not baseline)
    verb, cheap = "is" if beating == 1 else "are", "no slower" if sign > 0 else "no larger"
    return f"{text} Against the baseline, {beating} {verb} as accurate or better and {cheap}."


def _named(record: TrialRecord, name: str) -> str:
    return (
        f"{printable(without_seed(record.label))} ({_accuracy(record):.4f} with {record.result[name]:,.0f})"
    )


def _accuracy(record: TrialRecord) -> float:
    return record.value or 0.0

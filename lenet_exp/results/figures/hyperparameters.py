"""The figures of what hyper-parameters did: importance, slices, the two most important, and all at once.

They show complete trials or listed runs; the accuracy of a pruned one is that of an early epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenet_exp.base.messages import counted
from lenet_exp.config.space import Range
from lenet_exp.results.figures.chart import (
    BASELINE,
    FRONT,
    TRIAL,
    Axis,
    Chart,
    Heat,
    Intervals,
    Mark,
    Panel,
    Parallel,
    Points,
    Symbol,
    Value,
)
from lenet_exp.results.figures.search import CLIPPED
from lenet_exp.results.figures.selection import (
    baseline_of,
    best_of,
    complete,
    condition,
    floor,
    sample,
    summary,
    value_text,
    varied,
)
from lenet_exp.results.lookup import ExperimentResults
from lenet_exp.results.verdicts.importance import explained_share
from lenet_exp.study.records import TrialRecord

#: Fewest complete trials that use a hyper-parameter whose importance is estimated.
MIN_TRIALS = 10
#: Largest number of lines in parallel coordinates; of more trials, the best half of them and a sample.
MAX_LINES = 200
#: Largest number of cells along a numeric axis of the contour.
_CELLS = 5

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Importance:
    """How much of the order of the trials a hyper-parameter alone explains.

    Attributes:
        name: Key of the hyper-parameter.
        share: Share of the variance of the ranks, in [0, 1], less what chance explains.
        low: Lower end of its interval.
        high: Upper end of its interval.
        n_trials: Number of complete trials that use the hyper-parameter.
    """

    name: str
    share: float
    low: float
    high: float
    n_trials: int


def names_varied(records: Sequence[TrialRecord]) -> list[str]:
    """Return the hyper-parameters that differ between complete trials, less padding that kernels decide.

    There are none if all trials have one accuracy, as then no hyper-parameter can have made a difference.
    """
    values = [r.values for r in complete(records)]
    return [
        name
        for name in (varied(records) if len({r.value for r in complete(records)}) > 1 else ())
        if not name.startswith("padding")
        or any(
            v[name] != v[name.replace("padding", "kernel_size")] // 2 for v in values if v[name] is not None
        )
    ]


def importances(records: Sequence[TrialRecord]) -> list[Importance]:
    """Return the importance of each hyper-parameter that varied in enough trials, the largest first.

    The intervals hold the true shares all together with a chance of about 0.95 (Bonferroni).
    """
    names, estimates = names_varied(records), []
    for name in names:
        used = [r for r in complete(records) if r.values[name] is not None]
        values, accuracies = [r.values[name] for r in used], [r.value or 0.0 for r in used]
        if len(used) >= MIN_TRIALS and (known := explained_share(values, accuracies, 0.05 / len(names))):
            estimates.append(Importance(name, *known, len(used)))
    return sorted(estimates, key=lambda estimate: -estimate.share)


def importance(results: ExperimentResults) -> Chart | None:
    """Return the importance of each hyper-parameter with its interval; None below `MIN_TRIALS` trials."""
    estimates, n = importances(results.records), len(complete(results.records))
    if not estimates or not results.experiment.space:
        return None
    names = [e.name if e.n_trials == n else f"{e.name} ({e.n_trials})" for e in estimates]
    hover = [f"{e.name}: {e.share:.2f} [{e.low:.2f}, {e.high:.2f}], {e.n_trials} trials" for e in estimates]
    interval = Intervals(
        [e.low for e in estimates], [e.high for e in estimates], names, "joint 95 % interval", hover=hover
    )
    point = Points(
        [e.share for e in estimates], names, "estimate", FRONT, ["diamond"] * len(names), hover=hover, size=10
    )
    clear = ", ".join(f"{e.name} ({e.share:.2f})" for e in estimates if e.low > 0)
    text = f"Clearly above chance: {clear}." if clear else "No hyper-parameter is clearly above chance."
    known = {e.name for e in estimates}
    left_out = [name for name in names_varied(results.records) if name not in known]
    rest = (
        " In brackets: the number of trials that use it, if not all." if any("(" in e for e in names) else ""
    )
    if left_out:
        rest += f" Left out, used by fewer than {MIN_TRIALS} trials: {', '.join(left_out)}."
    caption = (
        f"{text} An estimate near 1 would mean that this hyper-parameter alone decides the order of the {n}"
        " complete trials, 0 that it says nothing about it (epsilon squared of the ranks). If an interval"
        f" reaches 0, chance may explain it.{rest} It shows what went together, not what causes what."
    )
    axis = Axis("share of the order explained", low=-0.02, high=1.02)
    panel = Panel([interval, point], axis, Axis("", "category", names), height=90 + 26 * len(names))
    return Chart("importance", "Which hyper-parameters mattered", caption, [panel], columns=1)


# Axes.


def _is_category(values: Sequence[Any]) -> bool:
    return any(isinstance(value, str) for value in values)


def _axis(results: ExperimentResults, name: str, values: Sequence[Any]) -> Axis:
    """Return the axis of a hyper-parameter: categories, logarithmic if drawn so or wide, or linear."""
    if _is_category(values):
        return Axis(name, "category", sorted(set(map(str, values))))
    drawn = results.experiment.search_space.dimension(name)
    is_wide = min(values) > 0 and max(values) / min(values) > 20
    if drawn.log if isinstance(drawn, Range) else is_wide:
        return Axis(name, "log")
    is_integer = all(isinstance(value, int) for value in values)
    # Points of few values are spread, and the outer ones need room.
    ends = (min(values) - 0.5, max(values) + 0.5) if _are_few(values) else (None, None)
    return Axis(name, low=ends[0], high=ends[1], is_integer=is_integer)


def _are_few(values: Sequence[Any]) -> bool:
    """Return whether the values are few whole numbers, of which many trials have the same."""
    is_integer = all(isinstance(value, int) for value in values)
    return is_integer and len(set(values)) <= 8 and max(values) - min(values) <= 12


def _values(records: Sequence[TrialRecord], name: str) -> list[Any]:
    return [r.values[name] for r in records if r.values[name] is not None]


def _with_baseline(results: ExperimentResults, name: str) -> list[Any]:
    """Return the values of complete trials, and the baseline's, so that the axis has a place for it."""
    return _values([*complete(results.records), *_baseline(results, name)], name)


def _baseline(results: ExperimentResults, *names: str) -> list[TrialRecord]:
    """Return the baseline if it is complete and has a place on the axes of all these hyper-parameters."""
    baseline = baseline_of(results.records)
    return [baseline] if baseline and not any(_is_off(results, baseline, name) for name in names) else []


def _is_off(results: ExperimentResults, record: TrialRecord, name: str) -> bool:
    """Return True if a value cannot stand on its logarithmic axis, as the baseline's weight_decay of 0."""
    drawn, value = results.experiment.search_space.dimension(name), record.values[name]
    return isinstance(drawn, Range) and drawn.log and value is not None and value <= 0


# Charts.


def slices(results: ExperimentResults) -> Chart | None:
    """Return the val_accuracy against each hyper-parameter that varied."""
    records = complete(results.records)
    names = names_varied(results.records)
    if not names:
        return None
    low = floor([r.value or 0.0 for r in records])
    newest = max(r.trial for r in records) or 1
    ends = Axis("").ends([max(r.value or 0.0, low) for r in [*records, *_baseline(results)]])
    accuracy = Axis("val_accuracy", low=ends[0], high=ends[1])
    is_search = bool(results.experiment.space)
    panels = []
    for name in names:
        used, baseline = (
            [r for r in group if r.values[name] is not None] for group in (records, _baseline(results, name))
        )
        axis = _axis(results, name, _with_baseline(results, name))
        marks: list[Mark] = [
            _points(
                used, name, axis, low, "complete", TRIAL, shades=[r.trial / newest for r in used if is_search]
            ),
            _points(baseline, name, axis, low, "baseline", BASELINE),
        ]
        notes = [
            condition(name) if len(used) < len(records) else "",
            *(
                f"baseline {value_text(record.values[name])}, off the axis"
                for record in _baseline(results)
                if _is_off(results, record, name)
            ),
        ]
        note = ", ".join(filter(None, notes))
        panels.append(Panel(marks, axis, accuracy, f"{name}{': ' * bool(note)}{note}", height=240))
    best = best_of(records)
    shown = [
        f"{name} {value_text(best.values[name])}" for name in names if best and best.values[name] is not None
    ]
    caption = f"The best, {best.label if best else ''}, has {', '.join(shown)}."
    caption += " Earlier trials are fainter." if is_search else ""
    if any((r.value or 0.0) < low for r in records):
        caption += f" {CLIPPED}"
    return Chart("slices", "Accuracy against each hyper-parameter", caption, panels, columns=4)


def _points(
    records: Sequence[TrialRecord],
    name: str,
    axis: Axis,
    low: float,
    label: str,
    colour: str,
    shades: Sequence[float] = (),
) -> Points:
    """Return the points of one panel of the slices; those below ``low`` are triangles there."""
    accuracies = [r.value or 0.0 for r in records]
    symbol: Symbol = "diamond" if label == "baseline" else "circle"
    symbols: list[Symbol] = ["triangle-down" if a < low else symbol for a in accuracies]
    y = [max(accuracy, low) for accuracy in accuracies]
    hover = [summary(r, [name]) for r in records]
    size = 11 if label == "baseline" else 7
    spread = 0.0 if label == "baseline" else _spread(axis, _values(records, name))
    return Points(_values(records, name), y, label, colour, symbols, shades, hover, size, spread)


def _spread(axis: Axis, values: Sequence[Any]) -> float:
    """Return over what part of an axis points of equal values are spread, so that each can be seen."""
    return 0.6 if axis.scale == "category" else 0.4 if _are_few(values) and axis.scale == "linear" else 0


def contour(results: ExperimentResults) -> Chart | None:
    """Return the mean val_accuracy in cells of the two most important hyper-parameters, with the trials."""
    records = complete(results.records)
    estimates = importances(results.records)[:2]
    names = [estimate.name for estimate in estimates]
    used = [r for r in records if all(r.values[name] is not None for name in names)]
    if (
        not results.experiment.space
        or len(names) < 2
        or len(used) < MIN_TRIALS
        or any(len(set(_values(used, name))) < 2 for name in names)
    ):
        return None
    baseline = [r for r in _baseline(results, *names) if all(r.values[n] is not None for n in names)]
    every = [_values([*used, *baseline], name) for name in names]
    (x_axis, centres_x, columns), (y_axis, centres_y, rows) = (
        _cells(_axis(results, name, covered), _values(used, name), covered)
        for name, covered in zip(names, every, strict=True)
    )
    accuracies = np.array([r.value for r in used], float)
    z = np.full((len(centres_y), len(centres_x)), np.nan)
    for row, column in set(zip(rows.tolist(), columns.tolist(), strict=True)):
        z[row, column] = accuracies[(rows == row) & (columns == column)].mean()
    marks: list[Mark] = [Heat(centres_x, centres_y, z, "mean val_accuracy")]
    best = best_of(used)
    drawn: tuple[tuple[str, str, Symbol, int, list[TrialRecord]], ...] = (
        ("complete", "#ffffff", "circle", 6, [r for r in used if r is not best]),
        ("baseline", BASELINE, "diamond", 12, baseline),
        (f"best of these: {best.label if best else ''}", FRONT, "square", 12, [best] if best else []),
    )
    for name, colour, symbol, size, shown in drawn:
        x, y = (_values(shown, n) for n in names)
        hover = [summary(r, names) for r in shown]
        symbols = [symbol] * len(shown)
        spread = _spread(x_axis, x) if name == "complete" else 0
        marks.append(Points(x, y, name, colour, symbols, hover=hover, size=size, spread=spread))
    row, column = np.unravel_index(np.nanargmax(z), z.shape)
    n_cell = int(((rows == row) & (columns == column)).sum())
    place = " and ".join(
        f"{name} {'' if centre in _values(used, name) else 'near '}{value_text(centre)}"
        for name, centre in zip(names, (centres_x[column], centres_y[row]), strict=True)
    )
    n_empty = int(np.isnan(z).sum())
    sentences = [
        f"The highest mean, {z[row, column]:.4f}, is that of {counted(n_cell, 'trial')} with {place}."
    ]
    if n_empty:
        sentences.append(f"No trial lies in the empty cells, {n_empty} of {z.size}.")
    if not baseline:
        for record in _baseline(results):
            told = [f"{n} {'unused' if (v := record.values[n]) is None else value_text(v)}" for n in names]
            sentences.append(f"The baseline, with {' and '.join(told)}, has no place here.")
    if any(estimate.low <= 0 for estimate in estimates):
        sentences.append("Chance alone could explain what at least one of the two seems to do.")
    panel = Panel(marks, x_axis, y_axis, height=420)
    return Chart("contour", f"Accuracy by {names[0]} and {names[1]}", " ".join(sentences), [panel], columns=1)


def _cells(axis: Axis, values: Sequence[Any], every: Sequence[Any]) -> tuple[Axis, list[Value], Integers]:
    """Return an axis as long as its cells, the positions of the cells, and the cell of each value.

    Args:
        axis: Axis of a hyper-parameter.
        values: Values to find the cells of.
        every: Values that the cells have to cover, at least two different ones.
    """
    if axis.scale == "category":
        names = list(axis.categories)
        return axis, list(names), np.array([names.index(value) for value in values])
    is_log = axis.scale == "log"
    places, covered = (np.log10(v) if is_log else np.array(v, float) for v in (values, every))
    middles = np.unique(covered)
    if is_log or len(middles) > _CELLS:
        room = 0.03 * np.ptp(covered)  # for the outermost points
        edges = np.linspace(covered.min() - room, covered.max() + room, _CELLS + 1)
        middles = (edges[1:] + edges[:-1]) / 2
    inner = (middles[1:] + middles[:-1]) / 2
    edges = np.array([2 * middles[0] - inner[0], *inner, 2 * middles[-1] - inner[-1]])
    cells = np.clip(np.searchsorted(edges, places, side="right") - 1, 0, len(middles) - 1)
    if is_log:
        edges, middles = 10**edges, 10**middles
    return replace(axis, low=float(edges[0]), high=float(edges[-1])), middles.tolist(), cells.astype(np.int64)


def parallel(results: ExperimentResults) -> Chart | None:
    """Return parallel coordinates of what varied, the most important first, coloured by val_accuracy."""
    records, names = complete(results.records), names_varied(results.records)
    if len(records) < 2 or len(names) < 2:
        return None
    order = [estimate.name for estimate in importances(results.records)]
    names = [*order, *(name for name in names if name not in order)]
    best_first = sorted(records, key=lambda r: (-(r.value or 0.0), r.trial))
    half = MAX_LINES // 2
    shown = [*best_first[:half], *sample(best_first[half:], half)]
    accuracies = [r.value or 0.0 for r in shown]
    low = floor(accuracies)
    axis = Axis("val_accuracy", low=low)
    lines: list[list[Value | None]] = [
        [*(r.values[name] for name in names), max(accuracy, low)]
        for r, accuracy in zip(shown, accuracies, strict=True)
    ]
    dimensions = [*(_axis(results, name, _values(shown, name)) for name in names), axis]
    hover = [f"{r.label}: {r.value:.4f}" for r in shown]
    colours = [max(accuracy, low) for accuracy in accuracies]
    chart = Parallel(dimensions, lines, colours, "val_accuracy", hover)
    caption = (
        "Each line is a complete trial and runs down through its values to its accuracy: orange lines are the"
        " most accurate, blue ones the least. Where orange lines run together, good trials agree."
    )
    if len(records) >= MIN_TRIALS:
        caption += f" {_best_tenth(best_first, dimensions[:-1])}"
    if len(shown) < len(records):
        caption += f" Of {len(records):,} trials the best {half} and a sample of the others are shown."
    return Chart("parallel", "All hyper-parameters at once", caption, [Panel([chart])], columns=1)


def _best_tenth(best_first: Sequence[TrialRecord], axes: Sequence[Axis]) -> str:
    """Return a sentence on what the best tenth of the trials share: a value, or a third of an axis.

    Args:
        best_first: Complete trials, the best first.
        axes: Axes of the hyper-parameters.
    """
    top = best_first[: max(3, len(best_first) // 10)]
    parts = []
    for axis in axes:
        values, every = (_values(group, axis.title) for group in (top, best_first))
        if len(values) < len(top):
            continue
        if len(set(values)) == 1:
            parts.append(f"{axis.title} {value_text(values[0])}")
        elif axis.scale != "category" and _span(values, axis) < _span(every, axis) / 3:
            parts.append(f"{axis.title} from {value_text(min(values))} to {value_text(max(values))}")
    shared = f"all have {', '.join(parts)}" if parts else "have no value in common"
    return f"The best {len(top)} of {len(best_first):,} {shared}."


def _span(values: Sequence[float], axis: Axis) -> float:
    """Return how far values reach along their axis: in decades if it is logarithmic."""
    return math.log10(max(values) / min(values)) if axis.scale == "log" else max(values) - min(values)

"""The figures of what hyper-parameters did: importance, slices, the two most important, and all at once.

They show complete trials or listed runs; the accuracy of a pruned one is that of an early epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    varied,
)
from lenet_exp.results.lookup import ExperimentResults
from lenet_exp.study.records import TrialRecord

#: Fewest complete trials that use a hyper-parameter whose importance is estimated.
MIN_TRIALS = 10
#: Largest number of lines in parallel coordinates; of more trials, the best half of them and a sample.
MAX_LINES = 200
#: Largest number of groups into which the values of a numeric hyper-parameter are divided.
_GROUPS = 4
#: Largest number of cells along a numeric axis of the contour.
_CELLS = 5

Floats = NDArray[np.float64]
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
    """Return the hyper-parameters that differ between complete trials, less padding that kernels decide."""
    values = [r.values for r in complete(records)]
    return [
        name
        for name in varied(records)
        if not name.startswith("padding")
        or any(
            v[name] != v[name.replace("padding", "kernel_size")] // 2 for v in values if v[name] is not None
        )
    ]


def importances(records: Sequence[TrialRecord]) -> list[Importance]:
    """Return the importance of each hyper-parameter that varied in enough trials, the largest first.

    The intervals hold the true shares all together with a chance of about 0.95 (Bonferroni).

    The accuracies are replaced by their ranks, so that one failure does not decide, and many values of a
    numeric hyper-parameter are divided into four groups of equal size.

    Source: Kruskal and Wallis, JASA 47 (1952), for the ranks; Kelley, PNAS 21 (1935), for the correction by
    what chance explains (epsilon squared); Steiger, Psychological Methods 9 (2004), for the interval, by the
    noncentral F distribution. At 0.95 for each, in simulations of 10 to 200 trials with unequal groups and
    spreads, it held the true share in 0.87 to 1.00 of all cases, and without an effect excluded 0 in at most
    0.04; an interval by the bootstrap did so in 0.68 to 1.00, and in up to 0.18.
    """
    names, estimates = names_varied(records), []
    for name in names:
        used = [r for r in complete(records) if r.values[name] is not None]
        groups = _groups([r.values[name] for r in used])
        n, n_groups = len(used), int(groups.max()) + 1
        if n < MIN_TRIALS or not 2 <= n_groups < n:
            continue
        # A share of 1 would be an infinite F.
        plain = min(_explained(np.array([r.value for r in used], float), groups), 1 - 1e-9)
        share = max(0.0, 1 - (1 - plain) * (n - 1) / (n - n_groups))
        low, high = _interval(plain, n, n_groups, 0.05 / len(names))
        estimates.append(Importance(name, share, min(low, share), max(high, share), n))
    return sorted(estimates, key=lambda estimate: -estimate.share)


def _interval(share: float, n: int, n_groups: int, level: float) -> tuple[float, float]:
    """Return the shares of which so large an F, or so small, is seen in half of ``level`` of all cases."""
    from scipy import special

    between, within = n_groups - 1, n - n_groups
    f = share / between / ((1 - share) / within)
    noncentral = [
        float(special.ncfdtrinc(between, within, p, f)) if special.fdtr(between, within, f) > p else 0.0
        for p in (1 - level / 2, level / 2)
    ]
    low, high = (value / (value + n) for value in noncentral)
    return low, high


def _explained(accuracies: Floats, groups: Integers) -> float:
    """Return the share of the variance of the ranks that lies between the groups."""
    _, places, counts = np.unique(accuracies, return_inverse=True, return_counts=True)
    # Equal accuracies share the mean of their ranks.
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places] - (len(places) + 1) / 2
    total = float((ranks**2).sum())
    sizes = np.bincount(groups)
    sums = np.bincount(groups, ranks)
    return float((sums[sizes > 0] ** 2 / sizes[sizes > 0]).sum()) / total if total else 0.0


def _groups(values: Sequence[Any]) -> Integers:
    """Return the number of each value's group: its own if there are few values, else its quarter's."""
    distinct, inverse = np.unique(
        [str(v) for v in values] if _is_category(values) else values, return_inverse=True
    )
    if _is_category(values) or len(distinct) <= _GROUPS:
        return inverse.astype(np.int64)
    cuts = np.quantile(values, np.arange(1, _GROUPS) / _GROUPS)
    _, groups = np.unique(np.searchsorted(cuts, values, side="left"), return_inverse=True)
    return groups.astype(np.int64)


def _is_category(values: Sequence[Any]) -> bool:
    return any(isinstance(value, str) for value in values)


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
    clear = [f"{e.name} ({e.share:.2f})" for e in estimates if e.low > 0]
    text = (
        f"Clearly above chance: {', '.join(clear)}."
        if clear
        else "No hyper-parameter is clearly above chance."
    )
    left_out = len(names_varied(results.records)) - len(estimates)
    rest = " (in brackets those that use it, if not all)" if any("(" in name for name in names) else ""
    rest += f"; {left_out} that fewer than {MIN_TRIALS} use are left out" if left_out else ""
    caption = (
        f"{text} Shown is Kruskal and Wallis's epsilon squared: the share of the variance in rank that each"
        f" alone explains among {n} complete trials{rest}. It says what went together, not what causes what."
    )
    axis = Axis("share of the variance in rank", low=-0.02, high=1.02)
    panel = Panel([interval, point], axis, Axis("", "category", names), height=90 + 26 * len(names))
    return Chart("importance", "Which hyper-parameters mattered", caption, [panel], columns=1)


# Axes.


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
    return _values([*complete(results.records), *_baseline(results)], name)


def _baseline(results: ExperimentResults) -> list[TrialRecord]:
    baseline = baseline_of(results.records)
    return [baseline] if baseline else []


# Charts.


def slices(results: ExperimentResults) -> Chart | None:
    """Return the val_accuracy against each hyper-parameter that varied."""
    records = complete(results.records)
    names = names_varied(results.records)
    if not names:
        return None
    low = floor([r.value or 0.0 for r in records])
    newest = max(r.trial for r in records) or 1
    is_search = bool(results.experiment.space)
    panels = []
    for name in names:
        used, baseline = (
            [r for r in group if r.values[name] is not None] for group in (records, _baseline(results))
        )
        axis = _axis(results, name, _with_baseline(results, name))
        marks: list[Mark] = [
            _points(
                used, name, axis, low, "complete", TRIAL, shades=[r.trial / newest for r in used if is_search]
            ),
            _points(baseline, name, axis, low, "baseline", BASELINE),
        ]
        note = f": {condition(name)}" if len(used) < len(records) and condition(name) else ""
        panels.append(Panel(marks, axis, Axis("val_accuracy"), f"{name}{note}", height=240))
    best = best_of(records)
    shown = [f"{name} {_text(best.values[name])}" for name in names if best and best.values[name] is not None]
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


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


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
    axes = [_axis(results, name, _with_baseline(results, name)) for name in names]
    columns, rows = (_cells(axis, _values(used, name)) for axis, name in zip(axes, names, strict=True))
    accuracies = np.array([r.value for r in used], float)
    z = np.full((len(rows[0]), len(columns[0])), np.nan)
    for row, column in set(zip(rows[1].tolist(), columns[1].tolist(), strict=True)):
        z[row, column] = accuracies[(rows[1] == row) & (columns[1] == column)].mean()
    marks: list[Mark] = [Heat(columns[0], rows[0], z, "mean val_accuracy")]
    best = best_of(used)
    drawn: tuple[tuple[str, str, Symbol, int, list[TrialRecord]], ...] = (
        ("complete", "#ffffff", "circle", 6, [r for r in used if r is not best]),
        ("baseline", BASELINE, "diamond", 12, _baseline(results)),
        (f"best of these: {best.label if best else ''}", FRONT, "square", 12, [best] if best else []),
    )
    for name, colour, symbol, size, group in drawn:
        shown = [r for r in group if all(r.values[n] is not None for n in names)]
        x, y = (_values(shown, n) for n in names)
        hover = [summary(r, names) for r in shown]
        symbols = [symbol] * len(shown)
        spread = _spread(axes[0], x) if name == "complete" else 0
        marks.append(Points(x, y, name, colour, symbols, hover=hover, size=size, spread=spread))
    row, column = np.unravel_index(np.nanargmax(z), z.shape)
    n_cell = int(((rows[1] == row) & (columns[1] == column)).sum())
    place = " and ".join(
        f"{axis.title} {'' if axis.scale == 'category' else 'near '}{_text(cells[0][at])}"
        for axis, cells, at in zip(axes, (columns, rows), (column, row), strict=True)
    )
    n_empty = int(np.isnan(z).sum())
    trials = f"{n_cell} trial{'' if n_cell == 1 else 's'}"
    sentences = [f"The highest mean, {z[row, column]:.4f}, is that of {trials} with {place}."]
    if n_empty:
        sentences.append(f"Nothing is known of the empty cells, {n_empty} of {z.size}.")
    if any(estimate.low <= 0 for estimate in estimates):
        sentences.append("Not both of the two matter clearly more than by chance.")
    panel = Panel(marks, axes[0], axes[1], height=420)
    return Chart("contour", f"Accuracy by {names[0]} and {names[1]}", " ".join(sentences), [panel], columns=1)


def _cells(axis: Axis, values: Sequence[Any]) -> tuple[list[Value], Integers]:
    """Return the positions of an axis's cells, and the cell of each value."""
    if axis.scale == "category":
        return list(axis.categories), np.array([list(axis.categories).index(value) for value in values])
    if len(set(values)) <= _CELLS and axis.scale == "linear":
        centres, inverse = np.unique(values, return_inverse=True)
        return list(map(float, centres)), inverse.astype(np.int64)
    places = np.log10(values) if axis.scale == "log" else np.array(values, float)
    edges = np.linspace(places.min(), places.max(), _CELLS + 1)
    cells = np.clip(np.searchsorted(edges, places, side="right") - 1, 0, _CELLS - 1)
    middles = (edges[1:] + edges[:-1]) / 2
    return (10**middles if axis.scale == "log" else middles).tolist(), cells.astype(np.int64)


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
    caption = "A line is a trial."
    if len(records) >= MIN_TRIALS:
        caption += f" {_best_tenth(best_first, names)}"
    if len(shown) < len(records):
        caption += f" Of {len(records):,} trials the best {half} and a sample of the others are shown."
    return Chart("parallel", "All hyper-parameters at once", caption, [Panel([chart])], columns=1)


def _best_tenth(best_first: Sequence[TrialRecord], names: Sequence[str]) -> str:
    """Return a sentence on what the best tenth of the trials share: a category, or a range of numbers."""
    top = best_first[: max(3, len(best_first) // 10)]
    parts = []
    for name in names:
        values = _values(top, name)
        every = _values(best_first, name)
        if len(values) < len(top):
            continue
        if len(set(values)) == 1:
            parts.append(f"{name} {_text(values[0])}")
        elif not _is_category(values) and max(values) - min(values) < (max(every) - min(every)) / 3:
            parts.append(f"{name} from {_text(min(values))} to {_text(max(values))}")
    shared = f"all have {', '.join(parts)}" if parts else "have no value in common"
    return f"The best {len(top)} of {len(best_first):,} {shared}."

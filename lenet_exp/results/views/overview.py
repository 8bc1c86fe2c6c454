"""The most important plots in one PNG, which MLflow's UI displays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from lenet_exp.results.figures.chart import BASELINE, COLOURS, FAINT, FRONT, TRIAL
from lenet_exp.results.figures.picture import plain, png
from lenet_exp.results.figures.selection import (
    Curve,
    baseline_of,
    complete,
    floor,
    incumbent,
    last_accuracy,
    on_front,
    tried,
)
from lenet_exp.study.records import TrialRecord


def overview(records: Sequence[TrialRecord], curves: Sequence[Curve]) -> bytes:
    """Draw four charts into one PNG: the trials, the learning curves, and accuracy against size and speed.

    Args:
        records: Records of the study's attempts that have ended.
        curves: Learning curves to show.
    """
    figure = Figure(figsize=(12, 8), dpi=100, layout="constrained")
    trials, learning, sizes, speeds = figure.subplots(2, 2).flat
    every, done, baseline = tried(records), complete(records), baseline_of(records)
    low = floor([last_accuracy(r) for r in every])
    ended = [r for r in every if r not in done]
    _points(trials, ended, low, FAINT, "pruned or failed")
    _points(trials, done, low, TRIAL, "complete")
    if best := incumbent(records):
        trials.step(*zip(*((n, max(v, low)) for n, v in best), strict=True), where="post", color=TRIAL)
    trials.set(xlabel="trial", ylabel="val_accuracy", title="trials, and the best so far")
    for number, curve in enumerate(curves):
        colour = BASELINE if curve.is_baseline else COLOURS[number % len(COLOURS)]
        x = [result.epoch for result in curve.epochs]
        validated = [result.val_accuracy for result in curve.epochs]
        learning.plot(x, validated, color=colour, label=plain(curve.label))
        learning.plot(x, [result.train_accuracy for result in curve.epochs], color=colour, ls=":")
    learning.set(xlabel="epoch", ylabel="accuracy", title="validation solid, training dotted")
    for axes, key, sign in ((sizes, "n_parameters", -1), (speeds, "examples_per_s", 1)):
        known = [r for r in (*done, *([baseline] if baseline else [])) if r.result.get(key)]
        front = on_front(known, key, sign)
        axes.plot(
            [r.result[key] for r in front],
            [max(last_accuracy(r), low) for r in front],
            color=FRONT,
            label="Pareto front",
        )
        _points(axes, [r for r in known if r is not baseline], low, TRIAL, None, key)
        if baseline in known:
            _points(axes, [baseline], low, BASELINE, None, key)
        axes.set(xlabel=key, ylabel="val_accuracy", title=f"accuracy against {key}")
    if any(r.result.get("n_parameters") for r in (*done, *([baseline] if baseline else []))):
        sizes.set_xscale("log")
        sizes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        sizes.xaxis.set_major_formatter(EngFormatter(sep=""))
        sizes.xaxis.set_minor_formatter(NullFormatter())
    learning.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (trials, sizes, speeds):
        if baseline is not None:
            axes.axhline(last_accuracy(baseline), color=BASELINE, ls="--", lw=1, label="baseline")
    for axes in (trials, learning, sizes):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    for axes in (trials, learning, sizes, speeds):
        axes.grid(alpha=0.3)
    return png(figure)


def _points(
    axes: Any, records: Sequence[TrialRecord], low: float, colour: str, label: str | None, key: str = ""
) -> None:
    """Draw the accuracies of records as points, against the trial's number or the measurement ``key``.

    Accuracies below ``low`` become triangles at ``low``.
    """
    for below in (False, True):
        shown = [r for r in records if (last_accuracy(r) < low) == below]
        x = [r.result[key] if key else r.trial for r in shown]
        y = [max(last_accuracy(r), low) for r in shown]
        axes.scatter(
            x, y, color=colour, marker="v" if below else "o", s=28, zorder=3, label=None if below else label
        )

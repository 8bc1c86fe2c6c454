"""The figure of learning curves: validation accuracy and loss by epoch, of a search or of a list of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from lenet_exp.base.errors import LenetExpError
from lenet_exp.base.records import EpochResult, without_seed
from lenet_exp.results.figures.chart import (
    BASELINE,
    COLOURS,
    FAINT,
    FRONT,
    TRIAL,
    Axis,
    Chart,
    Dash,
    Line,
    Mark,
    Panel,
)
from lenet_exp.results.figures.selection import best_of, floor, last_accuracy, sample, summary, tried
from lenet_exp.results.lookup import ExperimentResults
from lenet_exp.study.records import TrialRecord

#: Largest number of curves of trials; of more, a sample is shown.
MAX_CURVES = 200
#: Largest number of listed runs with a colour of their own.
MAX_COLOURED = 8
_DASHES: tuple[Dash, ...] = ("solid", "dash", "dot")

#: A curve: what is drawn, its epochs, and the text that is shown when it is pointed at.
_Curve = tuple[dict[str, Any], Sequence[EpochResult], str]


def learning_curves(results: ExperimentResults) -> Chart | None:
    """Return validation accuracy and loss by epoch, the hindmost curves first.

    A study of more than `MAX_CURVES` trials is shown by a sample, always the same of one study.
    """
    is_list = bool(results.experiment.run or results.experiment.ablate)
    curves, caption = _of_list(results) if is_list else _of_search(results)
    if not curves:
        return None
    accuracy = [e.val_accuracy for _, epochs, _ in curves for e in epochs if math.isfinite(e.val_accuracy)]
    loss = [e.val_loss for _, epochs, _ in curves for e in epochs if math.isfinite(e.val_loss)]
    low, high = floor(accuracy), -floor([-value for value in loss])
    is_cut = min(accuracy, default=0.0) < low, max(loss, default=0.0) > high
    if any(is_cut):
        caption += " The axes leave out values far from the others."
    if max(len(epochs) for _, epochs, _ in curves) == 1:
        caption += " After a single epoch a curve is a point."
    accuracies = Axis("val_accuracy (share of images)", low=low if is_cut[0] else None)
    losses = Axis("val_loss (less is better)", high=high if is_cut[1] else None)
    panels = [
        Panel(_lines(curves, lambda e: e.val_accuracy), _EPOCH, accuracies),
        Panel(_lines(curves, lambda e: e.val_loss), _EPOCH, losses),
    ]
    return Chart("curves", "Learning curves", caption, panels)


_EPOCH = Axis("epoch", is_integer=True)


def _lines(curves: Sequence[_Curve], metric: Callable[[EpochResult], float]) -> list[Mark]:
    return [
        Line([e.epoch for e in epochs], [metric(e) for e in epochs], hover=hover, **style)
        for style, epochs, hover in curves
    ]


def _epochs(results: ExperimentResults, record: TrialRecord) -> Sequence[EpochResult]:
    log = results.run_logs.get(results.original(record).key)
    return log.epochs if log else ()


def _of_search(results: ExperimentResults) -> tuple[list[_Curve], str]:
    """Return the curves of a search and their caption: pruned ones below complete ones, the best on top."""
    records = tried(results.records)
    top, name = _winner(results)
    others = [r for r in records if r is not top]
    shown = sample(others, MAX_CURVES)
    styles = {
        "pruned or failed": {"colour": FAINT, "opacity": 0.45, "width": 1},
        "complete": {"colour": TRIAL, "opacity": 0.5, "width": 1},
    }
    drawn = [
        ({"name": kind, **style}, r)
        for kind, style in styles.items()
        for r in shown
        if (r.state == "COMPLETE") == (kind == "complete")
    ]
    drawn += [({"name": "baseline", "colour": BASELINE, "width": 3}, r) for r in _baselines(results)[:1]]
    if top:
        drawn.append(({"name": name, "colour": FRONT, "width": 3}, top))
    curves = [(style, epochs, summary(r, [])) for style, r in drawn if (epochs := _epochs(results, r))]
    caption = _end_of(curves)
    if len(shown) < len(others):
        caption += f" Of {len(others):,} other trials a sample of {len(shown)} is shown, evenly spaced."
    return curves, caption


def _winner(results: ExperimentResults) -> tuple[TrialRecord | None, str]:
    """Return the trial to show on top and its name: the champion's, or else the best one."""
    best = best_of(results.records)
    try:
        champion = results.find("champion").config
    except LenetExpError:
        champion = ""
    confirmed = [r for r in tried(results.records) if r.config == champion and r.state == "COMPLETE"]
    if confirmed and results.confirmation.evaluation:
        return confirmed[0], f"champion: {confirmed[0].label}"
    return best, f"best: {best.label}" if best else ""


def _baselines(results: ExperimentResults) -> list[TrialRecord]:
    return [r for r in results.records if r.key.role == "baseline" and _is_drawn(r)]


def _is_drawn(record: TrialRecord) -> bool:
    return record.state == "COMPLETE" and math.isfinite(record.value or 0.0)


def _end_of(curves: Sequence[_Curve]) -> str:
    """Return a sentence on the last epoch of the two prominent curves, and whether accuracy still rises."""
    texts = []
    for style, epochs, _ in curves:
        if style["width"] == 3:
            last = epochs[-1]
            text = f"{style['name']} ends at {last.val_accuracy:.4f} after epoch {last.epoch}"
            if len(epochs) > 1:
                text += f" ({last.val_accuracy - epochs[-2].val_accuracy:+.4f} in that epoch)"
            texts.append(text)
    if not texts:
        return "Neither the baseline nor a trial is complete."
    joined = "; ".join(reversed(texts))
    return f"{joined[0].upper()}{joined[1:]}."


def _of_list(results: ExperimentResults) -> tuple[list[_Curve], str]:
    """Return the curves of listed runs, or of an ablation, and their caption: each name has a colour."""
    records = [
        r for r in results.records if r.key.role in ("run", "ablation") and r.history and not r.superseded
    ]
    by_name: dict[str, list[TrialRecord]] = {}
    for record in sorted(records, key=lambda r: r.trial):
        by_name.setdefault(without_seed(record.label), []).append(record)
    curves: list[_Curve] = []
    best_first = sorted(by_name, key=lambda name: -max(map(last_accuracy, by_name[name])))
    coloured = [name for name in by_name if name in best_first[:MAX_COLOURED]]
    for name, group in by_name.items():
        style: dict[str, Any] = {"name": "other runs", "colour": FAINT, "opacity": 0.6, "width": 1.5}
        if name in coloured:
            number = coloured.index(name)
            style = {"name": name, "colour": COLOURS[number], "dash": _DASHES[number % len(_DASHES)]}
        curves += [(style, epochs, r.label) for r in group if (epochs := _epochs(results, r))]
    curves.sort(key=lambda curve: curve[0]["name"] != "other runs")
    baseline = {"name": "baseline", "colour": BASELINE, "width": 3}
    curves += [(baseline, epochs, r.label) for r in _baselines(results) if (epochs := _epochs(results, r))]
    best = max(curves, key=lambda c: c[1][-1].val_accuracy, default=None)
    if best is None:
        return [], ""
    caption = f"The highest val_accuracy after the last epoch is {best[1][-1].val_accuracy:.4f}, {best[2]}."
    if len(by_name) > MAX_COLOURED:
        caption += (
            f" The best {MAX_COLOURED} of {len(by_name)} have colours; point at a grey curve for its name."
        )
    return curves, caption

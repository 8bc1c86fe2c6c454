"""The figures of comparisons with the baseline: a confirmation of finalists, an ablation of alternatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lenet_exp.base.errors import printable
from lenet_exp.base.messages import counted
from lenet_exp.results.ablation import ablation_table
from lenet_exp.results.conclusion import paired_differences
from lenet_exp.results.evaluation import Evaluation
from lenet_exp.results.figures.chart import (
    FAINT,
    FRONT,
    TRIAL,
    Axis,
    Chart,
    Intervals,
    Mark,
    Panel,
    Points,
    Reference,
)
from lenet_exp.results.figures.selection import subject
from lenet_exp.results.lookup import ExperimentResults
from lenet_exp.results.table import finite

#: Height in pixels of a row, and of axis and margins.
_ROW, _AROUND = 46, 70


def confirmation(results: ExperimentResults) -> Chart | None:
    """Return the figure of the last confirmation: paired differences; None if there is none."""
    evaluation = results.confirmation.evaluation
    if evaluation is None or not evaluation.has_baseline or not evaluation.verdicts:
        return None
    verdicts = list(evaluation.verdicts)
    rows = [f"{evaluation.label(v['config'])}: {_told(v, 'delta')}, {v['verdict']}" for v in verdicts]
    seeds = [paired_differences(evaluation, verdict["config"]) for verdict in verdicts]
    marks: list[Mark] = [
        _intervals(
            verdicts, rows, "delta_low delta_high", TRIAL, 7, "interval for other seeds, these images"
        ),
        _intervals(
            verdicts,
            rows,
            "delta_low_other_images delta_high_other_images",
            FAINT,
            2.5,
            "interval for other seeds and other images",
        ),
        Points(
            [difference for row in seeds for difference in row],
            [name for name, row in zip(rows, seeds, strict=True) for _ in row],
            "a seed",
            FRONT,
            hover=[f"{difference:+.4f}" for row in seeds for difference in row],
            size=8,
        ),
        Reference(0.0, "x", "baseline"),
    ]
    axes = Axis("difference in test accuracy"), Axis("", "category", rows)
    panel = Panel(marks, *axes, height=_AROUND + _ROW * len(rows))
    title = f"The verdict: finalists against the baseline on {evaluation.n_images:,} test images"
    return Chart("confirmation", title, _verdict_caption(evaluation, verdicts, seeds), [panel], columns=1)


def _verdict_caption(
    evaluation: Evaluation, verdicts: Sequence[Mapping[str, Any]], seeds: Sequence[Sequence[float]]
) -> str:
    """Return what to see: how many seeds agree, the first interval, and what the verdicts make of it."""
    first, above = verdicts[0], sum(difference > 0 for difference in seeds[0])
    label = subject(printable(evaluation.label(first["config"])))
    text = f"{label} is more accurate than the baseline on {above} of {counted(len(seeds[0]), 'paired seed')}"
    low, high = finite(first["delta_low"]), finite(first["delta_high"])
    if low is not None and high is not None:
        # The interval of what is better may begin at 0 itself, so that the verdict is told and not derived.
        is_tie = first["verdict"] == "tie"
        outcome = "so the seeds do not tell them apart" if is_tie else f"so it is {first['verdict']}"
        text += f", and its interval is [{low:+.4f}, {high:+.4f}], {outcome}"
    counts = {kind: sum(v["verdict"] == kind for v in verdicts) for kind in ("better", "tie", "worse")}
    said = ", ".join(f"{n} {kind}{'s' * (kind == 'tie' and n > 1)}" for kind, n in counts.items() if n)
    return f"{text}. Verdicts: {said}. Each point is a seed on which both were trained."


def ablation(results: ExperimentResults) -> Chart | None:
    """Return the forest plot of an ablation; None if it is none, or nothing can be compared yet."""
    if not results.experiment.ablate:
        return None
    table = ablation_table(results.experiment, results.records).plain_rows()
    judged = [row for row in table[1:] if row["val_delta"] is not None]
    if not judged:
        return None
    rows = [f"{row['factor']} = {row['value']}: {row['val_delta']:+.4f}, {row['verdict']}" for row in judged]
    marks: list[Mark] = [
        _intervals(judged, rows, "val_delta_low val_delta_high", TRIAL, 3, "interval for other seeds"),
        Points(
            [row["val_delta"] for row in judged],
            rows,
            "mean difference",
            TRIAL,
            ["square"] * len(rows),
            size=9,
        ),
        Reference(0.0, "x", "baseline"),
    ]
    axes = Axis("difference in val_accuracy"), Axis("", "category", rows)
    panel = Panel(marks, *axes, height=_AROUND + max(_ROW - 6 * (len(rows) > 8), 34) * len(rows))
    largest = max(judged, key=lambda row: abs(row["val_delta"]))
    n_clear = sum(row["verdict"] != "tie" for row in judged)
    factor, value = printable(largest["factor"]), printable(largest["value"])
    caption = (
        f"The largest difference is that of {factor} = {value}, {largest['val_delta']:+.4f}."
        f" {n_clear} of {counted(len(judged), 'alternative')} differ from the baseline by more than the seeds"
        " explain."
    )
    if missing := len(table) - 1 - len(judged):
        caption += f" Left out, without a result on every seed: {missing}."
    title = "Each alternative against the baseline, on validation images"
    return Chart("ablation", title, caption, [panel], columns=1)


def _intervals(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], ends: str, colour: str, width: float, legend: str
) -> Intervals:
    """Return the intervals of those rows that have one; ``ends`` are the two columns with their ends."""
    low, high = ends.split()
    known = [
        (row[low], row[high], name)
        for row, name in zip(rows, names, strict=True)
        if finite(row.get(low)) is not None and finite(row.get(high)) is not None
    ]
    lows, highs, ys = zip(*known, strict=True) if known else ((), (), ())
    hover = [f"[{start:+.4f}, {end:+.4f}]" for start, end, _ in known]
    return Intervals(lows, highs, ys, legend, colour, width, hover)


def _told(row: Mapping[str, Any], name: str) -> str:
    value = finite(row.get(name))
    return "unknown" if value is None else f"{value:+.4f}"

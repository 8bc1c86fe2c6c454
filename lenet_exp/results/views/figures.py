"""The study's plots: interactive ones for the report, and one picture of them all for MLflow.

Whatever a name holds, plots show it as text: plotly reads tags in it, and matplotlib formulas.
"""

from __future__ import annotations

import io
import itertools
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter
from plotly.subplots import make_subplots

from lenet_exp.base.errors import printable
from lenet_exp.base.records import EpochResult
from lenet_exp.config.hyperparameters import HYPERPARAMETERS
from lenet_exp.results.aggregate import pareto_front
from lenet_exp.results.views.console import describe
from lenet_exp.study.records import TrialRecord

BASELINE, TRIAL, FRONT, FAINT = "#c0392b", "#2c6fbb", "#e08e0b", "#9aa5b1"
_COLOURS = ("#2c6fbb", "#e08e0b", "#2e8b57", "#8e5bb5", "#17a2b8", "#a0522d", "#d35f9c", "#6b7a1f")
_SYMBOLS = {False: "circle", True: "triangle-down"}

#: Hyper-parameters shown against the accuracy, and how many in a line.
MAX_SLICES, _IN_A_LINE = 16, 4


@dataclass(frozen=True)
class Curve:
    """What a training gave, epoch by epoch; ``is_baseline`` sets its colour apart."""

    label: str
    epochs: Sequence[EpochResult]
    is_baseline: bool = False


def tried(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials, or the runs of a list, in their order; those without a result are left out."""
    return sorted(
        (r for r in records if r.key.role in ("trial", "run") and r.history and not r.superseded),
        key=lambda r: r.key.trial,
    )


def complete(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return those of `tried` that were trained to their end."""
    return [r for r in tried(records) if r.state == "COMPLETE" and r.value is not None]


def baseline_of(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the baseline's record, if it was completed."""
    return next((r for r in records if r.key.role == "baseline" and r.value is not None), None)


def incumbent(records: Sequence[TrialRecord]) -> list[tuple[int, float]]:
    """Return the number of each completed trial and the best value up to it."""
    done = complete(records)
    return list(
        zip(
            (r.key.trial for r in done),
            itertools.accumulate((r.value or 0.0 for r in done), max),
            strict=True,
        )
    )


def on_front(records: Sequence[TrialRecord], key: str, sign: int) -> list[TrialRecord]:
    """Return the records that no other beats in accuracy and in ``key``, in the order of the latter.

    Args:
        records: That all have ``key`` in their result.
        key: Such as ``n_parameters``.
        sign: 1 if more of it is better, else -1.
    """
    flags = pareto_front([(_last(record), sign * record.result[key]) for record in records])
    return sorted(itertools.compress(records, flags), key=lambda record: record.result[key])


def floor(values: Sequence[float]) -> float:
    """Return where an axis begins, so that a few failures far below do not flatten the rest.

    Example:
        >>> round(floor([0.1, 0.85, 0.86, 0.87, 0.88, 0.89]), 3)
        0.765
    """
    if not values:
        return 0.0
    middle, best = statistics.median(values), max(values)
    return max(min(values), middle - 4 * max(best - middle, 0.01))


def history(records: Sequence[TrialRecord]) -> go.Figure:
    """Return the optimisation history: each trial's value, the best so far, and the baseline's."""
    every, done = tried(records), complete(records)
    ended = [r for r in every if r not in done]
    low = floor([_last(r) for r in every])
    listed = bool(every) and every[0].key.role == "run"
    what = "run of the list" if listed else "trial, in the order in which they were drawn"
    figure = _figure(f"val_accuracy of each {what}{_clipped(every, low)}")
    for shown, name, marker in (
        (ended, "pruned or failed, at its last epoch", {"color": FAINT, "size": 7}),
        (done, "complete", {"color": TRIAL, "size": 9}),
    ):
        if not shown:
            continue
        values = [_last(r) for r in shown]
        figure.add_scatter(
            x=[r.key.trial for r in shown],
            y=[max(value, low) for value in values],
            mode="markers",
            name=name,
            marker=marker | {"symbol": [_SYMBOLS[value < low] for value in values]},
            hovertext=[_hover(r) for r in shown],
            hoverinfo="text",
        )
    curve = incumbent(records)
    if curve and not listed:
        x, y = zip(*curve, strict=True)
        figure.add_scatter(
            x=x,
            y=[max(v, low) for v in y],
            mode="lines",
            name="best so far",
            line={"color": TRIAL, "shape": "hv"},
        )
    _baseline_line(figure, records)
    if listed:
        figure.update_xaxes(
            tickvals=[r.key.trial for r in every], ticktext=[_text(printable(r.label)[:30]) for r in every]
        )
    else:
        figure.update_xaxes(title="trial")
    figure.update_yaxes(title="val_accuracy")
    return figure


def learning_curves(curves: Sequence[Curve]) -> go.Figure:
    """Return accuracy and loss by epoch, of training dotted and of validation solid."""
    figure = _figure("learning curves: validation solid, training dotted", columns=("accuracy", "loss"))
    for number, curve in enumerate(curves):
        colour = BASELINE if curve.is_baseline else _COLOURS[number % len(_COLOURS)]
        name = _text(curve.label)
        for column, metric in enumerate(("accuracy", "loss"), start=1):
            for part, dash in (("val", "solid"), ("train", "dot")):
                figure.add_scatter(
                    x=[result.epoch for result in curve.epochs],
                    y=[getattr(result, f"{part}_{metric}") for result in curve.epochs],
                    mode="lines+markers",
                    name=name,
                    legendgroup=str(number),
                    showlegend=(column, part) == (1, "val"),
                    line={"color": colour, "dash": dash},
                    marker={"size": 5},
                    hovertemplate=f"{part}_{metric} %{{y:.4f}}<extra>{name}, epoch %{{x}}</extra>",
                    row=1,
                    col=column,
                )
    figure.update_xaxes(
        title="epoch", dtick=1 if max((len(c.epochs) for c in curves), default=0) <= 15 else None
    )
    return figure


def varied(records: Sequence[TrialRecord]) -> list[str]:
    """Return the hyper-parameters that are not the same in all completed trials."""
    values = [r.values for r in complete(records)]
    return [
        name for name in HYPERPARAMETERS if len({v.get(name) for v in values if v.get(name) is not None}) > 1
    ]


def slices(records: Sequence[TrialRecord]) -> go.Figure | None:
    """Return a plot of val_accuracy against each hyper-parameter that was varied; None if none was."""
    names, done = varied(records)[:MAX_SLICES], complete(records)
    if not names:
        return None
    lines = -(-len(names) // _IN_A_LINE)
    figure = make_subplots(
        lines,
        min(_IN_A_LINE, len(names)),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.3 / lines if lines > 1 else 0,
    )
    baseline = baseline_of(records)
    low = floor([_last(r) for r in done])
    for place, name in enumerate(names):
        row, column = place // _IN_A_LINE + 1, place % _IN_A_LINE + 1
        used = [r for r in done if r.values.get(name) is not None]
        x = [_category(r.values[name]) for r in used]
        figure.add_scatter(
            x=x,
            y=[max(_last(r), low) for r in used],
            mode="markers",
            marker={
                "color": [r.key.trial for r in used],
                "colorscale": "Blues",
                "cmin": -0.6 * max(r.key.trial for r in done),
                "cmax": max(r.key.trial for r in done),
                "size": 8,
                "symbol": [_SYMBOLS[_last(r) < low] for r in used],
                "line": {"width": 0.5, "color": "white"},
            },
            hovertext=[_hover(r) for r in used],
            hoverinfo="text",
            showlegend=False,
            row=row,
            col=column,
        )
        if baseline is not None and baseline.values.get(name) is not None:
            figure.add_scatter(
                x=[_category(baseline.values[name])],
                y=[max(_last(baseline), low)],
                mode="markers",
                marker={"color": BASELINE, "size": 11, "symbol": "diamond"},
                hovertext=_hover(baseline),
                hoverinfo="text",
                name="baseline",
                showlegend=place == 0,
                legendgroup="baseline",
                row=row,
                col=column,
            )
        numbers = [value for value in x if not isinstance(value, str)]
        wide = bool(numbers) and min(numbers) > 0 and max(numbers) / min(numbers) > 20
        kind = ("log" if wide else "linear") if numbers else "category"
        few = kind == "linear" and len(set(x)) <= 6 and max(x) - min(x) <= 8
        figure.update_xaxes(
            title=name, type=kind, tickvals=sorted(set(x)) if few else None, row=row, col=column
        )
        if column == 1:
            figure.update_yaxes(title="val_accuracy", row=row, col=column)
    title = f"val_accuracy against each hyper-parameter; later trials are darker{_clipped(done, low)}"
    return _styled(figure, title, 170 + 220 * lines)


def fronts(records: Sequence[TrialRecord]) -> go.Figure:
    """Return val_accuracy against parameters and against speed, with the Pareto fronts."""
    headings = (
        "against n_parameters: up and left is better",
        "against examples_per_s: up and right is better",
    )
    done = [*complete(records), *([b] if (b := baseline_of(records)) else [])]
    low = floor([_last(r) for r in done])
    title = f"what accuracy costs, and the Pareto front: no other is better in both{_clipped(done, low)}"
    figure = _figure(title, columns=headings)
    for column, (key, sign) in enumerate((("n_parameters", -1), ("examples_per_s", 1)), start=1):
        known = [r for r in done if r.result.get(key)]
        front = on_front(known, key, sign)
        groups: tuple[tuple[str, list[TrialRecord], dict[str, Any]], ...] = (
            ("trial", [r for r in known if r.key.role != "baseline"], {"color": TRIAL, "size": 8}),
            ("baseline", [r for r in known if r.key.role == "baseline"], {"color": BASELINE, "size": 12}),
        )
        figure.add_scatter(
            x=[r.result[key] for r in front],
            y=[max(_last(r), low) for r in front],
            mode="lines",
            line={"color": FRONT, "width": 2},
            name="Pareto front",
            legendgroup="front",
            showlegend=column == 1,
            hoverinfo="skip",
            row=1,
            col=column,
        )
        for name, shown, marker in groups:
            symbol = "diamond" if name == "baseline" else [_SYMBOLS[_last(r) < low] for r in shown]
            figure.add_scatter(
                x=[r.result[key] for r in shown],
                y=[max(_last(r), low) for r in shown],
                mode="markers",
                marker=marker | {"symbol": symbol},
                hovertext=[_hover(r) for r in shown],
                hoverinfo="text",
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                row=1,
                col=column,
            )
        figure.update_xaxes(title=key, row=1, col=column)
    figure.update_xaxes(type="log", row=1, col=1)
    figure.update_yaxes(title="val_accuracy", row=1, col=1)
    return figure


def overview(records: Sequence[TrialRecord], curves: Sequence[Curve]) -> bytes:
    """Return the plots that say most as one PNG, which MLflow's UI shows as it is."""
    figure = Figure(figsize=(12, 8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    trials, learning, sizes, speeds = figure.subplots(2, 2).flat
    every, done, baseline = tried(records), complete(records), baseline_of(records)
    low = floor([_last(r) for r in every])
    ended = [r for r in every if r not in done]
    _points(trials, ended, low, FAINT, "pruned or failed")
    _points(trials, done, low, TRIAL, "complete")
    if curve := incumbent(records):
        trials.step(*zip(*((n, max(v, low)) for n, v in curve), strict=True), where="post", color=TRIAL)
    trials.set(xlabel="trial", ylabel="val_accuracy", title="trials, and the best so far")
    for number, one in enumerate(curves):
        colour = BASELINE if one.is_baseline else _COLOURS[number % len(_COLOURS)]
        x = [result.epoch for result in one.epochs]
        label = printable(one.label).replace("$", r"\$")
        learning.plot(x, [result.val_accuracy for result in one.epochs], color=colour, label=label)
        learning.plot(x, [result.train_accuracy for result in one.epochs], color=colour, ls=":")
    learning.set(xlabel="epoch", ylabel="accuracy", title="validation solid, training dotted")
    for axes, key, sign in ((sizes, "n_parameters", -1), (speeds, "examples_per_s", 1)):
        known = [r for r in (*done, *([baseline] if baseline else [])) if r.result.get(key)]
        front = on_front(known, key, sign)
        axes.plot(
            [r.result[key] for r in front],
            [max(_last(r), low) for r in front],
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
            axes.axhline(_last(baseline), color=BASELINE, ls="--", lw=1, label="baseline")
    for axes in (trials, learning, sizes):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    for axes in (trials, learning, sizes, speeds):
        axes.grid(alpha=0.3)
    out = io.BytesIO()
    with warnings.catch_warnings():
        # A name may have characters that the font has not; they are shown as boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(out, format="png")
    return out.getvalue()


def _points(
    axes: Any, records: Sequence[TrialRecord], low: float, colour: str, label: str | None, key: str = ""
) -> None:
    """Draw records as points, against their number or a fact; those below ``low`` as triangles there."""
    for below in (False, True):
        shown = [r for r in records if (_last(r) < low) == below]
        x = [r.result[key] if key else r.key.trial for r in shown]
        y = [max(_last(r), low) for r in shown]
        axes.scatter(
            x, y, color=colour, marker="v" if below else "o", s=28, zorder=3, label=None if below else label
        )


def _figure(title: str, columns: Sequence[str] = ()) -> go.Figure:
    figure = make_subplots(1, max(1, len(columns)), subplot_titles=list(columns), horizontal_spacing=0.08)
    return _styled(figure, title, 440)


def _styled(figure: go.Figure, title: str, height: int) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        title={"text": title, "x": 0, "xanchor": "left", "font": {"size": 15}},
        height=height,
        margin={"l": 60, "r": 20, "t": 80, "b": 90},
        legend={"orientation": "h", "y": 0, "yref": "container", "yanchor": "bottom", "x": 0},
        font={"family": "system-ui, sans-serif", "size": 12},
    )
    return figure


def _baseline_line(figure: go.Figure, records: Sequence[TrialRecord]) -> None:
    baseline, every = baseline_of(records), tried(records)
    if baseline is None:
        return
    figure.add_scatter(
        x=[every[0].key.trial, every[-1].key.trial] if every else [0],
        y=[_last(baseline)] * (2 if every else 1),
        mode="lines+markers",
        marker={"size": 4},
        name="baseline",
        line={"color": BASELINE, "dash": "dash"},
        hovertext=_hover(baseline),
        hoverinfo="text",
    )


def _last(record: TrialRecord) -> float:
    """Return val_accuracy after the last epoch that was trained."""
    return record.value if record.value is not None else record.history.get(record.epochs, 0.0)


def _clipped(records: Sequence[TrialRecord], low: float) -> str:
    """Return what a title adds where some points are below the plot."""
    return "; triangles are further down" if any(_last(r) < low for r in records) else ""


def _category(value: Any) -> Any:
    """Return a number as it is, and any other value as the text of a category."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else _text(str(value))


def _hover(record: TrialRecord) -> str:
    facts: Mapping[str, Any] = record.result
    lines = [
        f"<b>{_text(record.label)}</b>: {_last(record):.4f}",
        _text(describe(record.values)),
    ]
    if record.reason:
        lines.append(_text(record.reason[:200]))
    if facts.get("n_parameters") and facts.get("examples_per_s"):
        lines.append(f"{facts['n_parameters']:,} parameters, {facts['examples_per_s']:,.0f} examples/s")
    return "<br>".join(lines)


def _text(text: str) -> str:
    """Return ``text`` so that plotly shows it and obeys none of it."""
    return escape(printable(text)).replace("%{", "%&#123;")

"""The interactive plots of a study on the HTML page.

Names are escaped before they reach plotly, which would interpret HTML tags in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lenet_exp.base.errors import printable
from lenet_exp.config.describe import description
from lenet_exp.results.figures.chart import BASELINE, COLOURS, FAINT, FRONT, TRIAL
from lenet_exp.results.figures.selection import (
    Curve,
    baseline_of,
    complete,
    floor,
    incumbent,
    last_accuracy,
    on_front,
    tried,
    varied,
)
from lenet_exp.study.records import TrialRecord

#: Symbol of a point, by whether its accuracy is below the axis.
_SYMBOLS = {False: "circle", True: "triangle-down"}

#: Largest number of hyper-parameters to plot the accuracy against, and number of these plots in a row.
MAX_SLICES, _SLICES_PER_ROW = 16, 4


def history(records: Sequence[TrialRecord]) -> go.Figure:
    """Plot the optimisation history: the val_accuracy of each trial, the best so far, and the baseline's."""
    every, done = tried(records), complete(records)
    ended = [r for r in every if r not in done]
    low = floor([last_accuracy(r) for r in every])
    listed = bool(every) and every[0].key.role == "run"
    subject = "listed run" if listed else "trial, in the order in which they were drawn"
    figure = _figure(f"val_accuracy of each {subject}{_note_on_clipping(every, low)}")
    for shown, name, marker in (
        (ended, "pruned or failed, at its last epoch", {"color": FAINT, "size": 7}),
        (done, "complete", {"color": TRIAL, "size": 9}),
    ):
        if not shown:
            continue
        _add_points(figure, [r.trial for r in shown], shown, low, marker, name=name)
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
            tickvals=[r.trial for r in every], ticktext=[_text(printable(r.label)[:30]) for r in every]
        )
    else:
        figure.update_xaxes(title="trial")
    figure.update_yaxes(title="val_accuracy")
    return figure


def learning_curves(curves: Sequence[Curve]) -> go.Figure:
    """Plot accuracy and loss by epoch, dotted for training and solid for validation."""
    figure = _figure("learning curves: validation solid, training dotted", columns=("accuracy", "loss"))
    for number, curve in enumerate(curves):
        colour = BASELINE if curve.is_baseline else COLOURS[number % len(COLOURS)]
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


def slices(records: Sequence[TrialRecord]) -> go.Figure | None:
    """Plot val_accuracy against each hyper-parameter that varied; return None if no hyper-parameter did."""
    names, done = varied(records)[:MAX_SLICES], complete(records)
    if not names:
        return None
    rows = -(-len(names) // _SLICES_PER_ROW)
    figure = make_subplots(
        rows,
        min(_SLICES_PER_ROW, len(names)),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.3 / rows if rows > 1 else 0,
    )
    baseline = baseline_of(records)
    low = floor([last_accuracy(r) for r in done])
    for number, name in enumerate(names):
        subplot = {"row": number // _SLICES_PER_ROW + 1, "col": number % _SLICES_PER_ROW + 1}
        _add_slice(figure, name, done, low, subplot)
        if baseline is not None and baseline.values.get(name) is not None:
            figure.add_scatter(
                x=[_category(baseline.values[name])],
                y=[max(last_accuracy(baseline), low)],
                mode="markers",
                marker={"color": BASELINE, "size": 11, "symbol": "diamond"},
                hovertext=_hover(baseline),
                hoverinfo="text",
                name="baseline",
                showlegend=number == 0,
                legendgroup="baseline",
                **subplot,
            )
        if subplot["col"] == 1:
            figure.update_yaxes(title="val_accuracy", **subplot)
    note = _note_on_clipping(done, low)
    title = f"val_accuracy against each hyper-parameter; later trials are darker{note}"
    return _styled(figure, title, 170 + 220 * rows)


def _add_slice(
    figure: go.Figure, name: str, done: Sequence[TrialRecord], low: float, subplot: Mapping[str, int]
) -> None:
    """Plot val_accuracy against one hyper-parameter, on a linear, logarithmic or categorical axis."""
    used = [r for r in done if r.values.get(name) is not None]
    x = [_category(r.values[name]) for r in used]
    newest = max(r.trial for r in done)
    marker = {
        "color": [r.trial for r in used],
        "colorscale": "Blues",
        "cmin": -0.6 * newest,
        "cmax": newest,
        "size": 8,
        "line": {"width": 0.5, "color": "white"},
    }
    _add_points(figure, x, used, low, marker, showlegend=False, **subplot)
    numbers = [value for value in x if not isinstance(value, str)]
    wide = bool(numbers) and min(numbers) > 0 and max(numbers) / min(numbers) > 20
    kind = ("log" if wide else "linear") if numbers else "category"
    few = kind == "linear" and len(set(x)) <= 6 and max(x) - min(x) <= 8
    figure.update_xaxes(title=name, type=kind, tickvals=sorted(set(x)) if few else None, **subplot)


def _add_points(
    figure: go.Figure,
    x: Sequence[Any],
    records: Sequence[TrialRecord],
    low: float,
    marker: Mapping[str, Any],
    **options: Any,
) -> None:
    """Draw records as points at ``x``; those below ``low`` become triangles at ``low``."""
    accuracies = [last_accuracy(r) for r in records]
    figure.add_scatter(
        x=x,
        y=[max(accuracy, low) for accuracy in accuracies],
        mode="markers",
        marker={"symbol": [_SYMBOLS[accuracy < low] for accuracy in accuracies], **marker},
        hovertext=[_hover(r) for r in records],
        hoverinfo="text",
        **options,
    )


def fronts(records: Sequence[TrialRecord]) -> go.Figure:
    """Plot val_accuracy against size and against speed, with their Pareto fronts."""
    headings = (
        "against n_parameters: up and left is better",
        "against examples_per_s: up and right is better",
    )
    baseline = baseline_of(records)
    done = [*complete(records), *([baseline] if baseline else [])]
    low = floor([last_accuracy(r) for r in done])
    title = "what accuracy costs; a configuration is on the Pareto front if no other is better in both"
    title += _note_on_clipping(done, low)
    figure = _figure(title, columns=headings)
    for column, (key, sign) in enumerate((("n_parameters", -1), ("examples_per_s", 1)), start=1):
        known = [r for r in done if r.result.get(key)]
        front = on_front(known, key, sign)
        placed: dict[str, Any] = {"row": 1, "col": column, "showlegend": column == 1}
        figure.add_scatter(
            x=[r.result[key] for r in front],
            y=[max(last_accuracy(r), low) for r in front],
            mode="lines",
            line={"color": FRONT, "width": 2},
            name="Pareto front",
            legendgroup="front",
            hoverinfo="skip",
            **placed,
        )
        markers = (
            ("trial", {"color": TRIAL, "size": 8}),
            ("baseline", {"color": BASELINE, "size": 12, "symbol": "diamond"}),
        )
        for name, marker in markers:
            shown = [r for r in known if (r.key.role == "baseline") == (name == "baseline")]
            x = [r.result[key] for r in shown]
            _add_points(figure, x, shown, low, marker, name=name, legendgroup=name, **placed)
        figure.update_xaxes(title=key, row=1, col=column)
    figure.update_xaxes(type="log", row=1, col=1)
    figure.update_yaxes(title="val_accuracy", row=1, col=1)
    return figure


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
        x=[every[0].trial, every[-1].trial] if every else [0],
        y=[last_accuracy(baseline)] * (2 if every else 1),
        mode="lines+markers",
        marker={"size": 4},
        name="baseline",
        line={"color": BASELINE, "dash": "dash"},
        hovertext=_hover(baseline),
        hoverinfo="text",
    )


def _note_on_clipping(records: Sequence[TrialRecord], low: float) -> str:
    """Return a title's last words, which explain triangles; empty if no point is below ``low``."""
    clipped = any(last_accuracy(record) < low for record in records)
    return "; triangles are below the axis" if clipped else ""


def _category(value: Any) -> Any:
    """Return a number as it is, and any other value as the name of a category."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else _text(str(value))


def _hover(record: TrialRecord) -> str:
    """Return the text that is shown while the pointer is over a record's point."""
    result: Mapping[str, Any] = record.result
    lines = [f"<b>{_text(record.label)}</b>: {last_accuracy(record):.4f}", _text(description(record.values))]
    if record.reason:
        lines.append(_text(record.reason[:200]))
    if result.get("n_parameters") and result.get("examples_per_s"):
        lines.append(f"{result['n_parameters']:,} parameters, {result['examples_per_s']:,.0f} examples/s")
    return "<br>".join(lines)


def _text(text: str) -> str:
    """Return ``text`` escaped, so that plotly shows it as it is."""
    return escape(printable(text)).replace("%{", "%&#123;")

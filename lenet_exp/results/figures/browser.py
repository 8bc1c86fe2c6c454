"""Draw a chart for a browser: its HTML, and for each panel the JSON that plotly's script draws.

Headings, legends and colour bars are HTML, as plotly's own overlap where the page is narrow. A specification
has only the colours of data; those of texts and grids are the page's, which differ in the dark and in print.
Names are escaped, as plotly takes tags in them for its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import groupby
from textwrap import fill
from typing import Any

import numpy as np

from lenet_exp.results.figures.chart import (
    CELLS,
    FAINT,
    LINES,
    Axis,
    Bars,
    Chart,
    Heat,
    Images,
    Intervals,
    Line,
    Mark,
    Panel,
    Parallel,
    Points,
    Reference,
    Value,
)
from lenet_exp.results.figures.drawing.elements import (
    TICK_CHARACTERS,
    colour_bar,
    html_text,
    plotly_text,
    small_images,
    swatch,
    tick_text,
)
from lenet_exp.results.figures.drawing.scales import ParallelAxis, between, log_ticks, shortened

#: Number of colours that the lines of parallel coordinates have; lines of one colour are drawn together.
_SHADES = 12
#: Height of an x axis with its ticks and title, about, in pixels.
_AROUND = 60
#: Height of a row of parallel coordinates, in pixels.
_ROW = 58


def figure_html(chart: Chart) -> str:
    """Return a chart as HTML; a script draws each ``div.plot`` from the JSON that follows it."""
    legend = "".join(
        f"<li>{swatch(mark)}<span>{html_text(name)}</span></li>" for name, mark in chart.legend().items()
    )
    bars = [colour_bar(panel.marks) for panel in chart.panels]
    is_shared = len(set(bars)) == 1
    return (
        f'<figure class="chart" id="{html_text(chart.key)}">\n<h3>{html_text(chart.title)}</h3>\n'
        + (f'<ul class="legend">{legend}</ul>\n' if legend else "")
        + f'<div class="panels" style="--columns:{min(chart.columns, len(chart.panels))}">\n'
        + "\n".join(
            _panel(panel, "" if is_shared else bar) for panel, bar in zip(chart.panels, bars, strict=True)
        )
        + f"\n</div>\n{bars[0] if is_shared else ''}"
        f"<figcaption>{html_text(chart.caption)}</figcaption>\n</figure>"
    )


def specification(panel: Panel) -> dict[str, Any]:
    """Return what plotly draws of a panel: ``data`` and ``layout``."""
    if isinstance(panel.marks[0], Parallel):
        return _parallel(panel.marks[0])
    x, y = panel.x or Axis(""), panel.y or Axis("")
    data: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    for _, same in groupby(panel.marks, key=_style):
        marks = list(same)
        mark = marks[0]
        match mark:
            case Reference():
                shapes.append(_reference(mark))
            case Line():
                data.append(_lines([m for m in marks if isinstance(m, Line)], x, y))
            case Points():
                data.append(_points(mark, x, y))
            case Intervals():
                data.append(_intervals(mark, y))
            case Bars():
                data.append(_bars(mark, y))
            case Heat():
                data.append(_heat(mark, x, y))
    layout: dict[str, Any] = {
        "xaxis": _axis(x, panel.values("x")),
        "yaxis": _axis(y, panel.values("y"), row=(panel.height - _AROUND) / max(1, len(y.categories))),
        "shapes": shapes,
        "barmode": "overlay",
        "height": panel.height,
        # With its own 64, plotly prints the axis's title over the ticks of a panel of one or two rows.
        "minreducedheight": 20,
        "showlegend": False,
        "hovermode": "closest",
        "margin": {"l": 8, "r": 12, "t": 10, "b": 8},
    }
    if any(isinstance(mark, Heat) for mark in panel.marks):
        # Lines of a grid would run through the texts of empty cells.
        layout["xaxis"]["showgrid"] = layout["yaxis"]["showgrid"] = False
    return {"data": data, "layout": layout}


def _panel(panel: Panel, bar: str) -> str:
    heading = f"<h4>{html_text(panel.title)}</h4>" if panel.title else ""
    mark = panel.marks[0]
    if isinstance(mark, Images):
        return f'<div class="panel">{heading}{small_images(mark, panel.title)}</div>'
    spec = specification(panel)
    written = json.dumps(spec, separators=(",", ":"), allow_nan=False)
    # In HTML, JSON ends at the first "</script>", even within a text.
    for character in "<>&":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return (
        f'<div class="panel">{heading}<div class="plot" style="height:{spec["layout"]["height"]}px"></div>'
        f'<script type="application/json">{written}</script>{bar}</div>'
    )


def _hover(given: Sequence[str], *columns: Sequence[Value]) -> list[str]:
    """Return the texts that are given, or else the position of each mark."""
    return list(map(plotly_text, given)) or [
        ", ".join(map(tick_text, position)) for position in zip(*columns, strict=True)
    ]


def _round(value: float) -> float | None:
    """Return a number with six digits, which keep the page small, or None if it is NaN or infinite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _place(values: Sequence[Value], axis: Axis) -> list[float | None]:
    """Return positions along an axis as numbers; categories are counted from 0."""
    order = {category: number for number, category in enumerate(axis.categories)}
    return [order[value] if isinstance(value, str) else _round(value) for value in values]


# Axes.


def _axis(axis: Axis, values: Sequence[Value], *, row: float = 0) -> dict[str, Any]:
    """Return plotly's axis, with a range that holds all values; an upright one has the height of a row."""
    spec: dict[str, Any] = {"title": {"text": plotly_text(axis.title), "standoff": 8}, "automargin": True}
    spec |= {"nticks": 6, "zeroline": False, "type": "log" if axis.scale == "log" else "linear"}
    if axis.scale == "category":
        n, n_lines = len(axis.categories), 2 if row > 34 else 1
        names = shortened(axis.categories, n_lines * TICK_CHARACTERS - n_lines + 1)
        names = [_in_lines(name, n_lines) for name in names] if row else names
        spec |= {
            "tickvals": list(range(n)),
            "ticktext": list(map(plotly_text, names)),
            "autotickangles": [0, -90],
        }
        ends = [-0.6, n - 0.4]
        return spec | {"range": ends[::-1] if row else ends}
    low, high = axis.ends(values)
    spec["range"] = [_round(low), _round(high)]
    if axis.scale == "log":
        ticks = log_ticks(low, high)
        spec |= {"tickvals": ticks, "ticktext": list(map(tick_text, ticks))}
    elif axis.is_integer and high - low <= 9:
        spec |= {"dtick": 1, "tick0": 0}
    return spec


def _in_lines(name: str, most: int) -> str:
    """Return a name in so many lines at most: broken within a word if its words need more."""
    text = fill(name, TICK_CHARACTERS)
    n = TICK_CHARACTERS if text.count("\n") >= most else len(text)
    return "\n".join(name[i : i + n] for i in range(0, len(name), n)) if n < len(text) else text


# Marks.


def _style(mark: Mark) -> Any:
    """Return a key that is the same for lines that can be one trace, with gaps between them."""
    if isinstance(mark, Line):
        return mark.name, mark.colour, mark.dash, mark.is_step, mark.opacity, mark.width, len(mark.x) == 1
    return id(mark)


def _lines(lines: Sequence[Line], x: Axis, y: Axis) -> dict[str, Any]:
    along: list[float | None] = []
    up: list[float | None] = []
    texts: list[str] = []
    for line in lines:
        along += [*_place(line.x, x), None]
        up += [*_place(line.y, y), None]
        texts += [plotly_text(line.hover or line.name)] * (len(line.x) + 1)
    line = lines[0]
    return {
        "type": "scatter",
        # A line of one point would be invisible.
        "mode": "markers" if len(line.x) == 1 else "lines",
        "x": along[:-1],
        "y": up[:-1],
        "text": texts[:-1],
        "hovertemplate": "%{text}<br>%{x}: %{y:.4f}<extra></extra>",
        "opacity": line.opacity,
        "line": {"color": line.colour, "dash": line.dash, "width": line.width}
        | ({"shape": "hv"} if line.is_step else {}),
        "marker": {"size": 5, "color": line.colour},
    }


def _points(points: Points, x: Axis, y: Axis) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [
            None if place is None else _round(place + shift)
            for place, shift in zip(_place(points.x, x), points.shifts(), strict=True)
        ],
        "y": _place(points.y, y),
        "text": _hover(points.hover, points.x, points.y),
        "hovertemplate": "%{text}<extra></extra>",
        "cliponaxis": False,
        "marker": {
            "color": points.colour,
            "size": points.size,
            "symbol": list(points.symbols) or "circle",
            # A transparent point is light on white and dark on black, so it is the fainter on both.
            "opacity": [_round(0.4 + 0.6 * shade) for shade in points.shades] or 0.9,
            "line": {"width": 0.7, "color": "#5a6570"},
        },
    }


def _intervals(intervals: Intervals, y: Axis) -> dict[str, Any]:
    ends = zip(intervals.low, intervals.high, strict=True)
    texts = _hover(intervals.hover, intervals.low, intervals.high)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [place for low, high in ends for place in (_round(low), _round(high), None)],
        "y": [place for at in _place(intervals.y, y) for place in (at, at, None)],
        "text": [text for text in texts for _ in range(3)],
        "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": intervals.colour, "width": intervals.width},
    }


def _bars(bars: Bars, y: Axis) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "base": [_round(start) for start in bars.start],
        "x": [_round(end - start) for start, end in zip(bars.start, bars.end, strict=True)],
        "y": _place(bars.y, y),
        "width": 0.7,
        "text": _hover(bars.hover, bars.start, bars.end),
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": bars.colour, "line": {"width": 0}},
    }


def _heat(heat: Heat, x: Axis, y: Axis) -> dict[str, Any]:
    low, high = heat.ends()
    spec: dict[str, Any] = {
        "type": "heatmap",
        "x": _place(heat.x, x),
        "y": _place(heat.y, y),
        "z": [[_round(number) for number in row] for row in np.asarray(heat.z, float)],
        "colorscale": [[number / (len(CELLS) - 1), colour] for number, colour in enumerate(CELLS)],
        "zmin": low,
        "zmax": high,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "hoverongaps": False,
        "hovertemplate": f"{plotly_text(heat.label)} %{{z}}<extra></extra>",
    }
    if heat.texts:
        spec |= {"text": [list(map(plotly_text, row)) for row in heat.texts], "texttemplate": "%{text}"}
    return spec


def _reference(reference: Reference) -> dict[str, Any]:
    across, along = ("x", "y") if reference.axis == "y" else ("y", "x")
    return {
        "type": "line",
        f"{across}ref": "paper",
        f"{across}0": 0,
        f"{across}1": 1,
        f"{along}0": _round(reference.at),
        f"{along}1": _round(reference.at),
        "line": {"color": reference.colour, "dash": "dash", "width": 2},
    }


def _parallel(parallel: Parallel) -> dict[str, Any]:
    """Return parallel coordinates whose axes lie below each other, so that their texts fit on any page."""
    names = [axis.title for axis in parallel.dimensions]
    columns = [[values[i] for values in parallel.values] for i in range(len(names))]
    scales = [ParallelAxis(axis, column) for axis, column in zip(parallel.dimensions, columns, strict=True)]
    colours = np.asarray(parallel.colours, float)
    shares = (colours - colours.min()) / (np.ptp(colours) or 1)
    lines = [
        Line(
            x=[scale.share(value) for scale, value in zip(scales, parallel.values[i], strict=True)],
            y=names,
            colour=between(LINES, min(_SHADES - 1, int(shares[i] * _SHADES)) / (_SHADES - 1)),
            hover=parallel.hover[i] if parallel.hover else tick_text(colours[i]),
            opacity=0.8,
            width=1.3,
        )
        for i in np.argsort(colours, kind="stable").tolist()
    ]
    spec = specification(Panel(lines, Axis(""), Axis("", "category", names), height=_ROW * len(names)))
    for trace in spec["data"]:
        trace["hovertemplate"] = "%{text}<extra></extra>"
    ticks = [scale.ticks() for scale in scales]
    start = min(place for row in ticks for place, _ in row)
    spec["layout"]["xaxis"] |= {"visible": False, "range": [start - (0.1 if start < 0 else 0.04), 1.04]}
    spec["layout"]["yaxis"] |= {"showgrid": False, "range": [len(names) - 0.45, -0.25]}
    spec["layout"]["shapes"] = [
        {"type": "line", "layer": "below", "x0": x[0], "x1": x[1], "y0": y[0], "y1": y[1]}
        | {"line": {"color": FAINT, "width": 1.5}}
        for row, places in enumerate(ticks)
        for x, y in [((0, 1), (row, row)), *(((at, at), (row - 0.07, row + 0.07)) for at, _ in places)]
    ]
    spec["layout"]["annotations"] = [
        note for row, places in enumerate(ticks) for note in _tick_texts(row, places)
    ]
    return spec


def _tick_texts(row: int, ticks: Sequence[tuple[float, Value]]) -> list[dict[str, Any]]:
    """Return the texts below the ticks of one axis, in two rows where many or long ones would overlap."""
    texts = [tick_text(v if isinstance(v, str) else float(f"{v:.3g}")) for _, v in ticks]
    is_crowded = len(ticks) > 4 or sum(map(len, texts)) > 20
    return [
        {
            "text": text,
            "x": place,
            "y": row,
            "yshift": -11 - 13 * (is_crowded and number % 2),
            # A long text would leave the page at either end.
            "xanchor": "right" if place > 0.95 else "left" if 0 <= place < 0.05 else "center",
            "showarrow": False,
        }
        for number, (text, (place, _)) in enumerate(zip(texts, ticks, strict=True))
    ]

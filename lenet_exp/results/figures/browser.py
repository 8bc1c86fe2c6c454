"""Draw a chart for a browser: its HTML, and for each panel the JSON that plotly's script draws.

Headings, legends and colour bars are HTML, as plotly's own overlap where the page is narrow. A specification
has only the colours of data; those of texts and grids are the page's, which differ in the dark and in print.
Names are escaped, as plotly takes tags in them for its own.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import Any

import numpy as np

from lenet_exp.base.errors import printable
from lenet_exp.results.figures.chart import (
    UNUSED,
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
    ParallelAxis,
    Points,
    Reference,
    Value,
    between,
    log_ticks,
    shortened,
)

#: Colours from the smallest number to the largest, for any colour vision: of cells (viridis), of cells with
#: texts, and of lines, all of which have to be seen on white and on black.
_CELLS = ("#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725")
_TEXT_CELLS = ("#f7fbff", "#c6dbef", "#6baed6", "#2171b5", "#08306b")
_LINES = ("#0072b2", "#8a949e", "#e69f00")
#: Number of colours that the lines of parallel coordinates have; lines of one colour are drawn together.
_SHADES = 12
#: Longest text at a tick, in characters; of a longer one the middle is left out.
_TICK_CHARACTERS = 22
#: Height of a row of parallel coordinates, in pixels.
_ROW = 58
_PATHS = {
    "circle": '<circle cx="12" cy="6" r="4.5"/>',
    "square": '<path d="M7.5 1.5h9v9h-9z"/>',
    "diamond": '<path d="M12 0l6 6l-6 6l-6-6z"/>',
    "triangle-down": '<path d="M6.5 1.5h11l-5.500 9z"/>',
    "cross": '<path d="M10.500 1h3v3.500h3.500v3h-3.500v3.500h-3v-3.500h-3.500v-3h3.500z"/>',
}
_DASHES = {"solid": "", "dot": ' stroke-dasharray="2 3"', "dash": ' stroke-dasharray="6 3"'}


def figure_html(chart: Chart) -> str:
    """Return a chart as HTML; a script draws each ``div.plot`` from the JSON that follows it."""
    legend = "".join(
        f"<li>{_swatch(mark)}<span>{_html(name)}</span></li>" for name, mark in chart.legend().items()
    )
    return (
        f'<figure class="chart" id="{_html(chart.key)}">\n<h3>{_html(chart.title)}</h3>\n'
        + (f'<ul class="legend">{legend}</ul>\n' if legend else "")
        + f'<div class="panels" style="--columns:{min(chart.columns, len(chart.panels))}">\n'
        + "\n".join(map(_panel, chart.panels))
        + f"\n</div>\n<figcaption>{_html(chart.caption)}</figcaption>\n</figure>"
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
    layout = {
        "xaxis": _axis(x, panel.values("x")),
        "yaxis": _axis(y, panel.values("y"), is_upright=True),
        "shapes": shapes,
        "barmode": "overlay",
        "height": panel.height,
        "showlegend": False,
        "hovermode": "closest",
        "margin": {"l": 8, "r": 12, "t": 10, "b": 8},
    }
    return {"data": data, "layout": layout}


def _panel(panel: Panel) -> str:
    heading = f"<h4>{_html(panel.title)}</h4>" if panel.title else ""
    mark = panel.marks[0]
    if isinstance(mark, Images):
        return f'<div class="panel">{heading}{_images(mark, panel.title)}</div>'
    spec = specification(panel)
    written = json.dumps(spec, separators=(",", ":"), allow_nan=False)
    # In HTML, JSON ends at the first "</script>", even within a text.
    for character in "<>&":
        written = written.replace(character, f"\\u{ord(character):04x}")
    bars = "".join(_colour_bar(m) for m in panel.marks if isinstance(m, Heat | Parallel))
    return (
        f'<div class="panel">{heading}<div class="plot" style="height:{spec["layout"]["height"]}px"></div>'
        f'<script type="application/json">{written}</script>{bars}</div>'
    )


# Texts.


def _html(text: str) -> str:
    return escape(printable(text))


def _text(text: str) -> str:
    """Return a text for plotly, with its line breaks; tags, and what templates would replace, are escaped."""
    return "<br>".join(_html(line).replace("%{", "%&#123;") for line in text.split("\n"))


def _tick(value: Value) -> str:
    if isinstance(value, str):
        return _text(shortened([value], _TICK_CHARACTERS)[0])
    return f"{value:,.0f}" if abs(value) >= 1000 and value == int(value) else f"{value:.4g}"


def _hover(given: Sequence[str], *columns: Sequence[Value]) -> list[str]:
    """Return the texts that are given, or else the position of each mark."""
    return list(map(_text, given)) or [
        ", ".join(map(_tick, position)) for position in zip(*columns, strict=True)
    ]


def _round(value: float) -> float | None:
    """Return a number with six digits, which keep the page small, or None if it is NaN or infinite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _place(values: Sequence[Value], axis: Axis) -> list[float | None]:
    """Return positions along an axis as numbers; categories are counted from 0."""
    order = {category: number for number, category in enumerate(axis.categories)}
    return [order[value] if isinstance(value, str) else _round(value) for value in values]


# Axes.


def _axis(axis: Axis, values: Sequence[Value], *, is_upright: bool = False) -> dict[str, Any]:
    """Return plotly's axis, with a range that holds all values; ``is_upright`` puts categories top down."""
    spec: dict[str, Any] = {"title": {"text": _text(axis.title), "standoff": 8}, "automargin": True}
    spec |= {"nticks": 6, "zeroline": False, "type": "log" if axis.scale == "log" else "linear"}
    if axis.scale == "category":
        n, names = len(axis.categories), shortened(axis.categories, _TICK_CHARACTERS)
        spec |= {"tickvals": list(range(n)), "ticktext": list(map(_text, names))}
        ends = [-0.6, n - 0.4]
        return spec | {"range": ends[::-1] if is_upright else ends}
    low, high = axis.ends(values)
    spec["range"] = [_round(low), _round(high)]
    if axis.scale == "log":
        ticks = log_ticks(low, high)
        spec |= {"tickvals": ticks, "ticktext": list(map(_tick, ticks))}
    elif axis.is_integer and high - low <= 9:
        spec |= {"dtick": 1, "tick0": 0}
    return spec


# Marks.


def _style(mark: Mark) -> Any:
    """Return a key that is the same for lines that can be one trace, with gaps between them."""
    if isinstance(mark, Line):
        return mark.name, mark.colour, mark.dash, mark.is_step, mark.opacity, mark.width
    return id(mark)


def _lines(lines: Sequence[Line], x: Axis, y: Axis) -> dict[str, Any]:
    along: list[float | None] = []
    up: list[float | None] = []
    texts: list[str] = []
    for line in lines:
        along += [*_place(line.x, x), None]
        up += [*_place(line.y, y), None]
        texts += [_text(line.hover or line.name)] * (len(line.x) + 1)
    line = lines[0]
    return {
        "type": "scatter",
        # A line of one point would be invisible.
        "mode": "lines+markers" if min(len(line.x) for line in lines) == 1 else "lines",
        "x": along[:-1],
        "y": up[:-1],
        "text": texts[:-1],
        "hovertemplate": "%{text}<br>%{x}: %{y:.4f}<extra></extra>",
        "opacity": line.opacity,
        "line": {"color": line.colour, "dash": line.dash, "width": line.width}
        | ({"shape": "hv"} if line.is_step else {}),
        "marker": {"size": 5},
    }


def _points(points: Points, x: Axis, y: Axis) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [
            # Multiples of the golden ratio, less their whole part, are spread evenly, however many there are.
            place
            if place is None or not points.spread
            else _round(place + points.spread * (i * 0.618034 % 1 - 0.5))
            for i, place in enumerate(_place(points.x, x))
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
    spec: dict[str, Any] = {
        "type": "contour" if heat.is_smooth else "heatmap",
        "x": _place(heat.x, x),
        "y": _place(heat.y, y),
        "z": [[_round(number) for number in row] for row in np.asarray(heat.z, float)],
        "colorscale": _scale(_TEXT_CELLS if heat.texts else _CELLS),
        "showscale": False,
        "hovertemplate": f"{_text(heat.label)} %{{z}}<extra></extra>",
    }
    if heat.texts:
        spec |= {"text": [list(map(_text, row)) for row in heat.texts], "texttemplate": "%{text}"}
    if heat.is_smooth:
        return spec | {"contours": {"coloring": "heatmap"}, "line": {"width": 0.5}}
    return spec | {"xgap": 1, "ygap": 1, "hoverongaps": False}


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
            colour=between(_LINES, min(_SHADES - 1, int(shares[i] * _SHADES)) / (_SHADES - 1)),
            hover=parallel.hover[i] if parallel.hover else _tick(colours[i]),
            opacity=0.8,
            width=1.3,
        )
        for i in np.argsort(colours, kind="stable").tolist()
    ]
    spec = specification(Panel(lines, Axis(""), Axis("", "category", names), height=_ROW * len(names)))
    for trace in spec["data"]:
        trace["hovertemplate"] = "%{text}<extra></extra>"
    spec["layout"]["xaxis"] |= {"visible": False, "range": [UNUSED - 0.08, 1.08]}
    spec["layout"]["annotations"] = [
        {
            "text": _tick(value if isinstance(value, str) else float(f"{value:.3g}")),
            "x": place,
            "y": row,
            # Many neighbours would overlap, and a long one would leave the page at either end.
            "yshift": -11 - 12 * (len(scale.ticks()) > 4 and number % 2),
            "xanchor": "right" if place > 0.95 else "left" if 0 <= place < 0.05 else "center",
            "showarrow": False,
        }
        for row, scale in enumerate(scales)
        for number, (place, value) in enumerate(scale.ticks())
    ]
    return spec


# What is HTML and not plotly's.


def _swatch(mark: Mark) -> str:
    """Return a small picture of a mark for the legend."""
    colour = getattr(mark, "colour", "")
    match mark:
        case Points():
            symbol = Counter(mark.symbols).most_common(1)[0][0] if mark.symbols else "circle"
            inner = f'<g fill="{colour}" stroke="#5a6570" stroke-width="0.7">{_PATHS[symbol]}</g>'
        case Line() | Reference():
            dash = _DASHES[mark.dash if isinstance(mark, Line) else "dash"]
            width = mark.width if isinstance(mark, Line) else 2
            inner = f'<path d="M0 6h24" stroke="{colour}" stroke-width="{width:g}"{dash}/>'
        case Intervals():
            inner = f'<path d="M2 6h20" stroke="{colour}" stroke-width="{mark.width:g}"/>'
        case _:
            inner = f'<path d="M2 1h20v10h-20z" fill="{colour}"/>'
    return f'<svg width="24" height="12" viewBox="0 0 24 12" aria-hidden="true">{inner}</svg>'


def _colour_bar(mark: Heat | Parallel) -> str:
    """Return the scale of a panel's colours, from the smallest number to the largest."""
    numbers = np.asarray(mark.z if isinstance(mark, Heat) else mark.colours, float)
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return ""
    colours = ", ".join(_LINES if isinstance(mark, Parallel) else _TEXT_CELLS if mark.texts else _CELLS)
    low, high = (_html(_tick(float(number))) for number in (numbers.min(), numbers.max()))
    return (
        f'<div class="colour-bar"><span>{_html(mark.label)}</span> <span>{low}</span> '
        f'<i style="background:linear-gradient(to right, {colours})"></i> <span>{high}</span></div>'
    )


def _scale(colours: Sequence[str]) -> list[list[Any]]:
    return [[number / (len(colours) - 1), colour] for number, colour in enumerate(colours)]


def _images(images: Images, panel_title: str) -> str:
    """Return small pictures in rows, each with the text above it."""
    from matplotlib.image import imsave

    cells = []
    for number, pixels in enumerate(images.pixels()):
        title = images.titles[number] if images.titles else ""
        alt = f"{panel_title} {title or number + 1}".strip()
        head = f"<span>{_html(title)}</span>" if title else ""
        written = io.BytesIO()
        imsave(written, pixels, format="png")
        source = base64.b64encode(written.getvalue()).decode()
        cells.append(f'<div>{head}<img alt="{_html(alt)}" src="data:image/png;base64,{source}"></div>')
    return f'<div class="images" style="--per-row:{images.per_row}">{"".join(cells)}</div>'

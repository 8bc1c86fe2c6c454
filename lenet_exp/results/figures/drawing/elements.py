"""Draw for a browser what plotly does not: texts, swatches of a legend, colour bars and small images."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from lenet_exp.base.errors import printable
from lenet_exp.results.figures.chart import (
    CELLS,
    LINES,
    Heat,
    Images,
    Intervals,
    Line,
    Mark,
    Parallel,
    Points,
    Reference,
    Value,
)
from lenet_exp.results.figures.drawing.scales import shortened

#: Longest text at a tick, in characters; of a longer one the middle is left out.
TICK_CHARACTERS = 22
_PATHS = {
    "circle": '<circle cx="12" cy="6" r="4.5"/>',
    "square": '<path d="M7.5 1.5h9v9h-9z"/>',
    "diamond": '<path d="M12 0l6 6l-6 6l-6-6z"/>',
    "triangle-down": '<path d="M6.5 1.5h11l-5.500 9z"/>',
    "cross": '<path d="M10.500 1h3v3.500h3.500v3h-3.500v3.500h-3v-3.500h-3.500v-3h3.500z"/>',
}
_DASHES = {"solid": "", "dot": ' stroke-dasharray="2 3"', "dash": ' stroke-dasharray="6 3"'}


def html_text(text: str) -> str:
    """Return a text for HTML."""
    return escape(printable(text))


def plotly_text(text: str) -> str:
    """Return a text for plotly, with its line breaks; tags, and what templates would replace, are escaped."""
    return "<br>".join(html_text(line).replace("%{", "%&#123;") for line in text.split("\n"))


def tick_text(value: Value) -> str:
    """Return a value as plotly writes it beside a tick."""
    if isinstance(value, str):
        return plotly_text(shortened([value], TICK_CHARACTERS)[0])
    if abs(value) >= 10_000:
        return f"{value / 1e6:.4g}M" if abs(value) >= 1e6 else f"{value / 1e3:.4g}k"
    return f"{value:,.0f}" if abs(value) >= 1000 and value == int(value) else f"{value:.4g}"


def swatch(mark: Mark) -> str:
    """Return a small picture of a mark for the legend."""
    colour = getattr(mark, "colour", "")
    match mark:
        case Points():
            inner = f'<g fill="{colour}" stroke="#5a6570" stroke-width="0.7">{_PATHS[mark.symbol]}</g>'
        case Line() | Reference():
            dash = _DASHES[mark.dash if isinstance(mark, Line) else "dash"]
            width = mark.width if isinstance(mark, Line) else 2
            inner = f'<path d="M0 6h24" stroke="{colour}" stroke-width="{width:g}"{dash}/>'
        case Intervals():
            inner = f'<path d="M2 6h20" stroke="{colour}" stroke-width="{mark.width:g}"/>'
        case _:
            inner = f'<path d="M2 1h20v10h-20z" fill="{colour}"/>'
    return f'<svg width="24" height="12" viewBox="0 0 24 12" aria-hidden="true">{inner}</svg>'


def colour_bar(marks: Sequence[Mark]) -> str:
    """Return the scale of a panel's colours, from the smallest number to the largest; empty without one."""
    for mark in marks:
        if isinstance(mark, Heat | Parallel):
            ends, colours = mark.ends(), ", ".join(CELLS if isinstance(mark, Heat) else LINES)
            low, high = (f'<span class="end">{html_text(tick_text(number))}</span>' for number in ends)
            bar = f'<i style="background:linear-gradient(to right, {colours})"></i>'
            return f'<div class="colour-bar"><span>{html_text(mark.label)}</span> {low} {bar} {high}</div>'
    return ""


def small_images(images: Images, panel_title: str) -> str:
    """Return small pictures in rows, each with the text above it.

    Args:
        images: Images with their titles.
        panel_title: Title of their panel, which is read out with that of each image.
    """
    from matplotlib.image import imsave

    cells = []
    for number, pixels in enumerate(images.pixels()):
        title = images.titles[number] if images.titles else ""
        alt = f"{panel_title} {title or number + 1}".replace("\n", " ").strip()
        head = f"<span>{'<br>'.join(map(html_text, title.splitlines()))}</span>" if title else ""
        written = io.BytesIO()
        imsave(written, pixels, format="png")
        source = base64.b64encode(written.getvalue()).decode()
        cells.append(f'<div>{head}<img alt="{html_text(alt)}" src="data:image/png;base64,{source}"></div>')
    return f'<div class="images" style="--per-row:{images.per_row}">{"".join(cells)}</div>'

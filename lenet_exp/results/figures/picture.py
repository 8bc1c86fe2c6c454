"""Draw a `Chart` as a PNG with matplotlib: legible at any width, whatever characters its texts contain.

Everything is placed in pixels from the upper left corner, and texts are measured before they are placed, so
that nothing is drawn over anything else.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lenet_exp.base.errors import printable
from lenet_exp.results.figures import chart as ch
from lenet_exp.results.figures.drawing.blocks import Grid, draw_images, draw_parallel
from lenet_exp.results.figures.drawing.marks import draw_axes
from lenet_exp.results.figures.drawing.sheet import (
    BAR,
    COLUMN,
    DASHES,
    DIMENSION,
    DPI,
    GAP,
    GREY,
    HEADING,
    INK,
    MARGIN,
    MARKERS,
    PT,
    TEXT,
    Box,
    Sheet,
    line_height,
    shortened,
    text_width,
    wrapped,
)


def chart_png(chart: ch.Chart, width_px: int = 1000) -> bytes:
    """Return a chart as a PNG; where it is narrow, the panels lie below one another.

    Args:
        chart: Chart to draw.
        width_px: Width of the picture in pixels, 320 or more.
    """
    with _without_glyph_warnings():
        return png(draw(chart, width_px))


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG, without matplotlib's version in its metadata."""
    out = io.BytesIO()
    with _without_glyph_warnings():
        figure.savefig(out, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 4})
    return out.getvalue()


def plain(text: str) -> str:
    """Return a text with each ``$`` escaped; matplotlib would take it for the start of a formula."""
    return printable(text).replace("$", r"\$")


@contextmanager
def _without_glyph_warnings() -> Iterator[None]:
    """Context manager: characters that the font lacks are drawn as boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def draw(chart: ch.Chart, width_px: int) -> Figure:
    """Draw heading, legend, panels and caption, from top to bottom.

    Args:
        chart: Chart to draw.
        width_px: Width of the figure in pixels.
    """
    inner = width_px - 2 * MARGIN
    columns = max(1, min(chart.columns, len(chart.panels), (inner + GAP) // (COLUMN + GAP)))
    cell = (inner - (columns - 1) * GAP) / columns
    heading = wrapped(chart.title, inner, HEADING, "bold")
    legend = _legend_rows(chart, inner)
    caption = wrapped(chart.caption, inner, TEXT)
    rows = [chart.panels[i : i + columns] for i in range(0, len(chart.panels), columns)]
    heights = [max(_panel_height(panel, cell) for panel in row) for row in rows]
    top = MARGIN + len(heading) * line_height(HEADING) + 8
    panels_top = top + len(legend) * line_height(TEXT) + (8 if legend else 0)
    below = panels_top + sum(heights) + GAP * len(heights)
    height = math.ceil(below + len(caption) * line_height(TEXT) + MARGIN)
    figure = Figure(figsize=(width_px / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    sheet = Sheet(figure, width_px, height)
    sheet.text(MARGIN, MARGIN, heading, HEADING, weight="bold")
    for number, entries in enumerate(legend):
        _draw_legend(sheet, entries, top + number * line_height(TEXT))
    top = panels_top
    for row, row_height in zip(rows, heights, strict=True):
        for number, panel in enumerate(row):
            _draw_panel(sheet, panel, Box(MARGIN + number * (cell + GAP), top, cell, row_height))
        top += row_height + GAP
    sheet.text(MARGIN, below, caption, TEXT, color=GREY)
    return figure


# The legend.


def _legend_rows(chart: ch.Chart, width: float) -> list[list[tuple[float, str, ch.Mark]]]:
    """Return the legend's entries in rows, each with its distance from the left in pixels."""
    rows: list[list[tuple[float, str, ch.Mark]]] = []
    x = math.inf
    for name, mark in chart.legend().items():
        shown = shortened(printable(name), width - 40, TEXT)
        needed = 32 + text_width(shown, TEXT) + 18
        if x + needed - 18 > width:
            rows.append([])
            x = 0.0
        rows[-1].append((x, shown, mark))
        x += needed
    return rows


def _draw_legend(sheet: Sheet, entries: Sequence[tuple[float, str, ch.Mark]], top: float) -> None:
    for x, name, mark in entries:
        left, y = MARGIN + x, 1 - (top + line_height(TEXT) / 2) / sheet.height
        # A marker stands in the middle of the line, whose ends are not drawn.
        xs = [left, left + 12, left + 24]
        line = Line2D([each / sheet.width for each in xs], [y] * 3, **_swatch(mark), markevery=[1])
        sheet.figure.add_artist(line)
        sheet.text(left + 32, top, [name], TEXT)


def _swatch(mark: ch.Mark) -> dict[str, Any]:
    match mark:
        case ch.Points():
            # White points, which lie on coloured cells, have to be seen here too.
            edge = GREY if mark.colour.lower() == "#ffffff" else mark.colour
            style = {"marker": MARKERS[mark.symbol], "markersize": 6, "markeredgecolor": edge}
            return {"color": mark.colour, "linestyle": ""} | style
        case ch.Line():
            style = {"linestyle": DASHES[mark.dash], "alpha": mark.opacity}
            return {"color": mark.colour, "linewidth": mark.width * PT} | style
        case ch.Intervals():
            return {"color": mark.colour, "linewidth": mark.width * PT, "solid_capstyle": "butt"}
        case ch.Bars():
            return {"color": mark.colour, "linestyle": "", "marker": "s", "markersize": 9}
        case _:
            return {"color": getattr(mark, "colour", INK), "linestyle": DASHES["dash"], "linewidth": 1.2}


# Panels.


def _alone(panel: ch.Panel) -> ch.Images | ch.Parallel | None:
    return next((mark for mark in panel.marks if isinstance(mark, ch.Images | ch.Parallel)), None)


def _panel_height(panel: ch.Panel, width: float) -> float:
    title = len(wrapped(panel.title, width, TEXT, "bold")) * line_height(TEXT)
    match _alone(panel):
        case ch.Images() as images:
            return title + Grid.of(images, width).height
        case ch.Parallel() as parallel:
            return title + len(parallel.dimensions) * DIMENSION + BAR
    bar = BAR if any(isinstance(mark, ch.Heat) for mark in panel.marks) else 0
    return title + panel.height + bar


def _draw_panel(sheet: Sheet, panel: ch.Panel, box: Box) -> None:
    lines = wrapped(panel.title, box.width, TEXT, "bold")
    sheet.text(box.left, box.top, lines, TEXT, weight="bold")
    used = len(lines) * line_height(TEXT)
    box = Box(box.left, box.top + used, box.width, box.height - used)
    match _alone(panel):
        case ch.Images() as images:
            draw_images(sheet, images, box)
        case ch.Parallel() as parallel:
            draw_parallel(sheet, parallel, box)
        case _:
            draw_axes(sheet, panel, box)

"""Draw a panel with axes: points, lines, intervals, bars and cells, and ticks that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from numpy.typing import NDArray

from lenet_exp.base.errors import printable
from lenet_exp.results.figures import chart as ch
from lenet_exp.results.figures.drawing.scales import shortened as without_beginning
from lenet_exp.results.figures.drawing.sheet import (
    BAR,
    DASHES,
    GREY,
    INK,
    MARKERS,
    PT,
    SMALL,
    Box,
    Sheet,
    line_height,
    renderer,
    shortened,
    text_width,
    wrapped,
)

#: Most lines of a category's text below an axis.
_MOST_LINES = 4


def draw_axes(sheet: Sheet, panel: ch.Panel, box: Box) -> None:
    """Draw a panel's axes with their marks, and the colour bar of cells below them.

    Args:
        sheet: Figure to draw into.
        panel: Panel with two axes.
        box: Place of the axes with all their texts.
    """
    assert panel.x is not None
    assert panel.y is not None
    axes = sheet.axes(box)
    if not any(isinstance(mark, ch.Heat) for mark in panel.marks):
        axes.grid(color="#e4e9ee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9aa5b1")
    axes.tick_params(labelsize=SMALL, color="#9aa5b1", labelcolor=INK, length=3)
    if panel.x.scale == "log":
        axes.set_xscale("log")
    if panel.y.scale == "log":
        axes.set_yscale("log")
    heat = None
    for number, mark in enumerate(panel.marks):
        heat = _draw_mark(axes, panel.x, panel.y, mark, 2 + number) or heat
    bar = BAR if heat is not None else 0
    # The titles are no part of the axes, as a long one would take their width.
    above = wrapped(panel.y.title, box.width, SMALL)
    below = wrapped(panel.x.title, box.width, SMALL)
    bottom = box.height - bar - len(below) * line_height(SMALL)
    sheet.text(box.left, box.top, above, SMALL, color=GREY)
    used = len(above) * line_height(SMALL) + 4
    inner = Box(box.left, box.top + used, box.width, bottom - used - 2)
    _set_axis(axes, panel.x, panel.values("x"), inner, is_x=True)
    _set_axis(axes, panel.y, panel.values("y"), inner, is_x=False)
    middle = sheet.fit(axes, inner)
    for number, line in enumerate(below):
        # In the middle of the axes, as far as it then stays in the box.
        half = text_width(line, SMALL) / 2
        left = min(max(middle, box.left + half), box.left + box.width - half)
        top = box.top + bottom + number * line_height(SMALL)
        sheet.text(left, top, [line], SMALL, color=GREY, ha="center")
    _thin(axes, is_x=True)
    _thin(axes, is_x=False)
    if heat is not None:
        label = next(mark.label for mark in panel.marks if isinstance(mark, ch.Heat))
        draw_bar(sheet, heat, label, box)


def _positions(values: Sequence[ch.Value], axis: ch.Axis) -> list[float]:
    if axis.scale != "category":
        return [float(value) for value in values]
    place = {name: float(number) for number, name in enumerate(axis.categories)}
    return [place[str(value)] for value in values]


def _draw_mark(axes: Axes, x: ch.Axis, y: ch.Axis, mark: ch.Mark, order: int) -> ScalarMappable | None:
    match mark:
        case ch.Points():
            _draw_points(axes, x, y, mark, order)
        case ch.Line():
            axes.plot(
                _positions(mark.x, x),
                _positions(mark.y, y),
                color=mark.colour,
                linestyle=DASHES[mark.dash],
                drawstyle="steps-post" if mark.is_step else "default",
                alpha=mark.opacity,
                linewidth=mark.width * PT,
                # A curve of a single epoch would not be seen.
                marker="o" if len(mark.x) == 1 else "",
                markersize=4,
                zorder=order,
            )
        case ch.Intervals():
            width = mark.width * PT
            rows = _positions(mark.y, y)
            axes.hlines(rows, mark.low, mark.high, color=mark.colour, linewidth=width, zorder=order)
        case ch.Bars():
            lengths = np.subtract(mark.end, mark.start)
            rows = _positions(mark.y, y)
            axes.barh(rows, lengths, left=mark.start, height=0.7, color=mark.colour, zorder=order)
        case ch.Reference():
            line = axes.axhline if mark.axis == "y" else axes.axvline
            line(mark.at, color=mark.colour, linestyle=DASHES["dash"], linewidth=1.2, zorder=order)
        case ch.Heat():
            return _draw_heat(axes, x, y, mark, order)
        case ch.Images() | ch.Parallel():
            pass  # they stand alone, without axes
    return None


def _draw_points(axes: Axes, x: ch.Axis, y: ch.Axis, mark: ch.Points, order: int) -> None:
    across = [place + shift for place, shift in zip(_positions(mark.x, x), mark.shifts(), strict=True)]
    up = _positions(mark.y, y)
    colour, white = np.array(to_rgb(mark.colour)), np.ones(3)
    edge = GREY if mark.colour == "#ffffff" else "white"
    shades = mark.shades or [1.0] * len(across)
    symbols = mark.symbols or ["circle"] * len(across)
    for symbol in dict.fromkeys(symbols):
        chosen = [i for i, each in enumerate(symbols) if each == symbol]
        is_open: dict[str, Any] = {"edgecolors": edge, "linewidths": 0.5} if symbol != "cross" else {}
        axes.scatter(
            [across[i] for i in chosen],
            [up[i] for i in chosen],
            s=(mark.size * PT) ** 2,
            c=[white + (colour - white) * (0.3 + 0.7 * shades[i]) for i in chosen],
            marker=MARKERS[symbol],
            **is_open,
            zorder=order,
        )


def _draw_heat(axes: Axes, x: ch.Axis, y: ch.Axis, mark: ch.Heat, order: int) -> ScalarMappable:
    across, up = _positions(mark.x, x), _positions(mark.y, y)
    z = np.ma.masked_invalid(np.asarray(mark.z, float))
    low, high = mark.ends()
    norm = Normalize(low, high if high > low else low + 1)
    style: dict[str, Any] = {"cmap": coloured(ch.CELLS), "norm": norm, "zorder": order - 1.5}
    edges = (_edges(places, is_log=axis.scale == "log") for places, axis in ((across, x), (up, y)))
    mesh = axes.pcolormesh(*edges, z, **style)
    for row, texts in enumerate(mark.texts):
        for column, text in enumerate(texts):
            is_dark = not np.ma.is_masked(z[row, column]) and norm(z[row, column]) > 0.5
            axes.text(
                across[column],
                up[row],
                text,
                color="white" if is_dark else INK,
                ha="center",
                va="center",
                size=7,
                parse_math=False,
                zorder=order,
            )
    return mesh


def _edges(centres: Sequence[float], *, is_log: bool) -> NDArray[np.float64]:
    """Return where cells begin and end, halfway between their centres as the axis shows them.

    Args:
        centres: Centre of each cell along the axis.
        is_log: True for a logarithmic axis; matplotlib's own edges would be those of a linear one.
    """
    places = np.log10(centres) if is_log else np.asarray(centres, float)
    half = np.diff(places) / 2 if len(places) > 1 else np.array([0.5])
    edges = np.array([places[0] - half[0], *(places[1:] + places[:-1]) / 2, places[-1] + half[-1]])
    return np.asarray(10**edges if is_log else edges)


def coloured(colours: Sequence[str]) -> LinearSegmentedColormap:
    """Return the scale whose colours, from the smallest number to the largest, lie between these."""
    return LinearSegmentedColormap.from_list("numbers", colours)


def _set_axis(axes: Axes, described: ch.Axis, values: Sequence[ch.Value], box: Box, *, is_x: bool) -> None:
    """Set limits and ticks of an axis along which are all values."""
    axis = axes.xaxis if is_x else axes.yaxis
    room = box.width if is_x else box.height
    if described.scale == "category":
        _set_categories(axes, described, box, is_x=is_x)
        return
    ends = described.ends(values)
    low, high = (10.0**end if described.scale == "log" else end for end in ends)
    (axes.set_xlim if is_x else axes.set_ylim)(low, high)
    most = max(map(abs, axis.get_view_interval()))
    n_ticks = max(2, int(room // (80 if is_x else 50)))
    if described.scale == "log":
        axis.set_minor_locator(ticker.NullLocator())
        low, high = axis.get_view_interval()
        few = high / low < 100  # less than two decades, which may have a single power of ten
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if few else (1,), numticks=n_ticks + 2))
    else:
        axis.set_major_locator(ticker.MaxNLocator(n_ticks, integer=described.is_integer, min_n_ticks=1))
    if most >= 10_000:
        axis.set_major_formatter(ticker.EngFormatter(sep=""))
    elif described.scale == "log":
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axis.set_major_formatter(ticker.ScalarFormatter(useOffset=False))


def _set_categories(axes: Axes, described: ch.Axis, box: Box, *, is_x: bool) -> None:
    """Put a tick with its text at each category; texts that are too long are turned, wrapped or shortened."""
    names = [printable(name) for name in described.categories]
    places = range(len(names))
    if is_x:
        room = (box.width - 60) / max(1, len(names))
        is_turned = room < 60 and any(text_width(name, SMALL) > room - 6 for name in names)
        broken = [wrapped(name, room - 6, SMALL) for name in names]
        labels = ["\n".join(lines[:_MOST_LINES]) for lines in broken]
        if is_turned:
            labels = [shortened(name, 0.4 * box.height, SMALL) for name in names]
        turned: dict[str, Any] = {"rotation": 90} if is_turned else {}
        axes.set_xticks(places, labels, parse_math=False, **turned)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.grid(visible=False, axis="x")
    else:
        n_lines = max(1, int((box.height - 50) / max(1, len(names)) / line_height(SMALL)))
        room = 0.4 * box.width
        if any(len(wrapped(name, room, SMALL)) > n_lines for name in names):
            # What all begin with would be all that is seen; a character is seldom wider than 8 pixels.
            names = without_beginning(names, int(n_lines * room / 8))
        broken = [wrapped(name, room, SMALL) for name in names]
        labels = ["\n".join(lines[:n_lines]) for lines in broken]
        axes.set_yticks(places, labels, parse_math=False)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")


def _thin(axes: Axes, *, is_x: bool) -> None:
    """Hide the labels of ticks that would be drawn over the label before them."""
    end = -math.inf
    ticks = (axes.xaxis if is_x else axes.yaxis).get_major_ticks()
    boxes = [(tick.label1.get_window_extent(renderer()), tick) for tick in ticks if tick.label1.get_text()]
    for extent, tick in sorted(boxes, key=lambda each: each[0].x0 if is_x else each[0].y0):
        low, high = (extent.x0, extent.x1) if is_x else (extent.y0, extent.y1)
        tick.label1.set_visible(low >= end)
        end = high + (4 if is_x else 0) if low >= end else end


def draw_bar(sheet: Sheet, mappable: ScalarMappable, label: str, box: Box) -> None:
    """Draw a horizontal colour bar at the lower edge of a box.

    Args:
        sheet: Figure to draw into.
        mappable: Numbers with their colours.
        label: Quantity and unit of the numbers.
        box: Place of the panel, whose lowest `BAR` pixels the bar takes.
    """
    width = min(box.width - 40, 320)
    place = Box(box.left + (box.width - width) / 2, box.top + box.height - BAR + 8, width, 9)
    bar = sheet.figure.colorbar(mappable, cax=sheet.axes(place), orientation="horizontal")
    bar.locator = ticker.MaxNLocator(4)
    bar.update_ticks()
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL, length=2, pad=2)
    bar.ax.set_xlabel(shortened(printable(label), width, SMALL), size=SMALL, labelpad=2, parse_math=False)

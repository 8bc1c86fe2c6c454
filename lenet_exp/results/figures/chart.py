"""What a figure shows, without how it is drawn: `browser` draws it with plotly, `picture` with matplotlib.

As both draw from the same description, a page and a picture never disagree, and a test can ask what is shown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

#: Colours that readers with any colour vision tell apart (Okabe and Ito, 2008), and that hold on white and on
#: black: the baseline is always vermilion, what was tried is blue, a front or a champion is orange.
BASELINE, TRIAL, FRONT, FAINT = "#d55e00", "#0072b2", "#e69f00", "#8a949e"
#: Colours that curves take in turn; they differ in lightness too, and curves also differ in dash.
COLOURS = (TRIAL, FRONT, "#009e73", "#cc79a7", "#56b4e9", "#8c6d1f", "#7b68c8", "#5a6570")
#: Colours of numbers, from the smallest to the largest: of cells, on which every mark is seen, and of lines.
CELLS = ("#deebf7", "#9ecae1", "#4292c6", "#08519c")
LINES = (TRIAL, FAINT, FRONT)

Value: TypeAlias = float | str
Symbol = Literal["circle", "diamond", "triangle-down", "cross", "square"]
Dash = Literal["solid", "dot", "dash"]
Scale = Literal["linear", "log", "category"]


@dataclass(frozen=True)
class Axis:
    """One axis of a panel.

    Attributes:
        title: Quantity along the axis, with its unit, such as ``examples/s``.
        scale: Kind of the axis; a category axis shows ``categories`` in their order,
            upright from the top down.
        categories: Texts along a category axis; empty for other axes.
        low: Value at which the axis starts; None to fit the data.
        high: Value at which the axis ends; None to fit the data.
        is_integer: True if ticks stand at whole numbers only.
    """

    title: str
    scale: Scale = "linear"
    categories: Sequence[str] = ()
    low: float | None = None
    high: float | None = None
    is_integer: bool = False

    def ends(self, values: Sequence[Value]) -> tuple[float, float]:
        """Return start and end: ``low`` and ``high``, or around all values; logarithms of a log axis."""
        is_log = self.scale == "log"
        numbers = [v for v in values if not isinstance(v, str) and math.isfinite(v) and (v > 0 or not is_log)]
        ends = (min(numbers, default=1.0), max(numbers, default=1.0))
        if is_log:
            ends = (math.log10(ends[0]), math.log10(ends[1]))
        low, high = (math.log10(v) if v and is_log else v for v in (self.low, self.high))
        # What an end leaves out is not to widen the rest.
        start, end = ends[0] if low is None else low, ends[1] if high is None else high
        span = abs(end - start) or max(0.02 * abs(start), 0.01)
        start = start - 0.05 * span if low is None else low
        end = end + 0.05 * span if high is None else high
        return (start, end) if start < end else (start - span, start + span)


@dataclass(frozen=True)
class Points:
    """Points, such as trials.

    Attributes:
        x: Position of each point along the x axis.
        y: Position of each point along the y axis.
        name: Name in the legend; empty to leave it out.
        colour: Colour of all points, as ``#rrggbb``.
        symbols: Symbol of each point; empty for circles.
        shades: Number of each point in [0, 1] that makes it stand out, such as its age; empty for one shade.
        hover: Text that a browser shows beside each point; empty for its position.
        size: Diameter in pixels.
        spread: Length along x over which points of equal x are spread; categories are 1 apart.
    """

    x: Sequence[Value]
    y: Sequence[Value]
    name: str = ""
    colour: str = TRIAL
    symbols: Sequence[Symbol] = ()
    shades: Sequence[float] = ()
    hover: Sequence[str] = ()
    size: float = 8
    spread: float = 0

    @property
    def symbol(self) -> Symbol:
        """Symbol of most points, which the legend shows; a triangle only if all lie below the axis."""
        upon = [symbol for symbol in self.symbols if symbol != "triangle-down"] or self.symbols
        return Counter(upon).most_common(1)[0][0] if upon else "circle"

    def shifts(self) -> list[float]:
        """Return how far along x each point is drawn beside its position, always the same."""
        # Multiples of the golden ratio, less their whole part, are spread evenly, however many there are.
        return [self.spread * (i * 0.618034 % 1 - 0.5) for i in range(len(self.x))]


@dataclass(frozen=True)
class Line:
    """A line through points, such as a learning curve.

    Attributes:
        x: Position of each point along the x axis.
        y: Position of each point along the y axis.
        name: Name in the legend; empty to leave it out. Lines of one name share one entry.
        colour: Colour, as ``#rrggbb``.
        dash: Kind of the line.
        is_step: True if y keeps its value until the next x, as the best so far does.
        opacity: Opacity in [0, 1]; below 1 for what is only context.
        hover: Text that a browser shows beside the line; empty for its name.
        width: Width in pixels.
    """

    x: Sequence[Value]
    y: Sequence[Value]
    name: str = ""
    colour: str = TRIAL
    dash: Dash = "solid"
    is_step: bool = False
    opacity: float = 1.0
    hover: str = ""
    width: float = 2


@dataclass(frozen=True)
class Intervals:
    """Intervals along the x axis, one at each y, such as those of differences.

    Attributes:
        low: Lower end of each interval.
        high: Upper end of each interval.
        y: Position of each interval along the y axis.
        name: Name in the legend; empty to leave it out.
        colour: Colour, as ``#rrggbb``.
        width: Width in pixels: of two intervals of the same number, the narrower one is drawn wider.
        hover: Text that a browser shows beside each interval; empty for its ends.
    """

    low: Sequence[float]
    high: Sequence[float]
    y: Sequence[Value]
    name: str = ""
    colour: str = TRIAL
    width: float = 3
    hover: Sequence[str] = ()


@dataclass(frozen=True)
class Bars:
    """Horizontal bars, such as the times when a worker was busy.

    Attributes:
        start: Start of each bar along the x axis.
        end: End of each bar.
        y: Position of each bar along the y axis.
        name: Name in the legend; empty to leave it out.
        colour: Colour, as ``#rrggbb``.
        hover: Text that a browser shows beside each bar; empty for its ends.
    """

    start: Sequence[float]
    end: Sequence[float]
    y: Sequence[Value]
    name: str = ""
    colour: str = TRIAL
    hover: Sequence[str] = ()


@dataclass(frozen=True)
class Heat:
    """A grid of cells whose colour is a number: a confusion matrix, or the means of two hyper-parameters.

    Attributes:
        x: Position of each column along the x axis.
        y: Position of each row along the y axis.
        z: Numbers of shape ``(len(y), len(x))``, NaN where there is none.
        label: Quantity and unit of the numbers; the title of the colour bar.
        texts: Text in each cell, of the same shape; empty for none.
        least: Number at which the colours start; None for the least. Panels to be compared need the same.
        most: Number at which the colours end; None for the largest.
    """

    x: Sequence[Value]
    y: Sequence[Value]
    z: np.ndarray
    label: str
    texts: Sequence[Sequence[str]] = ()
    least: float | None = None
    most: float | None = None

    def ends(self) -> tuple[float, float]:
        """Return the numbers at which the colours start and end."""
        numbers = np.asarray(self.z, float)[np.isfinite(self.z)]
        low, high = (numbers.min(), numbers.max()) if numbers.size else (0.0, 1.0)
        return float(low if self.least is None else self.least), float(
            high if self.most is None else self.most
        )


@dataclass(frozen=True)
class Reference:
    """A dashed line across the panel, such as the baseline's accuracy.

    Attributes:
        at: Position of the line.
        axis: Axis that ``at`` is a position on: ``y`` for a horizontal line.
        name: Name in the legend; empty to leave it out.
        colour: Colour, as ``#rrggbb``.
    """

    at: float
    axis: Literal["x", "y"] = "y"
    name: str = "baseline"
    colour: str = BASELINE


@dataclass(frozen=True)
class Images:
    """Small grey pictures in rows, such as images that a network mistakes, or the filters of a layer.

    Attributes:
        images: Array ``(n, height, width)``; the smallest number is drawn black and the largest white.
        titles: Text above each image, of a few characters; empty for none.
        per_row: Number of images in a row.
        symmetric: True to draw 0 in grey, and to colour negative and positive numbers, as for filters.
    """

    images: np.ndarray
    titles: Sequence[str] = ()
    per_row: int = 8
    symmetric: bool = False

    def pixels(self) -> np.ndarray:
        """Return the images as 8-bit colours, ``(n, height, width, 3)``, a number's alike in all images."""
        numbers = np.nan_to_num(np.asarray(self.images, float))
        if not self.symmetric:
            shares = (numbers - numbers.min()) / (np.ptp(numbers) or 1)
            return np.repeat((255 * shares).round().astype(np.uint8)[..., None], 3, axis=-1)
        shares = (numbers / (np.abs(numbers).max() or 1))[..., None]
        below, middle, above = (np.array(c, float) for c in ((0, 114, 178), (225, 225, 225), (213, 94, 0)))
        colours = middle + np.where(shares < 0, middle - below, above - middle) * shares
        return np.asarray(colours.round().astype(np.uint8))


@dataclass(frozen=True)
class Parallel:
    """Parallel coordinates: an upright axis for each dimension, a line across all of them for each trial.

    Attributes:
        dimensions: Axes in their order.
        values: Positions of each line, of the length of ``dimensions``; None where a value is not used.
        colours: Number of each line that its colour shows.
        label: Quantity and unit of the numbers in ``colours``.
        hover: Text that a browser shows beside each line.
    """

    dimensions: Sequence[Axis]
    values: Sequence[Sequence[Value | None]]
    colours: Sequence[float]
    label: str
    hover: Sequence[str] = ()

    def ends(self) -> tuple[float, float]:
        """Return the numbers at which the colours start and end."""
        return min(self.colours, default=0.0), max(self.colours, default=1.0)


Mark: TypeAlias = Points | Line | Intervals | Bars | Heat | Reference | Images | Parallel


@dataclass(frozen=True)
class Panel:
    """One system of axes with what is drawn in it; `Images` and `Parallel` stand alone, without axes.

    Attributes:
        marks: Things that are drawn, the hindmost first.
        x: The x axis; None for marks that stand alone.
        y: The y axis; None for marks that stand alone.
        title: Title of the panel; empty where the chart has only one.
        height: Height in pixels where the chart is as wide as a page.
    """

    marks: Sequence[Mark]
    x: Axis | None = None
    y: Axis | None = None
    title: str = ""
    height: int = 360

    def values(self, axis: Literal["x", "y"]) -> list[Value]:
        """Return every position along an axis that has to be between its ends; a heat's are its cells."""
        values: list[Value] = []
        for mark in self.marks:
            if isinstance(mark, Reference):
                values += [mark.at] * (mark.axis == axis)
            else:
                ends = () if axis == "y" or isinstance(mark, Heat) else ("low", "high", "start", "end")
                values += [value for name in (axis, *ends) for value in getattr(mark, name, ())]
        return values


@dataclass(frozen=True)
class Chart:
    """A figure: panels that flow into as many columns as there is room for, with one legend for all.

    Attributes:
        key: Name of the file and of the element on the page, such as ``history``.
        title: Heading.
        caption: Text that says what to see in the figure, in a few sentences.
        panels: The panels, in reading order.
        columns: Most panels that stand side by side where there is room.
    """

    key: str
    title: str
    caption: str
    panels: Sequence[Panel]
    columns: int = 2

    def legend(self) -> dict[str, Mark]:
        """Return the first mark of each name, in the order in which they are drawn: only what is drawn."""
        entries: dict[str, Mark] = {}
        for panel in self.panels:
            for mark in panel.marks:
                name = getattr(mark, "name", "")
                if name and _is_drawn(mark):
                    entries.setdefault(name, mark)
        return entries


def _is_drawn(mark: Mark) -> bool:
    return isinstance(mark, Reference) or len(getattr(mark, "y", ())) > 0

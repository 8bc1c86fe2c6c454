"""A figure in which everything is placed in pixels from the upper left corner, and texts are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from lenet_exp.base.errors import printable

DPI = 100
#: Points of a matplotlib line in a pixel.
PT = 72 / DPI
#: Sizes of texts in points: they are the same at every width.
HEADING, TEXT, SMALL = 12, 9, 8
#: Distances in pixels: around the figure, between panels, and the least width of a panel beside another.
MARGIN, GAP, COLUMN = 14, 22, 400
INK, GREY = "#1c2733", "#52606d"
MARKERS = {"circle": "o", "diamond": "D", "triangle-down": "v", "cross": "x", "square": "s"}
DASHES: dict[str, Any] = {"solid": "-", "dot": (0, (1, 1.5)), "dash": (0, (4, 2))}
#: Height in pixels of a dimension of parallel coordinates, and of a colour bar with its labels.
DIMENSION, BAR = 42, 50


@dataclass(frozen=True)
class Box:
    """A rectangle, in pixels from the figure's upper left corner."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Sheet:
    """A figure in which things are placed in pixels from its upper left corner."""

    figure: Figure
    width: float
    height: float

    def text(self, left: float, top: float, lines: Sequence[str], size: float, **style: Any) -> None:
        """Write lines below one another, without taking ``$`` for the start of a formula.

        Args:
            left: Distance of the lines from the figure's left edge, in pixels.
            top: Distance of the first line from the figure's upper edge, in pixels.
            lines: Lines of text.
            size: Size of the text in points.
            **style: Properties of matplotlib's text.
        """
        for number, line in enumerate(lines):
            y = 1 - (top + (number + 0.5) * line_height(size)) / self.height
            style = {"va": "center", "color": INK} | style
            self.figure.text(left / self.width, y, line, size=size, parse_math=False, **style)

    def axes(self, box: Box) -> Axes:
        """Add axes that fill a box."""
        return self.figure.add_axes(self._rectangle(box))

    def blank(self, box: Box) -> Axes:
        """Add axes without ticks or frame, whose coordinates are pixels from the box's upper left corner."""
        axes = self.axes(box)
        axes.set(xlim=(0, box.width), ylim=(box.height, 0), autoscale_on=False)
        axes.set_axis_off()
        return axes

    def fit(self, axes: Axes, box: Box) -> float:
        """Shrink axes so that they fill a box with the labels of their ticks; return their middle.

        Args:
            axes: Axes to shrink.
            box: Place of axes and labels.
        """
        place = box
        for _ in range(2):  # what ticks there are depends on the size
            axes.set_position(self._rectangle(place))
            tight = axes.get_tightbbox(renderer(), bbox_extra_artists=[])
            if tight is None:
                break
            left, right = box.left - tight.x0, box.left + box.width - tight.x1
            top, bottom = self.height - box.top - tight.y1, self.height - box.top - box.height - tight.y0
            place = Box(
                place.left + left,
                place.top - top,
                max(place.width - left + right, 30),
                max(place.height + top - bottom, 30),
            )
        axes.set_position(self._rectangle(place))
        return place.left + place.width / 2

    def _rectangle(self, box: Box) -> tuple[float, float, float, float]:
        bottom = self.height - box.top - box.height
        return (box.left / self.width, bottom / self.height, box.width / self.width, box.height / self.height)


@cache
def renderer() -> Any:
    """Return the renderer by which texts and axes are measured before their figure has a size."""
    return RendererAgg(10, 10, DPI)  # type: ignore[no-untyped-call]


@cache
def _font(size: float, weight: str) -> Any:
    return FontProperties(size=size, weight=weight)


@cache
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of a line of text, in pixels.

    Args:
        text: Line of text.
        size: Size of the text in points.
        weight: Weight of the font.
    """
    return float(renderer().get_text_width_height_descent(text, _font(size, weight), False)[0])


def line_height(size: float) -> float:
    """Return the distance between two lines of text, in pixels."""
    return 1.4 * size / PT


def shortened(text: str, width: float, size: float, weight: str = "normal") -> str:
    """Return a text without its middle, if it is too wide.

    Args:
        text: Line of text.
        width: Largest width in pixels.
        size: Size of the text in points.
        weight: Weight of the font.
    """
    shown, keep = text, len(text)
    while keep > 2 and (measured := text_width(shown, size, weight)) > width:
        keep = min(keep - 1, int(keep * width / measured) + 1)
        shown = f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}"
    return shown


def wrapped(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Return a text as lines that are not too wide; a word that is too long for a line loses its middle.

    Args:
        text: Text of any length.
        width: Largest width of a line in pixels.
        size: Size of the text in points.
        weight: Weight of the font.
    """
    lines: list[str] = []
    left = 0.0  # pixels that the last line has left
    for word in printable(text).split():
        # Words are measured one by one, as many occur more than once.
        needed = text_width(f" {word}", size, weight)
        if needed <= left:
            lines[-1] += f" {word}"
            left -= needed
        else:
            lines.append(shortened(word, width, size, weight))
            left = width - text_width(word, size, weight)
    return lines

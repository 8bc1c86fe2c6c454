"""Draw what has no axes: small images in rows, and parallel coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from lenet_exp.base.errors import printable
from lenet_exp.results.figures import chart as ch
from lenet_exp.results.figures.drawing.marks import coloured, draw_bar
from lenet_exp.results.figures.drawing.scales import ParallelAxis
from lenet_exp.results.figures.drawing.sheet import (
    DIMENSION,
    GREY,
    INK,
    SMALL,
    Box,
    Sheet,
    line_height,
    shortened,
    text_width,
)


@dataclass(frozen=True)
class Grid:
    """Where small images are placed: their number in a row, the side of one, and the height of its title."""

    per_row: int
    pitch: float
    tile: float
    title: float
    rows: int

    @classmethod
    def of(cls, images: ch.Images, width: float) -> Grid:
        """Return the grid in which images fit into a width, with titles that are not cut off.

        Args:
            images: Images with their titles.
            width: Width of a row in pixels.
        """
        lines = [line for title in images.titles for line in title.split("\n")]
        widest = max([34.0, *(min(text_width(line, SMALL), 120) + 8 for line in lines)])
        n = len(images.images)
        per_row = max(1, min(images.per_row, n, int(width // widest)))
        pitch = min(width / per_row, max(widest, 104))
        title = max((title.count("\n") + 1 for title in images.titles), default=0) * line_height(SMALL)
        return cls(per_row, pitch, min(pitch - 8, 96), title, -(-n // per_row))

    @property
    def height(self) -> float:
        """Height of all rows, in pixels."""
        return self.rows * (self.tile + self.title + 8)


def draw_images(sheet: Sheet, mark: ch.Images, box: Box) -> None:
    """Draw small images in rows, each with its title above it.

    Args:
        sheet: Figure to draw into.
        mark: The images.
        box: Place of all rows.
    """
    grid = Grid.of(mark, box.width)
    axes = sheet.blank(box)
    for number, pixels in enumerate(mark.pixels()):
        row, column = divmod(number, grid.per_row)
        left, top = column * grid.pitch, row * (grid.tile + grid.title + 8) + grid.title
        extent = (left, left + grid.tile, top + grid.tile, top)
        axes.imshow(pixels, extent=extent, interpolation="nearest", aspect="auto")
        if number < len(mark.titles):
            lines = [
                shortened(printable(line), grid.pitch - 6, SMALL) for line in mark.titles[number].split("\n")
            ]
            for i, line in enumerate(reversed(lines)):
                y = top - 2 - i * line_height(SMALL)
                axes.text(left, y, line, size=SMALL, va="bottom", color=INK, parse_math=False)
    axes.set(xlim=(0, box.width), ylim=(box.height, 0))


def draw_parallel(sheet: Sheet, mark: ch.Parallel, box: Box) -> None:
    """Draw parallel coordinates whose axes lie below one another, so that names and values stay legible.

    Args:
        sheet: Figure to draw into.
        mark: The parallel coordinates.
        box: Place of the axes with their texts, and of the colour bar.
    """
    names = [shortened(printable(each.title), 0.35 * box.width, SMALL) for each in mark.dimensions]
    half_unused = text_width("unused", SMALL) / 2
    left = max((text_width(name, SMALL) for name in names), default=0) + half_unused + 8
    right = box.width - 32
    axes = sheet.blank(box)
    scales = [ParallelAxis(each, [v[i] for v in mark.values]) for i, each in enumerate(mark.dimensions)]
    low, high = mark.ends()
    colours = coloured(ch.LINES)
    norm = Normalize(low, high if high > low else low + 1)
    rows = [i * DIMENSION + 12 for i in range(len(names))]
    start = min((share for scale in scales for share, _ in scale.ticks()), default=0.0)

    def place(share: float) -> float:
        return left + (share - start) / (1 - start) * (right - left)

    for y, name, scale in zip(rows, names, scales, strict=True):
        axes.plot([place(0), right], [y, y], color="#9aa5b1", linewidth=1, zorder=1)
        axes.text(0, y, name, size=SMALL, va="center", color=INK, parse_math=False)
        ticks = scale.ticks()
        room, end = (right - left) / len(ticks) - 6, left - half_unused - 1
        for share, value in ticks:
            axes.plot([place(share)] * 2, [y - 3, y + 3], color="#9aa5b1", linewidth=1, zorder=1)
            text = printable(f"{value:.3g}" if isinstance(value, float) else str(value))
            text = shortened(text, max(60, room), SMALL)
            half = text_width(text, SMALL) / 2
            # The outer ones stay within the box.
            x = min(max(place(share), left - half_unused + half), box.width - half)
            if x - half > end:
                shown = axes.text(x, y + 5, text, size=SMALL, ha="center", va="top", color=GREY, zorder=3)
                shown.set(parse_math=False, bbox={"pad": 0.5, "facecolor": "white", "linewidth": 0})
                end = x + half + 6
    # The largest last, so that they are in front.
    for values, colour in sorted(zip(mark.values, mark.colours, strict=True), key=lambda each: each[1]):
        xs = [place(scale.share(value)) for value, scale in zip(values, scales, strict=True)]
        style: dict[str, Any] = {"color": colours(norm(colour)), "alpha": 0.7, "marker": "o"}
        axes.plot(xs, rows, linewidth=1.2, markersize=2.5, zorder=2, **style)
    draw_bar(sheet, ScalarMappable(norm, colours), mark.label, box)

from __future__ import annotations

import io
import itertools
import math
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from PIL import Image

from lenet_exp.results.figures.chart import (
    Axis,
    Bars,
    Chart,
    Heat,
    Images,
    Intervals,
    Line,
    Panel,
    Parallel,
    Points,
    Reference,
)
from lenet_exp.results.figures.picture import chart_png, draw
from tests.labs.charts import EVIL

NAMES = [f"{EVIL} {'and so on ' * n}{n}" for n in range(4)]
LONG = "a quantity whose name is too long for the axis of a narrow picture (examples per second)"
AXES = Axis(LONG), Axis(LONG)
GRID = np.arange(16.0).reshape(4, 4)

PANELS = {
    "points": Panel(
        [
            Points(
                [1, 2, 3], [0.9, 0.9, 0.9], EVIL, shades=[0, 0.5, 1], symbols=["circle", "cross", "circle"]
            ),
            Points([], [], "nothing of this name"),
            Line([1, 2], [0.9, 0.9], "line", is_step=True),
            Reference(0.5),
        ],
        *AXES,
        title=EVIL,
    ),
    "one": Panel([Line([1], [math.nan], "line"), Points([1], [1e-7], "point")], *AXES),
    "log": Panel([Points([1e-5, 0.3], [61_706, 2e6], "point")], Axis("lr", "log"), Axis("parameters", "log")),
    "below": Panel([Points(NAMES, [1, 2, 3, 4], "point")], Axis("name", "category", NAMES), AXES[1]),
    "beside": Panel(
        [Intervals([-1, -2], [1, 2], NAMES[:2], "interval"), Bars([0], [1], NAMES[2:3], "bar")],
        AXES[0],
        Axis("", "category", NAMES),
    ),
    "cells": Panel(
        [Heat(NAMES, NAMES, GRID, "number", [["99999"] * 4] * 4)],
        Axis("", "category", NAMES),
        Axis("", "category", NAMES),
    ),
    "contour": Panel([Heat([1, 2, 3, 4], [1, 2, 3, 4], GRID * math.nan, LONG)], *AXES),
    "images": Panel([Images(np.zeros((11, 3, 3)), [f"{EVIL}\n{EVIL}\n0.99"] * 11, 4)], title="eleven"),
    "filters": Panel([Images(np.zeros((40, 3, 3)), symmetric=True)]),
    "parallel": Panel(
        [
            Parallel(
                [Axis("lr", "log"), Axis(EVIL, "category", NAMES), Axis("layers", is_integer=True)],
                [[1e-4, NAMES[0], None], [0.1, NAMES[3], 2]],
                [0.8, 0.9],
                "val_accuracy",
            )
        ]
    ),
}


def texts(figure: Figure) -> dict[str, tuple[float, float, float, float]]:
    """Return the boxes in pixels of all texts that are drawn, by text and number."""
    figure.canvas.draw()
    drawn = [text for text in figure.texts if text.get_text()]
    for axes in figure.axes:
        drawn += axes.texts
        drawn.append(axes.xaxis.label)
        if axes.axison:
            ticks = [*axes.xaxis.get_major_ticks(), *axes.yaxis.get_major_ticks()]
            drawn += [tick.label1 for tick in ticks if _is_in(axes, tick)]
    shown = [text for text in drawn if text.get_visible() and text.get_text().strip()]
    return {f"{n} {text.get_text()}": text.get_window_extent().extents for n, text in enumerate(shown)}


def _is_in(axes: Any, tick: Any) -> bool:
    """Return True if a tick is drawn: matplotlib makes some beyond the limits too."""
    axis = axes.xaxis if tick in axes.xaxis.get_major_ticks() else axes.yaxis
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    return bool(low - slack <= tick.get_loc() <= high + slack)


@pytest.mark.parametrize("width", [400, 1000])
@pytest.mark.parametrize(
    "names", [["points", "one"], ["log", "below"], ["beside", "cells"], list(PANELS)[6:]]
)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_no_text_is_drawn_over_another_or_cut_off(names: list[str], width: int) -> None:
    """Measured by their boxes: whatever names contain, however long they are, narrow or wide."""
    chart = Chart("key", EVIL * 2, f"{EVIL} {LONG} " * 3, [PANELS[name] for name in names])

    figure = draw(chart, width)

    boxes = texts(figure)
    height = figure.bbox.height
    for name, (left, bottom, right, top) in boxes.items():
        assert min(left, bottom, width - right, height - top) >= 0, name
    for (name, a), (other, b) in itertools.combinations(boxes.items(), 2):
        across, up = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        assert across <= 1 or up <= 1, f"{name} and {other}"


def test_a_picture_is_as_wide_as_asked_and_says_what_is_drawn() -> None:
    """Heading, caption and a legend of exactly what is drawn; beside each other only where there is room."""
    chart = Chart("key", "Heading", "Caption.", [PANELS["points"], PANELS["one"]])

    sizes = []
    for width in (400, 1000):
        with Image.open(io.BytesIO(chart_png(chart, width))) as image:
            sizes.append(image.size)

    assert [size[0] for size in sizes] == [400, 1000]
    assert sizes[0][1] > 1.5 * sizes[1][1]
    shown = [text.get_text() for text in draw(chart, 1000).texts]
    assert shown[0] == "Heading"
    assert shown[-1] == "Caption."
    assert {"line", "point", "baseline"} <= set(shown)
    assert "nothing of this name" not in shown


def test_names_that_begin_alike_are_told_apart() -> None:
    """Where there is no room for whole names, each keeps its end."""
    names = [f"a wide network of many layers, with a learning rate of 0.{n}" for n in range(9)]
    panel = Panel([Points([1.0] * 9, names)], Axis("share"), Axis("", "category", names), height=300)

    axes = draw(Chart("key", "Heading", "Caption.", [panel]), 400).axes[0]

    assert len({tick.label1.get_text() for tick in axes.yaxis.get_major_ticks()}) == 9


def test_cells_of_a_logarithmic_axis_reach_halfway_to_their_neighbours() -> None:
    """Halfway is where the axis shows it, over any number of decades, so that points lie in their cells."""
    centres = [1e-8, 1e-5, 1e-2, 1e1]
    axis = Axis("quantity", "log")
    chart = Chart(
        "heat", "cells", "Caption.", [Panel([Heat(centres, centres, np.eye(4), "mean")], axis, axis)]
    )

    (mesh,) = (each for each in draw(chart, 800).axes[0].collections if isinstance(each, QuadMesh))

    edges = np.asarray(mesh.get_coordinates())[0, :, 0]
    assert np.log10(edges).tolist() == pytest.approx([-9.5, -6.5, -3.5, -0.5, 2.5])

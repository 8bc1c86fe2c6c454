from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lenet_exp.config import loader
from lenet_exp.results.figures.browser import figure_html
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
from lenet_exp.results.figures.curves import learning_curves
from lenet_exp.results.figures.drawing.scales import UNUSED
from lenet_exp.results.figures.hyperparameters import contour, importance, parallel, slices
from lenet_exp.results.figures.search import history, throughput, timeline
from lenet_exp.results.lookup import read_results
from tests.labs.charts import EVIL, check, listed, record, results
from tests.labs.swept import Swept
from tests.results.figures.test_hyperparameters import SEARCH

BUILDERS = (history, timeline, throughput, learning_curves, importance, slices, contour, parallel)


def specs(html: str) -> list[dict[str, Any]]:
    """Return what plotly gets of each panel."""
    return [json.loads(text) for text in re.findall(r"<script type=.application/json.>(.*?)</script>", html)]


def legend(html: str) -> list[str]:
    return [unescape(name) for name in re.findall(r"<li>.*?<span>(.*?)</span></li>", html)]


def chart_of(*marks: Any, x: Axis | None = None, y: Axis | None = None) -> Chart:
    return Chart("key", "Title", "Caption.", [Panel(marks, x or Axis("epoch"), y or Axis("loss"))])


def test_every_chart_of_a_finished_sweep_is_whole(swept: Swept) -> None:
    """Heading, caption, titled axes, and a legend of exactly the names that are drawn."""
    charts = [build(read_results(loader.load(swept.file), swept.root)) for build in BUILDERS]

    assert [chart.key for chart in charts if chart] == [
        *("history", "timeline", "throughput", "curves", "slices", "parallel")
    ]
    for chart in filter(None, charts):
        check(chart)
        html = figure_html(chart)
        assert f"<h3>{chart.title}</h3>" in html
        assert "<figcaption>" in html
        assert legend(html) == list(chart.legend())
        assert len(specs(html)) == len(chart.panels)
        for spec in specs(html):
            assert spec["data"]
            assert "width" not in spec["layout"]


@pytest.mark.parametrize(
    "records",
    [
        [],
        [record(-1, 0.8)],
        [record(0, 0.8)],
        [record(0, 0.5, "PRUNED"), record(1, 0.6, "PRUNED")],
        [record(-1, float("nan")), record(0, float("nan"), "PRUNED"), record(1, 0.6), record(2, 0.7, lr=0.1)],
        [replace(r, value=0.5, history={1: 0.5}) for r in SEARCH],
    ],
    ids=["nothing", "baseline", "a trial", "all pruned", "a NaN", "all equal"],
)
def test_any_study_can_be_drawn(records: list[Any], tmp_path: Path) -> None:
    """What cannot be shown is left out; JSON has neither NaN nor infinities."""
    for build in BUILDERS:
        chart = build(results(records, tmp_path))
        if chart:
            check(chart)
            html = figure_html(chart)
            assert specs(html)
            assert not re.search(r"\bnan\b", chart.caption)
            assert not any(
                None in shape.values() for spec in specs(html) for shape in spec["layout"]["shapes"]
            )


def test_long_names_of_rows_take_no_more_lines_than_there_is_room_for(tmp_path: Path) -> None:
    """A name of forty characters has two lines, whatever its words, and its row the height of both."""
    names = ["a listed run with forty characters in it", "a" * 40, "b"]
    runs = listed([record(n, 0.8) for n in range(3)], *names)
    chart = history(results(runs, tmp_path, run=[{"name": "b", "lr": 0.1}]))

    assert chart is not None
    layout = specs(figure_html(chart))[0]["layout"]
    texts = layout["yaxis"]["ticktext"]
    assert [text.count("<br>") for text in texts] == [1, 1, 0]
    assert (layout["height"] - 60) / len(texts) > 2 * 15


def test_names_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    """Neither the browser nor plotly takes a part of a name for its own, and a long one loses its middle."""
    runs = listed([record(0, 0.8), record(1, 0.7, lr=0.1)], EVIL, f"{EVIL} 2")
    made = results(runs, tmp_path, run=[{"name": "a", "lr": 0.1}])

    for chart in filter(None, (build(made) for build in BUILDERS)):
        html = figure_html(chart)
        assert len(specs(html)) == len(chart.panels)
        assert not any("<" in text for text in re.findall(r"<script type=.*?>(.*?)</script>", html))
        assert "<script>" not in html
        assert "\x1b" not in html
        for text in re.findall(r'"((?:[^"\\]|\\.)*)"', json.dumps(specs(html))):
            assert not re.search(r"<(?!br>|extra>|/extra>)", text)
            assert "%{y} " not in text


def test_marks_are_where_they_belong() -> None:
    """Categories are counted, gaps separate lines of one look, and every axis holds all that is drawn."""
    names = Axis("", "category", ["a", "b"])
    (spec,) = specs(
        figure_html(
            chart_of(
                Points([1, 4], ["a", "b"], "points", symbols=["circle", "diamond"]),
                Intervals([0.5], [5.0], ["b"], "interval"),
                Bars([2.0], [3.5], ["a"], "bars"),
                Line([1, 2], ["a", "b"], "line"),
                Line([3, 4], ["b", "a"], "line"),
                Reference(9.0, "x"),
                y=names,
            )
        )
    )

    points, interval, bars, line = spec["data"]
    assert (points["y"], points["marker"]["symbol"]) == ([0, 1], ["circle", "diamond"])
    assert (interval["x"], interval["y"]) == ([0.5, 5.0, None], [1, 1, None])
    assert (bars["base"], bars["x"]) == ([2.0], [1.5])
    assert line["x"] == [1, 2, None, 3, 4]
    assert spec["layout"]["yaxis"]["ticktext"] == ["a", "b"]
    assert spec["layout"]["yaxis"]["range"] == [1.6, -0.6]
    low, high = spec["layout"]["xaxis"]["range"]
    assert low < 0.5 < 9.0 < high
    assert spec["layout"]["shapes"][0]["x0"] == 9.0


def test_logarithmic_axes_have_few_round_ticks() -> None:
    """Its range is that of logarithms, and the ticks are decades, or 1, 2 and 5 of them."""
    (spec,) = specs(figure_html(chart_of(Points([1e-4, 1e-1], [0, 1]), x=Axis("lr", "log"))))

    axis = spec["layout"]["xaxis"]
    assert axis["type"] == "log"
    assert axis["range"] == [-4.15, -0.85]
    assert axis["ticktext"] == ["0.0001", "0.001", "0.01", "0.1"]


def test_parallel_coordinates_have_a_place_for_what_is_not_used() -> None:
    """A line leaves [0, 1] there, and the place has its name."""
    drawn = Parallel(
        [Axis("lr", "log"), Axis("init", "category", ["x", "k"])],
        [[0.1, "x"], [0.001, "k"], [0.01, None]],
        [0.1, 0.3, 0.2],
        "val_accuracy",
    )
    html = figure_html(Chart("parallel", "All", "Caption.", [Panel([drawn])]))
    (spec,) = specs(html)

    lines = [trace["x"] for trace in spec["data"]]
    assert lines == [[1, 0], [0.5, UNUSED], [0, 1]]
    assert [note["text"] for note in spec["layout"]["annotations"]] == [
        *("0.001", "0.01", "0.1"),
        *("unused", "x", "k"),
    ]
    assert 'val_accuracy</span> <span class="end">0.1</span>' in html


def test_images_have_texts_for_those_who_do_not_see_them() -> None:
    """Each is a PNG in the page, named by its panel and its title; cells of NaN are empty."""
    images = Images(np.arange(8.0).reshape(2, 2, 2), ["7\nas 1", "3\nas 8"], per_row=2)
    html = figure_html(Chart("mistakes", "Mistakes", "Caption.", [Panel([images], title="champion")]))

    assert re.findall(r'alt="(.*?)" src="data:image/png;base64,iVBOR', html) == [
        *("champion 7 as 1", "champion 3 as 8")
    ]
    assert "<span>7<br>as 1</span>" in html
    assert images.pixels()[1, 1, 1].tolist() == [255, 255, 255]


def test_cells_that_are_compared_have_one_scale_of_colours() -> None:
    """It ends where they say, is shown once, and no line of a grid runs through an empty cell."""
    panels = [
        Panel(
            [Heat([0, 1], [0], np.array([[most, np.nan]]), "share", least=0, most=0.2)], Axis("x"), Axis("y")
        )
        for most in (0.1, 0.2)
    ]
    html = figure_html(Chart("confusion", "Confusion", "Caption.", panels))

    for spec, most in zip(specs(html), (0.1, 0.2), strict=True):
        (heat,) = spec["data"]
        assert (heat["z"], heat["zmin"], heat["zmax"]) == ([[most, None]], 0, 0.2)
        assert not spec["layout"]["xaxis"]["showgrid"]
    assert html.count('class="colour-bar"') == 1

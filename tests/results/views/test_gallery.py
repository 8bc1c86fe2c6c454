from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lenet_exp.base.errors import DataError
from lenet_exp.base.layout import Layout
from lenet_exp.config import loader
from lenet_exp.config.loader import parse
from lenet_exp.results.figures.chart import Axis, Chart, Panel, Points
from lenet_exp.results.lookup import ExperimentResults, read_results
from lenet_exp.results.views import gallery as room
from lenet_exp.results.views.gallery import draw_pictures, gallery
from lenet_exp.tracking.spool import STUDY
from lenet_exp.tracking.store import connect, local_uri
from tests.labs.swept import Swept


@pytest.fixture
def results(swept_once: Swept) -> ExperimentResults:
    """What the sweep recorded."""
    return read_results(loader.load(swept_once.file), swept_once.root)


def chart(key: str, y: float = 1.0) -> Chart:
    return Chart(key, key, "", [Panel([Points([1], [y])], Axis("x"), Axis("y"))])


def test_a_sweep_leaves_a_picture_of_each_figure_in_its_folder_and_in_mlflow(
    swept_once: Swept, results: ExperimentResults
) -> None:
    """With those of the networks, which only a process with torch can make."""
    names = {path.name for path in results.layout.figures.iterdir()}
    run_id = results.spool.run_id(STUDY)
    assert run_id is not None

    stored = connect(local_uri(swept_once.root)).list_artifacts(run_id, "figures")

    assert {file.path for file in stored} == {f"figures/{name}" for name in names}
    assert {"pareto.png", "history.png", "curves.png", "slices.png", "timeline.png"} <= names
    assert {"confusion.png", "filters.png", "activations.png"} <= names


def test_the_figures_come_in_the_order_of_a_reader(
    results: ExperimentResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an experiment asks decides: a search for its verdict, a list for its curves."""
    monkeypatch.setattr(room, "see", lambda _: None)

    assert [c.key for c in gallery(results)][:3] == ["confirmation", "pareto", "history"]
    of_a_list = parse({"name": "swept", "run": [{"name": "a", "lr": 0.1}]})
    assert [c.key for c in gallery(replace(results, experiment=of_a_list))][:2] == ["curves", "history"]


def test_a_figure_that_fails_costs_a_warning(
    results: ExperimentResults, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Damaged records can raise anything; without the networks' weights their figures are left out too."""

    def see(_: Any) -> None:
        raise DataError("weights.safetensors: cannot be read")

    def history(_: Any) -> Chart:
        raise KeyError("epoch")

    monkeypatch.setattr(room, "see", see)
    monkeypatch.setattr(room, "_OF_A_SEARCH", (history, lambda _: chart("whole")))

    assert [c.key for c in gallery(results)] == ["whole"]
    assert capsys.readouterr().err == (
        "warning: KeyError: 'epoch'; the figure history is left out\n"
        "warning: weights.safetensors: cannot be read;"
        " the figures confusion, mistakes, filters, activations are left out\n"
    )


def test_only_what_changed_is_written_and_what_is_stale_is_removed(tmp_path: Path) -> None:
    """Among it the one picture of earlier versions, which would contradict the others."""
    layout = Layout.of(tmp_path, "e")
    layout.home.mkdir()
    layout.overview.touch()
    draw_pictures([chart("a"), chart("b"), chart("c")], layout)
    before = layout.figure("a").stat().st_mtime_ns, layout.figure("b").read_bytes()

    draw_pictures([chart("a"), chart("b", y=2.0)], layout)

    assert sorted(path.name for path in layout.figures.iterdir()) == ["a.png", "b.png"]
    assert layout.figure("a").stat().st_mtime_ns == before[0]
    assert layout.figure("b").read_bytes() != before[1]
    assert not layout.overview.exists()

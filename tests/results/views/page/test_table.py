from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from lenet_exp.config import loader
from lenet_exp.results.conclusion import NOT_CONFIRMED
from lenet_exp.results.lookup import ExperimentResults, read_results
from lenet_exp.results.views.page import table
from lenet_exp.results.views.page.table import leaderboard_html, mlflow_server
from lenet_exp.study.records import TrialRecord
from tests.labs.charts import STUDY, record
from tests.labs.swept import Swept


@pytest.fixture
def results(swept_once: Swept) -> ExperimentResults:
    """What the sweep recorded, without a confirmation."""
    recorded = read_results(loader.load(swept_once.file), swept_once.root)
    return replace(recorded, confirmation=NOT_CONFIRMED)


def shown(results: ExperimentResults, records: list[TrialRecord]) -> str:
    return leaderboard_html(replace(results, records=records), None)


def columns(html: str, kind: str) -> list[str]:
    """Return the columns that are shown at first, or those with ``more``."""
    heads = re.findall(r'<th scope="col" class="([^"]*)".*?about-(\w+)', html)
    return [name for classes, name in heads if ("more" in classes) == (kind == "more")]


def test_few_columns_come_first(results: ExperimentResults) -> None:
    """Rank, name and what differs; the others, and each layer for itself, are behind a box."""
    records = [record(-1, 0.8), record(0, 0.85, channels=(6, 32)), record(1, 0.86, lr=0.1, channels=(8, 16))]

    html = shown(results, records)

    first = ["rank", "label", "state", "val_accuracy", "val_delta", "lr", "channels", "examples_per_s"]
    assert columns(html, "first") == [*first, "n_parameters"]
    assert {"channels_1", "epochs", "pooling", "config"} <= set(columns(html, "more"))
    assert ">6-32</td>" in html


def test_every_column_is_explained(results: ExperimentResults) -> None:
    """Beside the table, for whoever has no pointer, and on paper; each head leads to its explanation."""
    html = shown(results, STUDY)

    explained = dict(re.findall(r'<dd[^>]* id="about-(\w+)">(.*?)</dd>', html))
    assert list(explained) == columns(html, "first") + columns(html, "more")
    assert all(explained.values())


def test_what_is_the_same_is_the_same_for_the_baseline_too(results: ExperimentResults) -> None:
    """A value that all trials share and the baseline does not is a column and not a sentence."""
    records = [
        record(-1, 0.8),
        *(record(i, 0.85 + i / 100, activation="tanh", lr=0.1 * (i + 1)) for i in (0, 1)),
    ]

    html = shown(results, records)

    assert "activation" in columns(html, "first")
    same = html.partition("The same in all complete trials: ")[2].partition("</p>")[0]
    assert "pooling max" in same
    assert "activation" not in same


def test_a_row_unfolds_to_its_curve_and_commands(results: ExperimentResults) -> None:
    """They are data beside the table; commands name neither the root nor a folder."""
    html = shown(results, STUDY)

    data = json.loads(html.partition('class="unfolded">')[2].partition("</script>")[0])
    best = data["rows"][0]
    assert best["curve"] == [[1, 0.44], [2, 0.88]]
    assert best["differs"] == "activation tanh, lr 0.1"
    assert best["commands"]["train it again"] == "lenet-exp replay 2 --experiment swept.toml"
    assert sum("baseline" in row for row in data["rows"]) == 1
    assert html.count("<tr ") == len(data["rows"]) == 6


def test_a_long_study_has_a_short_table(results: ExperimentResults, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rows, and the baseline wherever it stands; the rest is in the CSV file."""
    monkeypatch.setattr(table, "MAX_ROWS", 5)

    html = shown(results, [record(-1, 0.1), *(record(i, 0.5 + i / 1000) for i in range(20))])

    assert html.count("<tr ") == 5 + 1
    assert "The first 5 of 21 rows" in html


def test_only_servers_are_linked() -> None:
    """And without their credentials."""
    assert mlflow_server("https://ann:pw@example.org/mlflow/?token=x") == "https://example.org/mlflow"
    assert [mlflow_server(uri) for uri in (None, "sqlite:////home/x.db", "file:///x", "databricks")] == [
        None
    ] * 4

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lenet_exp.base.errors import NoResultError, StoreError
from lenet_exp.base.records import RunKey
from lenet_exp.cli import program
from lenet_exp.config import loader
from lenet_exp.results.conclusion import NOT_CONFIRMED, ConfirmationSummary
from lenet_exp.results.leaderboard import ranked
from lenet_exp.results.lookup import ExperimentResults, read_results
from lenet_exp.results.views import page as report
from lenet_exp.results.views.page import answer, curves, page, write_report
from lenet_exp.study.records import TrialRecord
from lenet_exp.tracking.spool import STUDY as STUDY_STEM
from lenet_exp.tracking.store import connect, local_uri
from tests.labs.swept import Swept
from tests.results.figures.test_selection import EVIL, STUDY, record


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and the text outside of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._raw = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else ""

    def handle_endtag(self, _: str) -> None:
        """Come out of a script."""
        self._raw = ""

    def handle_data(self, data: str) -> None:
        """Note what is shown."""
        self.text += "" if self._raw else data


@pytest.fixture
def results(swept_once: Swept) -> ExperimentResults:
    """What the sweep recorded."""
    return read_results(loader.load(swept_once.file), swept_once.root)


def rows(records: list[TrialRecord]) -> list[dict[str, object]]:
    return ranked(records, {}).plain_rows()


def test_the_sweep_writes_the_page_and_mlflow_has_it(swept_once: Swept, results: ExperimentResults) -> None:
    """At its end, beside the leaderboard, and with the study's run."""
    run_id = results.spool.run_id(STUDY_STEM)
    assert run_id is not None

    there = {file.path for file in connect(local_uri(swept_once.root)).list_artifacts(run_id)}

    assert {"leaderboard.csv", "report.html", "figures"} <= there
    html = (swept_once.home / "report.html").read_text()
    assert "trial 2" in Page(html).text


def test_the_page_loads_nothing(swept_once: Swept) -> None:
    """It opens without a network: the script is in it once, and a policy forbids anything else."""
    html = (swept_once.home / "report.html").read_text()

    found = Page(html)

    assert not [a for _, a in found.elements if a.keys() & {"src", "href", "srcset", "data"}]
    assert [
        tag for tag, _ in found.elements if tag in ("link", "img", "iframe", "object", "base", "form")
    ] == []
    policy = next(a["content"] for _, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert html.count("plotly.js v") == 1
    assert len(html) < 6_000_000


def test_all_plots_and_rows_are_there(results: ExperimentResults) -> None:
    """History, curves, cost and hyper-parameters; one row for the baseline and each trial."""
    html = page(results, curves(results))
    found = Page(html)

    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "Search",
        "Learning curves",
        "Cost",
        "Hyper-parameters",
        "Leaderboard",
    ]
    assert html.count("Plotly.newPlot(") - html.count("function newPlot") >= 4
    assert sum(tag == "tr" for tag, _ in found.elements) == 1 + 4
    assert [a for tag, a in found.elements if tag == "tr" and a.get("class") == "baseline"] == [
        {"class": "baseline"}
    ]
    best = max((r for r in results.records if r.key.role == "trial"), key=lambda r: r.value or 0)
    assert f"{best.value:.4f}" in found.text


def test_the_command_writes_and_adds_to_mlflow(swept: Swept, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints where the page is; without MLflow it warns once."""
    (swept.home / "report.html").unlink()

    with pytest.raises(SystemExit, match=r"^0$"):
        program.main(["report", str(swept.file), "--root", str(swept.root)])

    shown = capsys.readouterr()
    assert shown.out == f"{swept.home / 'report.html'}\n"
    assert shown.err == ""
    with pytest.raises(SystemExit, match=r"^0$"):
        program.main(
            ["report", str(swept.file), "--root", str(swept.root), "--tracking-uri", "http://127.0.0.1:9"]
        )
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_names_are_shown_and_not_obeyed(results: ExperimentResults) -> None:
    """A question, a label and a reason with tags and control characters are text."""
    named = replace(STUDY[1], label=EVIL, key=RunKey("run", 1, 1), result={"reason": EVIL, "device": EVIL})
    asked = results.experiment.model_copy(update={"question": f"{EVIL}\nsecond line"})
    plain = Page(page(replace(results, records=[STUDY[0], STUDY[2]]), []))

    html = page(replace(results, experiment=asked, records=[STUDY[0], named]), [])

    found = Page(html)
    assert "alert(1)" in found.text
    assert r"\x1b[31m" in found.text
    assert "\x1b" not in found.text
    for tag in ("script", "b"):
        counts = [sum(name == tag for name, _ in one.elements) for one in (found, plain)]
        # A plot is a script, and two like trials have one plot less than a run of its own.
        assert counts[0] <= counts[1] + 1
    assert "<script>alert" not in html
    assert "<b>x" not in html


def test_the_answer_says_how_sure_it_is(results: ExperimentResults) -> None:
    """Against the baseline, confirmed or not; or that there is none yet; and what to do next."""
    shown = rows(STUDY)
    before = replace(results, confirmation=NOT_CONFIRMED)
    unconfirmed, step = answer(shown, before)
    best = "The best so far is trial 2 with val_accuracy 0.8800, +0.0300 against the baseline's 0.8500."
    assert unconfirmed == f"{best} This is not confirmed: the best of many owes some of its lead to luck."
    assert step.startswith("next: 'lenet-exp confirm ")

    summary = ConfirmationSummary({}, ("question", "trial 2: tie", "champion: the baseline"), ("look on",))
    confirmed = answer(shown, replace(results, confirmation=summary))
    assert confirmed == ["champion: the baseline", "question", "trial 2: tie", "next: look on"]
    assert answer([], before) == ["No trial or listed run is complete yet."]
    assert answer(rows([record(0, 0.8)]), before)[0].endswith("the baseline is not complete.")


def test_a_long_study_has_a_short_table(results: ExperimentResults, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rows, and the baseline wherever it stands; the rest is in the CSV file."""
    monkeypatch.setattr(report, "MAX_ROWS", 5)
    many = [record(-1, 0.1), *(record(i, 0.5 + i / 1000) for i in range(20))]

    found = Page(page(replace(results, records=many), []))

    assert sum(tag == "tr" for tag, _ in found.elements) == 1 + 5 + 1
    assert "The first 5 of 21 rows" in found.text


def test_what_cannot_be_written_is_told(swept: Swept, tmp_path: Path) -> None:
    """An experiment that was never run, a folder that is in the way."""
    with pytest.raises(NoResultError, match="was never run under"):
        write_report(loader.load(swept.file), tmp_path / "nowhere")
    (swept.home / "report.html").unlink()
    (swept.home / "report.html").mkdir()
    with pytest.raises(StoreError, match=r"report\.html is a folder where a file belongs; move it away"):
        write_report(loader.load(swept.file), swept.root)

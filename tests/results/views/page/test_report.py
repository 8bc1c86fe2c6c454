from __future__ import annotations

import getpass
import os
import platform
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lenet_exp.base.errors import NoResultError, StoreError
from lenet_exp.base.records import RunKey
from lenet_exp.cli import program
from lenet_exp.config import loader
from lenet_exp.config.loader import parse
from lenet_exp.results.conclusion import NOT_CONFIRMED
from lenet_exp.results.figures.search import history
from lenet_exp.results.lookup import ExperimentResults, read_results
from lenet_exp.results.views.page import shareable as room
from lenet_exp.results.views.page.report import page, write_report
from lenet_exp.results.views.page.shareable import shareable
from lenet_exp.tracking.spool import STUDY as STUDY_STEM
from lenet_exp.tracking.store import connect, local_uri
from tests.labs.charts import EVIL, STUDY, record
from tests.labs.swept import Swept
from tests.results.views.page.test_answer import confirmed

#: Heading, verdict and cost; then the sections that every search has.
SECTIONS = ["What it cost", "The price of accuracy", "The search", "What each choice does", "How it was run"]
ALWAYS = ["What was varied, and what was not", "How it was measured", "Versions"]


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


def headings(html: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", html)


def written(html: str) -> str:
    """Return the page without plotly's script, which is the same on every page."""
    return re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)


def test_the_sweep_writes_the_page_and_mlflow_has_it(swept_once: Swept, results: ExperimentResults) -> None:
    """At its end, beside the leaderboard, and with the study's run."""
    run_id = results.spool.run_id(STUDY_STEM)
    assert run_id is not None

    there = {file.path for file in connect(local_uri(swept_once.root)).list_artifacts(run_id)}

    assert {"leaderboard.csv", "report.html", "figures"} <= there
    assert "trial 2" in Page((swept_once.home / "report.html").read_text()).text


def test_the_page_loads_nothing(swept_once: Swept) -> None:
    """It opens without a network: scripts are in it once, and a policy forbids anything else."""
    html = (swept_once.home / "report.html").read_text()

    elements = Page(html).elements

    linked = [a[name] or "" for _, a in elements for name in ("src", "href", "srcset", "data") if name in a]
    assert all(link.startswith(("#", "data:image/")) for link in linked)
    assert not {tag for tag, _ in elements} & {"link", "iframe", "object", "base", "form"}
    policy = next(a["content"] for _, a in elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy.partition("script-src")[2].partition(";")[0]
    assert html.count("plotly.js v") == 1
    assert len(html) < 6_000_000


def test_all_sections_figures_and_rows_are_there(swept_once: Swept, results: ExperimentResults) -> None:
    """The figures by what they tell; one row for the baseline and each trial; the contents lead to each."""
    html = (swept_once.home / "report.html").read_text()
    elements = Page(html).elements

    assert headings(html)[:1] == SECTIONS[:1]
    assert [name for name in headings(html) if name in SECTIONS] == [
        s for s in SECTIONS if s in headings(html)
    ]
    assert headings(html)[-4:] == ["Leaderboard", *ALWAYS]
    anchors = {a["href"] for tag, a in elements if tag == "a"}
    assert anchors == {f"#{name.lower().replace(' ', '-')}" for name in headings(html)[1:]}
    assert sum(a.get("class") == "chart" for _, a in elements) >= 6
    body = written(html).partition('<table class="rows">')[2].partition("</table>")[0]
    assert body.count("<tr ") == 1 + 3
    assert body.count('class="baseline"') == 1
    best = max((r for r in results.records if r.key.role == "trial"), key=lambda r: r.value or 0)
    assert f"{best.value:.4f}" in Page(html).text


def test_the_command_writes_and_adds_to_mlflow(swept: Swept, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints where the page is; without MLflow it warns once, and links to the server all the same."""
    page_file = swept.home / "report.html"
    page_file.unlink()

    with pytest.raises(SystemExit, match=r"^0$"):
        program.main(["report", str(swept.file), "--root", str(swept.root)])

    shown = capsys.readouterr()
    assert shown.out == f"{page_file}\n"
    assert "uploaded" not in shown.err
    assert "/#/runs/" not in written(page_file.read_text())
    uri = "http://ann:s3cret@127.0.0.1:9"
    with pytest.raises(SystemExit, match=r"^0$"):
        program.main(["report", str(swept.file), "--root", str(swept.root), "--tracking-uri", uri])
    assert capsys.readouterr().err.count("was not uploaded") == 1
    html = written(page_file.read_text())
    assert "http://127.0.0.1:9/#/runs/" in html
    assert "s3cret" not in html


def test_a_user_without_an_account_has_a_page_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a number for its user: there is neither a home nor a name to leave out."""
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54_321)
    for remembered in (room._home, room._names):
        remembered.cache_clear()

    text = shareable("see /a/b/c")

    for remembered in (room._home, room._names):
        remembered.cache_clear()
    assert text == "see c"


def test_nothing_of_the_machine_is_on_the_page(
    results: ExperimentResults, swept_once: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No path, account, host or password: not of the settings, and not in a question, a name or a reason."""
    folder = Path.home() / "pictures" / "mine"
    telling = f"see {folder}/x.gz, {swept_once.root}/notes and https://ann:s3cret@example.org/a"
    telling += f" on {platform.node()}"
    named = replace(STUDY[1], label=telling, key=RunKey("run", 1, 1), result={"reason": telling})
    data = results.experiment.data.model_copy(update={"folder": str(folder)})
    told = results.experiment.model_copy(update={"question": telling, "data": data})

    told_results = replace(results, experiment=told, records=[*results.records, named])
    html = page(told_results, [chart for chart in (history(told_results),) if chart])
    html += (swept_once.home / "report.html").read_text()

    for secret in (
        str(Path.home()),
        str(swept_once.root),
        "s3cret",
        "ann:",
        "/pictures",
        str(swept_once.file),
    ):
        assert secret not in written(html)
    for name in (platform.node(), getpass.getuser()):
        # A short name, or one like root, may be a word.
        assert len(name) < 5 or name == "root" or not re.search(rf"\b{re.escape(name)}\b", written(html))
    assert "x.gz" in html
    assert shareable(r"at C:\Users\ann\x.gz and \\server\ann\y.gz") == "at x.gz and y.gz"
    assert (
        shareable("3/4 of it, and/or https://example.org/a/b") == "3/4 of it, and/or https://example.org/a/b"
    )


def test_the_commands_of_the_page_hold_below_any_root(results: ExperimentResults) -> None:
    """What to do next names neither the root nor the folder of the experiment file, as another reads it."""
    told, root = confirmed(results, ("better", 0.01)), Path("elsewhere")
    step = f"'{results.experiment.command('confirm --again', root)}' goes on"
    told = replace(told, confirmation=replace(told.confirmation, next_steps=(step,)))

    text = Page(page(told, [], root=root)).text

    assert f"'lenet-exp confirm {Path(results.experiment.file).name} --again' goes on" in text
    assert "elsewhere" not in text


def test_names_are_shown_and_not_obeyed(results: ExperimentResults) -> None:
    """A question, a label and a reason with tags and control characters are text."""
    named = replace(STUDY[1], label=EVIL, key=RunKey("run", 1, 1), result={"reason": EVIL, "device": EVIL})
    asked = results.experiment.model_copy(update={"question": f"{EVIL}\nsecond line"})
    plain = Page(page(replace(results, records=[STUDY[0], STUDY[2]]), []))

    html = page(replace(results, experiment=asked, records=[STUDY[0], named]), [])

    shown = Page(html)
    assert "alert(1)" in shown.text
    assert r"\x1b[31m" in shown.text
    assert "\x1b" not in shown.text
    for tag in ("script", "b"):
        counts = [sum(name == tag for name, _ in each.elements) for each in (shown, plain)]
        assert counts[0] == counts[1]
    assert "<script>alert" not in html


def test_a_list_says_its_names_and_is_never_unconfirmed(results: ExperimentResults) -> None:
    """Names and not numbers; what no confirmation waits for is not called "not confirmed"."""
    runs = [
        replace(
            record(i, 0.8 + i / 100, lr=0.01 * (i + 1)), key=RunKey("run", i, 1), label=f"my {name}, seed 1"
        )
        for i, name in enumerate(("wide", "deep"))
    ]
    experiment = parse(
        {"name": "l", "run": [{"name": "my wide", "lr": 0.01}, {"name": "my deep", "lr": 0.02}]}
    )

    html = page(
        replace(results, experiment=experiment, records=[STUDY[0], *runs], confirmation=NOT_CONFIRMED), []
    )

    text = Page(html).text
    assert (
        "Of the list, the best is my deep with validation accuracy 0.8100, 0.0400 below the baseline's"
        in text
    )
    rows = written(html).partition("<tbody>")[2].partition("</tbody>")[0]
    assert "my wide" in rows
    assert not re.search(r"run \d|not confirmed", rows)
    assert "--experiment EXPERIMENT" in html


def test_before_anything_has_ended_there_is_a_page(results: ExperimentResults) -> None:
    """It says so, and has no table without rows."""
    text = Page(page(replace(results, records=[], confirmation=NOT_CONFIRMED), [])).text

    assert "No trial or listed run is complete yet." in text
    assert "Nothing has ended yet, so there is no row." in text


def test_an_ablation_shows_its_table(results: ExperimentResults) -> None:
    """A row for each alternative instead of a leaderboard; before any verdict it says that there is none."""
    experiment = parse({"name": "a", "ablate": {"pooling": ["avg"], "seeds": 2}})

    html = page(replace(results, experiment=experiment, records=STUDY[:1], confirmation=NOT_CONFIRMED), [])

    assert headings(html)[1:] == ["The alternatives", *ALWAYS]
    assert Page(html).text.count("No alternative has a verdict yet.") == 1
    rows = written(html).partition("<tbody>")[2].partition("</tbody>")[0]
    assert re.findall(r'class="name">(\w+)', rows) == ["baseline", "pooling"]


def test_what_cannot_be_written_is_told(swept: Swept, tmp_path: Path) -> None:
    """An experiment that was never run, a folder that is in the way."""
    with pytest.raises(NoResultError, match="was never run under"):
        read_results(loader.load(swept.file), tmp_path / "nowhere")
    (swept.home / "report.html").unlink()
    (swept.home / "report.html").mkdir()
    with pytest.raises(StoreError, match=r"report\.html is a folder where a file belongs; move it away"):
        write_report(read_results(loader.load(swept.file), swept.root), swept.root)

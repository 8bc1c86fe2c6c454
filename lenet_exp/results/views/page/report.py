"""One HTML page about an experiment: what won and by how much, what it cost, figures, and the leaderboard.

The page is self-contained and may be shared: it includes plotly's script, its content security policy forbids
it to load anything, and it names no path, host or account of this machine.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from lenet_exp import __version__
from lenet_exp.base.files import write_atomically
from lenet_exp.config.experiment import Experiment
from lenet_exp.results.figures.browser import figure_html
from lenet_exp.results.figures.chart import Chart
from lenet_exp.results.lookup import ExperimentResults
from lenet_exp.results.views import gallery
from lenet_exp.results.views.page import details
from lenet_exp.results.views.page.answer import answer_of
from lenet_exp.results.views.page.diagnostics import diagnostics
from lenet_exp.results.views.page.shareable import html, shared_texts, without_place
from lenet_exp.results.views.page.table import ablation_html, leaderboard_html, mlflow_server
from lenet_exp.tracking.spool import STUDY
from lenet_exp.tracking.store import local_uri

#: Sections of figures in their order, each with the keys of its charts; what is in none comes last.
_SECTIONS = {
    "The answer": ("confirmation", "ablation"),
    "The price of accuracy": ("pareto",),
    "The search": ("history", "curves", "watched", "parallel"),
    "What each choice does": ("importance", "slices", "contour"),
    "Inside the layers": ("dead_share", "saturated_share", "grad_norm"),
    "The networks": ("confusion", "mistakes", "filters", "activations"),
    "How it was run": ("timeline", "throughput"),
}


def write_report(
    results: ExperimentResults,
    root: Path,
    *,
    tracking_uri: str | None = None,
    say: Callable[[str], Any] | None = None,
) -> Path:
    """Write the HTML page, and a picture of each figure beside it; upload them if ``say`` is given.

    Args:
        results: Everything that the experiment has recorded.
        root: Folder below which sweeps write everything, as it was given to `read_results`.
        tracking_uri: URI of an MLflow store; None for the one below ``root``.
        say: Called with a one-line warning if an upload to MLflow fails; None uploads nothing. A sweep passes
            None, as its uploader uploads the files.

    Returns:
        Path of the HTML page.

    Raises:
        DiskError: If a file cannot be written.
    """
    charts = [*gallery.gallery(results), *diagnostics(results)]
    gallery.draw_pictures(charts, results.layout)
    path = results.layout.report
    write_atomically(path, page(results, charts, mlflow_server(tracking_uri), root).encode())
    if say is not None:
        uri = tracking_uri or local_uri(root.absolute())
        pictures = results.layout.figures
        # The folder at once: connecting to the store takes longer than a file.
        if results.add_to_run(STUDY, path, uri, say):
            results.add_to_run(STUDY, pictures, uri, say, pictures.name)
    return path


def page(
    results: ExperimentResults, charts: Sequence[Chart], server: str | None = None, root: Path | None = None
) -> str:
    """Return the page as HTML.

    Args:
        results: Everything that the experiment has recorded.
        charts: Figures to show, in order.
        server: Address of the MLflow server that has the runs; None if they are in files.
        root: Root folder as it was given to `read_results`, which the page does not name; None if absolute.
    """
    from plotly.offline import get_plotlyjs

    experiment = results.experiment
    # A training's reason is told where its mark is pointed at, and may name a path.
    sections = _sections(results, shared_texts(list(charts)), server)
    answered = answer_of(results)
    steps = without_place(answered.next_steps, experiment, root or results.layout.root)
    # A browser reads "\r\n" as "\n" before it compares a script with its hash.
    plotly, script = (text.replace("\r\n", "\n") for text in (get_plotlyjs(), _resource("page.js")))
    return _resource("page.html").format(
        policy=_policy(plotly, script),
        style=_resource("page.css"),
        title=html(experiment.name),
        kind=html(_kind(experiment)),
        question="<br>".join(html(line) for line in experiment.question.splitlines()),
        verdict=html(answered.verdict),
        answer="\n".join(map(_paragraph, (*answered.sentences, *steps))) + _in_full(answered.in_full),
        cost=_list(details.cost(results)),
        contents="\n".join(f'<li><a href="#{_anchor(name)}">{html(name)}</a></li>' for name in sections),
        sections="\n".join(
            f'<section id="{_anchor(name)}">\n<h2>{html(name)}</h2>\n{content}\n</section>'
            for name, content in sections.items()
        ),
        version=html(__version__),
        plotly=plotly,
        script=script,
    )


def _resource(name: str) -> str:
    return files("lenet_exp.results.views.page").joinpath(name).read_text(encoding="utf-8")


def _policy(*scripts: str) -> str:
    """Return the content security policy: nothing is loaded, and only the page's own scripts run."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:;"
        " base-uri 'none'; form-action 'none'"
    )


def _kind(experiment: Experiment) -> str:
    kind = "ablation" if experiment.ablate else "list of runs" if experiment.run else "search"
    return f"lenet_exp: {kind} on {experiment.data.dataset}"


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _paragraph(sentence: str) -> str:
    """Return a sentence as a paragraph of HTML; what it is about, up to its first colon, in bold."""
    about, colon, rest = sentence.partition(": ")
    return f"<p><b>{html(about)}:</b> {html(rest)}</p>" if colon else f"<p>{html(sentence)}</p>"


def _in_full(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    paragraphs = "\n".join(map(_paragraph, sentences))
    return f"<details><summary>The conclusion in full</summary><div>{paragraphs}</div></details>"


def _list(named: details.Details) -> str:
    return f"<dl>{''.join(f'<dt>{html(name)}</dt><dd>{html(value)}</dd>' for name, value in named)}</dl>"


# The sections below it.


def _sections(results: ExperimentResults, charts: Sequence[Chart], server: str | None) -> dict[str, str]:
    """Return the content of each section as HTML, by heading: the figures, the table, and what was done."""
    experiment = results.experiment
    placed = {key for keys in _SECTIONS.values() for key in keys}
    figures: dict[str, list[Chart]] = {
        name: [c for c in charts if c.key in keys] for name, keys in _SECTIONS.items()
    }
    figures["How it was run"] += [chart for chart in charts if chart.key not in placed]
    if experiment.run:
        # A list asks for its curves, and for what explains them.
        runs = sorted(figures.pop("The search"), key=lambda chart: chart.key == "history")
        figures = {"The runs": runs, "Inside the layers": figures.pop("Inside the layers"), **figures}
    elif experiment.ablate:
        learned = {"How they learned": figures.pop("The search")}
        figures = {"The answer": figures.pop("The answer"), **learned, **figures}
    sections = {name: "\n".join(map(figure_html, shown)) for name, shown in figures.items() if shown}
    if experiment.ablate:
        table = {"The alternatives": ablation_html(results, server)}
        answer_first = {name: text for name, text in sections.items() if name == "The answer"}
        sections = answer_first | table | sections
    else:
        sections["Leaderboard"] = leaderboard_html(results, server)
    heading, rows = details.space(results)
    return sections | {
        "What was varied, and what was not": _space_table(heading, rows),
        "How it was measured": _list(details.measurement(results)),
        "Versions": _list(details.versions(results)),
    }


def _space_table(heading: str, rows: Sequence[tuple[str, str, str]]) -> str:
    head = "".join(f'<th scope="col">{html(name)}</th>' for name in ("hyper-parameter", heading, "baseline"))
    body = "\n".join(f"<tr>{''.join(f'<td>{html(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        '<div class="wide"><table class="plain"><thead><tr>'
        f"{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )

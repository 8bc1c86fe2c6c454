"""One HTML page about an experiment: what won and by how much, the plots, and the leaderboard.

The page is self-contained: it includes plotly's script, and its content security policy forbids it to load
anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lenet_exp import __version__
from lenet_exp.base.errors import StoreError, printable
from lenet_exp.base.files import write_atomically
from lenet_exp.base.messages import say
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.hyperparameters import HYPERPARAMETERS
from lenet_exp.results.figures.selection import Curve, baseline_of, complete, tried, varied
from lenet_exp.results.lookup import ExperimentResults, read_results
from lenet_exp.results.views.console import cell_text, row_label
from lenet_exp.results.views.figures import fronts, history, learning_curves, slices
from lenet_exp.results.views.gallery import draw_pictures, gallery
from lenet_exp.study.records import TrialRecord
from lenet_exp.tracking.spool import STUDY
from lenet_exp.tracking.store import local_uri

#: Rows of the leaderboard on the page; the CSV file has all.
MAX_ROWS = 200
#: Most listed runs whose learning curves are shown; of a search, only that of the best trial is.
MAX_CURVES = 8

#: Columns whose names start with one of these are formatted as in the terminal.
_FORMATTED_AS_IN_TERMINAL = ("val_accuracy", "val_delta", "test_accuracy", "delta")
#: Columns that are left out of the page, as they repeat another or are of no use there.
_LEFT_OUT = {"role", "trial", "name", "state", "train_s", "macs", "mlflow_run_id"}

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1c2733; }}
body {{ margin: 0 auto; max-width: 1200px; padding: 1.5rem; }}
h1 {{ margin: 0; }} h2 {{ margin: 2.5rem 0 0.5rem; }}
.question {{ font-size: 1.15em; color: #52606d; margin: 0.2rem 0 1rem; }}
.answer {{ background: #f0f5fb; border-left: 4px solid #2c6fbb; padding: 0.2rem 1rem; }}
.answer p {{ margin: 0.5rem 0; overflow-wrap: anywhere; }} .answer p:first-child {{ font-size: 1.15em; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 1rem 0; }}
dt {{ color: #52606d; }} dd {{ margin: 0; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 13px; white-space: nowrap; }}
th, td {{ padding: 0.25rem 0.6rem; border-bottom: 1px solid #e4e9ee; text-align: left; }}
th {{ position: sticky; top: 0; background: white; color: #52606d; font-weight: 600; }}
td.n, th.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
tr.baseline {{ background: #fbefee; }} tr.out {{ color: #8a949e; }}
footer {{ margin-top: 2rem; color: #8a949e; font-size: 13px; }}
</style>
<script>{script}</script>
</head>
<body>
<h1>{title}</h1>
<p class="question">{question}</p>
<div class="answer">
{answer}
</div>
<dl>{details}</dl>
{plots}
<h2>Leaderboard</h2>
<p>{note}</p>
<div class="wide"><table>
{table}
</table></div>
<footer>Accuracies are shares in [0, 1]. val_delta is the difference from the baseline on validation images,
delta the difference on test images and the same seeds; its first interval (delta_low, delta_high) is for
other seeds on these images, its second for other images like these as well.
Created by lenet_exp {version}.</footer>
</body>
</html>
"""


def write_report(
    experiment: Experiment,
    root: Path,
    *,
    tracking_uri: str | None = None,
    storage: str | None = None,
    say: Callable[[str], Any] | None = None,
) -> Path:
    """Write the HTML page and the pictures of its figures; upload them if ``say`` is given.

    Args:
        experiment: The experiment to report on.
        root: Folder below which sweeps write everything.
        tracking_uri: URI of an MLflow store; None for the one below ``root``.
        storage: URL of the studies' storage in PostgreSQL; None for the file below ``root``.
        say: Called with a one-line warning if an upload to MLflow fails; None uploads nothing. A sweep passes
            None, as its uploader uploads the files.

    Returns:
        Path of the HTML page.

    Raises:
        NoResultError: If the experiment was never run below ``root``.
        DiskError: If a file cannot be written.
    """
    results = read_results(experiment, root, storage)
    shown = curves(results)
    draw_pictures(gallery(results), results.layout)
    path = results.layout.report
    write_atomically(path, page(results, shown).encode())
    if say is not None:
        uri = tracking_uri or local_uri(root.absolute())
        pictures = sorted(results.layout.figures.glob("*.png"))
        for file in (path, *pictures):
            folder = results.layout.figures.name if file in pictures else None
            if not results.add_to_run(STUDY, file, uri, say, folder):
                break
    return path


def curves(results: ExperimentResults) -> list[Curve]:
    """Return the learning curves to show: the baseline's, and the best trial's or those of listed runs."""
    best_first = sorted(complete(results.records), key=lambda r: (-(r.value or 0.0), r.trial))
    if best_first and best_first[0].key.role == "trial":
        best_first = best_first[:1]
    baseline = baseline_of(results.records)
    chosen = [*best_first[:MAX_CURVES], *([baseline] if baseline else [])]
    shown = []
    for record in chosen:
        try:
            run_log = results.attempt(record)
        except StoreError as error:
            say(f"warning: {error}; its curve is left out")
            continue
        if run_log and run_log.epochs:
            shown.append(Curve(record.label, run_log.epochs, record.key.role == "baseline"))
    return shown


def page(results: ExperimentResults, shown: Sequence[Curve]) -> str:
    """Return the page as HTML.

    Args:
        results: Everything that the experiment has recorded.
        shown: Learning curves to show; if empty, their plot is left out.
    """
    from plotly.offline import get_plotlyjs

    experiment, records = results.experiment, results.records
    rows = results.leaderboard().plain_rows()
    plots = []
    if tried(records):
        plots += [("Search" if experiment.space else "Runs", history(records))]
    if shown:
        plots += [("Learning curves", learning_curves(shown))]
    if complete(records):
        plots += [("Cost", fronts(records)), ("Hyper-parameters", slices(records))]
    return _PAGE.format(
        title=_html(experiment.name),
        question="<br>".join(_html(line) for line in experiment.question.splitlines()),
        answer="\n".join(map(_paragraph, answer(rows, results))),
        details="".join(f"<dt>{_html(n)}</dt><dd>{_html(v)}</dd>" for n, v in _details(results)),
        script=get_plotlyjs(),
        plots="\n".join(
            f"<h2>{heading}</h2>\n" + _plot(figure, f"plot-{number}")
            for number, (heading, figure) in enumerate(plots)
            if figure is not None
        ),
        note=_html(_note(records, rows)),
        table=_table(records, rows),
        version=_html(__version__),
    )


def _plot(figure: Any, name: str) -> str:
    return str(
        figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=name,
            config={
                "displaylogo": False,
                "responsive": True,
                # Only these: one of plotly's other buttons uploads the data.
                "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
            },
        )
    )


def answer(rows: Sequence[dict[str, Any]], results: ExperimentResults) -> list[str]:
    """Return the experiment's result and what to do next, in sentences, the most important first.

    Args:
        rows: Rows of the leaderboard, the best first.
        results: Everything that the experiment has recorded.
    """
    summary = results.confirmation
    if summary.sentences:
        *others, champion = summary.sentences
        return [champion, *others, *(f"next: {step}" for step in summary.next_steps)]
    ranked = [row for row in rows if row["rank"] is not None]
    baseline = next((row for row in ranked if row["role"] == "baseline"), None)
    best = next((row for row in ranked if row["role"] != "baseline"), None)
    if best is None:
        return ["No trial or listed run is complete yet."]
    text = f"The best so far is {row_label(best)} with val_accuracy {best['val_accuracy']:.4f}"
    if baseline is None:
        return [f"{text}; the baseline is not complete."]
    text += f", {best['val_accuracy'] - baseline['val_accuracy']:+.4f} against the baseline's"
    text += f" {baseline['val_accuracy']:.4f}."
    lines = [f"{text} This is not confirmed: the best of many owes some of its lead to luck."]
    if results.experiment.ablate:
        return lines
    return [*lines, f"next: '{results.experiment.command('confirm', results.layout.root)}'"]


def _paragraph(sentence: str) -> str:
    """Return a sentence as a paragraph of HTML; what it is about, up to its first colon, in bold."""
    about, colon, rest = sentence.partition(": ")
    return f"<p><b>{_html(about)}:</b> {_html(rest)}</p>" if colon else f"<p>{_html(sentence)}</p>"


def _details(results: ExperimentResults) -> list[tuple[str, str]]:
    """Return names and values of the list above the plots: configurations, search, images, machine, torch."""
    experiment, records = results.experiment, results.records
    searched = [r for r in records if r.key.role in ("trial", "run") and not r.superseded]
    counts = {
        "complete": sum(r.state == "COMPLETE" for r in searched),
        "pruned": sum(r.state == "PRUNED" and not r.infeasible for r in searched),
        "infeasible": sum(r.infeasible for r in searched),
        "failed": sum(r.state == "FAIL" for r in searched),
    }
    data = experiment.data
    images = f"{data.dataset}, {data.validation:,} for validation"
    images += f", {data.limit:,} to train on" if data.limit else ""
    machines = sorted({str(r.result["device"]) for r in records if r.result.get("device")})
    versions = sorted({str(r.result["torch"]) for r in records if r.result.get("torch")})
    details = [
        ("configurations", ", ".join(f"{n:,} {name}" for name, n in counts.items() if n) or "none"),
        ("images", images),
        ("machine", ", ".join(machines)),
        ("torch", ", ".join(versions)),
    ]
    if experiment.space:
        search = experiment.search
        details.insert(1, ("search", f"{search.sampler} with pruner {search.pruner}, seed {search.seed}"))
    return [(name, value) for name, value in details if value]


def _note(records: Sequence[TrialRecord], rows: Sequence[dict[str, Any]]) -> str:
    """Return the sentences above the leaderboard: how many rows are shown, and what never varied."""
    names = set(varied(records))
    same = [
        f"{name} {rows[0][name]}"
        for name in HYPERPARAMETERS
        if rows and name not in names and rows[0].get(name) is not None
    ]
    text = (
        f"The first {MAX_ROWS} of {len(rows):,} rows; leaderboard.csv has all of them. "
        if len(rows) > MAX_ROWS
        else ""
    )
    return f"{text}The same in all complete trials: {', '.join(same)}." if same and names else text


def _table(records: Sequence[TrialRecord], rows: Sequence[dict[str, Any]]) -> str:
    """Return the leaderboard as HTML rows, without empty columns or hyper-parameters that never varied."""
    names = set(varied(records)) or set(HYPERPARAMETERS)
    baseline = [row for row in rows[MAX_ROWS:] if row["role"] == "baseline"]
    shown = [
        row if row["state"] == "COMPLETE" else row | {"verdict": row["state"]}
        for row in [*rows[:MAX_ROWS], *baseline]
    ]
    columns = [
        column
        for column in (shown[0] if shown else {})
        if column not in _LEFT_OUT
        and (column not in HYPERPARAMETERS or column in names)
        and any(row[column] is not None for row in shown)
    ]
    numeric = {c for c in columns if any(isinstance(row[c], int | float) for row in shown)}

    def cell(tag: str, column: str, text: str) -> str:
        kind = ' class="n"' if column in numeric else ""
        return f"<{tag}{kind}>{_html(text)}</{tag}>"

    heads = "".join(cell("th", column, column) for column in columns)
    lines = [f"<tr>{heads.replace('</th>', '</th><th></th>', 1)}</tr>"]
    for row in shown:
        kind = "baseline" if row["role"] == "baseline" else "" if row["state"] == "COMPLETE" else "out"
        cells = [cell("td", column, _shown(row, column)) for column in columns]
        cells.insert(1, f"<td>{_html(row_label(row))}</td>")
        lines.append(f'<tr class="{kind}">{"".join(cells)}</tr>')
    return "\n".join(lines)


def _shown(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if (
        column.startswith(_FORMATTED_AS_IN_TERMINAL)
        or isinstance(value, bool)
        or not isinstance(value, int | float)
    ):
        return cell_text(row, column)
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
    return f"{int(value):,}"


def _html(text: str) -> str:
    """Return ``text`` escaped, control characters too, so that a browser shows it as it is."""
    return escape(printable(text))

"""The page's tables: a row for each configuration, which unfolds to its curve and commands.

Readers sort and filter them. A table is complete without JavaScript; what a row unfolds to is JSON beside it.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from lenet_exp.config.hyperparameters import HYPERPARAMETERS, PER_LAYER, Configuration, split_key
from lenet_exp.results.ablation import ABLATION_MEANINGS, ablation_table
from lenet_exp.results.leaderboard import MEANINGS
from lenet_exp.results.lookup import ExperimentResults
from lenet_exp.results.views.console import cell_text, row_label
from lenet_exp.results.views.page.details import differences
from lenet_exp.results.views.page.shareable import html, shareable, shared_file
from lenet_exp.study.records import TrialRecord

#: Rows of the leaderboard on the page; the CSV file has all.
MAX_ROWS = 200
#: Most hyper-parameters among the columns that are shown at first.
_MAX_VARIED = 8
#: Most columns on paper.
_MAX_PRINTED = 14
#: Most points of a row's curve; of more epochs, every so-many-th is taken.
_MAX_POINTS = 60

#: Columns that are formatted as in the terminal start with one of these.
_FORMATTED_AS_IN_TERMINAL = ("val_accuracy", "val_delta", "test_accuracy", "delta", "examples_per_s", "val_p")
#: Columns that the first one's label replaces, or that a row unfolds to.
_LEFT_OUT = {"role", "trial", "name", "mlflow_run_id"}
#: Columns that are shown at first, before and after the hyper-parameters that vary.
_FIRST = ("rank", "label", "state", "verdict", "test_accuracy", "delta", "val_accuracy", "val_delta")
_LAST = ("examples_per_s", "n_parameters")
_ABLATION_FIRST = (
    *("factor", "value", "verdict", "n_seeds", "val_accuracy", "val_delta", "val_p_value"),
    *("examples_per_s", "n_parameters", "note"),
)
_LABEL = "name of the configuration; a click on it shows its curve and commands"


@dataclass(frozen=True)
class _Table:
    """What a table shows.

    Attributes:
        rows: Values of each row by column.
        first: Columns that are shown at first, in order.
        others: Columns that are shown on request, in order.
        meanings: Explanation of each column, by name.
        records: Record that each row stands for; None for one that was not trained.
        note: Sentences above the table, as HTML.
    """

    rows: Sequence[Mapping[str, Any]]
    first: Sequence[str]
    others: Sequence[str]
    meanings: Mapping[str, str]
    records: Sequence[TrialRecord | None]
    note: str = ""


def leaderboard_html(results: ExperimentResults, server: str | None) -> str:
    """Return the leaderboard as HTML.

    Args:
        results: Everything that the experiment has recorded.
        server: URL of the MLflow server that has the runs; None if they are in files.
    """
    every = results.leaderboard.plain_rows()
    cut = [*every[:MAX_ROWS], *(row for row in every[MAX_ROWS:] if row["role"] == "baseline")]
    known = _records(results.records)
    records = [known.get(_key(row)) for row in cut]
    rows = [
        {
            **row,
            "label": row_label(row),
            "state": record.kind if record else row["state"],
            "verdict": record.kind if record and row["state"] != "COMPLETE" else row["verdict"],
        }
        for row, record in zip(cut, records, strict=True)
    ]
    rows = [{**row, **_layers(row)} for row in rows]
    names = _by_layers(_varied(every))
    used = [c for c in (rows[0] if rows else {}) if any(row[c] is not None for row in rows)]
    # In a study without any confirmation nothing has a verdict; after one its delta counts, not the search's.
    is_confirmed = bool(results.confirmation.cells)
    outcome, unused = ("verdict", "state") if is_confirmed else ("state", "verdict")
    later = {unused, "val_delta"} if is_confirmed else {unused}
    first = [c for c in (*_FIRST, *names[:_MAX_VARIED], *_LAST) if c in used and c not in later]
    left_out = {*_LEFT_OUT, *PER_LAYER, outcome, unused}
    others = [c for c in used if c not in first and c not in left_out]
    meanings = {**MEANINGS, "label": _LABEL, **{key: _meaning(key) for key in (*HYPERPARAMETERS, *PER_LAYER)}}
    meanings |= {"state": "how it ended"}
    note = _note(every, rows)
    return _html(results, _Table(rows, first, others, meanings, records, note), server)


def ablation_html(results: ExperimentResults, server: str | None) -> str:
    """Return the table of an ablation as HTML.

    Args:
        results: Everything that the experiment has recorded.
        server: URL of the MLflow server that has the runs; None if they are in files.
    """
    rows = ablation_table(results.experiment, results.records).plain_rows()
    by_config = {r.config: r for r in reversed(results.records) if r.key.role in ("baseline", "ablation")}
    used = [c for c in (rows[0] if rows else {}) if any(row[c] is not None for row in rows)]
    first = [c for c in _ABLATION_FIRST if c in used]
    others = [c for c in used if c not in first]
    records = [by_config.get(row["config"]) for row in rows]
    note = html(f"Accuracies are on validation images. {results.experiment.seeds} seeds were asked for.")
    return _html(results, _Table(rows, first, others, ABLATION_MEANINGS, records, note), server)


def _records(records: Sequence[TrialRecord]) -> dict[tuple[str, Any], TrialRecord]:
    """Return the record that a row of the leaderboard stands for, by `_key`; the first seed's of several."""
    known: dict[tuple[str, Any], TrialRecord] = {}
    for record in records:
        if record.key.role != "confirm" and not record.superseded:
            known.setdefault(
                (record.key.role, record.trial if record.key.role == "trial" else record.config), record
            )
    return known


def _key(row: Mapping[str, Any]) -> tuple[str, Any]:
    return row["role"], row["config"] if row["trial"] is None else row["trial"]


def _meaning(key: str) -> str:
    """Return the explanation of a hyper-parameter's column."""
    name, layer = split_key(key)
    field = Configuration.model_fields.get(name)
    if field is None:
        return "number of convolution layers" if name == "conv_layers" else "number of fully connected layers"
    where = f"; of layer {layer}" if layer else "; layer by layer" if name in PER_LAYER else ""
    return f"{field.description}{where}"


def _varied(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the hyper-parameters that differ between complete rows, the baseline's included."""
    complete = [row for row in rows if row["rank"] is not None]
    return [name for name in HYPERPARAMETERS if len({row[name] for row in complete} - {None}) > 1]


def _layers(row: Mapping[str, Any]) -> dict[str, str | None]:
    """Return each hyper-parameter of layers in one cell, such as ``6-16``."""
    cells: dict[str, str | None] = {}
    for name, most in PER_LAYER.items():
        values = [row[f"{name}_{layer}"] for layer in range(1, most + 1)]
        cells[name] = "-".join(str(value) for value in values if value is not None) or None
    return cells


def _by_layers(names: Sequence[str]) -> list[str]:
    """Return varied hyper-parameters, those of layers once, in the order of the columns shown at first."""
    merged = list(dict.fromkeys(split_key(name)[0] for name in names))
    # These show the number of layers too.
    told = {"conv_layers": {"kernel_size", "channels"}, "fc_layers": {"fc_width"}}
    merged = [name for name in merged if not told.get(name, set()) & set(merged)]
    # Padding follows from the kernels as a rule.
    return sorted(merged, key=lambda name: (name == "padding", name in PER_LAYER))


def _note(every: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the sentences above the leaderboard: how many rows are shown, and what never varied."""
    names = _varied(every)
    same = [
        f"{name} {rows[0][name]}"
        for name in HYPERPARAMETERS
        if rows and name not in names and rows[0].get(name) is not None
    ]
    kind = "runs" if any(row["role"] == "run" for row in every) else "trials"
    sentences = []
    if len(every) > len(rows):
        sentences += [f"The first {MAX_ROWS} of {len(every):,} rows; leaderboard.csv has all of them."]
    if same and names:
        sentences += [f"The same in all complete {kind}: {', '.join(same)}."]
    return html(" ".join(sentences))


def _html(results: ExperimentResults, table: _Table, server: str | None) -> str:
    """Return a table with its controls, its columns' explanations and what its rows unfold to."""
    if not table.rows:
        return "<p>Nothing has ended yet, so there is no row.</p>"
    columns = [*table.first, *table.others]
    numeric = {c for c in columns if any(isinstance(row[c], int | float) for row in table.rows)}
    # What a sheet of paper has no room for is on the screen only.
    less = table.first[_MAX_PRINTED - len(_LAST) : -len(_LAST)] if len(table.first) > _MAX_PRINTED else ()
    opener = "label" if "label" in columns else "factor"
    marks = {"n": numeric, "more": table.others, "less": less, "key": [opener]}
    marks |= {"wraps": [c for c in columns if any(row.get(f"{c}_low") is not None for row in table.rows)]}
    classes = {c: " ".join(mark for mark, marked in marks.items() if c in marked) for c in columns}
    champion = results.confirmation.evaluation.champion if results.confirmation.evaluation else ""
    lines = [
        _row_html(row, columns, classes, record, row["config"] == champion)
        for row, record in zip(table.rows, table.records, strict=True)
    ]
    unfolded = [_unfolded(results, record, server) if record else {} for record in table.records]
    shown = {"opener": columns.index(opener), "rows": unfolded}
    outcome = "state" if "state" in columns else "verdict"
    states = dict.fromkeys(text for row in table.rows if (text := _text(row, outcome)))
    return _TABLE.format(
        note=f"<p>{table.note}</p>" if table.note else "",
        outcome=outcome,
        states="".join(f"<option>{html(state)}</option>" for state in states),
        heads="".join(_head(c, classes[c]) for c in columns),
        rows="\n".join(lines),
        meanings="".join(
            f'<dt class="{classes[c]}">{_breakable(c)}</dt>'
            f'<dd class="{classes[c]}" id="about-{html(c)}">{html(table.meanings[c])}</dd>'
            for c in columns
        ),
        # An ending tag within a string would end the script.
        data=json.dumps(shown, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        replay=html(_command(results, "replay", "RUN")),
    )


_TABLE = """\
{note}
<div class="controls" hidden>
<label>filter <input type="search" placeholder="a name, or tanh, sgd"></label>
<label>{outcome} <select><option value="">all</option>{states}</select></label>
<output></output>
</div>
<label class="all"><input type="checkbox" class="columns"> all columns</label>
<div class="wide" role="region" aria-label="table of configurations" tabindex="0">
<table class="rows">
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
<p class="small">A row's network is trained again by <code>{replay}</code>.</p>
<details><summary>What the columns are</summary><dl class="meanings">{meanings}</dl></details>
<script type="application/json" class="unfolded">{data}</script>
"""


def _head(column: str, kind: str) -> str:
    return (
        f'<th scope="col" class="{kind}" aria-sort="none"><button type="button" disabled'
        f' aria-describedby="about-{html(column)}">{_breakable(column)}</button></th>'
    )


def _breakable(column: str) -> str:
    """Return the name of a column, which may be broken after each underscore."""
    name = "" if column == "label" else column
    return html(name).replace("_", "_<wbr>") or "name"


def _row_html(
    row: Mapping[str, Any],
    columns: Sequence[str],
    classes: Mapping[str, str],
    record: TrialRecord | None,
    is_champion: bool,
) -> str:
    """Return a row as HTML.

    Args:
        row: Values by column.
        columns: Columns to show, in order.
        classes: Classes of each column's cells.
        record: Record that the row stands for; None if there is none.
        is_champion: True to mark the row as the champion's.
    """
    is_baseline = "baseline" in (row.get("role"), row.get("factor"))
    kinds = ["baseline"] * is_baseline + ["champion"] * is_champion
    kinds += ["out"] * (record is not None and record.state != "COMPLETE")
    cells = []
    for column in columns:
        text = html(_text(row, column))
        if column in ("label", "factor"):
            text += ' <span class="mark">champion</span>' if is_champion else ""
            text = f'<span class="name">{text}</span>'
        elif "wraps" in classes[column]:
            # The interval may stand below the difference, but is not broken.
            difference, space, interval = text.partition(" ")
            text = f'{difference}{space}<span class="whole">{interval}</span>' if interval else text
        elif column == "verdict" and text == "not confirmed":
            text = ""
        cells.append(f'<td class="{classes[column]}">{text}</td>' if classes[column] else f"<td>{text}</td>")
    outcome = _text(row, "state" if "state" in columns else "verdict")
    return f'<tr class="{" ".join(kinds)}" data-state="{html(outcome)}">{"".join(cells)}</tr>'


def _text(row: Mapping[str, Any], column: str) -> str:
    """Return a cell's text; a mean has its standard error, and a difference its interval."""
    value = row[column]
    if column in ("label", "factor", "value", "note") or value is None:
        return str(value or "")
    text = _number(row, column)
    sem, ends = f"{column}_sem", (f"{column}_low", f"{column}_high")
    if row.get(sem) is not None:
        return f"{text} ± {cell_text(row, sem)}"
    if all(row.get(end) is not None for end in ends):
        return f"{text} [{cell_text(row, ends[0])}, {cell_text(row, ends[1])}]"
    return text


def _number(row: Mapping[str, Any], column: str) -> str:
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


def _unfolded(results: ExperimentResults, record: TrialRecord, server: str | None) -> dict[str, Any]:
    """Return what a row unfolds to, without what is empty: its curve, reason, commands and link.

    Args:
        results: Everything that the experiment has recorded.
        record: Record that the row stands for.
        server: URL of the MLflow server that has the runs; None if they are in files.
    """
    run = str(record.trial) if record.key.role == "trial" else record.label
    commands = {}
    if record.history:
        commands["train it again"] = _command(results, "replay", run)
    if record.state == "COMPLETE":
        commands["draw its activations"] = _command(results, "activations", run, "--classes 0,1")
    run_id = results.spool.run_ids().get(results.original(record).key)
    parts = {
        "curve": _curve(record.history),
        "baseline": int(record.key.role == "baseline"),
        "differs": shareable(differences(results, record.configuration)),
        "reason": shareable(record.reason),
        "commands": commands,
        "url": f"{server}/#/runs/{quote(run_id)}" if server and run_id else "",
    }
    return {name: value for name, value in parts.items() if value}


def _curve(history: Mapping[int, float]) -> list[tuple[int, float]]:
    """Return epochs and validation accuracies, thinned out."""
    points = [(epoch, round(v, 4)) for epoch, v in sorted(history.items()) if math.isfinite(v)]
    step = math.ceil(len(points) / _MAX_POINTS)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def _command(results: ExperimentResults, name: str, run: str, flags: str = "") -> str:
    """Return a command about one training, for the reader to paste where the results are.

    Args:
        results: Everything that the experiment has recorded.
        name: Name of the command.
        run: Name of the training.
        flags: Further flags; empty for none.
    """
    words = ["lenet-exp", name, shlex.quote(shareable(run)), *filter(None, [flags])]
    return " ".join([*words, "--experiment", shared_file(results.experiment)])


def mlflow_server(uri: str | None) -> str | None:
    """Return the address of an MLflow server without credentials, or None if the URI is no server's."""
    parts = urlsplit(uri or "")
    if parts.scheme not in ("http", "https"):
        return None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"

"""Tables for the terminal: the leaderboard, an ablation, and a network's layers."""

from __future__ import annotations

import io
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from lenet_exp.base.errors import ConfigError, printable
from lenet_exp.config.architecture import InfeasibleError, cost, layers
from lenet_exp.config.describe import description, differences
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.hyperparameters import HYPERPARAMETERS
from lenet_exp.results.table import Table as Rows

#: Format of a column's numbers, by column.
_DELTAS = ("delta", "delta_low", "delta_high")
_FORMATS = {
    **dict.fromkeys(("val_accuracy", "val_accuracy_sem", "test_accuracy", "test_accuracy_sem"), ".4f"),
    **dict.fromkeys((*_DELTAS, *(f"val_{name}" for name in _DELTAS)), "+.4f"),
    **{"p_value": ".4f", "val_p_value": ".4f", "examples_per_s": ",.0f", "examples_per_s_ratio": ".2f"},
    **dict.fromkeys(("n_parameters", "macs"), ",d"),
}
#: Width that columns are chosen for if the output is no terminal, in characters.
_PIPE_WIDTH = 160
#: Least width of a text that is broken into lines; a narrower one would be hard to read.
_LEAST_TEXT = 24
_GAP = "  "


def console() -> Console:
    """Return a console as wide as the terminal, or 160 characters wide if the output is no terminal."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name may have letters that the encoding of the terminal lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=_PIPE_WIDTH)


@dataclass(frozen=True)
class Column:
    """A column of a table, and what becomes of it where the terminal is narrow.

    Attributes:
        heading: Text above the column.
        cells: Text of each row.
        right: True to align the cells on the right, as numbers are.
        spare: 0 for a column that is never left out. The others are left out, the highest first: those from
            2 on before the text is broken into lines, those of 1 only if that does not suffice.
        is_text: True for the one column, if any, that may be broken into lines or printed below the table.
        limit: Width from which a cell is broken into lines; None for no limit.
    """

    heading: str
    cells: Sequence[str]
    right: bool = False
    spare: int = 0
    is_text: bool = False
    limit: int | None = None

    @property
    def width(self) -> int:
        """Width in characters of a terminal, of which an ideograph takes two."""
        widest = max(map(cell_len, self.cells), default=0)
        heading = max(map(len, self.heading.split("\n")))
        return max(heading, widest if self.limit is None else min(widest, self.limit))

    def line(self, text: str) -> str:
        """Return a line of a cell, filled with spaces to the width of the column."""
        filling = " " * (self.width - cell_len(text))
        return filling + text if self.right else text + filling


def print_table(title: str, columns: Sequence[Column], bold: int | None = None) -> bool:
    """Print a table as wide as the terminal allows; in a file or a pipe, no row is broken into lines.

    Args:
        title: Text above the table.
        columns: Columns, of which the first that is aligned on the left names the rows.
        bold: Number of the row to emphasise; None for none.

    Returns:
        True if all columns are shown, and False if the terminal is too narrow for some.
    """
    out = console()
    columns = [replace(column, cells=[printable(cell) for cell in column.cells]) for column in columns]
    shown = _fitted(columns, out.width, is_broken=out.is_terminal)

    def print_row(cells: Iterable[Sequence[str]], style: str) -> None:
        for parts in zip_longest(*cells, fillvalue=""):
            line = _GAP.join(column.line(part) for column, part in zip(shown, parts, strict=True)).rstrip()
            out.print(Text(line, style), soft_wrap=True)

    out.print(Text(printable(title), "italic"), soft_wrap=not out.is_terminal)
    if any(column.heading for column in shown):
        print_row([column.heading.split("\n") for column in shown], "bold")
        rule = "─" if out.encoding.startswith("utf") else "-"
        print_row([[rule * column.width] for column in shown], "")
    for row, _ in enumerate(columns[0].cells):
        parts = [_broken(out, column.cells[row], column.width) for column in shown]
        print_row(parts, "bold" if row == bold else "")
    texts = next((column.cells for column in columns if column.is_text), ())
    is_below = not any(column.is_text for column in shown)
    names = next((column.cells for column in columns if not column.right), ())
    for name, text in zip(names, texts, strict=False):
        if is_below and text:
            out.print(Text("\n".join(_broken(out, f"{name}: {text}", out.width))))
    return len(shown) + (bool(texts) and is_below) == len(columns)


def _broken(out: Console, cell: str, width: int) -> list[str]:
    """Return a cell broken into lines, with a number beside its name: ``lr 0.002`` stays in one."""
    lines = Text(re.sub(r"(?<=[a-z]) (?=\d)", "\ue000", cell)).wrap(out, width)
    return [line.plain.replace("\ue000", " ") for line in lines]


def _fitted(columns: Sequence[Column], width: int, *, is_broken: bool) -> list[Column]:
    """Return the columns to show in a line of ``width``; ``is_broken`` if cells may be broken into lines."""
    shown = list(columns)

    def excess() -> int:
        # In a pipe no text is broken, so that its length need not decide which columns are shown.
        widths = [column.width for column in shown if is_broken or not column.is_text]
        return sum(widths) + len(_GAP) * (len(shown) - 1) - width

    def narrow_names(limit: int) -> None:
        if is_broken:
            shown[:] = [c if c.right or c.is_text else replace(c, limit=limit) for c in shown]

    def leave_out(least: int) -> None:
        while excess() > 0 and (spare := max(shown, key=lambda column: column.spare)).spare >= least:
            shown.remove(spare)

    if excess() > 0:
        shown = [replace(column, heading=_heading_lines(column)) for column in shown]
        narrow_names(max(20, width // 4))
    leave_out(2)
    text = next((column for column in shown if column.is_text), None)
    if text and is_broken and excess() > 0:
        room = text.width - excess()
        place = shown.index(text)
        shown[place : place + 1] = [replace(text, limit=room)] if room >= _LEAST_TEXT else []
    if is_broken:
        leave_out(1)
    if excess() > 0:
        narrow_names(max(9, width // 4 - 1))
    return shown


def _heading_lines(column: Column) -> str:
    """Return the heading, broken at underscores and spaces to be hardly wider than the cells."""
    words = re.findall(r"[^_ ]+_?", column.heading)
    width = max([*map(len, words), *map(cell_len, column.cells)])
    lines = textwrap.wrap(column.heading.replace("_", "_ "), width + 1, break_long_words=False)
    return "\n".join(line.replace("_ ", "_") for line in lines)


def print_leaderboard(
    ranked: Rows,
    top: int | None = None,
    sentences: Sequence[str] = (),
    next_steps: Sequence[str] = (),
    command: str = "lenet-exp leaderboard",
) -> None:
    """Print a leaderboard, and below it the results of a confirmation; the baseline's row is never left out.

    Args:
        ranked: The leaderboard, the best row first.
        top: Number of rows to show; the baseline's is shown in addition if it is further down. None shows
            all rows.
        sentences: Results of a confirmation in plain words; empty if there was none.
        next_steps: Advice on the next steps, in plain words.
        command: Command that prints the whole leaderboard.
    """
    rows = list(ranked.rows if top is None else ranked.rows[:top])
    rows += [row for row in ranked.rows[len(rows) :] if row["role"] == "baseline"]
    baseline = next((row for row in rows if row["role"] == "baseline"), None)
    confirmed = any(row["test_accuracy"] is not None for row in rows)
    columns = [
        _numbers("rank", rows, spare=1),
        Column("", [row_label(row) for row in rows]),
        _numbers("val_accuracy", rows, spare=1 if confirmed else 0),
        _numbers("val_delta", rows, spare=6 if confirmed else 0),
        *(_confirmed_columns(rows) if confirmed else ()),
        _numbers("examples_per_s", rows, spare=3),
        _numbers("n_parameters", rows, spare=2),
        Column("verdict" if confirmed else "state", [_outcome(row) for row in rows]),
        Column(
            "differs from the baseline" if baseline else "configuration",
            ["" if row is baseline else _difference(row, baseline) for row in rows],
            is_text=True,
        ),
    ]
    is_whole = print_table(
        "leaderboard",
        [column for column in columns if column.heading != "state" or any(column.cells)],
        bold=None if baseline is None else rows.index(baseline),
    )
    out = console()
    if baseline:
        out.print(Text(f"baseline: {description(_configuration(baseline))}"), soft_wrap=not out.is_terminal)
    _print_left_out(out, len(ranked.rows) - len(rows), is_whole, command)
    out.print()
    for sentence in sentences:
        out.print(Text(printable(sentence)), soft_wrap=not out.is_terminal)
    for step in next_steps:
        # A command that is broken into lines could not be pasted.
        out.print(Text(printable(f"next: {step}")), soft_wrap=True)
    if sentences or next_steps:
        out.print()


def _numbers(name: str, rows: Sequence[Mapping[str, Any]], spare: int = 0) -> Column:
    """Return a column of a table's rows that has numbers."""
    return Column(name, [cell_text(row, name) for row in rows], right=True, spare=spare)


def _interval(name: str, rows: Sequence[Mapping[str, Any]], spare: int) -> Column:
    """Return a column with the interval of a difference, such as ``[+0.0500, +0.1000]``."""
    pairs = [[cell_text(row, f"{name}_{end}") for end in ("low", "high")] for row in rows]
    cells = [f"[{low}, {high}]" if low else "" for low, high in pairs]
    return Column(f"{name} interval", cells, right=True, spare=spare)


def _outcome(row: Mapping[str, Any]) -> str:
    """Return a row's verdict, or its state if it is not complete; empty if it is not confirmed."""
    outcome = row["verdict"] if row["state"] == "COMPLETE" else row["state"]
    return "" if outcome in (None, "not confirmed") else str(outcome)


def _confirmed_columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    return [
        _numbers("test_accuracy", rows),
        _numbers("test_accuracy_sem", rows, spare=5),
        _numbers("delta", rows),
        # The sentences below the table repeat the interval, so nothing is lost in a narrow terminal.
        _interval("delta", rows, spare=4),
    ]


def _configuration(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's values, and its epochs unless they are fewer than the configuration's, as if pruned."""
    values = {name: row.get(name) for name in HYPERPARAMETERS}
    return values | ({"epochs": row["epochs"]} if row["state"] == "COMPLETE" else {})


def _difference(row: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> str:
    if baseline is None:
        return description(_configuration(row))
    return differences(_configuration(row), _configuration(baseline)) or "nothing"


def _print_left_out(out: Console, n_rows: int, is_whole: bool, command: str) -> None:
    """Print how to see the rows and columns that a table leaves out, if it does.

    Args:
        out: Console to print to.
        n_rows: Number of rows that are left out.
        is_whole: True if no column is left out.
        command: Command that prints the whole table.
    """
    if n_rows:
        text = f"{n_rows:,} more: '{command}'; every column too: add '--csv FILE'"
    elif not is_whole:
        text = f"every column: '{command} --csv FILE', or a wider terminal"
    else:
        return
    out.print(Text(printable(text)), soft_wrap=True)


def row_label(row: Mapping[str, Any]) -> str:
    """Return the label of a leaderboard's row: its name, ``trial 12``, or ``baseline``."""
    return row["name"] or (row["role"] if row["trial"] is None else f"{row['role']} {row['trial']}")


def cell_text(row: Mapping[str, Any], column: str) -> str:
    """Return a cell as text, empty if its value is unknown.

    Args:
        row: Values of a row, by column.
        column: Name of the cell's column.
    """
    return "" if row[column] is None else format(row[column], _FORMATS.get(column, ""))


def print_ablation(ablation: Rows, top: int | None = None, command: str = "lenet-exp leaderboard") -> None:
    """Print the table of an ablation, as `lenet_exp.results.ablation.ablation_table` returns it.

    Args:
        ablation: The table, whose first row is the baseline's.
        top: Number of rows to show; None shows all.
        command: Command that prints the whole table.
    """
    rows = ablation.rows[:top]
    names = [f"{row['factor']} {row['value'] or ''}".strip() for row in rows]
    columns = [
        Column("alternative", names),
        _numbers("n_seeds", rows, spare=4),
        _numbers("val_accuracy", rows),
        _numbers("val_accuracy_sem", rows, spare=6),
        _numbers("val_delta", rows),
        _interval("val_delta", rows, spare=2),
        _numbers("val_p_value", rows, spare=3),
        _numbers("examples_per_s", rows, spare=5),
        _numbers("examples_per_s_ratio", rows, spare=8),
        _numbers("n_parameters", rows, spare=7),
        _numbers("macs", rows, spare=9),
        Column("verdict", ["no verdict" if row["note"] else row["verdict"] or "" for row in rows]),
    ]
    is_whole = print_table("ablation", columns, bold=0)
    out = console()
    for name, row in zip(names, rows, strict=True):
        if row["note"]:
            out.print(Text(printable(f"{name}: {row['note']}")), soft_wrap=not out.is_terminal)
    _print_left_out(out, len(ablation.rows) - len(rows), is_whole, command)
    out.print()


def print_rows(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose cells are texts.

    Args:
        title: Text above the table.
        headings: Headings of the columns.
        rows: Cells of each row, in the order of the headings.
    """
    cells = zip(*rows, strict=True) if rows else [()] * len(headings)
    print_table(
        title, [Column(heading, column, right=True) for heading, column in zip(headings, cells, strict=True)]
    )


def print_shapes(experiment: Experiment) -> None:
    """Print the layers of the baseline's network, of each listed run's, and of each alternative's.

    A layer is shown with its output shape, parameters and multiply-accumulates (MACs).

    Raises:
        ConfigError: If the images are too small for one of these networks.
    """
    size = experiment.data.resize
    named = [("baseline", experiment.baseline_configuration), *experiment.runs()]
    named += [(f"{a.factor} {a.value}", configuration) for a, configuration in experiment.alternatives()]
    for label, configuration in named:
        try:
            rows = layers(configuration, size)
        except InfeasibleError as error:
            raise ConfigError(f"{label}: no network can be built from this configuration: {error}") from None
        total = cost(configuration, size)
        numbers = [("x".join(map(str, layer.output)), layer.n_parameters, layer.macs) for layer in rows]
        shapes, n_parameters, macs = zip(*numbers, ("", total.n_parameters, total.macs), strict=True)
        columns = [
            Column("layer", [*(layer.name for layer in rows), "total"]),
            Column("output shape", shapes, right=True),
            Column("n_parameters", [f"{n:,}" for n in n_parameters], right=True),
            Column("macs", [f"{n:,}" for n in macs], right=True),
        ]
        print_table(f"{label}, input 1x{size}x{size}", columns, bold=len(rows))
        console().print()

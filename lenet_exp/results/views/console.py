"""Tables for the terminal: the leaderboard, an ablation, a network's layers, and the machine's benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lenet_exp.base.errors import ConfigError, printable
from lenet_exp.config.architecture import InfeasibleError, cost, layers
from lenet_exp.config.experiment import Experiment
from lenet_exp.results.table import Table as Rows

#: Format of a column's numbers, by column.
_DELTAS = ("delta", "delta_low", "delta_high")
_FORMATS = {
    **dict.fromkeys(("val_accuracy", "val_accuracy_sem", "test_accuracy", "test_accuracy_sem"), ".4f"),
    **dict.fromkeys((*_DELTAS, *(f"val_{name}" for name in _DELTAS)), "+.4f"),
    **{"p_value": ".4f", "val_p_value": ".4f", "examples_per_s": ",.0f", "examples_per_s_ratio": ".2f"},
    **dict.fromkeys(("n_parameters", "macs"), ",d"),
}
#: The leaderboard's numeric columns, in order; those of the test split are left out while they are empty.
_NUMBERS = ("val_accuracy", "val_delta", "test_accuracy", "delta", "examples_per_s", "n_parameters")
#: Width of the terminal, in characters, from which speed and size are shown, then also errors and intervals.
_NARROW, _WIDE = 110, 130


def console() -> Console:
    """Return a console as wide as the terminal, or 160 characters wide if the output is no terminal."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=160)


def print_leaderboard(
    ranked: Rows, top: int | None = None, sentences: Sequence[str] = (), next_steps: Sequence[str] = ()
) -> None:
    """Print a leaderboard, and below it the results of a confirmation; the baseline's row is never left out.

    Args:
        ranked: The leaderboard, the best row first.
        top: Number of rows to show; the baseline's is shown in addition if it is further down. None shows
            all rows.
        sentences: Results of a confirmation in plain words; empty if there was none.
        next_steps: Advice on the next steps, in plain words.
    """
    table = Table(title="leaderboard", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    out = console()
    rows = ranked.rows
    confirmed = any(row["test_accuracy"] is not None for row in rows)
    left_out = set() if confirmed else {"test_accuracy", "delta"}
    if out.width < _NARROW:
        left_out |= {"examples_per_s", "n_parameters", *(["val_delta"] if confirmed else [])}
    numbers = [column for column in _NUMBERS if column not in left_out]
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("configuration")
    first = rows if top is None else rows[:top]
    for row in [*first, *(row for row in rows[len(first) :] if row["role"] == "baseline")]:
        style = "bold" if row["role"] == "baseline" else None
        table.add_row(*(escape(text) for text in _leaderboard_cells(row, numbers, out.width)), style=style)
    out.print(table)
    for sentence in sentences:
        out.print(escape(printable(sentence)), highlight=False, soft_wrap=not out.is_terminal)
    for step in next_steps:
        # A command that is broken into lines could not be pasted.
        out.print(escape(printable(f"next: {step}")), highlight=False, soft_wrap=True)
    if sentences or next_steps:
        out.print()


def _leaderboard_cells(row: Mapping[str, Any], columns: Sequence[str], width: int) -> list[str]:
    numbers = [cell_text(row, column) for column in columns]
    # The sentences below the table repeat the interval, so nothing is lost in a narrow terminal.
    if width >= _WIDE and row["test_accuracy_sem"] is not None:
        numbers[columns.index("test_accuracy")] += f" ± {cell_text(row, 'test_accuracy_sem')}"
    if width >= _WIDE and row["delta_low"] is not None:
        numbers[columns.index("delta")] += f" [{cell_text(row, 'delta_low')}, {cell_text(row, 'delta_high')}]"
    outcome = cell_text(row, "verdict" if row["state"] == "COMPLETE" else "state")
    return [cell_text(row, "rank"), printable(row_label(row)), *numbers, outcome, describe(row)]


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


def print_ablation(ablation: Rows) -> None:
    """Print the table of an ablation, as `lenet_exp.results.ablation.ablation_table` returns it."""
    table = Table(title="ablation", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("factor")
    table.add_column("value")
    for heading in (
        *("n_seeds", "val_accuracy", "val_delta", "val_delta interval", "val_p_value"),
        *("examples_per_s", "n_parameters", "macs"),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    for row in ablation.rows:
        cells = (escape(printable(text)) for text in _ablation_cells(row))
        table.add_row(*cells, style="bold" if row["factor"] == "baseline" else None)
    console().print(table)


def _ablation_cells(row: Mapping[str, Any]) -> list[str]:
    cells = {column: cell_text(row, column) for column in row}
    sem, ratio = cells["val_accuracy_sem"], cells["examples_per_s_ratio"]
    return [
        *(cells[column] for column in ("factor", "value", "n_seeds")),
        cells["val_accuracy"] + (f" ± {sem}" if sem else ""),
        cells["val_delta"],
        f"[{cells['val_delta_low']}, {cells['val_delta_high']}]" if cells["val_delta_low"] else "",
        cells["val_p_value"],
        cells["examples_per_s"] + (f" x{ratio}" if ratio else ""),
        cells["n_parameters"],
        cells["macs"],
        cells["note"] or cells["verdict"],
    ]


def describe(row: Mapping[str, Any]) -> str:
    """Return a row's configuration in a few words, such as ``max relu kernel 5-5 channels 6-16``."""

    def per_layer(name: str, most: int) -> str:
        values = [row[f"{name}_{i}"] for i in range(1, most + 1)]
        return "-".join(str(value) for value in values if value is not None) or "none"

    kernels, channels = per_layer("kernel_size", 3), per_layer("channels", 3)
    return (
        f"{row['pooling']} {row['activation']} kernel {kernels} channels {channels} "
        f"fc {per_layer('fc_width', 2)} {row['optimizer']} lr {row['lr']:.3g}"
    )


def print_rows(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose cells are texts.

    Args:
        title: Text above the table.
        headings: Headings of the columns.
        rows: Cells of each row, in the order of the headings.
    """
    table = Table(title=escape(printable(title)), title_justify="left", box=box.SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    console().print(table)


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
        title = f"{escape(printable(label))}, input 1x{size}x{size}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("layer")
        for heading in ("output shape", "n_parameters", "macs"):
            table.add_column(heading, justify="right")
        try:
            rows = layers(configuration, size)
        except InfeasibleError as error:
            raise ConfigError(f"{label}: no network can be built from this configuration: {error}") from None
        for layer in rows:
            shape = "x".join(map(str, layer.output))
            table.add_row(layer.name, shape, f"{layer.n_parameters:,}", f"{layer.macs:,}")
        total = cost(configuration, size)
        table.add_section()
        table.add_row("total", "", f"{total.n_parameters:,}", f"{total.macs:,}")
        console().print(table)


def print_bench(answer: Mapping[str, Any]) -> None:
    """Print the results of `lenet_exp.cli.bench.run_bench`, each number with an explanation."""
    rows = [
        (
            "usual_examples_per_s",
            f"{answer['usual_examples_per_s']:,.0f}",
            f"the usual loop: DataLoader, float32, {answer['usual_threads']} threads and 2 reading processes",
        ),
        (
            "examples_per_s",
            f"{answer['examples_per_s']:,.0f}",
            f"a sweep of this package, in {answer['precision']}",
        ),
        ("speedup", f"{answer['speedup']:.2f}", ""),
        ("peak_gflops", f"{answer['peak_gflops']:,.0f}", "float32 matrix products of torch.mm, GFLOP/s"),
        (
            "share_of_peak",
            f"{answer['share_of_peak']:.3f}",
            f"examples_per_s x {answer['flops_per_example'] / 1e6:.2f} MFLOP per example, over peak_gflops",
        ),
        (
            "harness_share",
            f"{answer['harness_share']:.4f}",
            f"{answer['harness_s']:.2f} s outside training and evaluation, as a share of a trial of 10 s",
        ),
        ("first_step_s", f"{answer['first_step_s']:.2f}", "from the command to the first training step"),
        ("workers", str(answer["workers"]), answer["why"]),
        ("threads", str(answer["threads"]), "per worker"),
        ("precision", answer["precision"], "of the sweep's arithmetic"),
    ]
    title = f"{answer['machine']}, {answer['cores']} cores, on {answer['device']}"
    table = Table(title=escape(printable(title)), title_justify="left", box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for name, value, meaning in rows:
        table.add_row(name, escape(value), escape(meaning))
    console().print(table)
    if answer["load"] > answer["cores"] / 4:
        console().print(f"This machine was busy (load {answer['load']:.1f}): measure again when it is quiet.")

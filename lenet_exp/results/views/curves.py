"""The learning curves of a list of runs: a table with a row for each epoch, and a figure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from lenet_exp.base.records import METRICS, Role
from lenet_exp.results.figures.picture import plain, png
from lenet_exp.results.table import Table
from lenet_exp.tracking.events import RunLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

#: Most runs in the figure, as panels of more would be too small to read; the table has all.
MAX_PANELS = 40
_PANELS_PER_ROW = 3
LineStyle = Literal["-", "--", ":", "-."]

#: Line style and colour of each metric, as in the figures of *Dive into Deep Learning*; a metric that was not
#: measured is left out.
_LINES: dict[str, tuple[LineStyle, str]] = {
    "train_loss": ("-", "C0"),
    "train_accuracy": ("--", "C4"),
    "val_accuracy": (":", "C7"),
    "test_accuracy": ("-.", "C2"),
}


def curves_table(run_logs: Iterable[RunLog], roles: Collection[Role] = ("baseline", "run")) -> Table:
    """Return a table with a row for each epoch of each training.

    A training that was tried again is represented by its last attempt.

    Args:
        run_logs: Logs of the attempts, in any order.
        roles: Roles of the trainings to show; by default those of a list of runs.

    Returns:
        A table with the columns ``label``, ``role``, ``config``, ``state``, ``seed``, ``epoch``, the metrics
        of an epoch, and one for each metric that the experiment's ``[watch]`` adds.
    """
    rows: list[dict[str, Any]] = [
        {
            "label": run_log.metadata.get("label", run_log.key.stem),
            "role": run_log.key.role,
            "config": run_log.metadata.get("config"),
            "state": run_log.end.state if run_log.end else "RUNNING",
            "seed": run_log.metadata.get("seed"),
            "epoch": result.epoch,
            **result.metrics(),
        }
        for run_log in _last_attempts(run_logs, roles)
        for result in run_log.epochs
    ]
    columns = dict.fromkeys(name for row in rows for name in row)
    return Table(
        list(columns) or ["label", "role", "config", "state", "seed", "epoch", *METRICS],
        [columns | row for row in rows],
    )


def _last_attempts(run_logs: Iterable[RunLog], roles: Collection[Role]) -> list[RunLog]:
    last = {
        _training(run_log): run_log
        for run_log in sorted(run_logs, key=lambda run_log: run_log.key.trial)
        if run_log.key.role in roles
    }
    return list(last.values())


def _training(run_log: RunLog) -> tuple[Any, ...]:
    """Return a key that the attempts at one training share, and no others."""
    metadata = run_log.metadata
    train_on = metadata.get("tags", {}).get("lenet_exp.train_on")
    return run_log.key.role, metadata.get("config"), metadata.get("seed"), train_on


def curves_picture(table: Table, title: str) -> bytes:
    """Draw the learning curves, and return the figure as a PNG.

    Each label has a panel, with the loss on the left axis and accuracies on the right.

    Args:
        table: Table that `curves_table` returned.
        title: Text at the top of the figure.
    """
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(row["label"] for row in table.rows))[:MAX_PANELS]
    rows = max(1, math.ceil(len(labels) / _PANELS_PER_ROW))
    width, height = 4.2 * _PANELS_PER_ROW, 2.9 * rows + 0.8
    figure = Figure(figsize=(width, height))
    # Margins are set by hand, in inches: a layout by matplotlib takes as long as the drawing.
    figure.subplots_adjust(
        left=0.6 / width,
        right=1 - 0.6 / width,
        top=1 - 0.7 / height,
        bottom=0.9 / height,
        wspace=1.3 / 2.8,
        hspace=0.8 / 2.1,
    )
    figure.suptitle(plain(title), y=1 - 0.1 / height, va="top")
    grid = figure.subplots(rows, _PANELS_PER_ROW, squeeze=False)
    panels: list[Axes] = list(grid.flat)
    for axes, label in zip(panels, labels, strict=False):
        _panel(axes, label, [row for row in table.rows if row["label"] == label])
    for axes in panels[len(labels) :]:
        axes.set_visible(False)
    figure.legend(handles=_legend(table), loc="lower center", ncols=len(_LINES))
    return png(figure)


def _legend(table: Table) -> list[Line2D]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], linestyle=style, color=colour, label=name)
        for name, (style, colour) in _LINES.items()
        if name in table.columns
    ]


def _panel(axes: Axes, label: str, rows: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(plain(label), fontsize=10)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel("loss")
    shares = axes.twinx()
    shares.set_ylabel("accuracy")
    shares.set_ylim(0, 1)
    epochs = [row["epoch"] for row in rows]
    for name, (style, colour) in _LINES.items():
        values = [math.nan if row.get(name) is None else row[name] for row in rows]
        if not all(map(math.isnan, values)):
            scale = axes if name.endswith("loss") else shares
            scale.plot(epochs, values, style, color=colour, marker=".", markersize=3)
    axes.set_ylim(bottom=0)
    # By default the axis would end at the first and last epoch, and show fractions if there is only one.
    axes.set_xlim(0.5, max(epochs) + 0.5)

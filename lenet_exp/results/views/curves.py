"""The curves of a fixed list of runs: every epoch of each as a table, and one picture of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from lenet_exp.base.records import METRICS, Role
from lenet_exp.results.table import Table
from lenet_exp.results.views.png import plain, png
from lenet_exp.tracking.events import RunLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

#: Pictures of more runs than this would be too small to read; the table has them all.
MAX_PANELS = 40
_PANELS_A_ROW = 3
LineStyle = Literal["-", "--", ":", "-."]

#: What a panel shows, as the book's figures do; what was not measured is left out.
_LINES: dict[str, tuple[LineStyle, str]] = {
    "train_loss": ("-", "C0"),
    "train_accuracy": ("--", "C4"),
    "val_accuracy": (":", "C7"),
    "test_accuracy": ("-.", "C2"),
}


def curves_table(records: Iterable[RunLog], roles: Collection[Role] = ("baseline", "run")) -> Table:
    """Return a row for each epoch of each training; of one that was tried again, the last attempt's.

    Args:
        records: Spooled attempts, in any order.
        roles: Roles of the trainings to show; the default shows a list of runs.

    Returns:
        ``label``, ``role``, ``config``, ``state``, ``seed``, ``epoch``, the metrics of an epoch, and what
        was watched besides.
    """
    rows: list[dict[str, Any]] = [
        {
            "label": record.metadata.get("label", record.key.stem),
            "role": record.key.role,
            "config": record.metadata.get("config"),
            "state": record.end.state if record.end else "RUNNING",
            "seed": record.metadata.get("seed"),
            "epoch": result.epoch,
            **result.metrics(),
        }
        for record in _last_attempts(records, roles)
        for result in record.epochs
    ]
    columns = dict.fromkeys(name for row in rows for name in row)
    return Table(
        list(columns) or ["label", "role", "config", "state", "seed", "epoch", *METRICS],
        [columns | row for row in rows],
    )


def _last_attempts(records: Iterable[RunLog], roles: Collection[Role]) -> list[RunLog]:
    last = {
        _training(record): record
        for record in sorted(records, key=lambda record: record.key.trial)
        if record.key.role in roles
    }
    return list(last.values())


def _training(record: RunLog) -> tuple[Any, ...]:
    """Return what attempts at one training share."""
    metadata = record.metadata
    train_on = metadata.get("tags", {}).get("lenet_exp.train_on")
    return record.key.role, metadata.get("config"), metadata.get("seed"), train_on


def curves_picture(table: Table, title: str) -> bytes:
    """Return a PNG with a panel for each label: the loss on the left axis, accuracies on the right.

    Args:
        table: What `curves_table` gave.
        title: What stands above the panels.
    """
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(row["label"] for row in table.rows))[:MAX_PANELS]
    rows = max(1, math.ceil(len(labels) / _PANELS_A_ROW))
    width, height = 4.2 * _PANELS_A_ROW, 2.9 * rows + 0.8
    figure = Figure(figsize=(width, height))
    # In inches, as all panels are alike: matplotlib takes as long to find it out as to draw.
    figure.subplots_adjust(
        left=0.6 / width,
        right=1 - 0.6 / width,
        top=1 - 0.7 / height,
        bottom=0.9 / height,
        wspace=1.3 / 2.8,
        hspace=0.8 / 2.1,
    )
    figure.suptitle(plain(title), y=1 - 0.1 / height, va="top")
    grid = figure.subplots(rows, _PANELS_A_ROW, squeeze=False)
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
            where = axes if name.endswith("loss") else shares
            where.plot(epochs, values, style, color=colour, marker=".", markersize=3)
    axes.set_ylim(bottom=0)
    # By itself it would end at the first and last epoch, and tell parts of one where there is only one.
    axes.set_xlim(0.5, max(epochs) + 0.5)

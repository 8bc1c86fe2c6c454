"""Print or export the leaderboard, and write the files that only an ablation or a list of runs has.

Modules that only some experiments need are imported where they are needed, so that every command starts fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lenet_exp.base.errors import ConfigError
from lenet_exp.base.files import write_atomically
from lenet_exp.base.layout import Layout
from lenet_exp.base.messages import say, step, store_flags
from lenet_exp.config.experiment import Experiment
from lenet_exp.results.table import Table, render, to_csv
from lenet_exp.study.records import TrialRecord
from lenet_exp.tracking.spool import Spool

#: Rows of the leaderboard that a sweep prints at its end.
_SHOWN_ROWS = 10


def show_leaderboard(
    experiment: Experiment,
    root: Path,
    *,
    csv: Path | None,
    style: Any,
    top: int | None,
    storage: str | None = None,
) -> None:
    """Print an experiment's leaderboard, or write it to a file; for an ablation, its table.

    Args:
        experiment: The experiment to show.
        root: Folder below which sweeps write everything.
        csv: CSV file to write; None writes no file.
        style: Format to print in, see `render`; None prints a table for the terminal, or nothing if ``csv``
            is given.
        top: Number of rows to print or write; None for all.
        storage: URL of the studies' storage in PostgreSQL; None for the file below ``root``.

    Raises:
        ConfigError: If ``csv`` is a folder.
        NoResultError: If the experiment was never run below ``root``.
        DiskError: If ``csv`` cannot be written.
    """
    with step("reading the study"):
        from lenet_exp.results.lookup import read_results
        from lenet_exp.results.views.console import print_ablation, print_leaderboard

        results = read_results(experiment, root, storage)
        table = _ablation(experiment, results.records) if experiment.ablate else results.leaderboard
    shown = table._replace(rows=table.rows[:top])
    command = experiment.command("leaderboard", root) + store_flags(storage)
    if csv is not None:
        if csv.is_dir():
            raise ConfigError(f"--csv must name a file, found the folder {csv}")
        write_atomically(csv, to_csv(shown).encode())
    if style is not None:
        sys.stdout.write(render(shown, style))
    elif csv is None:
        if experiment.ablate:
            print_ablation(table, top, command)
        else:
            summary = results.confirmation
            print_leaderboard(table, top, summary.sentences, summary.next_steps, command)


def own_files(experiment: Experiment, layout: Layout) -> tuple[Path, ...]:
    """Return the paths of the files that only an ablation or a list of runs has; an empty tuple for a search.

    Args:
        experiment: The experiment that the files belong to.
        layout: Paths of the experiment's files.
    """
    if experiment.ablate:
        return (layout.ablation,)
    return (layout.curves, layout.curves_picture) if experiment.run else ()


def write_own_files(
    experiment: Experiment, layout: Layout, records: Sequence[TrialRecord], spool: Spool
) -> None:
    """Write the files that `own_files` names.

    Args:
        experiment: The experiment that the files belong to.
        layout: Paths of the experiment's files.
        records: Records of the attempts that have ended, from which the table of an ablation is computed.
        spool: Spool of the experiment, from which the learning curves of a list of runs are read.

    Raises:
        DiskError: If a file cannot be written; an earlier version of it is left as it was.
    """
    if experiment.ablate:
        write_atomically(layout.ablation, to_csv(_ablation(experiment, records)).encode())
    elif experiment.run:
        from lenet_exp.results.views.curves import curves_picture, curves_table

        table = curves_table(spool.run_logs(lambda problem: say(f"warning: {problem}")))
        write_atomically(layout.curves, to_csv(table).encode())
        write_atomically(layout.curves_picture, curves_picture(table, experiment.name))


def print_results(experiment: Experiment, layout: Layout, storage: str | None) -> None:
    """Print the leaderboard, the paths of the files that were written, and how to open MLflow's UI.

    Args:
        experiment: The experiment whose sweep has ended.
        layout: Paths of the experiment's files.
        storage: URL of the studies' storage in PostgreSQL; None for the file below the root.
    """
    top = None if experiment.ablate else _SHOWN_ROWS
    show_leaderboard(experiment, layout.root, csv=None, style=None, top=top, storage=storage)
    for file in (layout.leaderboard, *own_files(experiment, layout), layout.report):
        sys.stdout.write(f"{file.stem}: {file}\n")
    sys.stdout.write(f"MLflow's UI: lenet-exp ui --root {layout.root}\n")


def _ablation(experiment: Experiment, records: Sequence[TrialRecord]) -> Table:
    from lenet_exp.results.ablation import ablation_table

    return ablation_table(experiment, records)

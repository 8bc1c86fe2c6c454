"""What was recorded, as the tables that people and programs see, and an ablation's or a list's own files.

What one kind of experiment alone needs is imported where it is needed, so that every command begins at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lenet_exp.base.errors import ConfigError
from lenet_exp.base.files import write_atomically
from lenet_exp.base.layout import Layout
from lenet_exp.config.experiment import Experiment
from lenet_exp.results.table import Table, render, to_csv
from lenet_exp.study.records import TrialRecord
from lenet_exp.tracking.spool import Spool


def show_leaderboard(
    experiment: Experiment,
    root: Path,
    *,
    csv: Path | None,
    style: Any,
    top: int | None,
    storage: str | None = None,
) -> None:
    """Print the leaderboard, of an ablation its own table, or write it to a file.

    Args:
        experiment: Whose leaderboard.
        root: Folder of everything that runs write.
        csv: File to write the table to; None writes none, and prints it.
        style: How it is printed for machines, see `render`; None prints it for people.
        top: Rows to show; None shows all.
        storage: URL of the study's storage, where it is not a file below ``root``.

    Raises:
        NoResultError: If nothing was recorded.
        DiskError: If ``csv`` cannot be written.
    """
    from lenet_exp.results.lookup import read_results
    from lenet_exp.results.views.console import print_ablation, print_leaderboard

    results = read_results(experiment, root, storage)
    table = _ablation(experiment, results.records) if experiment.ablate else results.leaderboard()
    shown = table._replace(rows=table.rows[:top])
    if csv is not None:
        if csv.is_dir():
            raise ConfigError(f"--csv names a file, found the folder {csv}")
        write_atomically(csv, to_csv(shown).encode())
    if style is not None:
        sys.stdout.write(render(shown, style))
    elif csv is None:
        if experiment.ablate:
            print_ablation(shown)
        else:
            print_leaderboard(table, top, results.confirmation.sentences)


def own_files(experiment: Experiment, layout: Layout) -> tuple[Path, ...]:
    """Return what an ablation or a list of runs leaves in its folder besides a leaderboard.

    Args:
        experiment: Whose files.
        layout: Where the experiment's files lie.
    """
    if experiment.ablate:
        return (layout.ablation,)
    return (layout.curves, layout.curves_picture) if experiment.run else ()


def write_own_files(
    experiment: Experiment, layout: Layout, records: Sequence[TrialRecord], spool: Spool
) -> None:
    """Write the files of `own_files`.

    Args:
        experiment: Whose files.
        layout: Where the experiment's files lie.
        records: Every attempt that the study knows.
        spool: What every attempt did, epoch by epoch.

    Raises:
        DiskError: If one cannot be written; it is then as before.
    """
    if experiment.ablate:
        write_atomically(layout.ablation, to_csv(_ablation(experiment, records)).encode())
    elif experiment.run:
        from lenet_exp.results.views.curves import curves_picture, curves_table

        table = curves_table(spool.run_logs())
        write_atomically(layout.curves, to_csv(table).encode())
        write_atomically(layout.curves_picture, curves_picture(table, experiment.name))


def _ablation(experiment: Experiment, records: Sequence[TrialRecord]) -> Table:
    from lenet_exp.results.ablation import ablation_table

    return ablation_table(experiment, records)

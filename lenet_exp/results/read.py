"""What was recorded, read again from the study alone, as the tables that people and programs see."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lenet_exp.base.errors import ConfigError, NoResultError
from lenet_exp.base.files import write_atomically
from lenet_exp.base.layout import Layout
from lenet_exp.base.records import RunKey
from lenet_exp.config.experiment import Experiment
from lenet_exp.results.evaluation import READINGS, SPEEDS, Findings, findings
from lenet_exp.results.leaderboard import Table, as_table, ranked, render, to_csv
from lenet_exp.study.records import TrialRecord
from lenet_exp.tracking.spool import Spool


def read_leaderboard(experiment: Experiment, root: Path, storage: str | None = None) -> Table:
    """Return the leaderboard of what was recorded below ``root``; the study is only read.

    Raises:
        NoResultError: If the experiment was never started there.
    """
    records, found = _read(experiment, root, storage)
    return ranked(records, _run_ids(experiment, root), found)


def _run_ids(experiment: Experiment, root: Path) -> Mapping[RunKey, str]:
    return Spool(Layout.of(root, experiment.name).spool).run_ids()


def _read(experiment: Experiment, root: Path, storage: str | None) -> tuple[list[TrialRecord], Findings]:
    from lenet_exp.study.trials import read_study

    study = read_study(experiment.name, root.absolute(), storage)
    if study is None:
        raise NoResultError(
            f"{experiment.name!r} was never run under {root.absolute()}; run: lenet-exp sweep"
        )
    return study.records, findings(study.kept.get(READINGS), study.kept.get(SPEEDS))


def show_leaderboard(
    experiment: Experiment,
    root: Path,
    *,
    csv: Path | None,
    style: Any,
    top: int | None,
    storage: str | None = None,
) -> None:
    """Print the leaderboard, of an ablation its own table, or write it to ``csv``.

    Raises:
        NoResultError: If nothing was recorded.
        DiskError: If ``csv`` cannot be written.
    """
    from lenet_exp.results.views.console import print_ablation, print_leaderboard

    records, found = _read(experiment, root, storage)
    if experiment.ablate:
        from lenet_exp.results.ablation import ablation_table

        table = as_table(ablation_table(experiment, records))
    else:
        table = ranked(records, _run_ids(experiment, root), found)
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
            print_leaderboard(table, top, found.sentences)

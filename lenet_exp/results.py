"""What was recorded, read again from the study alone, as the tables that people and programs see."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_exp.errors import ConfigError, NoResultError
from lenet_exp.experiment import Experiment
from lenet_exp.files import write_atomically
from lenet_exp.readings import READINGS, SPEEDS, Findings, findings
from lenet_exp.record import TrialRecord
from lenet_exp.spool import Spool

if TYPE_CHECKING:
    import pandas as pd


def read_leaderboard(experiment: Experiment, root: Path, storage: str | None = None) -> pd.DataFrame:
    """Return the leaderboard of what was recorded below ``root``; the study is only read.

    Raises:
        NoResultError: If the experiment was never started there.
    """
    return _ranked(experiment, root, *_read(experiment, root, storage))


def _ranked(
    experiment: Experiment, root: Path, records: Sequence[TrialRecord], found: Findings
) -> pd.DataFrame:
    from lenet_exp.leaderboard import leaderboard

    run_ids = Spool(root.absolute() / experiment.folder_name / "spool").run_ids()
    return leaderboard(records, run_ids, found)


def read_findings(experiment: Experiment, root: Path, storage: str | None = None) -> Findings:
    """Return what a confirmation found out of the experiment; the study is only read."""
    from lenet_exp.trials import read_kept

    return _findings(read_kept(experiment.name, root.absolute(), storage))


def _findings(kept: Mapping[str, Any]) -> Findings:
    return findings(kept.get(READINGS), kept.get(SPEEDS))


def read_ablation(experiment: Experiment, root: Path, storage: str | None = None) -> pd.DataFrame:
    """Return the table of an ablation that was recorded below ``root``; the study is only read.

    Raises:
        NoResultError: If the experiment was never started there.
    """
    from lenet_exp.ablation import ablation_table

    return ablation_table(experiment, _read(experiment, root, storage)[0])


def _read(experiment: Experiment, root: Path, storage: str | None) -> tuple[list[TrialRecord], Findings]:
    from lenet_exp.trials import read_study

    records, kept = read_study(experiment.name, root.absolute(), storage)
    if records is None:
        raise NoResultError(
            f"{experiment.name!r} was never run under {root.absolute()}; run: lenet-exp sweep"
        )
    return records, _findings(kept)


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
    from lenet_exp.leaderboard import render, to_csv
    from lenet_exp.tables import print_ablation, print_leaderboard

    records, found = _read(experiment, root, storage)
    if experiment.ablate:
        from lenet_exp.ablation import ablation_table

        frame = ablation_table(experiment, records)
    else:
        frame = _ranked(experiment, root, records, found)
    shown = frame if top is None else frame.head(top)
    if csv is not None:
        if csv.is_dir():
            raise ConfigError(f"--csv names a file, found the folder {csv}")
        write_atomically(csv, to_csv(shown).encode())
    if style is not None:
        sys.stdout.write(render(shown, style))
    elif csv is None:
        if experiment.ablate:
            print_ablation(frame, top)
        else:
            print_leaderboard(frame, top, found.sentences)

"""What an ablation or a list of runs leaves in its folder besides a leaderboard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lenet_exp.base.files import write_atomically
from lenet_exp.base.layout import Layout
from lenet_exp.config.experiment import Experiment
from lenet_exp.study.records import TrialRecord
from lenet_exp.tracking.spool import Spool


def own_files(experiment: Experiment, layout: Layout) -> tuple[Path, ...]:
    """Return those files; a search has none."""
    if experiment.ablate:
        return (layout.ablation,)
    return (layout.curves, layout.curves_picture) if experiment.run else ()


def write_own_files(
    experiment: Experiment, layout: Layout, records: Sequence[TrialRecord], spool: Spool
) -> None:
    """Write the files of `own_files`.

    Args:
        experiment: Whose they are.
        layout: Of the experiment.
        records: What the study knows.
        spool: Has every epoch.

    Raises:
        DiskError: If one cannot be written; it is then as before.
    """
    from lenet_exp.results.leaderboard import to_csv

    if experiment.ablate:
        from lenet_exp.results.ablation import ablation_table

        write_atomically(layout.ablation, to_csv(ablation_table(experiment, records)).encode())
    elif experiment.run:
        from lenet_exp.results.views.curves import curves_picture, curves_table

        frame = curves_table(spool.records())
        write_atomically(layout.curves, to_csv(frame).encode())
        write_atomically(layout.curves_picture, curves_picture(frame, experiment.name))

"""Upload to MLflow what an experiment recorded and MLflow lacks, while no sweep is at work on it."""

from __future__ import annotations

from pathlib import Path

from lenet_exp.base.errors import NoResultError
from lenet_exp.base.files import lock, writable_folder, write_atomically
from lenet_exp.base.layout import Layout
from lenet_exp.config.experiment import Experiment
from lenet_exp.results.lookup import read_related, read_results
from lenet_exp.results.table import to_csv
from lenet_exp.study.study import open_study
from lenet_exp.sweep.salvage import damage, salvage
from lenet_exp.tracking import store, uploader
from lenet_exp.tracking.spool import Spool
from lenet_exp.tracking.store import check_reachable
from lenet_exp.tracking.uploader import SyncReport


def sync_experiment(
    experiment: Experiment,
    root: Path,
    *,
    rebuild: bool = False,
    tracking_uri: str | None = None,
    storage: str | None = None,
) -> SyncReport:
    """Upload to MLflow what it lacks of an experiment's records, once the spool has all that the study has.

    Args:
        experiment: Experiment whose records are uploaded.
        root: Folder that holds all results.
        rebuild: True to check every run in MLflow against the spool, even those that the spool's index calls
            uploaded.
        tracking_uri: URI of the MLflow store; None for ``mlflow.db`` in ``root``.
        storage: URL of the PostgreSQL database that holds the study; None for ``study.db`` in ``root``.

    Raises:
        NoResultError: If the experiment was never run below ``root``.
        LockedError: If a sweep is at work on the experiment.
        UnreachableError: If the MLflow store does not answer.
        StoreError: If the MLflow store is damaged or of another version.
    """
    root = root.absolute()
    layout = Layout.of(root, experiment.name)
    layout.check_links()
    if not layout.home.is_dir():
        raise NoResultError(
            f"{experiment.name!r} was never run under {root}; run '{experiment.command('sweep', root)}'"
        )
    writable_folder(layout.home)
    with lock(layout.lock):
        spool = Spool(layout.spool)
        study = read_related(experiment.name, root, storage)
        records = study.records if study else []
        if study and records and (wrong := damage(records, spool, experiment.name, study.lineage.id)):
            salvage(open_study(experiment, root, storage), spool, layout, wrong)
        uri, artifact_root = store.locate(tracking_uri, root)
        check_reachable(uri, artifact_root)

        def refresh_leaderboard() -> None:
            if records:
                csv = to_csv(read_results(experiment, root, storage).leaderboard())
                write_atomically(layout.leaderboard, csv.encode())

        return uploader.sync(spool, uri, artifact_root, rebuild=rebuild, on_uploaded=refresh_leaderboard)

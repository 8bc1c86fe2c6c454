"""Upload to MLflow what an experiment recorded and MLflow lacks, while no sweep is at work on it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lenet_exp.base.errors import NoResultError
from lenet_exp.base.files import lock, writable_folder, write_atomically
from lenet_exp.base.layout import Layout
from lenet_exp.base.records import METRICS, EpochResult
from lenet_exp.config.experiment import Experiment
from lenet_exp.data.images import training_images
from lenet_exp.results.lookup import read_related, read_results
from lenet_exp.results.table import to_csv
from lenet_exp.study.records import TrialRecord
from lenet_exp.sweep.fingerprint import study_metadata
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
    """Upload to MLflow what it lacks of an experiment's records.

    Args:
        experiment: Experiment whose records are uploaded.
        root: Folder that holds all results.
        rebuild: True to check every run in MLflow against the spool, even those that the spool's index calls
            uploaded, and to restore from the study what the spool has lost.
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
        if study and rebuild and records:
            respool(records, spool, layout)
            if spool.study() is None:
                images = training_images(experiment.data)
                spool.start_study(study_metadata(experiment, layout, images, study.lineage))
        uri, artifact_root = store.locate(tracking_uri, root)
        check_reachable(uri, artifact_root)

        def refresh_leaderboard() -> None:
            if records:
                csv = to_csv(read_results(experiment, root, storage).leaderboard())
                write_atomically(layout.leaderboard, csv.encode())

        return uploader.sync(spool, uri, artifact_root, rebuild=rebuild, on_uploaded=refresh_leaderboard)


def respool(records: Iterable[TrialRecord], spool: Spool, layout: Layout) -> None:
    """Write to the spool the attempts that it has lost and the study still has.

    Of all epochs but the last the study has only ``val_accuracy``, so their other metrics become NaN. Every
    line gets the present time.

    Args:
        records: Records of all attempts in the study.
        spool: Spool to write to; attempts that it has are left as they are.
        layout: Paths of the experiment's weights.
    """
    for record in records:
        if spool.read(record.key):
            continue
        spool.start(
            record.key,
            {
                "label": record.label,
                "params": record.configuration.to_dict(),
                "seed": record.seed,
                "config": record.config,
                "tags": {"rebuilt_from": "the study"},
            },
        )
        for number, accuracy in sorted(record.history.items()):
            metrics: dict[str, Any] = dict.fromkeys(METRICS, math.nan)
            if number == record.epochs:
                metrics |= {name: record.result[name] for name in METRICS if name in record.result}
            metrics["val_accuracy"] = accuracy
            spool.epoch(record.key, EpochResult(epoch=number, **metrics))
        weights = layout.kept_weights(record.key) if record.state == "COMPLETE" else None
        spool.end(record.key, record.state, record.reason, weights=weights)

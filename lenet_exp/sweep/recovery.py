"""Recovery: end attempts that a crash cut off, rebuild a lost study, upload what MLflow lacks.

Every step is safe to repeat, so a crash during recovery does no harm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lenet_exp.base.errors import DataError, NoResultError, StoreError
from lenet_exp.base.files import lock, writable_folder, write_atomically
from lenet_exp.base.layout import Layout
from lenet_exp.base.messages import step
from lenet_exp.base.records import RunKey, State
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.execution import checkpoint
from lenet_exp.results.lookup import read_related, read_results
from lenet_exp.results.table import to_csv
from lenet_exp.study.rdb import TrialStorage
from lenet_exp.study.storage import set_aside
from lenet_exp.study.study import MAX_ATTEMPTS, Study, open_study
from lenet_exp.study.trials import RECORD, RECORD_BASICS, RETRY, PastTrial, restore_study
from lenet_exp.sweep.salvage import damage, keep_intact, salvage
from lenet_exp.tracking import store, uploader
from lenet_exp.tracking.events import RunLog
from lenet_exp.tracking.spool import Spool
from lenet_exp.tracking.store import check_reachable
from lenet_exp.tracking.uploader import SyncReport
from lenet_exp.training.weights import SHA256, read_weights


def reconcile(study: Study, spool: Spool, layout: Layout) -> None:
    """End the attempts that a crash left RUNNING: as the spool says, or as failed and to be tried again.

    The caller holds the experiment's lock, so that no other driver is at work.

    Args:
        study: Study that was just opened.
        spool: Spool with the log of every attempt.
        layout: Paths of weights and checkpoints; those that no attempt needs any more are deleted.
    """
    for key in study.orphans():
        log = _readable(spool, key)
        if log is None or not _adopt(study, spool, log):
            if log is not None and log.end is None:
                spool.end(key, "FAIL", "interrupted")
            study.fail(key, "interrupted", retry=True, crashed=False)
    records, name, study_id = study.records(), study.experiment.name, study.lineage.id
    salvage(study, spool, layout, damage(records, spool, name, study_id, spool.pending()))
    for log in spool.unfinished():  # attempts that the study does not know
        spool.end(log.key, "FAIL", "interrupted")
    _agree_on_kept(study, spool)
    _clean_checkpoints(study, layout)


def _readable(spool: Spool, key: RunKey) -> RunLog | None:
    """Return the log of an attempt; None if there is none, or it is damaged."""
    try:
        return spool.read(key)
    except StoreError:
        return None


def _agree_on_kept(study: Study, spool: Spool) -> None:
    """Give study and spool the values that the other has kept last; a crash can come between the two."""
    log, n_kept = spool.study(), study.lineage.n_kept
    in_spool, in_study = dict(log.kept) if log else {}, study.all_kept()
    if log and log.n_kept > n_kept:
        study.restore_kept({k: v for k, v in in_spool.items() if in_study.get(k) != v}, log.n_kept)
    elif log:
        # Values are never deleted, so one that the study lacks was deleted by somebody else.
        study.restore_kept({k: v for k, v in in_spool.items() if k not in in_study}, n_kept)
        for name, value in in_study.items():
            if in_spool.get(name) != value:
                spool.keep(name, value, n_kept)


def _adopt(study: Study, spool: Spool, log: RunLog) -> bool:
    """Tell the study how an attempt ended, and return True; return False if its log is not complete."""
    end = log.end
    if end is None or not end.result:
        return False
    if end.state == "FAIL":
        study.complete_history(log.key, log.epochs)
        retry, crashed, exclusive = (bool(end.result.get(name)) for name in ("retry", "crashed", "alone"))
        study.fail(log.key, end.reason or "", retry=retry, crashed=crashed, exclusive=exclusive)
        return True
    if end.state not in ("COMPLETE", "PRUNED") or (end.state == "COMPLETE" and not log.epochs):
        return False
    if end.weights is not None:
        try:
            read_weights(spool.inside(end.weights), end.result.get(SHA256))
        except DataError:
            return False
    study.complete_history(log.key, log.epochs)
    value = log.epochs[-1].val_accuracy if log.epochs else None
    study.tell(log.key, end.state, value, end.result)
    return True


def _clean_checkpoints(study: Study, layout: Layout) -> None:
    """Delete the checkpoints of trainings that need no other attempt, and weights without a result."""
    if not layout.checkpoints.is_dir():
        return
    is_open = {origin.stem for origin in study.open_origins()}
    has_result = {record.key.stem for record in study.records() if record.state == "COMPLETE"}
    for folder in layout.checkpoints.iterdir():
        with contextlib.suppress(ValueError):  # a folder that is not named like an attempt is not ours
            key = RunKey.from_stem(folder.name)
            if folder.name not in is_open and folder.is_dir() and not folder.is_symlink():
                if folder.name not in has_result:
                    layout.weights(key).unlink(missing_ok=True)
                checkpoint.discard(folder)


def rebuild_study(spool: Spool, storage: TrialStorage, name: str) -> tuple[int, str | None]:
    """Write a lost study into a storage again, from the spool.

    An attempt that ended gets its state and result back; one that was cut off fails and is tried again.

    Args:
        spool: Spool of an experiment on which no sweep is at work.
        storage: Storage to write to. A study of this experiment in it is kept under another name.
        name: Name of the experiment.

    Returns:
        The number of attempts in the study, and the name under which an earlier one is kept, if any.

    Raises:
        StoreError: If the spool itself is damaged, or too old to have what a study needs.
    """
    lineage = spool.lineage()
    spool.study_id = lineage.id
    keep_intact(spool)
    study_log = spool.study()
    logs = [log for log in map(spool.read, sorted(lineage.keys)) if log]
    kept = study_log.kept if study_log and study_log.metadata.study == lineage.id else {}
    searched = list(_past_trials(log for log in logs if log.key.role == "trial"))
    fixed = list(_past_trials(log for log in logs if log.key.role != "trial"))
    aside = set_aside(storage, name)  # only now, as nothing above has failed
    restore_study(storage, f"{name}/fixed", fixed, kept=kept)
    # The mark comes last of all: a study that is not restored to the end has none, and lacks attempts.
    restore_study(storage, name, searched, fingerprint=lineage.fingerprint, mark=lineage.mark())
    return len(logs), aside


def _past_trials(unsorted: Iterable[RunLog]) -> Iterator[PastTrial]:
    """Yield the attempts of one Optuna study as trials to restore, by number; a spool sorts them by role."""
    logs = sorted(unsorted, key=_number)
    last_attempts = {_training(log): log.key for log in logs}
    for log in logs:
        try:
            yield _past_trial(log, is_followed=last_attempts[_training(log)] != log.key)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"the spool of {log.key.stem} lacks what a study needs: {error!r};"
                " move its file away, and its training is repeated"
            ) from None


def _number(log: RunLog) -> int:
    """Return Optuna's number of an attempt; until November 2026 it was that of its key."""
    return int(_drawn(log).get("number", log.key.trial))


def _training(log: RunLog) -> Any:
    """Return a value that is the same for all attempts at one training, and differs between trainings."""
    extra = _drawn(log)["extra"]
    return (extra["job"], log.metadata.get("seed")) if "job" in extra else extra.get("root")


def _drawn(log: RunLog) -> Mapping[str, Any]:
    """Return what `Study.drawn` gave when the attempt started; logs of older versions are converted."""
    drawn: Mapping[str, Any] = log.metadata.get("study", {})
    if "attributes" in drawn:  # written by 0.1.0 until November 2026, with all values a second time
        attributes, queued = drawn["attributes"][RECORD], drawn["attributes"].get(RETRY)
        values = attributes["values"]
        otherwise = {name: value for name, value in drawn["params"].items() if values.get(name) != value}
        basics = (*RECORD_BASICS, "identity")
        extra = {name: value for name, value in attributes.items() if name not in basics}
        drawn = {**drawn, "extra": extra, "retry": queued, "otherwise": otherwise}
    if "extra" not in drawn:
        raise StoreError(f"the spool of {log.key.stem} is too old to rebuild a study from")
    return drawn


def _past_trial(log: RunLog, *, is_followed: bool) -> PastTrial:
    """Return an attempt as the study stored it; ``is_followed`` is True if a later attempt at it exists."""
    drawn = _drawn(log)
    extra, metadata = drawn["extra"], log.metadata
    end_result = log.end.result if log.end else {}
    state: State
    retry = None
    if log.end and log.end.state != "FAIL":
        state, result = log.end.state, dict(end_result)
    else:
        crashed = bool(end_result.get("crashed"))
        exclusive = bool(end_result.get("alone") or extra.get("alone"))
        crashes = extra["crashes"] + crashed
        # A later attempt shows that this one was retried; without one, the rule of `Study.fail` decides.
        is_retried = is_followed or (bool(end_result.get("retry", True)) and crashes < MAX_ATTEMPTS)
        reason = (log.end.reason if log.end else None) or "interrupted"
        state = "FAIL"
        limits = {name: value for name, value in end_result.items() if name.startswith("trial_")}
        result = {"reason": reason, "retried": is_retried, "crashed": crashed, "alone": exclusive, **limits}
        if is_retried and not is_followed and log.key.role == "trial":
            retry = {
                "of": _number(log),
                "key": log.key.stem,
                "root": extra["root"],
                "attempt": log.key.attempt + 1,
                "crashes": crashes,
                "alone": exclusive,
            }
    if "job" in extra:
        result["job"] = extra["job"]
    history = {epoch.epoch: epoch.val_accuracy for epoch in log.epochs}
    configuration = Configuration.from_dict(metadata["params"])
    return PastTrial(
        log.key, metadata["label"], configuration, metadata["seed"], drawn, state, result, history, retry
    )


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
        with step("comparing study and spool"):
            study = read_related(experiment.name, root, storage)
            records = study.records if study else []
            if study and records and (wrong := damage(records, spool, experiment.name, study.lineage.id)):
                salvage(open_study(experiment, root, storage), spool, layout, wrong)
        uri, artifact_root = store.locate(tracking_uri, root)
        with step("opening MLflow's store"):
            check_reachable(uri, artifact_root)

        def refresh_leaderboard() -> None:
            if records:
                csv = to_csv(read_results(experiment, root, storage).leaderboard)
                write_atomically(layout.leaderboard, csv.encode())

        with step("uploading to MLflow") as progress:
            return uploader.sync(
                spool,
                uri,
                artifact_root,
                rebuild=rebuild,
                on_uploaded=refresh_leaderboard,
                on_run=lambda done, total: progress.at(done, total, "run") if total else None,
            )

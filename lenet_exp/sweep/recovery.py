"""What a crash left behind, put right: a driver's open ends at the next start, a lost study from the spool.

Each step may be done twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lenet_exp.base.errors import StoreError
from lenet_exp.base.layout import Layout
from lenet_exp.base.records import RunKey, State
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.execution import checkpoint
from lenet_exp.study.rdb import TrialStorage
from lenet_exp.study.restore import PastTrial, restore_study
from lenet_exp.study.study import MAX_ATTEMPTS, Study
from lenet_exp.study.trials import RECORD, RECORD_BASICS, RETRY
from lenet_exp.tracking.events import RunLog
from lenet_exp.tracking.spool import Spool


def reconcile(study: Study, spool: Spool, layout: Layout) -> None:
    """Finish what a crash left RUNNING: complete it if its end is in the spool, else fail it and requeue.

    The caller holds the experiment's lock, so that no other driver is at work.

    Args:
        study: The study, just opened.
        spool: What every attempt did.
        layout: Where weights and checkpoints are; those of nobody are deleted.
    """
    for key in study.orphans():
        spooled = spool.read(key)
        if spooled is None or not _adopt(study, spool, spooled):
            if spooled is not None:
                spool.end(key, "FAIL", "interrupted")
            study.fail(key, "interrupted", retry=True, crashed=False)
    told = {record.key: record for record in study.records()}
    for unfinished in spool.unfinished():
        record = told.get(unfinished.key)
        if record is None or record.state not in ("COMPLETE", "PRUNED"):
            spool.end(unfinished.key, "FAIL", "interrupted")
        else:  # the disk was full when it should have been written
            weights = layout.kept_weights(record.key) if record.state == "COMPLETE" else None
            spool.end(record.key, record.state, record.reason, weights=weights)
    _clean_checkpoints(study, layout)


def _adopt(study: Study, spool: Spool, spooled: RunLog) -> bool:
    """Tell the study how an attempt ended, if the spool has all of it; return whether it had."""
    end = spooled.end
    if end is None or not end.result or end.state not in ("COMPLETE", "PRUNED"):
        return False
    if end.state == "COMPLETE" and not spooled.epochs:
        return False
    if end.weights is not None and not spool.inside(end.weights).is_file():
        return False
    study.complete_history(spooled.key, spooled.epochs)
    value = spooled.epochs[-1].val_accuracy if spooled.epochs else None
    study.tell(spooled.key, end.state, value, end.result)
    return True


def _clean_checkpoints(study: Study, layout: Layout) -> None:
    """Delete the checkpoints of trainings that are over, and the weights of those that have no result."""
    if not layout.checkpoints.is_dir():
        return
    is_open = {origin.stem for origin in study.open_origins()}
    has_result = {record.key.stem for record in study.records() if record.state == "COMPLETE"}
    for file in layout.checkpoints.iterdir():
        with contextlib.suppress(ValueError):  # not ours
            key = RunKey.from_stem(file.name)
            if file.name not in is_open and file.is_dir() and not file.is_symlink():
                if file.name not in has_result:
                    layout.weights(key).unlink(missing_ok=True)
                checkpoint.discard(file)


def rebuild_study(spool: Spool, storage: TrialStorage) -> int:
    """Write into ``storage``, which has none of it, the study that the spool tells of.

    Every attempt that ended is as it was told; one that was cut off has failed and is tried again.

    Args:
        spool: The spool of an experiment in which no sweep is at work.
        storage: A new and empty storage, or one without this experiment's study.

    Returns:
        How many attempts it has.

    Raises:
        StoreError: If the spool itself is damaged.
    """
    begun = spool.study()
    if begun is None:
        return 0
    records = list(spool.run_logs())
    name = begun.metadata.experiment
    searched = list(_past(record for record in records if record.key.role == "trial"))
    fixed = list(_past(record for record in records if record.key.role != "trial"))
    restore_study(storage, name, searched, fingerprint=begun.metadata.fingerprint)
    restore_study(storage, f"{name}/fixed", fixed, kept=begun.kept)
    return len(records)


def _past(unsorted: Iterable[RunLog]) -> Iterator[PastTrial]:
    """Yield a study's trials by number; a spool is sorted by roles."""
    records = sorted(unsorted, key=lambda record: record.key.trial)
    # Of the attempts at one training only the last was not followed by another.
    last = {_training(record): record.key for record in records}
    for record in records:
        yield _trial(record, followed=last[_training(record)] != record.key)


def _training(record: RunLog) -> Any:
    extra = _drawn(record)["extra"]
    return (extra["job"], record.metadata["seed"]) if "job" in extra else extra["root"]


def _drawn(record: RunLog) -> Mapping[str, Any]:
    """Return what `Study.drawn` gave when the attempt began."""
    drawn: Mapping[str, Any] = record.metadata.get("study", {})
    if "attributes" in drawn:  # as 0.1.0 wrote it until November 2026, with all values once more
        own, queued = drawn["attributes"][RECORD], drawn["attributes"].get(RETRY)
        otherwise = {name: v for name, v in drawn["params"].items() if own["values"].get(name) != v}
        extra = {name: value for name, value in own.items() if name not in (*RECORD_BASICS, "identity")}
        drawn = {**drawn, "extra": extra, "retry": queued, "otherwise": otherwise}
    if "extra" not in drawn:
        raise StoreError(f"the spool of {record.key.stem} is too old to rebuild a study from")
    return drawn


def _trial(record: RunLog, *, followed: bool) -> PastTrial:
    drawn = _drawn(record)
    extra, begun = drawn["extra"], record.metadata
    told = record.end.result if record.end else {}
    state: State
    retry = None
    if record.end and record.end.state != "FAIL":
        state, result = record.end.state, dict(told)
    else:
        crashed, alone = bool(told.get("crashed")), bool(told.get("alone") or extra.get("alone"))
        crashes = extra["crashes"] + crashed
        # An attempt fails in a way that made, or makes, another one follow, or for good.
        again = followed or (bool(told.get("retry", True)) and crashes < MAX_ATTEMPTS)
        reason = (record.end.reason if record.end else None) or "interrupted"
        state = "FAIL"
        result = {"reason": reason, "retried": again, "crashed": crashed, "alone": alone}
        if again and not followed and record.key.role == "trial":
            retry = {
                "of": record.key.trial,
                "root": extra["root"],
                "attempt": record.key.attempt + 1,
                "crashes": crashes,
                "alone": alone,
            }
    if "job" in extra:
        result["job"] = extra["job"]
    history = {epoch.epoch: epoch.val_accuracy for epoch in record.epochs}
    configuration = Configuration.from_dict(begun["params"])
    what = record.key, begun["label"], configuration, begun["seed"]
    return PastTrial(*what, drawn, state, result, history, retry)

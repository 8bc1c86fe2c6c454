"""A study made anew from the spool, when its storage is damaged or lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lenet_exp.base.errors import StoreError
from lenet_exp.base.records import State
from lenet_exp.study.rdb import TrialStorage
from lenet_exp.study.restore import PastTrial, restore_study
from lenet_exp.study.study import MAX_ATTEMPTS
from lenet_exp.study.trials import RECORD
from lenet_exp.tracking.events import AttemptRecord
from lenet_exp.tracking.spool import Spool


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
    records = list(spool.records())
    name = begun.facts.experiment
    searched = list(_past(record for record in records if record.key.role == "trial"))
    fixed = list(_past(record for record in records if record.key.role != "trial"))
    restore_study(storage, name, searched, identity=begun.facts.identity)
    restore_study(storage, f"{name}/fixed", fixed, kept=begun.kept)
    return len(records)


def _past(unsorted: Iterable[AttemptRecord]) -> Iterator[PastTrial]:
    """Yield a study's trials by number; a spool is sorted by roles."""
    records = sorted(unsorted, key=lambda record: record.key.trial)
    # Of the attempts at one training only the last was not followed by another.
    last = {_training(record): record.key for record in records}
    for record in records:
        yield _trial(record, followed=last[_training(record)] != record.key)


def _training(record: AttemptRecord) -> Any:
    own = _drawn(record)["attributes"][RECORD]
    return (own["job"], own["seed"]) if "job" in own else own["root"]


def _drawn(record: AttemptRecord) -> Mapping[str, Any]:
    drawn: Mapping[str, Any] = record.facts.get("study", {})
    if "attributes" not in drawn:
        raise StoreError(f"the spool of {record.key.stem} is too old to rebuild a study from")
    return drawn


def _trial(record: AttemptRecord, *, followed: bool) -> PastTrial:
    drawn = _drawn(record)
    own = drawn["attributes"][RECORD]
    facts = record.end.facts if record.end else {}
    state: State
    retry = None
    if record.end and record.end.state != "FAIL":
        state, result = record.end.state, dict(facts)
    else:
        crashed, alone = bool(facts.get("crashed")), bool(facts.get("alone") or own.get("alone"))
        crashes = own["crashes"] + crashed
        # An attempt fails in a way that made, or makes, another one follow, or for good.
        again = followed or (bool(facts.get("retry", True)) and crashes < MAX_ATTEMPTS)
        reason = (record.end.reason if record.end else None) or "interrupted"
        state = "FAIL"
        result = {"reason": reason, "retried": again, "crashed": crashed, "alone": alone}
        if again and not followed and record.key.role == "trial":
            retry = {
                "of": record.key.trial,
                "root": own["root"],
                "attempt": record.key.attempt + 1,
                "crashes": crashes,
                "alone": alone,
            }
    if "job" in own:
        result["job"] = own["job"]
    history = {epoch.epoch: epoch.val_accuracy for epoch in record.epochs}
    return PastTrial(record.key.trial, state, drawn, result, history, retry)

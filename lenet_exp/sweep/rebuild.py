"""A study made anew from the spool, when its storage is damaged or lost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from lenet_exp.base.errors import StoreError
from lenet_exp.study.study import MAX_ATTEMPTS
from lenet_exp.study.trials import IDENTITY, RECORD, RESULT, RETRY, UNKNOWN
from lenet_exp.tracking.events import AttemptRecord
from lenet_exp.tracking.spool import Spool


def rebuild_study(spool: Spool, storage: optuna.storages.RDBStorage) -> int:
    """Write into ``storage``, which has none of it, the study that the spool tells of.

    Every attempt that ended is as it was told; one that was cut off has failed and is tried again.

    Args:
        spool: Of an experiment in which no sweep is at work.
        storage: New and empty, or without this experiment's study.

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
    for study_name, searched in ((name, True), (f"{name}/fixed", False)):
        study = optuna.create_study(storage=storage, study_name=study_name, direction="maximize")
        own = [record for record in records if (record.key.role == "trial") == searched]
        _restore(study, sorted(own, key=lambda record: record.key.trial))
        if searched and begun.facts.identity:
            study.set_user_attr(IDENTITY, dict(begun.facts.identity))
            study.set_user_attr("optuna_version", optuna.__version__)
        if not searched:
            for key, value in begun.kept.items():
                study.set_user_attr(f"lenet_exp.{key}", value)
    return len(records)


def _restore(study: optuna.Study, records: Iterable[AttemptRecord]) -> None:
    records = list(records)
    # Of the attempts at one training only the last was not followed by another.
    last = {_training(record): record.key for record in records}
    n_trials = 0
    for record in records:
        for _ in range(record.key.trial - n_trials):  # asked for, but never begun
            study.add_trial(create_trial(state=TrialState.FAIL))
        again = _tried_again(record, followed=last[_training(record)] != record.key)
        study.add_trial(_trial(record, again))
        n_trials = record.key.trial + 1
    for record in records:
        followed = last[_training(record)] != record.key
        if record.key.role == "trial" and not followed and _tried_again(record, followed=False):
            _enqueue_retry(study, record)


def _training(record: AttemptRecord) -> Any:
    own = _attributes(record)[RECORD]
    return (own["job"], own["seed"]) if "job" in own else own["root"]


def _attributes(record: AttemptRecord) -> Mapping[str, Any]:
    try:
        attributes: Mapping[str, Any] = record.facts["study"]["attributes"]
    except KeyError:
        raise StoreError(f"the spool of {record.key.stem} is too old to rebuild a study from") from None
    return attributes


def _failure(record: AttemptRecord) -> dict[str, Any]:
    facts = record.end.facts if record.end else {}
    return {
        "crashed": bool(facts.get("crashed")),
        "retry": bool(facts.get("retry", True)),
        "alone": bool(facts.get("alone") or _attributes(record)[RECORD].get("alone")),
    }


def _tried_again(record: AttemptRecord, *, followed: bool) -> bool:
    """Return whether an attempt failed in a way that made, or makes, another one follow."""
    if record.end and record.end.state != "FAIL":
        return False
    failure = _failure(record)
    crashes = _attributes(record)[RECORD]["crashes"] + failure["crashed"]
    return followed or (failure["retry"] and crashes < MAX_ATTEMPTS)


def _trial(record: AttemptRecord, again: bool) -> optuna.trial.FrozenTrial:
    attributes = _attributes(record)
    if record.end and record.end.state != "FAIL":
        state, result = TrialState[record.end.state], dict(record.end.facts)
    else:
        state, reason = TrialState.FAIL, (record.end.reason if record.end else None) or "interrupted"
        failure = _failure(record)
        result = {"reason": reason, "retried": again}
        result |= {name: failure[name] for name in ("crashed", "alone")}
    if "job" in attributes[RECORD]:
        result["job"] = attributes[RECORD]["job"]
    values = {epoch.epoch: epoch.val_accuracy for epoch in record.epochs}
    value = values[max(values)] if values else math.nan
    distributions = record.facts["study"]["distributions"]
    # As Optuna and `Study.tell` do.
    unknown = UNKNOWN if state == TrialState.COMPLETE else None
    known = value if math.isfinite(value) else unknown
    return create_trial(
        state=state,
        value=known if state != TrialState.FAIL else None,
        params=record.facts["study"]["params"],
        distributions={
            name: optuna.distributions.json_to_distribution(d) for name, d in distributions.items()
        },
        user_attrs={**attributes, RESULT: result},
        intermediate_values=values,
    )


def _enqueue_retry(study: optuna.Study, record: AttemptRecord) -> None:
    own = _attributes(record)[RECORD]
    crashes = own["crashes"] + _failure(record)["crashed"]
    retry = {
        "of": record.key.trial,
        "root": own["root"],
        "attempt": record.key.attempt + 1,
        "crashes": crashes,
        "alone": _failure(record)["alone"],
    }
    study.enqueue_trial(record.facts["study"]["params"], user_attrs={RETRY: retry})

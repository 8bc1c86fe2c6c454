"""Reads trials and whole studies as records, without writing; names the keys under which they are stored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from lenet_exp.base.records import RunKey, State
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.study.rdb import KeptTrial, TrialStorage
from lenet_exp.study.records import TrialRecord
from lenet_exp.study.storage import read_storage, running_studies

#: States of a trial that has not ended.
OPEN = ("WAITING", "RUNNING")
#: Keys of the user attributes of a trial in Optuna, and of a study.
RECORD, RESULT, RETRY = (f"lenet_exp.{name}" for name in ("record", "result", "retry"))
FINGERPRINT = "lenet_exp.fingerprint"
#: Optuna's value of a trial without a validation split, as a COMPLETE trial must have a finite value.
UNKNOWN = -1.0

#: Keys of `kept_record` for every attempt. A record has others too, which `Study` needs to retry it.
RECORD_BASICS = ("role", "attempt", "label", "values", "epochs", "config", "seed")


def kept_record(
    key: RunKey, label: str, configuration: Configuration, seed: int, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the JSON values that identify an attempt, stored with its trial under `RECORD`.

    Args:
        key: Role, trial number and attempt number.
        label: Name that people see.
        configuration: Configuration of the training.
        seed: Root of its random streams.
        extra: Entries to add, by key, such as the first attempt and the number of crashes.
    """
    values, epochs = configuration.hyperparameters(), configuration.epochs
    basics = (key.role, key.attempt, label, values, epochs, configuration.id, seed)
    return {**dict(zip(RECORD_BASICS, basics, strict=True)), **extra}


def stored_fingerprint(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fingerprint among the user attributes of an Optuna study, or None if there is none."""
    # The key was "identity" until November 2026.
    stored: dict[str, Any] | None = attributes.get(FINGERPRINT, attributes.get("lenet_exp.identity"))
    return stored


def counts(record: TrialRecord) -> bool:
    """Return True if an attempt counts against the search's budget: an ended trial, feasible, not retried."""
    ended = record.state not in OPEN and record.key.role == "trial"
    return ended and not record.infeasible and not record.superseded


def trial_records(trials: Iterable[FrozenTrial | KeptTrial]) -> Iterator[TrialRecord]:
    """Yield the record of each trial of an Optuna study that has one."""
    every = list(trials)
    retried = {trial.user_attrs[RETRY].get("of") for trial in every if RETRY in trial.user_attrs}
    last = {_fixed_name(trial): trial.number for trial in every if _fixed_name(trial)}
    for trial in every:
        record = trial.user_attrs.get(RECORD)
        if record is None:  # queued, or its driver died while drawing it
            continue
        name = _fixed_name(trial)
        made = as_record(
            trial.number,
            _state(trial.state),
            record,
            trial.user_attrs.get(RESULT, {}),
            trial.intermediate_values,
            trial.value if trial.state == TrialState.COMPLETE else None,
        )
        yield replace(made, followed=last[name] != trial.number if name else trial.number in retried)


def _fixed_name(trial: FrozenTrial | KeptTrial) -> tuple[str, int] | None:
    """Return name and seed of the fixed training that a trial is an attempt at; None for a search's trial."""
    record = trial.user_attrs.get(RECORD, {})
    return (record["job"], record["seed"]) if "job" in record else None


def as_record(
    number: int,
    state: State,
    record: Mapping[str, Any],
    result: dict[str, Any],
    history: Mapping[int, float],
    value: float | None,
) -> TrialRecord:
    """Return the record of an attempt from what its trial stores.

    Args:
        number: Number of the trial in its Optuna study.
        state: State of the trial.
        record: Values that identify the attempt, as `kept_record` returned them.
        result: Values that `Study.tell` stored; empty if the attempt has not ended.
        history: ``val_accuracy`` by epoch.
        value: Optuna's final value, `UNKNOWN` without a validation split; None unless COMPLETE.
    """
    return TrialRecord(
        key=RunKey(record["role"], number, record["attempt"]),
        state=state,
        label=record["label"],
        configuration=Configuration.from_dict({**record["values"], "epochs": record["epochs"]}),
        seed=record["seed"],
        history=dict(history),
        result=result,
        value=None if value == UNKNOWN else value,
    )


def _state(state: TrialState) -> State:
    names: dict[TrialState, State] = {
        TrialState.WAITING: "WAITING",
        TrialState.RUNNING: "RUNNING",
        TrialState.COMPLETE: "COMPLETE",
        TrialState.PRUNED: "PRUNED",
        TrialState.FAIL: "FAIL",
    }
    return names[state]


def has_open(name: str, root: Path, url: str | None = None) -> bool:
    """Return True if an experiment's study has RUNNING attempts; nothing is written.

    Args:
        name: Name of the experiment.
        root: Folder of everything that runs write.
        url: URL of the studies' storage in PostgreSQL; None for the file below ``root``.

    Raises:
        StoreError: If the storage is damaged, or another version of Optuna wrote it.
        UnreachableError: If the storage does not answer.
    """
    storage = read_storage(root, url)
    names = running_studies(storage) if storage else {}
    return name in names or f"{name}/fixed" in names


class StudyContent(NamedTuple):
    """All that the study of an experiment stores.

    Attributes:
        records: Records of all attempts that have ended.
        kept: Values that `Study.keep` stored, by name.
        fingerprint: Settings that `Study.check_fingerprint` stored; empty if there are none.
    """

    records: list[TrialRecord]
    kept: dict[str, Any]
    fingerprint: dict[str, Any]


def read_study(name: str, root: Path, url: str | None = None) -> StudyContent | None:
    """Return all that an experiment's study stores, or None if the experiment has no study.

    Writes nothing, so it may be called while a sweep is running.

    Args:
        name: Name of the experiment.
        root: Folder of everything that runs write.
        url: URL of the studies' storage in PostgreSQL; None for the file below ``root``.

    Raises:
        StoreError: If the storage is damaged, or another version of Optuna wrote it.
        UnreachableError: If the storage does not answer.
    """
    storage = read_storage(root, url)
    if storage is None:
        return None
    records: list[TrialRecord] = []
    for study_name in (f"{name}/fixed", name):
        trials = storage.kept_trials(study_name)
        if trials is None:
            return None
        records += [record for record in trial_records(trials) if record.state not in OPEN]
    fingerprint = stored_fingerprint(_attributes(storage, name)) or {}
    kept = {k.removeprefix("lenet_exp."): v for k, v in _attributes(storage, f"{name}/fixed").items()}
    return StudyContent(records, kept, fingerprint)


def _attributes(storage: TrialStorage, study_name: str) -> dict[str, Any]:
    """Return the user attributes of an Optuna study; empty if there is no such study."""
    try:
        return storage.get_study_user_attrs(storage.get_study_id_from_name(study_name))
    except KeyError:
        return {}


def differences(then: Any, now: Any, key: str = "") -> Iterator[str]:
    """Yield each difference between two fingerprints, for example "space.lr was 0.1, is now 0.2".

    Args:
        then: Stored fingerprint, or a value within it.
        now: Current fingerprint, or the value at the same place in it.
        key: Place of the two values in the fingerprints, such as ``space.lr``; empty for the whole.
    """
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted(then.keys() | now.keys()):
            if then.get(name) != now.get(name):
                yield from differences(then.get(name), now.get(name), f"{key}.{name}" if key else name)
    else:
        shown = [json.dumps(value) if value is not None else "not set" for value in (then, now)]
        yield f"{key} was {shown[0]}, is now {shown[1]}"

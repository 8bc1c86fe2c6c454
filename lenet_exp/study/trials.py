"""A study's trials as records, and studies read without being opened: what they hold, and by which names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from lenet_exp.base.records import RunKey, State
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.study.rdb import KeptTrial, TrialStorage
from lenet_exp.study.records import TrialRecord
from lenet_exp.study.storage import read_storage, running_studies

OPEN = ("WAITING", "RUNNING")
RECORD, RESULT, RETRY = (f"lenet_exp.{name}" for name in ("record", "result", "retry"))
FINGERPRINT = "lenet_exp.fingerprint"
#: Told where there is no ``val_accuracy``, because Optuna has no complete trial without a number.
UNKNOWN = -1.0


#: What `kept_record` writes of every attempt; what else a record has is the study's own.
RECORD_BASICS = ("role", "attempt", "label", "values", "epochs", "config", "seed")


def kept_record(
    key: RunKey, label: str, configuration: Configuration, seed: int, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is kept with a trial of what it is, under `RECORD`.

    Args:
        key: The attempt.
        label: What people call it.
        configuration: What is trained.
        seed: Root of its random streams.
        extra: What else the study needs to know of it.
    """
    values, epochs = configuration.hyperparameters(), configuration.epochs
    basics = (key.role, key.attempt, label, values, epochs, configuration.id, seed)
    return {**dict(zip(RECORD_BASICS, basics, strict=True)), **extra}


def stored_fingerprint(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fingerprint that a study was started with; it was kept as "identity" until November 2026."""
    stored: dict[str, Any] | None = attributes.get(FINGERPRINT, attributes.get("lenet_exp.identity"))
    return stored


def counts(record: TrialRecord) -> bool:
    """Return whether a trial counts against the budget."""
    ended = record.state not in OPEN and record.key.role == "trial"
    return ended and not record.infeasible and not record.superseded


def trial_records(trials: Iterable[FrozenTrial | KeptTrial]) -> Iterator[TrialRecord]:
    """Yield every attempt that the trials of one of the two studies have on record."""
    for trial in trials:
        record = trial.user_attrs.get(RECORD)
        if record is None:  # queued, or ended before it was drawn
            continue
        yield as_record(
            trial.number,
            _state(trial.state),
            record,
            trial.user_attrs.get(RESULT, {}),
            trial.intermediate_values,
            trial.value if trial.state == TrialState.COMPLETE else None,
        )


def as_record(
    number: int,
    state: State,
    record: Mapping[str, Any],
    result: dict[str, Any],
    history: Mapping[int, float],
    value: float | None,
) -> TrialRecord:
    """Return an attempt from its trial's number and what was kept with it."""
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
    """Return whether the experiment has attempts that are RUNNING; the study is only read."""
    storage = read_storage(root, url)
    names = running_studies(storage) if storage else {}
    return name in names or f"{name}/fixed" in names


class StudyContent(NamedTuple):
    """What a study has, read from a storage that is opened once.

    Attributes:
        records: Every attempt that has ended.
        kept: All that `Study.keep` kept, by name.
        fingerprint: What it was started with, as `Study.check_fingerprint` stored it; empty if nothing was.
    """

    records: list[TrialRecord]
    kept: dict[str, Any]
    fingerprint: dict[str, Any]


def read_study(name: str, root: Path, url: str | None = None) -> StudyContent | None:
    """Return all that was recorded of an experiment; None if it was never begun there.

    Writes nothing, so it may be called while a sweep runs.

    Args:
        name: The experiment's name.
        root: Folder of everything that runs write.
        url: Address of the storage in PostgreSQL; None for the file below ``root``.

    Raises:
        StoreError: If the storage is damaged or of another version.
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
    """Return what was kept with one of Optuna's studies; nothing if there is none."""
    try:
        return storage.get_study_user_attrs(storage.get_study_id_from_name(study_name))
    except KeyError:
        return {}


def differences(then: Any, now: Any, key: str = "") -> Iterator[str]:
    """Yield what differs between two fingerprints, each as "key was this, is now that".

    Args:
        then: The fingerprint that was stored, or a value within it.
        now: The fingerprint of today, or the value in the same place.
        key: The place of the two values, as names with dots between.
    """
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted(then.keys() | now.keys()):
            if then.get(name) != now.get(name):
                yield from differences(then.get(name), now.get(name), f"{key}.{name}" if key else name)
    else:
        shown = [json.dumps(value) if value is not None else "not set" for value in (then, now)]
        yield f"{key} was {shown[0]}, is now {shown[1]}"

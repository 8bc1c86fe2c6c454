"""Reads trials and whole studies as records, restores lost ones, and names the keys of what is stored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from lenet_exp.base.lineage import MARK, Lineage
from lenet_exp.base.records import RunKey, State
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.study.rdb import KeptTrial, TrialStorage
from lenet_exp.study.records import DIGEST, TRAINING, TrialRecord
from lenet_exp.study.storage import damaged_rows_told, is_running, read_storage

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
    return {**dict(zip(RECORD_BASICS, basics, strict=True)), "trial": key.trial, **extra}


def drawn_values(trial: optuna.Trial | FrozenTrial) -> dict[str, Any]:
    """Return the JSON values that `restore_study` needs of a trial beside its `Attempt`."""
    record, distributions = trial.user_attrs[RECORD], trial.distributions.items()
    return {
        "number": trial.number,
        "extra": {name: value for name, value in record.items() if name not in RECORD_BASICS},
        "retry": trial.user_attrs.get(RETRY),
        "distributions": {name: optuna.distributions.distribution_to_json(d) for name, d in distributions},
        # Parameters whose drawn value differs from the configuration's: padding ``same`` becomes pixels.
        "otherwise": {
            name: value for name, value in trial.params.items() if record["values"].get(name) != value
        },
    }


def stored_fingerprint(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fingerprint among the user attributes of an Optuna study, or None if there is none."""
    # The key was "identity" until November 2026.
    stored: dict[str, Any] | None = attributes.get(FINGERPRINT, attributes.get("lenet_exp.identity"))
    return stored


def counts(record: TrialRecord) -> bool:
    """Return True if an attempt counts against the search's budget: an ended trial, feasible, not retried."""
    ended = record.state not in OPEN and record.key.role == "trial"
    return ended and not record.infeasible and not record.superseded


def trial_records(trials: Sequence[FrozenTrial | KeptTrial]) -> Iterator[TrialRecord]:
    """Yield the record of each trial of an Optuna study that has one.

    Raises:
        ValueError: If a trial has ended without what an ended one has.
    """
    queued = {trial.user_attrs[RETRY].get("of") for trial in trials if RETRY in trial.user_attrs}
    last = {name: trial.number for trial in trials if (name := _fixed_name(trial))}
    for trial in trials:
        record = trial.user_attrs.get(RECORD)
        # Queued, or its driver died while drawing it; a record comes with the state RUNNING.
        if record is None or trial.state == TrialState.WAITING:
            continue
        has_value = trial.state != TrialState.COMPLETE or trial.value is not None
        if trial.state != TrialState.RUNNING and not (RESULT in trial.user_attrs and has_value):
            raise ValueError(f"trial {trial.number} has ended without a result")
        name = _fixed_name(trial)
        yield as_record(
            trial.number,
            _state(trial.state),
            record,
            trial.user_attrs.get(RESULT, {}),
            trial.intermediate_values,
            trial.value if trial.state == TrialState.COMPLETE else None,
            followed=last[name] != trial.number if name else trial.number in queued,
        )


def _fixed_name(trial: FrozenTrial | KeptTrial) -> tuple[str, int] | None:
    """Return name and seed of the fixed training that a trial is an attempt at; None for a search's trial."""
    record = trial.user_attrs.get(RECORD, {})
    return (record[TRAINING], record["seed"]) if TRAINING in record else None


def key_of(record: Mapping[str, Any], number: int) -> RunKey:
    """Return the key of an attempt.

    Args:
        record: Values that identify it, as `kept_record` returned them.
        number: Optuna's number of the attempt.
    """
    return RunKey(record["role"], record.get("trial", number), record["attempt"])


def as_record(
    number: int,
    state: State,
    record: Mapping[str, Any],
    result: dict[str, Any],
    history: Mapping[int, float],
    value: float | None,
    *,
    followed: bool = False,
) -> TrialRecord:
    """Return the record of an attempt from what its trial stores.

    Args:
        number: Number of the trial in its Optuna study.
        state: State of the trial.
        record: Values that identify the attempt, as `kept_record` returned them.
        result: Values that `Study.tell` stored; empty if the attempt has not ended.
        history: ``val_accuracy`` by epoch.
        value: Optuna's final value, `UNKNOWN` without a validation split; None unless COMPLETE.
        followed: True if a later attempt at the same training was queued or begun.
    """
    key, origin = key_of(record, number), RunKey.from_stem(record["origin"]) if "origin" in record else None
    return TrialRecord(
        key=key,
        state=state,
        # Until November 2026 the label of another attempt had a number of its own.
        label=f"trial {origin.trial}" if origin and key.role == "trial" else record["label"],
        configuration=Configuration.from_dict({**record["values"], "epochs": record["epochs"]}),
        seed=record["seed"],
        history=dict(history),
        result=result,
        value=None if value == UNKNOWN else value,
        number=number,
        origin=origin if origin != key else None,
        followed=followed,
    )


def with_digest(record: TrialRecord) -> dict[str, Any]:
    """Return the result of an attempt together with the digest of its record, to be stored."""
    return {**record.result, DIGEST: record.digest}


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
    if (storage := read_storage(root, url)) is None:
        return False
    with damaged_rows_told(name, root, url):
        return is_running(storage, f"{name}/fixed") or is_running(storage, name)


class StudyContent(NamedTuple):
    """All that the study of an experiment stores.

    Attributes:
        records: Records of all attempts that have ended.
        kept: Values that `Study.keep` stored, by name.
        fingerprint: Settings that `Study.check_fingerprint` stored; empty if there are none.
        lineage: Id of the study, the sweeps that wrote to it, and the keys of all attempts.
    """

    records: list[TrialRecord]
    kept: dict[str, Any]
    fingerprint: dict[str, Any]
    lineage: Lineage


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
    with damaged_rows_told(name, root, url):
        for study_name in (f"{name}/fixed", name):
            trials = storage.kept_trials(study_name)
            if trials is None:
                return None
            records += trial_records(trials)
        attributes = _attributes(storage, name)
        kept = {k.removeprefix("lenet_exp."): v for k, v in _attributes(storage, f"{name}/fixed").items()}
    fingerprint = stored_fingerprint(attributes) or {}
    lineage = with_records(Lineage.of_mark(attributes.get(MARK), fingerprint=fingerprint), records)
    ended = [record for record in records if record.state not in OPEN]
    return StudyContent(ended, kept, fingerprint, lineage)


def with_records(lineage: Lineage, records: Sequence[TrialRecord]) -> Lineage:
    """Return the lineage of a study that has these records.

    Args:
        lineage: Lineage, as its mark says it.
        records: Records of all attempts, open ones too.
    """
    edited = (record.key for record in records if record.state not in OPEN and record.is_edited)
    return replace(lineage, keys=frozenset(record.key for record in records), edited=frozenset(edited))


def _attributes(storage: TrialStorage, study_name: str) -> dict[str, Any]:
    """Return the user attributes of an Optuna study; empty if there is no such study."""
    try:
        return storage.get_study_user_attrs(storage.get_study_id_from_name(study_name))
    except KeyError:
        return {}


@dataclass(frozen=True)
class PastTrial:
    """An attempt that has ended, with everything needed to rebuild its trial in Optuna.

    Attributes:
        key: Role, trial number and attempt number.
        label: Name that people see.
        configuration: Configuration of the training.
        seed: Root of its random streams.
        drawn: Values that `Study.drawn` returned when the attempt started.
        state: State in which it ended.
        result: JSON values to store by name, as `Study.tell` does.
        history: ``val_accuracy`` by epoch, in order; NaN without a validation split.
        retry: User attribute `RETRY` of the trial to queue as its retry; None for no retry.
    """

    key: RunKey
    label: str
    configuration: Configuration
    seed: int
    drawn: Mapping[str, Any]
    state: State
    result: Mapping[str, Any]
    history: Mapping[int, float]
    retry: Mapping[str, Any] | None = None

    @property
    def number(self) -> int:
        """Optuna's number of the attempt; until November 2026 it was that of the key."""
        return int(self.drawn.get("number", self.key.trial))

    @property
    def value(self) -> float | None:
        """Optuna's final value of a complete attempt, `UNKNOWN` without a validation split; else None."""
        last = self.history[max(self.history)] if self.history else math.nan
        return (last if math.isfinite(last) else UNKNOWN) if self.state == "COMPLETE" else None

    @property
    def params(self) -> dict[str, Any]:
        """The values that the sampler drew, by the name of Optuna's parameter."""
        values, otherwise = self.configuration.hyperparameters(), self.drawn["otherwise"]
        return {name: otherwise.get(name, values.get(name)) for name in self.drawn["distributions"]}

    @property
    def attributes(self) -> dict[str, Any]:
        """The user attributes of the trial in Optuna."""
        record = kept_record(self.key, self.label, self.configuration, self.seed, self.drawn["extra"])
        queued = {RETRY: self.drawn["retry"]} if self.drawn["retry"] else {}
        told = as_record(self.number, self.state, record, dict(self.result), self.history, self.value)
        return {RECORD: record, RESULT: with_digest(told), **queued}


def restore_study(
    storage: TrialStorage,
    name: str,
    trials: Sequence[PastTrial],
    *,
    fingerprint: Mapping[str, Any] | None = None,
    kept: Mapping[str, Any] | None = None,
    mark: Mapping[str, Any] | None = None,
) -> None:
    """Create one of an experiment's two Optuna studies, with its trials and its queue of retries.

    Args:
        storage: Storage that has no study of this name.
        name: Name of the Optuna study.
        trials: Attempts in the order of Optuna's numbers. Where a number is missing, its trial was created
            but no attempt was started; such a trial is created again, in state FAIL.
        fingerprint: Fingerprint to store, as `Study.check_fingerprint` does; None or empty to store none.
        kept: Values to store by name, as `Study.keep` does; None to store none.
        mark: Mark of the study's lineage, stored last; None to store none.
    """
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    n_trials = 0
    for trial in trials:
        for _ in range(trial.number - n_trials):
            study.add_trial(create_trial(state=TrialState.FAIL))
        study.add_trial(_frozen(trial))
        n_trials = trial.number + 1
    for trial in trials:
        if trial.retry:
            study.enqueue_trial(trial.params, user_attrs={RETRY: trial.retry})
    if fingerprint:
        study.set_user_attr(FINGERPRINT, dict(fingerprint))
        study.set_user_attr("optuna_version", optuna.__version__)
    for key, value in (kept or {}).items():
        study.set_user_attr(f"lenet_exp.{key}", value)
    if mark:
        study.set_user_attr(MARK, dict(mark))


def _frozen(trial: PastTrial) -> FrozenTrial:
    last = trial.history[max(trial.history)] if trial.history else math.nan
    # Optuna gives a pruned trial its last report as value.
    known = trial.value if trial.state == "COMPLETE" else last if math.isfinite(last) else None
    return create_trial(
        state=TrialState[trial.state],
        value=known if trial.state != "FAIL" else None,
        params=trial.params,
        distributions={
            name: optuna.distributions.json_to_distribution(text)
            for name, text in trial.drawn["distributions"].items()
        },
        user_attrs=trial.attributes,
        intermediate_values=dict(trial.history),
    )

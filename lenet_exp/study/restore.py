"""A study written anew from plain values, into a storage that has nothing of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from lenet_exp.base.records import RunKey, State
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.study.rdb import TrialStorage
from lenet_exp.study.trials import FINGERPRINT, RECORD, RESULT, RETRY, UNKNOWN, kept_record


@dataclass(frozen=True)
class PastTrial:
    """A trial that has ended, as it was told.

    Attributes:
        key: Role, number and attempt.
        label: What people call it.
        configuration: What was trained.
        seed: Root of its random streams.
        drawn: What `Study.drawn` gave of it when it began.
        state: How it ended.
        result: What was kept of its end.
        history: ``val_accuracy`` by epoch, in order; NaN where nothing was validated on.
        retry: The attributes of the trial that is to be queued in its place; None if none is.
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
    def params(self) -> dict[str, Any]:
        """What the sampler drew, by Optuna's parameter."""
        values, otherwise = self.configuration.hyperparameters(), self.drawn["otherwise"]
        return {name: otherwise.get(name, values.get(name)) for name in self.drawn["distributions"]}

    @property
    def attributes(self) -> dict[str, Any]:
        """What was kept with it, by Optuna's user attribute."""
        record = kept_record(self.key, self.label, self.configuration, self.seed, self.drawn["extra"])
        queued = {RETRY: self.drawn["retry"]} if self.drawn["retry"] else {}
        return {RECORD: record, RESULT: dict(self.result), **queued}


def restore_study(
    storage: TrialStorage,
    name: str,
    trials: Sequence[PastTrial],
    *,
    fingerprint: Mapping[str, Any] | None = None,
    kept: Mapping[str, Any] | None = None,
) -> None:
    """Write one of an experiment's two studies, its trials and then the queue of those to be tried again.

    Args:
        storage: A storage that has no study of this name.
        name: The study's name, as Optuna has it.
        trials: The trials in the order of their numbers. One that is missing between two of them was asked
            for and never begun: it has failed.
        fingerprint: What `Study.check_fingerprint` stored; nothing is stored if it is empty.
        kept: What `Study.keep` kept, by name.
    """
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    n_trials = 0
    for trial in trials:
        for _ in range(trial.key.trial - n_trials):
            study.add_trial(create_trial(state=TrialState.FAIL))
        study.add_trial(_frozen(trial))
        n_trials = trial.key.trial + 1
    for trial in trials:
        if trial.retry:
            study.enqueue_trial(trial.params, user_attrs={RETRY: trial.retry})
    if fingerprint:
        study.set_user_attr(FINGERPRINT, dict(fingerprint))
        study.set_user_attr("optuna_version", optuna.__version__)
    for key, value in (kept or {}).items():
        study.set_user_attr(f"lenet_exp.{key}", value)


def _frozen(trial: PastTrial) -> FrozenTrial:
    value = trial.history[max(trial.history)] if trial.history else math.nan
    # As Optuna and `Study.tell` do.
    unknown = UNKNOWN if trial.state == "COMPLETE" else None
    known = value if math.isfinite(value) else unknown
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

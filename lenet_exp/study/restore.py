"""Rebuilds an Optuna study from plain values, in a storage that does not have it yet."""

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
    def params(self) -> dict[str, Any]:
        """The values that the sampler drew, by the name of Optuna's parameter."""
        values, otherwise = self.configuration.hyperparameters(), self.drawn["otherwise"]
        return {name: otherwise.get(name, values.get(name)) for name in self.drawn["distributions"]}

    @property
    def attributes(self) -> dict[str, Any]:
        """The user attributes of the trial in Optuna."""
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
    """Create one of an experiment's two Optuna studies, with its trials and its queue of retries.

    Args:
        storage: Storage that has no study of this name.
        name: Name of the Optuna study.
        trials: Attempts in the order of their trial numbers. Where a number is missing, its trial was created
            but no attempt was started; such a trial is created again, in state FAIL.
        fingerprint: Fingerprint to store, as `Study.check_fingerprint` does; None or empty to store none.
        kept: Values to store by name, as `Study.keep` does; None to store none.
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
    # Optuna gives a pruned trial its last report as value; `Study.tell` gives UNKNOWN to a complete one.
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

"""A study written anew from plain values, into a storage that has nothing of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from lenet_exp.base.records import State
from lenet_exp.study.rdb import TrialStorage
from lenet_exp.study.trials import IDENTITY, RESULT, RETRY, UNKNOWN


@dataclass(frozen=True)
class PastTrial:
    """A trial that has ended, as it was told.

    Attributes:
        number: Its number in the study.
        state: How it ended.
        drawn: What `Study.drawn` gave of it when it began.
        result: What was kept of its end.
        history: ``val_accuracy`` by epoch, in order; NaN where nothing was validated on.
        retry: What `Study.ask` is to know of the trial that follows; None if none is to be queued.
    """

    number: int
    state: State
    drawn: Mapping[str, Any]
    result: Mapping[str, Any]
    history: Mapping[int, float]
    retry: Mapping[str, Any] | None = None


def restore_study(
    storage: TrialStorage,
    name: str,
    trials: Sequence[PastTrial],
    *,
    identity: Mapping[str, Any] | None = None,
    kept: Mapping[str, Any] | None = None,
) -> None:
    """Write one of an experiment's two studies, its trials and then the queue of those to be tried again.

    Args:
        storage: Where it is not yet.
        name: The study's name, as Optuna has it.
        trials: The trials in the order of their numbers. One that is missing between two of them was asked
            for and never begun: it has failed.
        identity: What `Study.check_identity` stored; nothing is stored if it is empty.
        kept: What `Study.keep` kept, by name.
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
            study.enqueue_trial(trial.drawn["params"], user_attrs={RETRY: trial.retry})
    if identity:
        study.set_user_attr(IDENTITY, dict(identity))
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
        params=trial.drawn["params"],
        distributions={
            name: optuna.distributions.json_to_distribution(text)
            for name, text in trial.drawn["distributions"].items()
        },
        user_attrs={**trial.drawn["attributes"], RESULT: dict(trial.result)},
        intermediate_values=dict(trial.history),
    )

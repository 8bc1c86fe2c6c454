from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.trial import TrialState

from lenet_exp.base.records import RunKey, State
from lenet_exp.config.hyperparameters import PRESETS, configuration
from lenet_exp.study.records import DIGEST
from lenet_exp.study.storage import open_storage
from lenet_exp.study.trials import (
    FINGERPRINT,
    RECORD,
    RESULT,
    RETRY,
    UNKNOWN,
    PastTrial,
    restore_study,
    trial_records,
)

LENET = configuration(PRESETS["lenet"] | {"lr": 0.25, "padding": ["same", 0, 1]})
PADDINGS = CategoricalDistribution(("same", 0))
DRAWN: dict[str, Any] = {
    "distributions": {
        "lr": distribution_to_json(FloatDistribution(0, 1)),
        "padding_1": distribution_to_json(PADDINGS),
    },
    # In the configuration it is a number of pixels.
    "otherwise": {"padding_1": "same"},
    "extra": {"root": 1, "crashes": 0},
    "retry": None,
}


def past(number: int, state: State, *rest: Any) -> PastTrial:
    return PastTrial(RunKey("trial", number, 1), f"trial {number}", LENET, 7, DRAWN, state, *rest)


def test_a_study_is_written_from_plain_values(tmp_path: Path) -> None:
    """Trials keep their numbers, what they drew and what they reached; what was kept is with the study."""
    storage = open_storage(tmp_path)
    trials = [
        past(1, "COMPLETE", {"train_s": 1.0}, {1: 0.5, 2: 0.75}),
        past(2, "COMPLETE", {}, {1: math.nan}),
        past(3, "PRUNED", {"reason": "pruned"}, {1: 0.125}),
        past(4, "FAIL", {"reason": "died"}, {1: 0.5}),
    ]

    restore_study(storage, "s", trials, fingerprint={"space": 1}, kept={"plan": [2]})

    study = optuna.load_study(study_name="s", storage=storage)
    assert [(trial.state.name, trial.value) for trial in study.trials] == [
        ("FAIL", None),  # asked for, but never begun
        ("COMPLETE", 0.75),
        ("COMPLETE", UNKNOWN),
        ("PRUNED", 0.125),
        ("FAIL", None),
    ]
    assert study.trials[1].params == {"lr": 0.25, "padding_1": "same"}
    (record,) = trial_records([study.trials[1]])
    assert (record.label, record.configuration, record.seed) == ("trial 1", LENET, 7)
    assert study.trials[1].user_attrs[RECORD]["root"] == 1
    assert study.trials[1].user_attrs[RESULT] == {"train_s": 1.0, DIGEST: record.digest}
    assert study.trials[1].intermediate_values == {1: 0.5, 2: 0.75}
    assert study.user_attrs == {
        FINGERPRINT: {"space": 1},
        "optuna_version": optuna.__version__,
        "lenet_exp.plan": [2],
    }


def test_what_is_to_be_tried_again_is_queued_behind_all_that_ended(tmp_path: Path) -> None:
    """With its values, and with what the next attempt has to know."""
    storage = open_storage(tmp_path)
    retry = {"of": 0, "root": 0, "attempt": 2, "crashes": 1, "alone": False}
    trials = [past(0, "FAIL", {}, {}, retry), past(1, "PRUNED", {}, {})]

    restore_study(storage, "s", trials)

    study = optuna.load_study(study_name="s", storage=storage)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "PRUNED", "WAITING"]
    (waiting,) = study.get_trials(states=(TrialState.WAITING,))
    assert waiting.user_attrs == {RETRY: retry}
    assert waiting.system_attrs == {"fixed_params": {"lr": 0.25, "padding_1": "same"}}
    assert study.user_attrs == {}

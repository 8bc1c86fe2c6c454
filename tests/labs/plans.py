"""A small experiment that is confirmed, and a plan of a confirmation, made by hand from two trials."""

from __future__ import annotations

from typing import Any

from lenet_exp.base.records import RunKey
from lenet_exp.config import loader
from lenet_exp.config.experiment import Experiment
from lenet_exp.results.evaluation import ConfirmationPlan
from lenet_exp.study.records import TrialRecord
from lenet_exp.sweep.finalists import best_finalists, freeze

CONFIRMED = """\
name = "confirmed"
question = "Does it hold?"

[data]
dataset = "mini"
folder = "images"
validation = 200
limit = 200

[baseline]
channels = 4
fc_layers = 1
lr = 0.0001

[training]
epochs = 1
batch_size = 20

[space]
lr = [0.003, 0.01, 0.02]

[search]
trials = 2
sampler = "grid"
pruner = "none"

[confirm]
top = 2
seeds = 2
"""

EXPERIMENT_MADE = loader.parse(
    {"name": "e", "space": {"lr": [0.1, 0.2]}, "confirm": {"seeds": 3}, "training": {"precision": "float32"}}
)


def trial(number: int, value: float | None, **values: Any) -> TrialRecord:
    configuration = EXPERIMENT_MADE.baseline_configuration.model_copy(update=values)
    return TrialRecord(
        RunKey("trial", number, 1),
        "PRUNED" if value is None else "COMPLETE",
        f"trial {number}",
        configuration,
        seed=number,
        value=value,
    )


def plan(experiment: Experiment = EXPERIMENT_MADE) -> ConfirmationPlan:
    records = [trial(0, 0.8, lr=0.1), trial(1, 0.9, lr=0.2)]
    baseline = experiment.baseline_configuration.id
    return freeze(experiment, best_finalists(records, baseline, 2), n_finished=2)

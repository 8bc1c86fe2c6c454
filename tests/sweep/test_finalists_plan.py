"""The plan of a confirmation: its trainings, its seeds, and how many of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from lenet_exp.config import loader
from lenet_exp.config.experiment import FIRST_SEEDS, Confirm, Experiment
from lenet_exp.results.evaluation import ConfirmationPlan, Evaluation
from lenet_exp.results.verdicts.seeds import seeds_for_precision
from lenet_exp.study.study import open_study
from lenet_exp.sweep.finalists import confirmation_trainings, freeze, is_as_set, second_stage, stages_in_words
from lenet_exp.training.loop import begin, epoch_order
from tests.labs.plans import EXPERIMENT_MADE, plan


def test_paired_trainings_begin_with_the_same_weights_and_see_the_same_order() -> None:
    """A seed draws the same for all whose layers have the same shapes, and another seed draws otherwise."""
    jobs = confirmation_trainings(plan(), is_transferred=False)
    weights: dict[int, list[torch.Tensor]] = {}
    orders: dict[int, list[torch.Tensor]] = {}
    for job in jobs:
        state = begin(job.configuration, seed=job.seed)
        weights.setdefault(job.seed, []).append(torch.cat([p.flatten() for p in state.model.parameters()]))
        orders.setdefault(job.seed, []).append(epoch_order(100, job.seed, 1))

    assert [len(drawn) for drawn in weights.values()] == [3, 3, 3]
    for drawn in (*weights.values(), *orders.values()):
        assert all(torch.equal(drawn[0], other) for other in drawn)
    for by_seed in (weights, orders):
        assert len({tuple(each[0].tolist()) for each in by_seed.values()}) == 3


def test_trainings_on_other_images_are_other_trainings(tmp_path: Path) -> None:
    """A plan does not take what another has trained, and the study says which images each was given."""
    images: list[dict[str, Any]] = [{}, {"train_on": "train+validation"}, {"resample": True}]
    plans = [
        plan(loader.parse({"name": "e", "space": {"lr": [0.1, 0.2]}, "confirm": settings}))
        for settings in images
    ]
    study = open_study(EXPERIMENT_MADE, tmp_path)

    for each in plans:
        for training in confirmation_trainings(each, is_transferred=False):
            attempt = study.ask_fixed(training)
            assert attempt is not None
            assert attempt.train_on == each.train_on
            study.tell(attempt.key, "COMPLETE", 0.5)
            assert study.record(attempt.key).train_on == each.train_on

    assert [each.train_on for each in plans] == ["train", "train+validation", "train, resampled"]


def test_fresh_seeds_are_nobody_else_s() -> None:
    """They depend on the sweep's seed, and no trial or baseline of the search has one of them."""
    other = loader.parse({"name": "e", "space": {"lr": [0.1, 0.2]}, "search": {"seed": 1}})

    assert not set(plan().seeds) & set(plan(other).seeds)
    assert len(set(plan().seeds)) == 3


def test_a_plan_and_a_reading_come_back_from_the_study_as_they_were() -> None:
    """What is frozen is compared with what was, so nothing may get lost on the way."""
    made = plan()
    reading = Evaluation(1, made, "mini", "0.1", again=False, begun=("now",))

    assert ConfirmationPlan.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert Evaluation.from_dict(json.loads(json.dumps(reading.to_dict()))) == reading


def auto(max_seeds: int = 30, **settings: Any) -> tuple[Experiment, ConfirmationPlan]:
    written = {"seeds": "auto", "precision": 0.01, "max_seeds": max_seeds, **settings}
    experiment = EXPERIMENT_MADE.model_copy(update={"confirm": Confirm(**written)})
    return experiment, plan(experiment)


def spread(plan: ConfirmationPlan, **spreads: float | None) -> dict[tuple[str, int], float | None]:
    """Return validation accuracies whose differences from the baseline vary by a label's spread."""
    return {
        (finalist.config, seed): None if each is None else 0.8 + each * (-1) ** number
        for finalist in plan.everyone
        for each in [spreads.get(finalist.label.replace(" ", "_"), 0.0)]
        for number, seed in enumerate(plan.seeds)
    }


def test_the_number_of_seeds_follows_from_the_largest_spread_of_seeds_that_are_not_read() -> None:
    """The mean plays no part, what chose the number has none in the verdict, and the plan can be stored."""
    experiment, first = auto()
    narrow, wide = (
        second_stage(first, spread(first, trial_0=0.001, trial_1=sd), experiment, 0.04)
        for sd in (0.002, 0.01)
    )
    sd = 0.01 * math.sqrt(8 / 7)

    assert (len(first.seeds), len(narrow.seeds)) == (FIRST_SEEDS, 5)
    assert len(wide.seeds) == seeds_for_precision([sd], FIRST_SEEDS, 0.01, 0.02) > 8
    assert not set(wide.seeds) & set(first.seeds)
    assert wide.seeds[:5] == narrow.seeds
    labels = [training.label for training in confirmation_trainings(wide, is_transferred=False)]
    assert labels[:3] == ["baseline, seed 9", "trial 1, seed 9", "trial 0, seed 9"]
    later = freeze(EXPERIMENT_MADE, wide.finalists, 2, wide.n_seeds_before)
    assert later.seeds == narrow.seeds[: len(later.seeds)]
    trainings = confirmation_trainings(later, is_transferred=True)
    assert [training.role for training in trainings[:4]] == ["baseline", "run", "run", "confirm"]
    assert trainings[3].label == "baseline, seed 10"
    assert ConfirmationPlan.from_dict(json.loads(json.dumps(later.to_dict()))) == later
    assert is_as_set(later, EXPERIMENT_MADE)
    assert second_stage(wide, {}, experiment, 0.04) is wide
    assert ConfirmationPlan.from_dict(json.loads(json.dumps(wide.to_dict()))) == wide
    for now, is_same in ((experiment, True), (auto(max_seeds=9)[0], False), (EXPERIMENT_MADE, False)):
        assert is_as_set(wide, now) == is_as_set(first, now) == is_same


def test_the_number_of_seeds_has_a_limit_and_a_finalist_that_lacks_one_no_say() -> None:
    """It could not get a verdict anyway; what the precision would have needed is told."""
    experiment, first = auto(max_seeds=6)

    limited = second_stage(first, spread(first, trial_1=0.05), experiment, 0.04)
    lacking = second_stage(first, spread(first, trial_0=0.001, trial_1=None), experiment, 0.04)

    assert len(limited.seeds) == 6
    assert limited.first_stage is not None
    assert stages_in_words(limited).endswith(
        f"±0.01 needs {limited.first_stage.n_wanted} seeds; confirm.max_seeds allows 6"
    )
    assert len(lacking.seeds) == 5
    assert "trial 1 unknown" in stages_in_words(lacking)
    unknown = second_stage(first, spread(first, trial_0=None, trial_1=None), experiment, 0.04)
    assert "; nothing tells how many seeds an interval of ±0.01 needs" in stages_in_words(unknown)

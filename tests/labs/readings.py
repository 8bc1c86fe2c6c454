"""Evaluations made by hand: two configurations, two seeds or more, and the verdicts that follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lenet_exp.config.hyperparameters import PRESETS, configuration
from lenet_exp.results.evaluation import ConfirmationPlan, Evaluation, Finalist, Score
from lenet_exp.results.verdicts.judging import Sample, verdicts

LENET = configuration(PRESETS["lenet"])
BASELINE = Finalist(LENET, "baseline", None)
FINALIST = Finalist(LENET.model_copy(update={"lr": 0.1}), "trial 3", 0.9)
BASE, GOOD = BASELINE.config, FINALIST.config


def reading(number: int = 1, completed: str | None = "then", **fields: Any) -> Evaluation:
    """Return the evaluation of a finalist that is better, with a verdict as they were until November 2026."""
    plan = ConfirmationPlan("now", (FINALIST,), BASELINE, (7, 8), "train", 0.05, 4)
    scores = tuple(
        Score(f"confirm-0000{i}-1", config, seed, accuracy, 0.5)
        for i, (config, seed, accuracy) in enumerate(
            [(BASE, 7, 0.5), (GOOD, 7, 0.75), (BASE, 8, 0.75), (GOOD, 8, 0.875)]
        )
    )
    verdict = {
        **{"config": GOOD, "verdict": "better", "sentence": "better: by much", "delta": 0.1875},
        **{"delta_low": float("nan"), "delta_high": 0.3, "p_value": 0.01, "permutation_p": 0.5},
        **{"mcnemar_p": 0.02, "seeds_to_settle": None},
    }
    given = {"scores": scores, "verdicts": (verdict,), "champion": GOOD} | fields
    return Evaluation(number, plan, "mini", "0.1", number > 1, ("now",), completed, **given)


def judged(differences: Sequence[float], level: float = 0.04, **fields: Any) -> Evaluation:
    """Return the evaluation of one finalist whose differences from the baseline are given, seed by seed."""
    seeds = tuple(range(len(differences)))
    accuracies = {BASE: [0.8 for _ in seeds], GOOD: [0.8 + difference for difference in differences]}
    plan = ConfirmationPlan("now", (FINALIST,), BASELINE, seeds, "train", 0.05, 4)
    scores = tuple(
        Score(f"confirm-{number:05}-1", config, seed, accuracies[config][seed], 0.5)
        for number, (config, seed) in enumerate((config, seed) for config in (BASE, GOOD) for seed in seeds)
    )
    samples = [Sample(config, tuple(accuracies[config]), seeds) for config in (GOOD, BASE)]
    verdict = verdicts(samples[:1], samples[1], level)[0]
    champion = GOOD if verdict.verdict == "better" else BASE
    given: dict[str, Any] = {"n_images": 10_000, "spent": level, "champion": champion} | fields
    return Evaluation(
        1, plan, "mini", "0.1", False, ("now",), "then", scores=scores, verdicts=(vars(verdict),), **given
    )

"""The configuration that won: which of its networks is to be registered, and what its description says."""

from __future__ import annotations

import math

from lenet_exp.results.evaluation import Evaluation
from lenet_exp.results.table import finite
from lenet_exp.tracking.events import Champion


def winner(evaluation: Evaluation) -> str:
    """Return the configuration that won: the baseline's, unless a finalist is better.

    Of several the one with the highest validation accuracy is taken, on fresh seeds where there is one:
    choosing by the test split would flatter the choice.
    """
    better = {one["config"] for one in evaluation.verdicts if one["verdict"] == "better"}
    if not better:
        return evaluation.plan.baseline.config
    fresh = evaluation.fresh_val_accuracy or {}

    def validated(config: str) -> float:
        searched = next(one.val_accuracy for one in evaluation.plan.finalists if one.config == config)
        return fresh.get(config, -math.inf if searched is None else searched)

    # The finalists are in the order of the search, which decides between equals.
    return max((one.config for one in evaluation.plan.finalists if one.config in better), key=validated)


def elected(experiment: str, question: str, evaluation: Evaluation) -> Champion | None:
    """Return what is to be registered after a reading; None if the baseline gave no network.

    Each alias gets the network of the first seed: choosing among seeds would be choosing luck.

    Args:
        experiment: Name of the experiment, and so of the registered model.
        question: What the experiment asks, with which the description begins.
        evaluation: A complete reading of the test split.
    """
    first = {score.config: score.run for score in reversed(evaluation.scores)}
    baseline = evaluation.plan.baseline.config
    if baseline not in first:
        return None
    aliases = {"champion": first[evaluation.champion], "baseline": first[baseline]}
    return Champion(experiment, aliases, _description(question, evaluation))


def _description(question: str, evaluation: Evaluation) -> str:
    verdicts = {one["config"]: one for one in evaluation.verdicts}
    lines = [question, ""] if question else []
    lines += [f"{sentence}  " for sentence in evaluation.sentences()]
    lines += [
        "",
        "| configuration | n_seeds | test_accuracy | delta | p_value | verdict |",
        "|---|---|---|---|---|---|",
    ]

    def reached(config: str) -> list[float]:
        return [score.test_accuracy for score in evaluation.scores if score.config == config]

    def mean(config: str) -> float:
        values = reached(config)
        return math.fsum(values) / len(values) if values else -math.inf

    for one in sorted(evaluation.plan.everyone, key=lambda one: mean(one.config), reverse=True):
        verdict = verdicts.get(one.config, {})
        cells = [f"{one.label} ({one.config})", str(len(reached(one.config)))]
        cells += [_shown(mean(one.config)), _shown(verdict.get("delta")), _shown(verdict.get("p_value"))]
        lines.append("| " + " | ".join([*cells, verdict.get("verdict") or ""]) + " |")
    seeds = ", ".join(map(str, evaluation.plan.seeds))
    split = f"{evaluation.n_images:,} test images of {evaluation.dataset}, read {evaluation.completed}"
    lines += [
        "",
        f"Seeds {seeds}; {split}; trained on {evaluation.plan.train_on}; lenet_exp {evaluation.version}.",
    ]
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "" if finite(value) is None else f"{value:.4f}"

"""Choose the champion of a confirmation, and the networks and the description of the model in MLflow."""

from __future__ import annotations

import math
from collections.abc import Iterable

from lenet_exp.results.conclusion import sentences
from lenet_exp.results.evaluation import Evaluation, Finalist
from lenet_exp.results.table import finite
from lenet_exp.study.records import TrialRecord
from lenet_exp.tracking.events import Champion


def winner(evaluation: Evaluation) -> str:
    """Return the hash of the champion's configuration: that of the baseline, unless a finalist is better.

    Of several better finalists, the one with the highest validation accuracy wins. That accuracy is measured
    on the fresh seeds, or in the search if the confirmation trains on the validation images too. Choosing by
    the test split would bias the champion's test accuracy upwards.
    """
    better = {verdict["config"] for verdict in evaluation.verdicts if verdict["verdict"] == "better"}
    if not better:
        return evaluation.plan.baseline.config
    fresh = evaluation.fresh_val_accuracy or {}

    def val_accuracy(finalist: Finalist) -> float:
        searched = -math.inf if finalist.val_accuracy is None else finalist.val_accuracy
        return fresh.get(finalist.config, searched)

    # The finalists are in the order of the search, which decides between equals.
    return max((f for f in evaluation.plan.finalists if f.config in better), key=val_accuracy).config


def has_baseline(records: Iterable[TrialRecord]) -> bool:
    """Return True if the baseline is complete on every seed; without it there is no champion."""
    ended = [r for r in records if r.key.role == "baseline" and not r.superseded]
    return bool(ended) and all(record.state == "COMPLETE" for record in ended)


def elected(experiment: str, question: str, evaluation: Evaluation) -> Champion | None:
    """Return the networks to register after an evaluation, or None if the baseline is not complete in it.

    Each alias names the network of the first seed: choosing the best seed would be choosing luck.

    Args:
        experiment: Name of the experiment, which is also the name of the registered model.
        question: The experiment's question, with which the description starts; empty if it has none.
        evaluation: A complete evaluation of the test split.
    """
    if not evaluation.has_baseline:
        return None
    first = {score.config: score.run for score in reversed(evaluation.scores)}
    baseline = evaluation.plan.baseline.config
    aliases = {"champion": first[evaluation.champion], "baseline": first[baseline]}
    return Champion(experiment, aliases, _description(question, evaluation))


def _description(question: str, evaluation: Evaluation) -> str:
    """Return the registered model's description in Markdown: verdicts, a table, and how it was measured."""
    verdicts = {verdict["config"]: verdict for verdict in evaluation.verdicts}
    lines = [question, ""] if question else []
    *others, outcome = sentences(evaluation)
    lines += [outcome, "", *(f"- {sentence}" for sentence in others)]
    lines += [
        "",
        "| configuration | n_seeds | test_accuracy | delta | p_value | verdict |",
        "|---|---|---|---|---|---|",
    ]

    def accuracies(config: str) -> list[float]:
        return [score.test_accuracy for score in evaluation.scores if score.config == config]

    def mean(config: str) -> float:
        values = accuracies(config)
        return math.fsum(values) / len(values) if values else -math.inf

    for finalist in sorted(evaluation.plan.everyone, key=lambda f: mean(f.config), reverse=True):
        config = finalist.config
        verdict = verdicts.get(config, {})
        cells = [f"{finalist.label} ({config})", str(len(accuracies(config)))]
        cells += [_shown(mean(config)), _shown(verdict.get("delta")), _shown(verdict.get("p_value"))]
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

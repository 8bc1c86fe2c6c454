"""What follows from the readings of the test split: cells of the leaderboard, sentences, the next steps."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lenet_exp.base.messages import counted
from lenet_exp.base.records import IMAGES_IN_WORDS
from lenet_exp.config.experiment import MAX_CONFIRM_SEEDS, Confirm, Experiment
from lenet_exp.results.evaluation import (
    READINGS,
    SPEEDS,
    Evaluation,
    SeedsToSettle,
    next_level,
    read_evaluations,
)
from lenet_exp.results.table import finite
from lenet_exp.results.verdicts.seeds import MOST_SEEDS, seeds_to_settle
from lenet_exp.results.verdicts.statistics import estimate, reading_level


@dataclass(frozen=True)
class ConfirmationSummary:
    """What a confirmation adds to the leaderboard.

    Attributes:
        cells: Cells to add to a configuration's row of the leaderboard, by hash and then by column.
        sentences: Findings and how sure they are, in plain words, one sentence each; the champion last.
        next_steps: Advice on the next steps, one sentence each.
        evaluation: The evaluation that the summary is made from; None if no evaluation is complete.
    """

    cells: Mapping[str, Mapping[str, Any]]
    sentences: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()
    evaluation: Evaluation | None = None


#: What sentences from before November 2026 end with. It took the measured difference for the true one, and
#: contradicts the next steps.
_NUMBER_OF_SEEDS = re.compile(
    r"; (about \d+ seeds would settle it|more than \d+ seeds would be needed to settle it"
    r"|the means are equal, so more seeds are not expected to settle it)$"
)

#: The summary of a study without a complete evaluation.
NOT_CONFIRMED = ConfirmationSummary({})


def confirmation_summary(
    kept: Mapping[str, Any], experiment: Experiment, root: Path, n_finished: int
) -> ConfirmationSummary:
    """Return the summary of the last complete evaluation, or `NOT_CONFIRMED` if there is none.

    Args:
        kept: Values that the study stores by name, of which `READINGS` and `SPEEDS` are used.
        experiment: The experiment, for its ``confirm.margin`` and for commands to paste.
        root: Folder below which sweeps write everything.
        n_finished: Number of trials that the search has finished by now.
    """
    evaluations = read_evaluations(kept.get(READINGS))
    complete = [evaluation for evaluation in evaluations if evaluation.completed]
    if not complete:
        return NOT_CONFIRMED
    evaluation, speeds = complete[-1], kept.get(SPEEDS) or {}
    verdicts = {verdict["config"]: verdict for verdict in evaluation.verdicts}
    to_settle = _to_settle(evaluation, evaluations, experiment.confirm.margin)
    cells = {}
    for finalist in evaluation.plan.everyone:
        config = finalist.config
        low, high = to_settle.seeds.get(config, (None, None))
        cells[config] = {
            **_test_cells(evaluation, config),
            **(_verdict_cells(verdicts[config]) if config in verdicts and evaluation.has_baseline else {}),
            **({"examples_per_s": speeds[config]} if config in speeds else {}),
            "fresh_val_accuracy": (evaluation.fresh_val_accuracy or {}).get(config),
            "seeds_to_settle_low": low,
            "seeds_to_settle_high": high,
        }
    steps = next_steps(evaluation, to_settle, experiment, root, n_finished)
    return ConfirmationSummary(cells, tuple(sentences(evaluation)), tuple(steps), evaluation)


def _test_cells(evaluation: Evaluation, config: str) -> dict[str, Any]:
    accuracies = [score.test_accuracy for score in evaluation.scores if score.config == config]
    n = len(accuracies)
    mean = math.fsum(accuracies) / n if n else None
    sem = None
    if mean is not None and n > 1:
        sem = math.sqrt(math.fsum((value - mean) ** 2 for value in accuracies) / (n - 1) / n)
    delta = 0.0 if n and evaluation.has_baseline else None
    return {"n_seeds": n, "test_accuracy": mean, "test_accuracy_sem": sem, "delta": delta}


def _verdict_cells(verdict: Mapping[str, Any]) -> dict[str, Any]:
    names = "delta delta_low delta_high p_value verdict permutation_p mcnemar_p"
    # Those that verdicts from before November 2026 do not have.
    later = "delta_low_other_images delta_high_other_images level"
    return {name: verdict[name] for name in names.split()} | {
        name: verdict.get(name) for name in later.split()
    }


def sentences(evaluation: Evaluation) -> list[str]:
    """Return what a complete evaluation found and how sure it is, one sentence each; the champion last."""
    if not evaluation.has_baseline:  # read so until November 2026
        return ["no verdict and no champion: the test split was read without a complete baseline"]
    plan, n_seeds = evaluation.plan, counted(len(evaluation.plan.seeds), "fresh seed")
    lines = [
        "question: averaged over random seeds, is it better or worse than the baseline on these"
        f" {evaluation.n_images:,} test images of {evaluation.dataset}? {n_seeds} each"
        f"{IMAGES_IN_WORDS[plan.train_on]}; reading {evaluation.number} of the test split"
    ]
    for verdict in evaluation.verdicts:
        sentence = _NUMBER_OF_SEEDS.sub("", verdict["sentence"])
        lines.append(f"{evaluation.label(verdict['config'])}: {sentence}")
    lines.append(_how_sure(evaluation))
    if evaluation.curse:
        lines.append(f"winner's curse, {plan.finalists[0].label}: {evaluation.curse}")
    return [*lines, f"champion: {_champion(evaluation)}"]


def _champion(evaluation: Evaluation) -> str:
    if evaluation.champion == evaluation.plan.baseline.config:
        return "the baseline, as no finalist is shown to be better"
    verdict = next(each for each in evaluation.verdicts if each["config"] == evaluation.champion)
    low = verdict.get("delta_low_other_images")
    is_open = low is not None and low <= 0
    label = evaluation.label(evaluation.champion)
    return f"{label}, on these test images; on others like them it is open" if is_open else label


def error_chance(evaluation: Evaluation) -> float:
    """Return the largest chance that a reading of this test split wrongly says *better* or *worse*."""
    level, spent = evaluation.plan.level, evaluation.spent_before + evaluation.level
    # More than the level, if earlier readings had a larger one, or all of it, as until November 2026. All
    # later readings together get as much as the next one and once more.
    return min(1.0, max(level, spent + 2 * reading_level(level, evaluation.number + 1)))


def _how_sure(evaluation: Evaluation) -> str:
    """Return what the level and the brackets mean."""
    spent, most = evaluation.spent_before + evaluation.level, error_chance(evaluation)
    said = (
        "how sure: the chance that any finalist is wrongly called better or worse, in all readings of this"
        f" test split together, is at most {most:.3g}, even if others do differ; {spent:.4g} of it is used by"
        f" now, {evaluation.level:.3g} by this reading"
    )
    if all(finite(verdict["delta_low"]) is None for verdict in evaluation.verdicts):
        return said
    return (
        f"{said}. The first brackets of a line hold its true difference, all of them together with a chance"
        f" of {1 - most:.3g}"
    )


def seeds_needed(evaluation: Evaluation, difference: float, level: float) -> SeedsToSettle:
    """Return how many seeds would settle each tie of an evaluation, if there is a difference of a given size.

    Args:
        evaluation: An evaluation with its verdicts.
        difference: Difference in accuracy that matters, above 0.
        level: Level of the next reading, which its ties share.
    """
    ties = [verdict for verdict in evaluation.verdicts if verdict["verdict"] == "tie"]
    seeds = {}
    for verdict in ties:
        differences = paired_differences(evaluation, verdict["config"])
        n = len(differences)
        sd = estimate(differences).sd
        # From seeds that lack a network, are two, or do not differ, nobody can tell how they vary.
        if n == verdict["n_seeds"] and n > 2 and sd > 0:
            judged_at = verdict.get("level")  # absent in older readings, which had one for all
            n_judged = sum(other.get("level") == judged_at for other in evaluation.verdicts)
            joint = (judged_at or evaluation.level) / n_judged
            seeds[verdict["config"]] = seeds_to_settle(sd, n, difference, joint, level / len(ties))
    return SeedsToSettle(difference, level, seeds)


def paired_differences(evaluation: Evaluation, config: str) -> list[float]:
    """Return a finalist's differences from the baseline on the seeds that both have.

    Args:
        evaluation: An evaluation of the test split.
        config: The finalist's hash.
    """
    of = {(score.config, score.seed): score.test_accuracy for score in evaluation.scores}
    baseline = evaluation.plan.baseline.config
    return [
        of[config, seed] - of[baseline, seed]
        for seed in evaluation.plan.seeds
        if (config, seed) in of and (baseline, seed) in of
    ]


def _to_settle(evaluation: Evaluation, evaluations: Sequence[Evaluation], margin: float) -> SeedsToSettle:
    """Return how many seeds the ties need by now: as recorded, unless another size or level is asked for."""
    level = next_level(evaluations, evaluation.plan.level)
    recorded = evaluation.to_settle
    if recorded and (recorded.difference, recorded.level) == (margin, level):
        return recorded
    return seeds_needed(evaluation, margin, level)


def next_steps(
    evaluation: Evaluation, to_settle: SeedsToSettle, experiment: Experiment, root: Path, n_finished: int
) -> list[str]:
    """Return what to do after an evaluation, one sentence each.

    Args:
        evaluation: The last complete evaluation.
        to_settle: Numbers of seeds that would settle its ties.
        experiment: The experiment, for commands to paste.
        root: Folder below which sweeps write everything.
        n_finished: Number of trials that the search has finished by now.
    """
    if not evaluation.has_baseline:
        return []
    steps, numbers = _about_ties(evaluation, to_settle)
    is_baseline = evaluation.champion == evaluation.plan.baseline.config
    if not is_baseline:
        model, label = f"models:/{experiment.name}@champion", evaluation.label(evaluation.champion)
        steps.insert(0, f"use {model!r} of MLflow, {label}'s network of the first seed")
    _, _, dataset = experiment.name.partition("@")
    again = f"confirm --again{f' --dataset {dataset}' if dataset else ''}"
    n_seeds = max(numbers.values(), default=0)
    if n_seeds > len(evaluation.plan.seeds):
        command = experiment.command(f"{again}{_as_read(evaluation, experiment, n_seeds)}", root)
        steps.append(
            f"if {' or '.join(numbers)} is worth {n_seeds} seeds to you: '{command}', which keeps the seeds"
            f" there are, needs p at most {to_settle.level:.3g}, and only checks what is settled"
        )
    elif is_baseline and experiment.space and not dataset:
        then = experiment.command(f"{again}{_as_read(evaluation, experiment)}", root)
        n_new = n_finished - evaluation.plan.n_finished
        if n_new > 0:
            steps.append(f"{counted(n_new, 'trial')} later than this reading: '{then}'")
        else:
            # Not of the file's number: a flag may have asked for more already.
            command = experiment.command(f"sweep --trials {2 * max(n_finished, experiment.trials)}", root)
            steps.append(f"to look for others: '{command}', then '{then}'")
    return steps


def _about_ties(evaluation: Evaluation, to_settle: SeedsToSettle) -> tuple[list[str], dict[str, int]]:
    """Return what is known of each tie's seeds, and by label how many to train where more would help."""
    margin, steps = to_settle.difference, []
    numbers: dict[str, int] = {}
    for verdict in evaluation.verdicts:
        config, label = verdict["config"], evaluation.label(verdict["config"])
        high, n = verdict["delta_high"], len(paired_differences(evaluation, config))
        if verdict["verdict"] != "tie":
            continue
        if n < verdict["n_seeds"]:
            steps.append(f"{label}: see in MLflow why a training gave no network (lenet_exp.reason)")
        elif config not in to_settle.seeds:
            steps.append(f"{label}: more seeds would show how they vary")
            numbers[label] = min(max(5, 2 * n), MAX_CONFIRM_SEEDS)
        elif high is not None and high < margin:
            steps.append(
                f"{label}: not better by {margin:g} or more (confirm.margin), so it needs no more seeds"
            )
        else:
            low, most = to_settle.seeds[config]
            steps.append(
                f"{label}: to show a difference of {margin:g} (confirm.margin) takes {_range(low, most)}"
            )
            numbers |= {label: most} if most else {}
    return steps, numbers


def _as_read(evaluation: Evaluation, experiment: Experiment, n_seeds: int | None = None) -> str:
    """Return the flags without which another reading would ask another question.

    Args:
        evaluation: The last complete evaluation.
        experiment: The experiment, for what its file says.
        n_seeds: Number of seeds of the other reading; None if it finds or takes it as this one did.
    """
    plan, first = evaluation.plan, evaluation.plan.first_stage
    is_resampled = plan.train_on == "train, resampled"
    read: dict[str, Any] = {
        "top": len(plan.finalists),
        "level": plan.level,
        "resample": is_resampled,
        "train_on": "train" if is_resampled else plan.train_on,
    }
    if n_seeds is not None or first is None:
        read["seeds"] = n_seeds or len(plan.seeds)
    else:
        read |= {"seeds": "auto", "precision": first.precision, "max_seeds": first.max_seeds}
    defaults = {name: field.default for name, field in Confirm.model_fields.items()}
    written = defaults | tomllib.loads(experiment.text).get("confirm", {})
    return "".join(
        f" --set confirm.{key}={str(value).lower()}"
        for key, value in read.items()
        if value != written[key] or (key == "seeds" and n_seeds)
    )


def _range(low: int | None, high: int | None) -> str:
    """Return two numbers of seeds in words; None is one that is too large."""
    if low is None:
        return f"more than {MOST_SEEDS} seeds"
    if high is None:
        return f"{low} to more than {MOST_SEEDS} seeds in all"
    return f"{low} to {high} seeds in all" if low < high else f"{high} seeds in all"

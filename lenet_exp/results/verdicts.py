"""Verdicts: which finalists are better than the baseline, by how much, and how sure that is.

A finalist and the baseline are trained on the same seeds, so that each seed gives one difference. The
two-sided paired t-test decides, after Holm's correction over the finalists; the other tests are reported
beside it and decide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lenet_exp.results.statistics import (
    MOST_SEEDS,
    Bools,
    Floats,
    Paired,
    estimate,
    holm,
    mcnemar,
    paired,
    seeds_to_settle,
    sign_flip_test,
)

#: How a finalist compares with the baseline; a *tie* means that the seeds do not tell them apart.
Outcome = Literal["better", "worse", "tie"]


@dataclass(frozen=True)
class Sample:
    """The accuracies of one configuration, one for each seed.

    Attributes:
        config: The configuration's hash.
        test_accuracy: Accuracy on the test split for each seed, in [0, 1]; NaN for a seed whose training gave
            no network. In an ablation these are validation accuracies.
        seeds: Seeds of the trainings, all different, in the order of ``test_accuracy``.
        correct: ``(n_seeds, n_images)``, True where a test image was classified correctly; None if the
            predictions were not stored.

    Raises:
        ValueError: If the lengths differ, or a seed occurs twice.
    """

    config: str
    test_accuracy: tuple[float, ...]
    seeds: tuple[int, ...]
    correct: Bools | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.test_accuracy) != len(self.seeds) or len(set(self.seeds)) != len(self.seeds):
            seeds = ", ".join(map(str, self.seeds))
            raise ValueError(
                f"{self.config}: there must be one accuracy for each seed, and no seed twice;"
                f" found {len(self.test_accuracy)} accuracies for seeds {seeds}"
            )
        if self.correct is not None and self.correct.shape[:-1] != (len(self.seeds),):
            raise ValueError(
                f"{self.config}: correct must have the shape ({len(self.seeds)}, n_images),"
                f" found shape {self.correct.shape}"
            )


@dataclass(frozen=True)
class Verdict:
    """The comparison of one finalist with the baseline on the seeds that both have; unknown numbers are NaN.

    Attributes:
        config: The finalist's hash.
        n_seeds: Number of seeds that both were trained on; other seeds are left out.
        mean: The finalist's mean test accuracy on these seeds.
        sem: Standard error of ``mean``.
        baseline_mean: The baseline's mean test accuracy on the same seeds.
        delta: Difference from the baseline, ``mean - baseline_mean``.
        delta_low: Lower end of the interval of ``delta``. The intervals of all finalists together have
            coverage 1 - level (Bonferroni). Holm's test is a little sharper: where it decides and the
            interval still reaches past 0, that end is moved to 0. So *better* never has ``delta_low < 0``,
            *worse* never ``delta_high > 0``, and the interval of a *tie* contains 0. The chance that
            any interval or verdict is wrong is at most twice the level. Also NaN if the difference is the
            same for every seed and there are too few seeds to decide.
        delta_high: Upper end of the interval of ``delta``; see ``delta_low``.
        p_value: The p of the two-sided paired t-test, Holm-adjusted over the finalists; it decides.
        permutation_p: The p of the sign-flip test of this finalist alone, unadjusted; it cannot be below
            2**(1 - n_seeds).
        mcnemar_p: The p of McNemar's test of this finalist alone, unadjusted. It asks about these networks on
            other images, where the t-test asks about other seeds.
        verdict: ``better``, ``worse`` or ``tie``.
        seeds_to_settle: Number of paired seeds that would settle a *tie* with a chance of 0.8, if the true
            difference is as measured. None for *better* and *worse*, if the measured difference is 0, and if
            more than `MOST_SEEDS` are needed.
        sentence: The verdict in plain words, as users see it.
    """

    config: str
    n_seeds: int
    mean: float
    sem: float
    baseline_mean: float
    delta: float
    delta_low: float
    delta_high: float
    p_value: float
    permutation_p: float
    mcnemar_p: float
    verdict: Outcome
    seeds_to_settle: int | None
    sentence: str


def verdicts(finalists: Sequence[Sample], baseline: Sample, level: float = 0.05) -> list[Verdict]:
    """Return the verdict on each finalist, in their order.

    Args:
        finalists: Accuracies of every configuration that is compared; leaving some out makes Holm's
            correction too weak.
        baseline: Accuracies of the configuration that all are compared with, on the same seeds.
        level: Largest accepted chance that any finalist is called *better* or *worse* although none differs
            from the baseline, in (0, 1).

    Example:
        >>> baseline = Sample("a", (0.891, 0.896, 0.893, 0.894, 0.890), (1, 2, 3, 4, 5))
        >>> finalist = Sample("b", (0.902, 0.910, 0.903, 0.907, 0.902), (1, 2, 3, 4, 5))
        >>> print(verdicts([finalist], baseline)[0].sentence)
        better: +0.0120 [+0.0100, +0.0140] on 5 paired seeds, p < 0.0001
    """
    pairs = [_Pair.of(finalist, baseline) for finalist in finalists]
    joint_level = level / max(1, len(pairs))
    differences = [paired(pair.finalist - pair.baseline, joint_level) for pair in pairs]
    p_values = holm([difference.p_value for difference in differences]).tolist()
    return [
        _verdict(pair, difference, p_value, level, joint_level)
        for pair, difference, p_value in zip(pairs, differences, p_values, strict=True)
    ]


@dataclass(frozen=True)
class _Pair:
    """The accuracies of a finalist and of the baseline on the seeds that both have, in the same order.

    Attributes:
        config: The finalist's hash.
        finalist: The finalist's accuracy for each shared seed.
        baseline: The baseline's accuracy for each shared seed.
        mcnemar_p: The p of McNemar's test; NaN if predictions are missing.
    """

    config: str
    finalist: Floats
    baseline: Floats
    mcnemar_p: float

    @classmethod
    def of(cls, finalist: Sample, baseline: Sample) -> _Pair:
        shared = sorted(set(finalist.seeds) & set(baseline.seeds))
        rows, baseline_rows = (
            [sample.seeds.index(seed) for seed in shared] for sample in (finalist, baseline)
        )
        mcnemar_p = math.nan
        if shared and finalist.correct is not None and baseline.correct is not None:
            mcnemar_p = mcnemar(baseline.correct[baseline_rows], finalist.correct[rows])
        return cls(
            finalist.config,
            np.asarray([finalist.test_accuracy[row] for row in rows], float),
            np.asarray([baseline.test_accuracy[row] for row in baseline_rows], float),
            mcnemar_p,
        )


def _verdict(pair: _Pair, difference: Paired, p_value: float, level: float, joint_level: float) -> Verdict:
    """Return the verdict on one finalist.

    Args:
        pair: The accuracies of the finalist and of the baseline.
        difference: Mean difference of the two, with its interval at ``joint_level``.
        p_value: The p of ``difference``, Holm-adjusted over all finalists.
        level: Largest accepted chance of a wrong *better* or *worse* among all finalists.
        joint_level: Level of each interval: ``level`` divided by the number of finalists (Bonferroni).
    """
    outcome: Outcome = "tie"
    if p_value <= level:
        outcome = "better" if difference.mean > 0 else "worse"
    low, high = difference.low, difference.high
    if outcome == "better" and low < 0:
        low = 0.0
    if outcome == "worse" and high > 0:
        high = 0.0
    n_needed = None
    if outcome == "tie":
        n_needed = seeds_to_settle(difference.mean, difference.sem * math.sqrt(difference.n), joint_level)
    finalist = estimate(pair.finalist, level)
    return Verdict(
        config=pair.config,
        n_seeds=difference.n,
        mean=finalist.mean,
        sem=finalist.sem,
        baseline_mean=estimate(pair.baseline, level).mean,
        delta=difference.mean,
        delta_low=low,
        delta_high=high,
        p_value=p_value,
        permutation_p=sign_flip_test(pair.finalist - pair.baseline),
        mcnemar_p=pair.mcnemar_p,
        verdict=outcome,
        seeds_to_settle=n_needed,
        sentence=_sentence(outcome, pair, difference, (low, high), p_value, n_needed),
    )


def _sentence(
    outcome: Outcome,
    pair: _Pair,
    difference: Paired,
    interval: tuple[float, float],
    p_value: float,
    n_needed: int | None,
) -> str:
    n, mean = difference.n, difference.mean
    if n == 0:
        return "tie: no seed is shared with the baseline; train both on the same seeds"
    missing = int((~np.isfinite(pair.finalist) | ~np.isfinite(pair.baseline)).sum())
    if missing:
        return f"tie: {missing} of {n} paired seeds have no test accuracy; train them, or leave them out"
    if n == 1:
        return f"tie: {mean:+.4f} on 1 paired seed, too few to see how seeds vary; train at least two"
    low, high = interval
    ends = f" [{low:+.4f}, {high:+.4f}]" if math.isfinite(low) else ""
    sentence = f"{outcome}: {mean:+.4f}{ends} on {n} paired seeds, {_p_text(p_value)}"
    if outcome != "tie":
        return sentence
    if mean == 0:
        return f"{sentence}; the means are equal, so more seeds are not expected to settle it"
    if n_needed is None:
        return f"{sentence}; more than {MOST_SEEDS} seeds would be needed to settle it"
    return f"{sentence}; about {n_needed} seeds would settle it"


def _p_text(p_value: float) -> str:
    return "p < 0.0001" if p_value < 0.0001 else f"p {p_value:.4f}" if p_value < 0.1 else f"p {p_value:.2f}"


def winners_curse(
    search_val_accuracy: float, fresh_val_accuracies: Sequence[float], level: float = 0.05
) -> str:
    """Return a sentence on how much better a configuration looked in the search than on fresh seeds.

    The best of many noisy trials owes some of its accuracy to luck, which fresh seeds do not repeat.

    Args:
        search_val_accuracy: Validation accuracy by which the search chose the configuration.
        fresh_val_accuracies: Validation accuracies of the same configuration on seeds that the search did not
            use.
        level: One minus the coverage of the interval, in (0, 1).

    Example:
        >>> print(winners_curse(0.9210, [0.9150, 0.9172, 0.9164]).partition(": ")[2])
        the search flattered it by +0.0048 [+0.0020, +0.0076]
    """
    fresh = estimate(fresh_val_accuracies, level)
    searched = f"val_accuracy {search_val_accuracy:.4f} in the search"
    if not math.isfinite(fresh.mean):
        return f"{searched}, unknown on fresh seeds"
    optimism, low, high = (search_val_accuracy - end for end in (fresh.mean, fresh.high, fresh.low))
    seeds = f"{fresh.n} fresh seed{'s' if fresh.n > 1 else ''}"
    interval = f" [{low:+.4f}, {high:+.4f}]" if math.isfinite(low) else ""
    return f"{searched}, {fresh.mean:.4f} on {seeds}: the search flattered it by {optimism:+.4f}{interval}"

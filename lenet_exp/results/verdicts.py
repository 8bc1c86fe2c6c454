"""Which finalists are better than the baseline, by how much, and how sure we are.

A finalist and the baseline are trained on the same seeds, so that each seed gives one difference. The
two-sided paired t-test decides, after Holm's correction over the finalists; what else is computed is there
to be read beside it.
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

#: Whether a finalist beats the baseline; nothing else is concluded.
Outcome = Literal["better", "worse", "tie"]


@dataclass(frozen=True)
class Sample:
    """What one configuration reached on its seeds.

    Attributes:
        config: The configuration's canonical hash.
        test_accuracy: Share in [0, 1], one for each seed; NaN where that training gave none.
        seeds: Roots of the trainings' random streams, each once, in the same order.
        correct: ``(n_seeds, n_images)``, whether each test image was classified rightly; None if not kept.

    Raises:
        ValueError: If the parts do not belong together.
    """

    config: str
    test_accuracy: tuple[float, ...]
    seeds: tuple[int, ...]
    correct: Bools | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.test_accuracy) != len(self.seeds) or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(
                f"{self.config}: one accuracy for each seed, each seed once; found {len(self.test_accuracy)}"
                f" accuracies for {len(self.seeds)} seeds, {len(set(self.seeds))} of them different"
            )
        if self.correct is not None and self.correct.shape[:-1] != (len(self.seeds),):
            raise ValueError(
                f"{self.config}: correct must be (n_seeds, n_images) for {len(self.seeds)} seeds,"
                f" found shape {self.correct.shape}"
            )


@dataclass(frozen=True)
class Verdict:
    """One finalist beside the baseline, on the seeds that both have. What is unknown is NaN.

    Attributes:
        config: The finalist's canonical hash.
        n_seeds: Seeds that both were trained on; the others are left out.
        mean: The finalist's test accuracy on them.
        sem: Standard error of ``mean``.
        baseline_mean: The baseline's test accuracy on the same seeds.
        delta: ``mean`` less ``baseline_mean``.
        delta_low: Lower end of the interval of ``delta``. The intervals of all finalists hold together with
            the coverage 1 - level (Bonferroni). Holm's test is a little sharper: where it alone decides, the
            end that reaches past 0 is moved to 0. So *better* never has ``delta_low < 0``, nor *worse*
            ``delta_high > 0``, and a *tie* holds 0. Interval and verdict together err at most twice as often
            as either. NaN too where few seeds have all the same difference.
        delta_high: Upper end of that interval.
        p_value: The p of the two-sided paired t-test, adjusted by Holm over the finalists; it decides.
        permutation_p: The p of the exact test of signs, for this finalist alone; at least 2**(1 - n_seeds).
        mcnemar_p: The p of McNemar's test, for this finalist alone: other images, same networks.
        verdict: Which of the two is better, in one word.
        seeds_to_settle: Paired seeds that would settle a tie with a chance of 0.8 if the
            difference is as measured; None otherwise, and where even `MOST_SEEDS` would not do.
        sentence: The verdict in plain words.
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
        finalists: All that are compared: leaving some out afterwards makes the correction too weak.
        baseline: What they are compared with, on the same seeds.
        level: The chance, at most, that any verdict but *tie* is given where nothing differs.

    Example:
        >>> baseline = Sample("a", (0.891, 0.896, 0.893, 0.894, 0.890), (1, 2, 3, 4, 5))
        >>> finalist = Sample("b", (0.902, 0.910, 0.903, 0.907, 0.902), (1, 2, 3, 4, 5))
        >>> print(verdicts([finalist], baseline)[0].sentence)
        better: +0.0120 [+0.0100, +0.0140] on 5 paired seeds, p < 0.0001
    """
    pairs = [_Pair.of(finalist, baseline) for finalist in finalists]
    joint = level / max(1, len(pairs))
    found = [paired(pair.other - pair.base, joint) for pair in pairs]
    adjusted = holm([one.p_value for one in found])
    return [_verdict(*each, level, joint) for each in zip(pairs, found, adjusted.tolist(), strict=True)]


@dataclass(frozen=True)
class _Pair:
    """What a finalist and the baseline reached on the seeds that both have."""

    config: str
    other: Floats
    base: Floats
    mcnemar_p: float

    @classmethod
    def of(cls, finalist: Sample, baseline: Sample) -> _Pair:
        shared = sorted(set(finalist.seeds) & set(baseline.seeds))
        rows, base_rows = ([sample.seeds.index(seed) for seed in shared] for sample in (finalist, baseline))
        right, base_right = finalist.correct, baseline.correct
        images_p = math.nan
        if shared and right is not None and base_right is not None:
            images_p = mcnemar(base_right[base_rows], right[rows])
        return cls(
            finalist.config,
            np.asarray([finalist.test_accuracy[row] for row in rows], float),
            np.asarray([baseline.test_accuracy[row] for row in base_rows], float),
            images_p,
        )


def _verdict(pair: _Pair, found: Paired, p_value: float, level: float, joint: float) -> Verdict:
    outcome: Outcome = "tie"
    if p_value <= level:
        outcome = "better" if found.mean > 0 else "worse"
    low, high = found.low, found.high
    if outcome == "better" and low < 0:
        low = 0.0
    if outcome == "worse" and high > 0:
        high = 0.0
    needed = None
    if outcome == "tie":
        needed = seeds_to_settle(found.mean, found.sem * math.sqrt(found.n), joint)
    own = estimate(pair.other, level)
    return Verdict(
        config=pair.config,
        n_seeds=found.n,
        mean=own.mean,
        sem=own.sem,
        baseline_mean=estimate(pair.base, level).mean,
        delta=found.mean,
        delta_low=low,
        delta_high=high,
        p_value=p_value,
        permutation_p=sign_flip_test(pair.other - pair.base),
        mcnemar_p=pair.mcnemar_p,
        verdict=outcome,
        seeds_to_settle=needed,
        sentence=_sentence(outcome, pair, found, (low, high), p_value, needed),
    )


def _sentence(
    outcome: Outcome,
    pair: _Pair,
    found: Paired,
    interval: tuple[float, float],
    p_value: float,
    needed: int | None,
) -> str:
    if found.n == 0:
        return "tie: no seed is shared with the baseline; train both on the same seeds"
    seeds = f"on {found.n} paired seed{'s' if found.n > 1 else ''}"
    missing = int((~np.isfinite(pair.other) | ~np.isfinite(pair.base)).sum())
    if missing:
        return (
            f"tie: {missing} of {found.n} paired seeds have no test accuracy; train them, or leave them out"
        )
    if found.n == 1:
        return f"tie: {found.mean:+.4f} {seeds}, which says nothing about noise; train at least two"
    ends = f" [{interval[0]:+.4f}, {interval[1]:+.4f}]" if math.isfinite(interval[0]) else ""
    said = f"{outcome}: {found.mean:+.4f}{ends} {seeds}, {_p_text(p_value)}"
    if outcome != "tie":
        return said
    if found.mean == 0:
        return f"{said}; no difference that more seeds would settle"
    if needed is None:
        return f"{said}; more than {MOST_SEEDS} seeds would be needed to settle it"
    return f"{said}; about {needed} seeds would settle it"


def _p_text(p_value: float) -> str:
    return "p < 0.0001" if p_value < 0.0001 else f"p {p_value:.4f}" if p_value < 0.1 else f"p {p_value:.2f}"


def winners_curse(
    search_val_accuracy: float, fresh_val_accuracies: Sequence[float], level: float = 0.05
) -> str:
    """Say how far the search flattered a configuration: its accuracy there beside that on fresh seeds.

    The best of many noisy trials owes a part of its place to luck, which fresh seeds do not repeat.

    Args:
        search_val_accuracy: What the configuration had when it was chosen.
        fresh_val_accuracies: What it has on seeds that had no part in the choice.
        level: One less the coverage of the interval.

    Example:
        >>> print(winners_curse(0.9210, [0.9150, 0.9172, 0.9164]))
        val_accuracy 0.9210 in the search, 0.9162 on 3 fresh seeds: flattered by +0.0048 [+0.0020, +0.0076]
    """
    fresh = estimate(fresh_val_accuracies, level)
    optimism, low, high = (search_val_accuracy - end for end in (fresh.mean, fresh.high, fresh.low))
    said = f"val_accuracy {search_val_accuracy:.4f} in the search"
    if math.isfinite(fresh.mean):
        said += f", {fresh.mean:.4f} on {fresh.n} fresh seed{'s' if fresh.n > 1 else ''}"
        said += f": flattered by {optimism:+.4f}"
        said += f" [{low:+.4f}, {high:+.4f}]" if math.isfinite(low) else ""
    else:
        said += ", not known on fresh seeds"
    return said

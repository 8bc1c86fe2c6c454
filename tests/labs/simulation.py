"""Verdicts on many sweeps whose truth is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lenet_exp.results.verdicts.statistics import holm, paired_p_values


@dataclass(frozen=True)
class Rates:
    """What verdicts came of many simulated sweeps.

    Attributes:
        any_better: Share of sweeps with at least one *better*; without a true difference, the false rate.
        better: Share of finalists called better; with a true difference, the power.
        worse: Share of finalists called worse.
        tie: Share of finalists called neither.
    """

    any_better: float
    better: float
    worse: float
    tie: float


def simulate_sweeps(
    n_sweeps: int, n_finalists: int, n_seeds: int, effect_sd: float, level: float = 0.05, seed: int = 0
) -> Rates:
    """Return the verdicts on sweeps whose truth is known.

    Noise is normal and equal for all; the finalists of a sweep share the baseline's trainings, so
    their differences go together, as they do in a sweep. The finalists were chosen on other seeds than
    these, so how many trials they were the best of does not matter.

    Args:
        n_sweeps: How many.
        n_finalists: Compared with the baseline in each.
        n_seeds: Paired trainings of each finalist.
        effect_sd: How much better each truly is, in standard deviations of a paired difference.
        level: Of the verdicts.
        seed: Of the noise.
    """
    stream = np.random.default_rng(seed)
    noise = stream.normal(0, math.sqrt(0.5), (n_sweeps, n_finalists + 1, n_seeds))
    differences = noise[:, 1:] - noise[:, :1] + effect_sd
    decided = holm(paired_p_values(differences)) <= level
    positive = differences.mean(axis=-1) > 0
    better, worse = decided & positive, decided & ~positive
    return Rates(
        any_better=float(better.any(axis=1).mean()),
        better=float(better.mean()),
        worse=float(worse.mean()),
        tie=float(1 - decided.mean()),
    )

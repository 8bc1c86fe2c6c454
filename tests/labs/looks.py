"""The plan of the verdicts, in arrays: many simulated sweeps at once, each with several readings.

Written apart from `lenet_exp.results.verdicts.judging`, so that a fault there does not repeat itself here; a test
compares the two. Both have the paired t-test from `lenet_exp.results.verdicts.statistics`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lenet_exp.results.verdicts.statistics import Bools, Floats, paired_p_values

Integers = NDArray[np.int64]

#: Share of the level that the first reading has; the others halve what is left.
FIRST_SHARE = 0.8

#: In `Look.settled`: the finalist is undecided.
UNDECIDED = 0


def reading_level(level: float, reading: int) -> float:
    """Return the part of a level that a reading spends; all parts together are the level."""
    return level * (FIRST_SHARE if reading == 1 else (1 - FIRST_SHARE) * 2.0 ** (1 - reading))


@dataclass(frozen=True)
class Look:
    """What a reading says of the finalists of many sweeps; each array is ``(sweeps, finalists)``.

    Attributes:
        better: True where a finalist is called better.
        worse: True where a finalist is called worse.
        low: Lower end of the interval of a finalist's difference.
        high: Upper end of that interval.
        settled: The reading that settled a finalist; `UNDECIDED` if none did.
    """

    better: Bools
    worse: Bools
    low: Floats
    high: Floats
    settled: Integers

    def covers(self, difference: float) -> Bools:
        """Return for each sweep whether the intervals of all its finalists contain the true difference."""
        return np.asarray(((self.low <= difference) & (difference <= self.high)).all(axis=1))


def look(
    differences: Floats,
    reading: int,
    settled: Integers,
    level: float = 0.05,
    taking_part: Bools | None = None,
) -> Look:
    """Return a reading's verdicts.

    A finalist that an earlier reading settled is judged among those which the same reading settled, at its
    level; the undecided are judged among themselves at the level of this reading.

    Args:
        differences: ``(sweeps, finalists, seeds)``, a finalist's accuracy less the baseline's.
        reading: The number of this reading, from 1.
        settled: ``(sweeps, finalists)``, as the reading before left it.
        level: Level of all readings together.
        taking_part: ``(sweeps, finalists)``, False for a finalist that is not chosen yet.
    """
    p = paired_p_values(differences)
    if taking_part is None:
        taking_part = np.ones(p.shape, bool)
    n = differences.shape[-1]
    mean = differences.mean(axis=-1)
    sem = differences.std(axis=-1, ddof=1) / np.sqrt(n)
    decided, half = np.zeros(p.shape, bool), np.full(p.shape, np.nan)
    for judged_at in range(1, reading + 1):
        group = taking_part & (settled == (UNDECIDED if judged_at == reading else judged_at))
        own_level = reading_level(level, judged_at)
        decided |= group & (holm_within(p, group) <= own_level)
        # Those settled were the lucky ones of all that were tested, so their intervals allow for all.
        tested_with = (group if judged_at == reading else taking_part).sum(axis=1, keepdims=True)
        quantile = special.stdtrit(n - 1, 1 - own_level / 2 / np.maximum(tested_with, 1))
        half = np.where(group, quantile * sem, half)
    low, high = mean - half, mean + half
    better, worse = decided & (mean > 0), decided & (mean <= 0)
    low = np.where(better, np.maximum(low, 0), low)
    high = np.where(worse, np.minimum(high, 0), high)
    settled = np.where(decided, np.where(settled == UNDECIDED, reading, settled), UNDECIDED)
    return Look(better, worse, low, high, settled)


def looks(differences: Floats, numbers: Sequence[int], level: float = 0.05) -> Iterator[Look]:
    """Yield the readings of sweeps that are looked at again with more seeds.

    Args:
        differences: ``(sweeps, finalists, seeds)``, with as many seeds as the last look has.
        numbers: How many seeds each reading has in all, ascending.
        level: Level of all readings together.
    """
    settled: Integers = np.zeros(differences.shape[:-1], np.int64)
    for reading, n in enumerate(numbers, start=1):
        now = look(differences[..., :n], reading, settled, level)
        settled = now.settled
        yield now


def holm_within(p_values: Floats, group: Bools) -> Floats:
    """Return p values adjusted by Holm's method among the members of a group, and 1 for all others.

    Args:
        p_values: ``(sweeps, finalists)``.
        group: ``(sweeps, finalists)``, True for members.
    """
    p = np.where(group, p_values, np.inf)
    order = np.argsort(p, axis=1)
    factors = group.sum(axis=1, keepdims=True) - np.arange(p.shape[1])
    stepped = np.take_along_axis(p, order, axis=1) * np.maximum(factors, 1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(stepped, axis=1), 1.0), axis=1)
    return adjusted

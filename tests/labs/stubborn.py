"""Someone who reads the test split again until a finalist is better, with the number of seeds that suits."""

from __future__ import annotations

import math
import zlib
from itertools import product

import numpy as np
from scipy import special

from lenet_exp.results.verdicts.statistics import Bools, Floats
from tests.labs.looks import UNDECIDED, Integers, look, reading_level
from tests.labs.noise import differences

LEVEL = 0.05
#: Most readings, and most seeds in all.
READINGS, MOST = 6, 40

#: Chances in the middle of as many equal parts, at whose quantiles a distribution is looked at.
MIDDLES = (np.arange(60) + 0.5) / 60
FEW_MIDDLES = (np.arange(6) + 0.5) / 6


def stubborn(first: int, finalists: int, added: int, sweeps: int) -> tuple[int, int]:
    """Return how many sweeps reach a false *better*, and any false verdict, in some reading; noise is normal.

    Args:
        first: Seeds of the first reading.
        finalists: Number of finalists in the first reading.
        added: Number of new finalists, as good as the baseline, in each later reading.
        sweeps: Number of sweeps.
    """
    seed = zlib.crc32(f"stubborn/{first}/{finalists}/{added}".encode())
    values = differences("normal", seed, sweeps, finalists + added * (READINGS - 1), MOST)
    better, wrong = np.zeros((2, sweeps), bool)
    settled: Integers = np.zeros(values.shape[:2], np.int64)
    numbers = np.full(sweeps, first)
    for reading in range(1, READINGS + 1):
        chosen = np.arange(values.shape[1]) < finalists + added * (reading - 1)
        for n, rows in [(n, np.flatnonzero(~better & (numbers == n))) for n in np.unique(numbers[~better])]:
            taking_part = np.broadcast_to(chosen, settled[rows].shape)
            now = look(values[rows][..., :n], reading, settled[rows], LEVEL, taking_part)
            settled[rows] = now.settled
            better[rows] = now.better.any(axis=1)
            wrong[rows] |= (now.better | now.worse).any(axis=1)
            if n < MOST:
                undecided = taking_part & (now.settled == UNDECIDED)
                numbers[rows] = _likeliest(values[rows][..., :n], undecided, reading + 1)
    return int(better.sum()), int(wrong.sum())


def _likeliest(values: Floats, undecided: Bools, reading: int) -> Integers:
    """Return with how many seeds the next reading is likeliest to settle a finalist.

    Args:
        values: ``(sweeps, finalists, seeds)``, the differences so far.
        undecided: ``(sweeps, finalists)``, True for finalists that can still be settled.
        reading: Number of the next reading.
    """
    n = values.shape[-1]
    mean, squares = values.mean(axis=-1), (n - 1) * values.var(axis=-1, ddof=1)
    level = reading_level(LEVEL, reading) / np.maximum(undecided.sum(axis=1, keepdims=True), 1)
    totals = np.unique([*range(n + 1, min(n + 10, MOST)), *range(n + 1, MOST, 4), MOST])
    chances = []
    for total in totals:
        more = total - n
        limit = special.stdtrit(total - 1, 1 - level / 2)
        hits = np.zeros(mean.shape)
        # The true deviation is 1: the seeds to come have a normal mean and a chi-square sum of squares.
        for z, new_squares in product(special.ndtri(MIDDLES), special.chdtri(max(more - 1, 1), FEW_MIDDLES)):
            new = z / math.sqrt(more)
            t = (n * mean + more * new) / math.sqrt(total)
            both = squares + (new_squares if more > 1 else 0) + n * more / total * (new - mean) ** 2
            hits += np.abs(t) > limit * np.sqrt(both / (total - 1))
        chances.append((hits * undecided).sum(axis=1))
    # Where nothing is likely, it is the last: the most seeds change most.
    likeliest: Integers = totals[::-1][np.argmax(chances[::-1], axis=0)]
    return likeliest

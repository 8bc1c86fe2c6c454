"""Two questions besides the verdict, on simulated data: seeds that settle a tie, and other test images."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np

from lenet_exp.results.verdicts.seeds import MOST_SEEDS, seeds_to_settle
from lenet_exp.results.verdicts.statistics import Floats, other_images_interval, paired, paired_p_values
from tests.labs.looks import Integers, reading_level

LEVEL = 0.05
#: Relative step between the spreads for which `seeds_to_settle` is asked; it takes milliseconds a call.
STEP = 1.02

#: Test images of a simulated sweep, the share on which chance makes two networks differ, and by how much a
#: seed shifts in whose favour.
IMAGES, CHANCE, SHIFT = 500, 0.06, 0.05

#: Deviation of the mean difference that is due to the images, divided by that due to the seeds.
IMAGE_PARTS = {"none": 0.0, "as large": 1.0, "three times": 3.0}


@dataclass(frozen=True)
class Settled:
    """What became of ties whose number of seeds was raised to what `seeds_to_settle` had named.

    Attributes:
        low: Median of the smaller number.
        high: Median of the larger number; one above the largest that is named counts as that.
        settled_at_low: Share of ties that the smaller number settled.
        settled_at_high: Share of ties that the larger number settled.
        unnamed: Share of ties for which the larger number was above the largest that is named.
    """

    low: int
    high: int
    settled_at_low: float
    settled_at_high: float
    unnamed: float


def settled(n: int, effect: float, finalists: int, sweeps: int) -> Settled:
    """Simulate ties at a first reading, with normal noise and a true difference, and a second reading.

    Args:
        n: Seeds of the first reading.
        effect: True difference, in standard deviations of a paired difference; also what is asked about.
        finalists: Number of finalists, all undecided; by Bonferroni's correction, a little below Holm's.
        sweeps: Number of sweeps, of which the ties are used.
    """
    stream = np.random.default_rng(zlib.crc32(f"settled/{n}/{effect}/{finalists}".encode()))
    levels = reading_level(LEVEL, 1) / finalists, reading_level(LEVEL, 2) / finalists
    values = stream.standard_normal((sweeps, MOST_SEEDS)) + effect
    values = values[paired_p_values(values[:, :n]) > levels[0]]
    if len(values) == 0:  # of a few sweeps, a large difference leaves none undecided
        return Settled(0, 0, math.nan, math.nan, math.nan)
    spreads = values[:, :n].std(axis=1, ddof=1)

    @cache
    def named(step: int) -> tuple[int | None, int | None]:
        return seeds_to_settle(STEP**step, n, effect, *levels)

    steps = np.ceil(np.log(spreads) / np.log(STEP)).astype(int)
    numbers = np.asarray([[number or MOST_SEEDS for number in named(int(step))] for step in steps])
    unnamed = float(np.mean([named(int(step))[1] is None for step in steps]))
    at_low, at_high = (_rejected(values, column, levels[1]) for column in numbers.T)
    low, high = np.median(numbers, axis=0).astype(int).tolist()
    return Settled(low, high, at_low, at_high, unnamed)


def _rejected(values: Floats, numbers: Integers, level: float) -> float:
    """Return how often the paired t-test on each row's own number of seeds rejects."""
    rejected = 0
    for number in np.unique(numbers):
        p_values = paired_p_values(values[numbers == number][:, :number])
        rejected += int((p_values <= level).sum())
    return rejected / len(values)


def image_coverage(n: int, ratio: float, sweeps: int) -> tuple[float, float]:
    """Return how often the interval for other images, and the one for these images, hold the truth.

    Two configurations that are equally good on all images there are classify a sample of them. On some images
    of the sample the one is right whatever the seed, on as many others the other, by chance.

    Args:
        n: Number of seeds.
        ratio: Standard deviation of the mean difference that is due to the images, divided by that due to
            the seeds.
        sweeps: Number of sweeps.
    """
    stream = np.random.default_rng(zlib.crc32(f"images/{n}/{ratio}".encode()))
    of_seeds = ((2 * CHANCE * SHIFT) ** 2 + CHANCE / IMAGES) / n
    lasting = ratio**2 * of_seeds * IMAGES
    covered = np.zeros(2)
    for _ in range(sweeps):
        favours = 0.5 + SHIFT * stream.standard_normal((n, 1))
        chance = (stream.random((n, IMAGES)) < CHANCE) * np.sign(favours - stream.random((n, IMAGES)))
        always = (stream.random(IMAGES) < lasting) * np.sign(stream.random(IMAGES) - 0.5)
        wins = np.where(always == 0, chance, always)
        right, other_right = wins <= 0, wins >= 0
        low, high = other_images_interval(right, other_right, LEVEL)
        seeds = paired(wins.mean(axis=1), LEVEL)
        covered += low <= 0 <= high, seeds.low <= 0 <= seeds.high
    other_images, these_images = (covered / sweeps).tolist()
    return other_images, these_images

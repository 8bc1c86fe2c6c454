"""Noise of trainings whose truth is known: accuracies of a baseline and of finalists, all equally good."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lenet_exp.results.verdicts.statistics import Floats

Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]

#: Share of trainings that collapse, and how many standard deviations of the others they lose.
COLLAPSING, LOSS = 0.1, 20.0


def _normal(stream: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return stream.standard_normal(shape)


def _heavy(stream: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return stream.standard_t(3, shape) / math.sqrt(3)


def _skewed(stream: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    # An accuracy falls far below its median more often than it rises far above it.
    return -stream.lognormal(0, 1, shape) / math.sqrt(math.e * (math.e - 1))


def _collapsing(stream: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    lost = LOSS * (stream.random(shape) < COLLAPSING)
    return (stream.standard_normal(shape) - lost) / math.sqrt(1 + LOSS**2 * COLLAPSING * (1 - COLLAPSING))


def _unequal(ratio: float) -> Draw:
    def draw(stream: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        values = stream.standard_normal(shape)
        values[:, 1:] *= ratio
        return values * math.sqrt(2 / (1 + ratio**2))

    return draw


#: Each draws ``(sweeps, configurations, seeds)``, the baseline first. All are scaled so that the standard
#: deviation of a difference of finalist and baseline is the square root of 2.
NOISES: dict[str, Draw] = {
    "normal": _normal,
    "heavy-tailed": _heavy,
    "skewed": _skewed,
    "collapsing": _collapsing,
    "finalists 3 times as noisy": _unequal(3.0),
    "finalists a third as noisy": _unequal(1 / 3),
}


def differences(noise: str, seed: int, sweeps: int, finalists: int, seeds: int) -> Floats:
    """Return the paired differences of finalists that are as good as the baseline, with deviation 1.

    The finalists of a sweep share the baseline's trainings, so their differences go together.

    Args:
        noise: A key of `NOISES`.
        seed: Seed of the noise.
        sweeps: Number of sweeps.
        finalists: Number of finalists in each.
        seeds: Number of paired trainings of each finalist.

    Returns:
        ``(sweeps, finalists, seeds)``.
    """
    stream = np.random.default_rng(seed)
    accuracy = NOISES[noise](stream, (sweeps, 1 + finalists, seeds)) * math.sqrt(0.5)
    return accuracy[:, 1:] - accuracy[:, :1]

"""Verdicts on many sweeps whose truth is known: what the tables of experiments/STATISTICS.md are made of."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
from scipy import special

from lenet_exp.results.verdicts.seeds import seeds_for_precision
from lenet_exp.results.verdicts.statistics import Bools, Floats
from tests.labs.looks import Integers, looks, reading_level
from tests.labs.noise import differences

LEVEL = 0.05
#: How often the test split is read in a simulated sweep; each reading adds as many seeds as the first had.
LOOKS = 4
#: True differences, in standard deviations of a paired difference.
EFFECTS = (0.0, 0.5, 1.0, 2.0)
#: Seeds of the first stage of `auto`, the precision asked for (in standard deviations), and the most seeds.
FIRST_STAGE, PRECISION, MOST = 8, 1.0, 20


@dataclass(frozen=True)
class Cell:
    """What verdicts came of many sweeps with the same noise, number of finalists and number of seeds.

    Attributes:
        sweeps: Number of sweeps.
        false_better: For each look, number of sweeps in which this or an earlier look called any finalist
            better although none differs.
        false_any: The same, for *better* or *worse*.
        power: ``(effects, looks)``, share of finalists called better by that look, see `EFFECTS`.
        coverage: ``(effects, looks)``, share of sweeps in which the look's intervals all hold the truth.
    """

    sweeps: int
    false_better: tuple[int, ...]
    false_any: tuple[int, ...]
    power: Floats
    coverage: Floats


def cell(noise: str, finalists: int, seeds: int | None, sweeps: int) -> Cell:
    """Simulate a cell of the tables; it draws numbers of its own, so that it can be repeated alone.

    Args:
        noise: A key of `tests.labs.noise.NOISES`.
        finalists: Number of finalists.
        seeds: Seeds of the first look, each later one has as many more; None for `auto`.
        sweeps: Number of sweeps.
    """
    seed = zlib.crc32(f"{noise}/{finalists}/{seeds}".encode())
    values = differences(noise, seed, sweeps, finalists, LOOKS * (seeds or MOST))
    if seeds is None:
        numbers = second_stage(differences(noise, seed + 1, sweeps, finalists, FIRST_STAGE))
    else:
        numbers = np.full(sweeps, seeds)
    better = np.zeros((LOOKS, sweeps), bool)
    wrong = np.zeros((LOOKS, sweeps), bool)
    power, coverage = np.zeros((2, len(EFFECTS), LOOKS))
    for number in np.unique(numbers):
        rows = numbers == number
        own = values[rows][..., : LOOKS * number]
        for row, effect in enumerate(EFFECTS):
            for column, now in enumerate(looks(own + effect, number * np.arange(1, LOOKS + 1), LEVEL)):
                power[row, column] += now.better.mean(axis=1).sum() / sweeps
                coverage[row, column] += now.covers(effect).sum() / sweeps
                if effect == 0:
                    better[column, rows] = now.better.any(axis=1)
                    wrong[column, rows] = (now.better | now.worse).any(axis=1)
    return Cell(sweeps, _so_far(better), _so_far(wrong), power, coverage)


def _so_far(called: Bools) -> tuple[int, ...]:
    """Return for each look the number of sweeps in which it or an earlier one called something."""
    return tuple(np.logical_or.accumulate(called, axis=0).sum(axis=1).tolist())


def lower_bound(count: int, of: int, confidence: float = 0.99) -> float:
    """Return the exact lower confidence bound of a share.

    Args:
        count: Number of cases in which it happened.
        of: Number of cases.
        confidence: Chance that the bound is below the true share.

    Source: Clopper and Pearson, Biometrika 26 (1934) 404.
    """
    return float(special.betaincinv(count, of - count + 1, 1 - confidence)) if count else 0.0


def second_stage(first: Floats, precision: float = PRECISION, most: int = MOST) -> Integers:
    """Return how many seeds `auto` chooses in each of many sweeps.

    Args:
        first: ``(sweeps, finalists, seeds)``, the differences in the first stage.
        precision: Largest wanted half-width of an interval.
        most: Largest number that is allowed.
    """
    finalists, n = first.shape[1:]
    level = reading_level(LEVEL, 1) / finalists
    spreads = first.std(axis=-1, ddof=1).max(axis=1)
    return np.asarray([min(most, seeds_for_precision([spread], n, precision, level)) for spread in spreads])


@dataclass(frozen=True)
class Auto:
    """What `auto` costs and gives.

    Attributes:
        seeds: Mean number of seeds of the second stage.
        trainings: Mean number of trainings of each configuration, both stages.
        narrow: Share of sweeps in which no interval is wider than asked for.
        power: Share of finalists called better, for each difference of `EFFECTS` but 0.
    """

    seeds: float
    trainings: float
    narrow: float
    power: tuple[float, ...]


def auto(first_stage: int, finalists: int, precision: float, sweeps: int, most: int = 40) -> Auto:
    """Simulate `auto` with normal noise.

    Args:
        first_stage: Seeds of which only the spread on validation images is looked at.
        finalists: Number of finalists.
        precision: Wanted half-width of the intervals, in standard deviations of a difference.
        sweeps: Number of sweeps.
        most: Largest number of seeds of the second stage.
    """
    seed = zlib.crc32(f"auto/{first_stage}/{finalists}/{precision}".encode())
    numbers = second_stage(differences("normal", seed, sweeps, finalists, first_stage), precision, most)
    values = differences("normal", seed + 1, sweeps, finalists, most)
    power, narrow = np.zeros(len(EFFECTS) - 1), 0.0
    for number in np.unique(numbers):
        own = values[numbers == number][..., :number]
        half = special.stdtrit(number - 1, 1 - reading_level(LEVEL, 1) / finalists / 2) / math.sqrt(number)
        narrow += (half * own.std(axis=-1, ddof=1) <= precision).all(axis=1).sum() / sweeps
        for row, effect in enumerate(EFFECTS[1:]):
            (now,) = looks(own + effect, [number], LEVEL)
            power[row] += now.better.mean(axis=1).sum() / sweeps
    mean = float(numbers.mean())
    return Auto(mean, mean + first_stage, float(narrow), tuple(power.tolist()))

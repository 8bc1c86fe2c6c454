"""How many seeds a question needs: the power of the paired t-test, and the two ways to choose a number."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

from lenet_exp.results.verdicts.statistics import check_share, t_quantile

#: Largest number of seeds that `seeds_to_settle` considers; nobody would train more to settle a tie.
MOST_SEEDS = 200

#: Chance with which the numbers of `seeds_to_settle` find a difference.
POWER = 0.8

#: Fewest seeds that `seeds_for_precision` chooses: fewer show too little of noise that is not normal.
FEWEST_SEEDS = 5

#: Coverage of the interval for the spread, from which `seeds_to_settle` takes its two numbers. One half is
#: enough for the larger number to settle a tie with a chance of `POWER`, see experiments/STATISTICS.md.
SPREAD_COVERAGE = 0.5


def power(effect_in_sd: float, n: int, level: float = 0.05) -> float:
    """Return the chance that the two-sided paired t-test detects a true difference.

    Args:
        effect_in_sd: True mean difference divided by the standard deviation of the differences.
        n: Number of pairs; the power of a single pair is 0.
        level: Significance level of the test, in (0, 1).

    Example:
        >>> round(power(2.0, 5), 2)
        0.91
    """
    check_share(level, "level")
    if math.isnan(effect_in_sd):
        return math.nan
    if n < 2:
        return 0.0
    # Not scipy.special, which loads faster: its noncentral t is NaN or wrong for large effects.
    from scipy import stats

    noncentrality = min(abs(effect_in_sd), 1e6) * math.sqrt(n)
    critical = t_quantile(level, n)
    return float(sum(stats.nct.sf(critical, n - 1, shift) for shift in (noncentrality, -noncentrality)))


def seeds_to_settle(
    sd: float, n: int, difference: float, level: float, next_level: float
) -> tuple[int | None, int | None]:
    """Return between which numbers of seeds a tie is settled, if there is a difference of a given size.

    The size is what matters to the user, not what was measured: after a tie the measured difference is mostly
    noise. The spread of the differences is known from ``n`` seeds only roughly, hence two numbers: for the
    lower and for the upper end of its chi-square interval, which has the coverage `SPREAD_COVERAGE`. If the
    spread were that, each would be the smallest number, the seeds so far included, with which a test at
    ``next_level`` finds the difference with a chance of `POWER`, given that the test on ``n`` seeds at
    ``level`` has not. As the spread is not known, the chance is about one half with the smaller number, and
    at least `POWER` with the larger.

    Args:
        sd: Standard deviation of the measured differences.
        n: Number of seeds so far, at least 2.
        difference: True difference that is to be found, above 0.
        level: Level at which the tie was tested, in (0, 1).
        next_level: Level of the next test, on all seeds, in (0, 1).

    Returns:
        The two numbers; None in place of one that is above `MOST_SEEDS`, or if ``sd`` is 0 or not finite:
        then nothing is known about the spread.

    Example:
        >>> seeds_to_settle(0.003, 5, 0.005, 0.04, 0.005)
        (11, 17)
    """
    from scipy import special

    ends = ((1 + SPREAD_COVERAGE) / 2, (1 - SPREAD_COVERAGE) / 2)
    if not (math.isfinite(sd) and sd > 0):
        return None, None
    spreads = [sd * math.sqrt((n - 1) / special.chdtri(n - 1, 1 - end)) for end in ends]
    low, high = (_needed(difference / spread, n, level, next_level) for spread in spreads)
    return low, high


def _needed(effect_in_sd: float, n: int, level: float, next_level: float) -> int | None:
    """Return the number of seeds for one spread; None if it is above `MOST_SEEDS`."""
    # Of the luck with which the difference could have been found already, there was none.
    wanted = POWER + (1 - POWER) * power(effect_in_sd, n, level)
    numbers = range(n + 1, MOST_SEEDS + 1)
    index = bisect_left(numbers, wanted, key=lambda number: power(effect_in_sd, number, next_level))
    return numbers[index] if index < len(numbers) else None


def seeds_for_precision(spreads: Sequence[float], n: int, precision: float, level: float) -> int:
    """Return how many seeds make the intervals of all finalists as narrow as wanted.

    The first stage of Stein's procedure looks at the spread of the differences on ``n`` seeds, not at their
    mean. His second stage goes on with these seeds, and tests with their spread alone, which fails for noise
    that is not normal: a first stage without a collapsed training promises too much. So here the verdict is
    to come from as many other seeds, by the ordinary paired t-test, whose level does not depend on how their
    number was chosen.

    Args:
        spreads: Standard deviation of the differences of each finalist, from the first stage; NaN for a
            finalist that has too few.
        n: Number of seeds of the first stage, at least 2.
        precision: Largest wanted half-width of an interval, above 0.
        level: Level of each interval, in (0, 1).

    Returns:
        The number of seeds of the second stage, at least `FEWEST_SEEDS`.

    Example:
        >>> seeds_for_precision([0.002, 0.004], 8, 0.004, 0.04)
        7

    Source: Stein, Annals of Mathematical Statistics 16 (1945) 243.
    """
    largest = max((spread for spread in spreads if math.isfinite(spread)), default=0.0)
    ratio = min(
        t_quantile(level, n) * largest / precision, 1e6
    )  # for any precision a number that can be read
    number = max(FEWEST_SEEDS, math.ceil(ratio**2))
    # On fewer seeds than in the first stage, it is the test on these that knows the spread less well.
    while number < n and t_quantile(level, number) * largest > precision * math.sqrt(number):
        number += 1
    return number

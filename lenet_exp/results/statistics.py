"""Statistics for a few seeds: estimates, paired tests, corrections for several tests, and power.

Every function takes numbers and returns numbers. A result that cannot be computed is NaN, without a warning:
for example the spread of a single value, or the mean of values of which one is NaN or infinite. There is no
bootstrap: with five seeds its interval is too narrow, while Student's t is exact for normal differences.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: `sign_flip_test` tries every combination of signs for up to this many differences; 2**16 take a few ms.
EXACT_SIGNS = 16

#: Random combinations of signs drawn for more differences; the smallest possible p is then 1 in 20,000.
SIGN_DRAWS = 19_999

#: Largest number of seeds that `seeds_to_settle` considers; nobody would train more to settle a tie.
MOST_SEEDS = 200

#: If two configurations differ on fewer images than this, McNemar's test is computed exactly, as is usual.
FEW_DISCORDANT = 25

#: A spread below this share of the largest value is rounding error, not measured noise.
_ROUNDING = 1e-9

#: A difference of two accuracies below this is rounding error, and counts as 0.
_ZERO = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error and its confidence interval.

    Attributes:
        mean: Mean of the values.
        sem: Standard error of the mean, from the sample standard deviation; NaN for one value.
        low: Lower end of Student's t interval for the mean; NaN for one value.
        high: Upper end of Student's t interval for the mean; NaN for one value.
        n: Number of values.
    """

    mean: float
    sem: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Paired(Estimate):
    """The mean of paired differences, with its interval and the p of the paired t-test.

    Attributes:
        p_value: The p of the two-sided paired t-test; NaN for one pair.
    """

    p_value: float


def estimate(values: Sequence[float] | Floats, level: float = 0.05) -> Estimate:
    """Return the mean of ``values`` with its standard error and its confidence interval.

    Equal values give a standard error of 0 and an interval of width 0.

    Args:
        values: Independent measurements; a single infinity or NaN makes the whole estimate NaN.
        level: One minus the coverage of the interval, in (0, 1); 0.05 gives a coverage of 0.95.

    Example:
        >>> accuracy = estimate([0.88, 0.90, 0.92])
        >>> round(accuracy.mean, 4), round(accuracy.sem, 4), round(accuracy.low, 4), round(accuracy.high, 4)
        (0.9, 0.0115, 0.8503, 0.9497)
    """
    _check_share(level, "level")
    array = np.asarray(values, float)
    n = array.size
    if n == 0 or not np.isfinite(array).all():
        return Estimate(math.nan, math.nan, math.nan, math.nan, n)
    mean = float(array.mean())
    if n == 1:
        return Estimate(mean, math.nan, math.nan, math.nan, n)
    sem = float(array.std(ddof=1)) / math.sqrt(n)
    half_width = _t_quantile(level, n) * sem
    return Estimate(mean, sem, mean - half_width, mean + half_width, n)


def paired(differences: Sequence[float] | Floats, level: float = 0.05) -> Paired:
    """Return the mean of paired ``differences``, its t interval, and the p of the two-sided t-test.

    The interval excludes 0 exactly if p is at most ``level``. If all differences are equal, there is no noise
    to test against. Then p is that of an exact test of their signs (see `paired_p_values`), and both ends of
    the interval are the difference itself if p is at most ``level``, else NaN. If all differences are 0, p is
    1 and the interval is [0, 0].

    Args:
        differences: One difference per pair.
        level: One minus the coverage of the interval, and the level of the test, in (0, 1).

    Example:
        >>> delta = paired([0.011, 0.014, 0.010, 0.013, 0.012])
        >>> round(delta.low, 4), round(delta.high, 4), round(delta.p_value, 6)
        (0.01, 0.014, 7.1e-05)
    """
    array = np.asarray(differences, float)
    mean = estimate(array, level)
    if math.isnan(mean.sem):
        return Paired(mean.mean, mean.sem, mean.low, mean.high, mean.n, math.nan)
    p_value = float(paired_p_values(array))
    if not _all_equal(array):
        return Paired(mean.mean, mean.sem, mean.low, mean.high, mean.n, p_value)
    if _all_zero(array):
        return Paired(0.0, 0.0, 0.0, 0.0, mean.n, p_value)
    end = mean.mean if p_value <= level else math.nan
    return Paired(mean.mean, 0.0, end, end, mean.n, p_value)


def paired_p_values(differences: Floats) -> Floats:
    """Return the p of the two-sided paired t-test along the last axis of ``differences``.

    Where all n differences are equal up to rounding, the t statistic would divide by 0. There p is that of an
    exact test of their signs, 2**(1-n), or 1 if they are 0. So a few seeds on a few test images, where equal
    differences are common, decide nothing. p is NaN for a single difference, and if any is not finite.
    """
    n = differences.shape[-1]
    if n < 2:
        return np.full(differences.shape[:-1], math.nan)
    finite = np.asarray(np.isfinite(differences).all(axis=-1))
    replaced = np.where(finite[..., None], differences, 0.0)
    equal = _all_equal(replaced)
    spread = np.where(equal, 1.0, replaced.std(axis=-1, ddof=1))
    t = replaced.mean(axis=-1) / spread * math.sqrt(n)
    # Loading SciPy takes 0.45 s (experiments/LOG.md, Speed: what a sweep costs beside its arithmetic).
    from scipy import special

    p: Floats = 2 * special.stdtr(n - 1, -np.abs(t))
    p = np.where(equal, np.where(_all_zero(replaced), 1.0, 2.0 ** (1 - n)), p)
    return np.where(finite, p, math.nan)


def sign_flip_test(differences: Sequence[float] | Floats) -> float:
    """Return the two-sided p of the sign-flip test, a permutation test of the mean of ``differences``.

    The p is the share of all combinations of signs that give a mean at least as far from 0. The test assumes
    that without a true difference plus and minus are equally likely, and nothing else about the noise. With n
    differences no p is below 2**(1-n), which is 0.0625 for five. For at most `EXACT_SIGNS` differences every
    combination is tried; for more, `SIGN_DRAWS` are drawn from a fixed seed, and the observed one is added.

    Returns:
        A p in (0, 1], which is 1 if all differences are 0; NaN if there are none, or if any is not finite.

    Example:
        >>> sign_flip_test([0.011, 0.014, 0.010, 0.013, 0.012])
        0.0625
    """
    array = np.asarray(differences, float)
    n = array.size
    if n == 0 or not np.isfinite(array).all():
        return math.nan
    # Sums that are mathematically equal differ by rounding, hence the tolerance.
    threshold = abs(float(array.sum())) - _ROUNDING * float(np.abs(array).sum())
    if n <= EXACT_SIGNS:
        return float((np.abs(_all_signed_sums(array)) >= threshold).mean())
    count = sum(int((np.abs(sums) >= threshold).sum()) for sums in _drawn_signed_sums(array))
    return (count + 1) / (SIGN_DRAWS + 1)


def _all_signed_sums(values: Floats) -> Floats:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _drawn_signed_sums(values: Floats) -> Iterator[Floats]:
    stream = np.random.default_rng(0)
    for start in range(0, SIGN_DRAWS, 1000):
        draws = min(1000, SIGN_DRAWS - start)
        yield (2.0 * stream.integers(0, 2, (draws, values.size), np.int8) - 1) @ values


def mcnemar(baseline_right: Bools, other_right: Bools) -> float:
    """Return the two-sided p of McNemar's test: do two configurations classify equally many images correctly?

    The networks of several seeds are not independent on one image, so the unit is the image. Its score is the
    number of seeds for which only the other network is right, minus the number for which only the baseline's
    is. With many images, the sum of the scores divided by the root of their sum of squares is taken as normal
    (a cluster-robust z); with fewer than `FEW_DISCORDANT` images whose score is not 0, the distribution is
    computed exactly. For one seed these are McNemar's test without continuity correction and its exact,
    binomial form.

    `paired` asks whether other seeds would show the difference too; this test asks whether these trained
    networks would show it on other images.

    Args:
        baseline_right: ``(n_seeds, n_images)``, or ``(n_images,)`` for one seed; True where the baseline's
            network is right.
        other_right: Array of the same shape for the other configuration, its seeds in the same order.

    Returns:
        A p in [0, 1]; 1 if no image has a score other than 0, or there are no images.

    Raises:
        ValueError: If the shapes differ.

    Source: McNemar, Psychometrika 12 (1947) 153; Eliasziw and Donner, Statistics in Medicine 10 (1991) 1981.
    """
    if baseline_right.shape != other_right.shape:
        raise ValueError(
            f"predictions must have one shape, found {baseline_right.shape} and {other_right.shape}"
        )
    wins = np.atleast_2d(other_right).astype(np.int64) - np.atleast_2d(baseline_right)  # (n_seeds, n_images)
    scores = wins.sum(axis=0)  # (n_images,)
    scores = scores[scores != 0]
    if scores.size == 0:
        return 1.0
    if scores.size < FEW_DISCORDANT:
        return _exact_sum_test(scores)
    z = scores.sum() / math.sqrt((scores**2).sum())
    from scipy import special

    return float(2 * special.ndtr(-abs(z)))


def _exact_sum_test(scores: NDArray[np.int64]) -> float:
    """Return the exact two-sided p of the sum of ``scores`` if each sign is a fair coin toss."""
    probabilities = np.ones(1)  # the probability of each possible sum, ascending in steps of 1
    for size in np.abs(scores):
        flip = np.zeros(2 * int(size) + 1)
        flip[[0, -1]] = 0.5
        probabilities = np.convolve(probabilities, flip)
    largest = (probabilities.size - 1) // 2
    sums = np.arange(-largest, largest + 1)
    return min(1.0, float(probabilities[np.abs(sums) >= abs(int(scores.sum()))].sum()))


def holm(p_values: ArrayLike) -> Floats:
    """Return p values, adjusted for several tests by Holm's method along the last axis, in the given order.

    If every hypothesis is rejected whose adjusted p is at most a level, the chance of any false rejection is
    at most that level. A NaN stays NaN, and still counts as a test.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, axis=-1)  # NaN last
    ranked = np.take_along_axis(p, order, axis=-1)
    stepped = ranked * np.arange(p.shape[-1], 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(stepped, axis=-1), 1.0)
    result = np.empty_like(p)
    np.put_along_axis(result, order, adjusted, axis=-1)
    return result


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
    _check_share(level, "level")
    if math.isnan(effect_in_sd):
        return math.nan
    if n < 2:
        return 0.0
    # Not scipy.special, which loads faster: its noncentral t is NaN or wrong for large effects.
    from scipy import stats

    noncentrality = min(abs(effect_in_sd), 1e6) * math.sqrt(n)
    critical = _t_quantile(level, n)
    return float(sum(stats.nct.sf(critical, n - 1, shift) for shift in (noncentrality, -noncentrality)))


def seeds_to_settle(
    mean: float, sd: float, level: float = 0.05, power: float = 0.8, most: int = MOST_SEEDS
) -> int | None:
    """Return how many paired seeds the t-test needs to detect a difference that is as large as measured.

    Args:
        mean: Mean of the measured differences.
        sd: Standard deviation of the measured differences.
        level: Significance level of the two-sided paired t-test, in (0, 1).
        power: Chance with which the test should detect the difference, in (0, 1).
        most: Largest number of seeds to consider.

    Returns:
        The smallest number of seeds with that power, or None if it is above ``most``, if ``mean`` is 0, or
        if ``mean`` or ``sd`` is not finite. If all differences are equal, it is the smallest number at which
        the exact test of their signs decides, see `paired_p_values`.

    Example:
        >>> seeds_to_settle(0.002, 0.003)
        20
    """
    _check_share(level, "level")
    _check_share(power, "power")
    if not math.isfinite(mean) or not math.isfinite(sd) or mean == 0:
        return None
    if sd <= _ROUNDING * abs(mean):
        n_needed = math.ceil(1 - math.log2(level))
        return n_needed if n_needed <= most else None
    effect = mean / sd
    numbers = range(2, most + 1)
    index = bisect_left(numbers, power, key=lambda n: _power(effect, n, level))
    return numbers[index] if index < len(numbers) else None


#: `power` under a second name, as a parameter of `seeds_to_settle` hides the first.
_power = power


def _all_equal(values: Floats) -> Bools:
    """Return True where all values along the last axis are equal up to rounding."""
    width: Floats = np.ptp(values, axis=-1)
    return np.asarray(width <= np.maximum(_ROUNDING * np.abs(values).max(axis=-1), _ZERO))


def _all_zero(differences: Floats) -> Bools:
    """Return True where all differences along the last axis are 0 up to rounding."""
    return np.asarray(np.abs(differences).max(axis=-1) <= _ZERO)


def _t_quantile(level: float, n: int) -> float:
    from scipy import special

    return float(special.stdtrit(n - 1, 1 - level / 2))


def _check_share(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must be in (0, 1), found {value}")

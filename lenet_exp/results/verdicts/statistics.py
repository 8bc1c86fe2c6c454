"""Statistics for a few seeds: estimates, paired tests, and corrections for several tests and readings.

Every function takes numbers and returns numbers. A result that cannot be computed is NaN, without a warning:
for example the spread of a single value, or the mean of values of which one is NaN or infinite. There is no
bootstrap: with five seeds its interval is too narrow, while Student's t is exact for normal differences.
"""

from __future__ import annotations

import math
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

    @property
    def sd(self) -> float:
        """Standard deviation of the values; NaN for one value."""
        return self.sem * math.sqrt(self.n)


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
    check_share(level, "level")
    array = np.asarray(values, float)
    n = array.size
    if n == 0 or not np.isfinite(array).all():
        return Estimate(math.nan, math.nan, math.nan, math.nan, n)
    mean = float(array.mean())
    if n == 1:
        return Estimate(mean, math.nan, math.nan, math.nan, n)
    sem = float(array.std(ddof=1)) / math.sqrt(n)
    half_width = t_quantile(level, n) * sem
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
    wins = _wins(baseline_right, other_right)  # (n_seeds, n_images)
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


def other_images_interval(
    baseline_right: Bools, other_right: Bools, level: float = 0.05
) -> tuple[float, float]:
    """Return an interval for the difference of two accuracies on other seeds and other images like these.

    `paired` takes the test images as they are, and asks about seeds alone. Here seeds and images are both
    random samples, crossed: every network of a seed classifies every image. The variance of the mean
    difference then is a part that more seeds make smaller, as in `paired`, and a part that only more images
    make smaller, estimated by a two-way analysis of variance. The half-widths of the two parts are combined
    as the root of their sum of squares, so this interval is never narrower than that of `paired`.

    Args:
        baseline_right: ``(n_seeds, n_images)``, True where the baseline's network is right.
        other_right: Array of the same shape for the other configuration, its seeds in the same order.
        level: One minus the coverage of the interval, in (0, 1).

    Returns:
        The lower and the upper end; NaN if there are fewer than two seeds or two images.

    Raises:
        ValueError: If the shapes differ.

    Source: variance components of a two-way layout without replication: Searle, Casella and McCulloch,
        Variance Components (1992), chapter 4; the combination (MOVER): Zou and Donner, Statistics in Medicine
        27 (2008) 1693.
    """
    check_share(level, "level")
    wins = _wins(baseline_right, other_right).astype(float)  # (n_seeds, n_images)
    n_seeds, n_images = wins.shape
    if n_seeds < 2 or n_images < 2:
        return math.nan, math.nan
    mean, of_seeds, of_images = float(wins.mean()), wins.mean(axis=1), wins.mean(axis=0)
    residual = wins - of_seeds[:, None] - of_images + mean
    # Mean squares: what differs from image to image beyond chance, which the seeds' spread has already.
    by_image = n_seeds * float(of_images.var(ddof=1))
    chance = float((residual**2).sum()) / ((n_seeds - 1) * (n_images - 1))
    images = math.sqrt(max(0.0, by_image - chance) / wins.size)
    seeds = math.sqrt(float(of_seeds.var(ddof=1)) / n_seeds)
    half_width = math.hypot(t_quantile(level, n_seeds) * seeds, t_quantile(level, n_images) * images)
    return mean - half_width, mean + half_width


def _wins(baseline_right: Bools, other_right: Bools) -> NDArray[np.int64]:
    """Return, by seed and image, 1 where only the other network is right, -1 where only the baseline's is.

    Raises:
        ValueError: If the shapes differ.
    """
    if baseline_right.shape != other_right.shape:
        raise ValueError(
            f"predictions must have one shape, found {baseline_right.shape} and {other_right.shape}"
        )
    return np.atleast_2d(other_right).astype(np.int64) - np.atleast_2d(baseline_right)


def reading_level(level: float, number: int) -> float:
    """Return the level that one reading of the test split may spend of the level of all readings together.

    The first reading has four fifths, the second a tenth, and each later one half of the one before. However
    often the test split is read, the shares add up to less than 1, so the chance of any false verdict in any
    reading stays below ``level`` (Bonferroni's inequality). That is exact for numbers of seeds that do not
    depend on earlier readings; experiments/STATISTICS.md has what is left of it for those that do.

    Args:
        level: Largest accepted chance of a false verdict in any reading, in (0, 1).
        number: Number of the reading, counted from 1.

    Example:
        >>> [round(reading_level(0.05, number), 6) for number in (1, 2, 3)]
        [0.04, 0.005, 0.0025]
    """
    check_share(level, "level")
    return level * 4 / 5 if number == 1 else level / 5 * 2.0 ** (1 - number)


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


def _all_equal(values: Floats) -> Bools:
    """Return True where all values along the last axis are equal up to rounding."""
    width: Floats = np.ptp(values, axis=-1)
    return np.asarray(width <= np.maximum(_ROUNDING * np.abs(values).max(axis=-1), _ZERO))


def _all_zero(differences: Floats) -> Bools:
    """Return True where all differences along the last axis are 0 up to rounding."""
    return np.asarray(np.abs(differences).max(axis=-1) <= _ZERO)


def t_quantile(level: float, n: int) -> float:
    """Return how many standard errors a two-sided interval reaches on either side of the mean.

    Args:
        level: One minus the coverage of the interval, in (0, 1).
        n: Number of values, at least 2; Student's t has one degree of freedom less.

    Example:
        >>> round(t_quantile(0.05, 5), 3)
        2.776
    """
    from scipy import special

    return float(special.stdtrit(n - 1, 1 - level / 2))


def check_share(value: float, name: str) -> None:
    """Raise an error unless a level, a coverage or a power is a share.

    Args:
        value: The number to check.
        name: Name of the number, for the message.

    Raises:
        ValueError: If ``value`` is not in (0, 1).
    """
    if not 0 < value < 1:
        raise ValueError(f"{name} must be in (0, 1), found {value}")

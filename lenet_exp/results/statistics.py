"""How sure a handful of seeds makes us: estimates, paired tests, corrections and power.

Numbers in, numbers out. What cannot be known is NaN and never a guess or a warning: nothing is known from
a value that is NaN or infinite, and one value says nothing about spread. There is no bootstrap here: of
five seeds it gives an interval that is too narrow, where Student's t is exact for normal differences.
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

#: Up to here every sign is tried: 2**16 sums take some milliseconds.
EXACT_SIGNS = 16

#: Random signs drawn beyond; the smallest p is then one in twenty thousand.
SIGN_DRAWS = 19_999

#: Beyond so many seeds a tie is not worth settling.
MOST_SEEDS = 200

#: Fewer images than this on which two networks differ are counted out, as is usual for McNemar's test.
FEW_DISCORDANT = 25

#: Spread below this share of the largest value is rounding, not noise that was measured.
_ROUNDING = 1e-9

#: A difference of shares below this is rounding, and counts as none.
_NOTHING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A mean and how well it is known.

    Attributes:
        mean: Mean of the values.
        sem: Standard error of the mean, from the sample's standard deviation; NaN for one value.
        low: Lower end of Student's t interval for the mean; NaN for one value.
        high: Upper end of that interval.
        n: How many values there are.
    """

    mean: float
    sem: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Paired(Estimate):
    """A mean difference, how well it is known, and how surprising it were if there was none.

    Attributes:
        p_value: The p of the two-sided paired t-test; NaN for one pair.
    """

    p_value: float


def estimate(values: Sequence[float] | Floats, level: float = 0.05) -> Estimate:
    """Return the mean of ``values`` with its standard error and its interval of coverage 1 - ``level``.

    Equal values give a standard error of 0 and an interval without width.

    Args:
        values: Independent measurements; an infinity or a NaN leaves all unknown.
        level: One less the coverage of the interval.

    Example:
        >>> found = estimate([0.88, 0.90, 0.92])
        >>> round(found.mean, 4), round(found.sem, 4), round(found.low, 4), round(found.high, 4)
        (0.9, 0.0115, 0.8503, 0.9497)
    """
    _check_share(level, "level")
    known = np.asarray(values, float)
    n = known.size
    if n == 0 or not np.isfinite(known).all():
        return Estimate(math.nan, math.nan, math.nan, math.nan, n)
    mean = float(known.mean())
    if n == 1:
        return Estimate(mean, math.nan, math.nan, math.nan, n)
    sem = float(known.std(ddof=1)) / math.sqrt(n)
    half = _t_quantile(level, n) * sem
    return Estimate(mean, sem, mean - half, mean + half, n)


def paired(differences: Sequence[float] | Floats, level: float = 0.05) -> Paired:
    """Return the mean of paired ``differences``, its t interval, and the p of the two-sided t-test.

    The interval leaves out 0 exactly where p is at most ``level``. Equal differences measure no noise to
    test against, so their p is that of the signs (`paired_p_values`), and the interval is the
    difference itself where that p is at most ``level``, else unknown. Differences that are all 0 have p 1 and
    the interval [0, 0].

    Args:
        differences: One for each pair.
        level: One less the coverage of the interval, and the level of the test.

    Example:
        >>> found = paired([0.011, 0.014, 0.010, 0.013, 0.012])
        >>> round(found.low, 4), round(found.high, 4), round(found.p_value, 6)
        (0.01, 0.014, 7.1e-05)
    """
    known = np.asarray(differences, float)
    own = estimate(known, level)
    if math.isnan(own.sem):
        return Paired(own.mean, own.sem, own.low, own.high, own.n, math.nan)
    p_value = float(paired_p_values(known))
    if not _flat(known):
        return Paired(own.mean, own.sem, own.low, own.high, own.n, p_value)
    if _none(known):
        return Paired(0.0, 0.0, 0.0, 0.0, own.n, p_value)
    end = own.mean if p_value <= level else math.nan
    return Paired(own.mean, 0.0, end, end, own.n, p_value)


def paired_p_values(differences: Floats) -> Floats:
    """Return the p of the two-sided paired t-test along the last axis of ``differences``.

    Equal differences (up to rounding) would divide by nothing. Their p is what an exact test of their signs
    gives, 2**(1-n), so that few seeds on few test images, where equal differences are common, decide nothing.
    """
    n = differences.shape[-1]
    if n < 2:
        return np.full(differences.shape[:-1], math.nan)
    finite = np.asarray(np.isfinite(differences).all(axis=-1))
    known = np.where(finite[..., None], differences, 0.0)
    flat = _flat(known)
    spread = np.where(flat, 1.0, known.std(axis=-1, ddof=1))
    t = known.mean(axis=-1) / spread * math.sqrt(n)
    from scipy import special

    p: Floats = 2 * special.stdtr(n - 1, -np.abs(t))
    p = np.where(flat, np.where(_none(known), 1.0, 2.0 ** (1 - n)), p)
    return np.where(finite, p, math.nan)


def sign_flip_test(differences: Sequence[float] | Floats) -> float:
    """Return the two-sided p of the mean of ``differences`` among all signs they might have had.

    It assumes that without a true difference each one's sign is a coin's, and no shape of the noise. With n
    differences no p is below 2**(1-n): 0.0625 at five. Up to `EXACT_SIGNS` of them every sign is tried;
    beyond, `SIGN_DRAWS` are drawn from a fixed seed, and the observed signs count as one more.

    Returns:
        1 where all differences are 0; NaN where there are none, or one is not finite.

    Example:
        >>> sign_flip_test([0.011, 0.014, 0.010, 0.013, 0.012])
        0.0625
    """
    known = np.asarray(differences, float)
    n = known.size
    if n == 0 or not np.isfinite(known).all():
        return math.nan
    # Sums that are equal on paper differ by rounding.
    reached = abs(float(known.sum())) - _ROUNDING * float(np.abs(known).sum())
    if n <= EXACT_SIGNS:
        return float((np.abs(_all_signed_sums(known)) >= reached).mean())
    count = sum(int((np.abs(sums) >= reached).sum()) for sums in _drawn_signed_sums(known))
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
    """Return the two-sided p that two networks are right equally often, from the same test images.

    The networks of several seeds are not independent of each other on one image, so the image is the unit:
    its score is the number of seeds for which only the other network is right, less those for which only the
    baseline is. The sum of scores over the root of their sum of squares is normal for many images
    (a cluster-robust z); fewer than `FEW_DISCORDANT` images with a score are counted out exactly. For one
    seed these are McNemar's test without continuity correction and its exact, binomial form.

    The question is another than `paired`'s: these trained networks on other images, not other seeds.

    Args:
        baseline_right: ``(n_seeds, n_images)``, or ``(n_images,)`` for one seed.
        other_right: Likewise, row by row of the same seed.

    Returns:
        1 where no image has a score, and so where there is no image.

    Raises:
        ValueError: If the shapes differ.

    Source: McNemar, Psychometrika 12 (1947) 153; Eliasziw and Donner, Statistics in Medicine 10 (1991) 1981.
    """
    if baseline_right.shape != other_right.shape:
        raise ValueError(
            f"predictions must have one shape, found {baseline_right.shape}, {other_right.shape}"
        )
    seedwise = np.atleast_2d(other_right).astype(np.int64) - np.atleast_2d(baseline_right)
    scores = seedwise.sum(axis=0)
    scores = scores[scores != 0]
    if scores.size == 0:
        return 1.0
    if scores.size < FEW_DISCORDANT:
        return _exact_sum_test(scores)
    z = scores.sum() / math.sqrt((scores**2).sum())
    from scipy import special

    return float(2 * special.ndtr(-abs(z)))


def _exact_sum_test(scores: NDArray[np.int64]) -> float:
    """Return the two-sided p of the sum of integers among all their signs, from its distribution."""
    chances = np.ones(1)  # of each sum, in steps of 1 from the lowest
    for size in np.abs(scores):
        flip = np.zeros(2 * int(size) + 1)
        flip[[0, -1]] = 0.5
        chances = np.convolve(chances, flip)
    most = (chances.size - 1) // 2
    sums = np.arange(-most, most + 1)
    return min(1.0, float(chances[np.abs(sums) >= abs(int(scores.sum()))].sum()))


def holm(p_values: ArrayLike) -> Floats:
    """Return Holm's adjusted p values along the last axis, in the order given.

    Calling significant what is at most a level keeps the chance of any false call at that level. A NaN stays
    NaN, and counts in its family.

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
    """Return the chance that the two-sided paired t-test finds a true difference.

    Args:
        effect_in_sd: The true mean difference over the standard deviation of differences.
        n: Pairs; one pair never finds anything.
        level: Level of the test.

    Example:
        >>> round(power(2.0, 5), 2)
        0.91
    """
    _check_share(level, "level")
    if math.isnan(effect_in_sd):
        return math.nan
    if n < 2:
        return 0.0
    # scipy.special's noncentral t is NaN or wrong for large effects; this one takes half a second to import.
    from scipy import stats

    shift = min(abs(effect_in_sd), 1e6) * math.sqrt(n)
    limit = _t_quantile(level, n)
    return float(sum(stats.nct.sf(limit, n - 1, side) for side in (shift, -shift)))


def seeds_to_settle(
    mean: float, sd: float, level: float = 0.05, power: float = 0.8, most: int = MOST_SEEDS
) -> int | None:
    """Return how many paired seeds would settle a difference, were it truly as large as measured.

    Args:
        mean: The mean difference.
        sd: The standard deviation of differences.
        level: Level of the two-sided paired t-test.
        power: The chance that the test is to have.
        most: Seeds beyond which nobody goes.

    Returns:
        The smallest number of seeds with that power; None if it is above ``most``, there is no difference, or
        ``mean`` or ``sd`` is unknown. Without spread it is what the signs need (`paired_p_values`).

    Example:
        >>> seeds_to_settle(0.002, 0.003)
        20
    """
    _check_share(level, "level")
    _check_share(power, "power")
    if not math.isfinite(mean) or not math.isfinite(sd) or mean == 0:
        return None
    if sd <= _ROUNDING * abs(mean):
        needed = math.ceil(1 - math.log2(level))
        return needed if needed <= most else None
    effect = mean / sd
    numbers = range(2, most + 1)
    place = bisect_left(numbers, power, key=lambda n: _power(effect, n, level))
    return numbers[place] if place < len(numbers) else None


#: `seeds_to_settle` has an argument of that name.
_power = power


def _flat(values: Floats) -> Bools:
    """Return along the last axis whether all values are equal up to rounding."""
    width: Floats = np.ptp(values, axis=-1)
    return np.asarray(width <= np.maximum(_ROUNDING * np.abs(values).max(axis=-1), _NOTHING))


def _none(differences: Floats) -> Bools:
    """Return along the last axis whether no difference is more than rounding."""
    return np.asarray(np.abs(differences).max(axis=-1) <= _NOTHING)


def _t_quantile(level: float, n: int) -> float:
    from scipy import special

    return float(special.stdtrit(n - 1, 1 - level / 2))


def _check_share(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must be in (0, 1), found {value}")

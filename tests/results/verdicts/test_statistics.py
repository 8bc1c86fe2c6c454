"""The statistics against scipy's, against counting by hand, and against noise whose truth is known."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from lenet_exp.results.verdicts.statistics import (
    Bools,
    Floats,
    estimate,
    holm,
    mcnemar,
    other_images_interval,
    paired,
    paired_p_values,
    reading_level,
    sign_flip_test,
)

#: Differences of accuracies: any, and those of few test images, where equal ones are common.
ANY = st.lists(st.floats(-1, 1), min_size=2, max_size=12)
COARSE = st.lists(st.integers(-3, 3).map(lambda right: right / 200), min_size=2, max_size=12)


def spread_out(values: list[float]) -> bool:
    return float(np.ptp(values)) > max(1e-9, 1e-6 * float(np.abs(values).max()))


@given(ANY, st.floats(0.001, 0.5))
def test_an_estimate_is_student_s(values: list[float], level: float) -> None:
    """Mean, standard error and interval are those of scipy."""
    assume(spread_out(values))
    sem = stats.sem(values)

    found = estimate(values, level)

    interval = stats.t.interval(1 - level, len(values) - 1, np.mean(values), sem)
    assert (found.mean, found.sem) == pytest.approx((np.mean(values), sem), rel=1e-6, abs=1e-12)
    assert (found.low, found.high) == pytest.approx(interval, rel=1e-6, abs=1e-12)
    assert found.n == len(values)


@given(
    st.integers(2, 12).flatmap(lambda n: st.tuples(*[st.lists(st.floats(0, 1), min_size=n, max_size=n)] * 2))
)
def test_the_paired_test_is_student_s(accuracies: tuple[list[float], list[float]]) -> None:
    """The p value is that of scipy's paired two-sided t-test."""
    differences = np.subtract(*accuracies)
    assume(spread_out(differences.tolist()))

    assert paired(differences).p_value == pytest.approx(
        stats.ttest_rel(*accuracies).pvalue, rel=1e-6, abs=1e-12
    )


@given(ANY | COARSE, st.floats(0.001, 0.5))
def test_the_interval_leaves_out_zero_exactly_where_the_test_rejects(
    values: list[float], level: float
) -> None:
    """An interval and a p value that disagreed would be two answers to one question."""
    found = paired(values, level)

    assume(abs(found.p_value - level) > 1e-6)
    assert (found.low > 0 or found.high < 0) == (found.p_value <= level)


@given(ANY | COARSE)
def test_exchanging_the_two_sides_changes_the_sign_alone(values: list[float]) -> None:
    """Neither side is privileged, and the order of seeds is nothing."""
    found, other = paired(values), paired([-value for value in reversed(values)])

    assert other.mean == pytest.approx(-found.mean, abs=1e-12)
    assert other.p_value == pytest.approx(found.p_value, rel=1e-6, abs=1e-12)
    assert sign_flip_test(values) == sign_flip_test([-value for value in reversed(values)])


@pytest.mark.parametrize("n", [2, 5, 6, 20])
def test_equal_differences_have_the_p_of_their_signs(n: int) -> None:
    """Where no noise was measured, t would be infinite after two seeds; the signs need six for 0.05."""
    found = paired([0.91 - 0.90] * (n - 1) + [0.87 - 0.86])

    assert found.p_value == 2.0 ** (1 - n)
    assert [found.low, found.high] == pytest.approx([0.01 if n >= 6 else math.nan] * 2, nan_ok=True)


@pytest.mark.parametrize(
    ("values", "mean", "p_value", "permutation_p"),
    [
        ([], math.nan, math.nan, math.nan),
        ([0.01], 0.01, math.nan, 1.0),
        ([0.01, math.nan], math.nan, math.nan, math.nan),
        ([0.01, math.inf, -math.inf], math.nan, math.nan, math.nan),
        ([0.0, 0.0, 0.0], 0.0, 1.0, 1.0),
        ([1e-300, 2e-300], 0.0, 1.0, 0.5),
    ],
)
def test_what_cannot_be_known_is_nan(
    values: list[float], mean: float, p_value: float, permutation_p: float
) -> None:
    """Nothing, one value and values that are not numbers give NaN and neither errors nor warnings."""
    found = paired(values)

    assert found.mean == pytest.approx(mean, nan_ok=True)
    assert found.p_value == pytest.approx(p_value, nan_ok=True)
    assert sign_flip_test(values) == pytest.approx(permutation_p, nan_ok=True)
    assert found.n == estimate(values).n == len(values)


def test_many_tests_at_once_are_those_of_one_at_a_time() -> None:
    """The vectorised p values are `paired`'s, row by row, those of unknown rows NaN."""
    rows = np.random.default_rng(0).normal(0.5, 1, (4, 6))
    rows[1], rows[2, 3], rows[3] = 0.5, math.nan, 0

    assert paired_p_values(rows).tolist() == pytest.approx([paired(row).p_value for row in rows], nan_ok=True)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, math.nan])
def test_a_level_is_a_share(level: float) -> None:
    """A level of 0 or 1 is a mistake, not an infinite interval."""
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\)"):
        estimate([0.1, 0.2], level)


def permutation_p(values: Floats) -> float:
    """What scipy finds over all signs, the statistic being the mean."""
    found = stats.permutation_test(
        [values.tolist()],
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**values.size,
    )
    return float(found.pvalue)


@pytest.mark.parametrize("n", [2, 5, 9])
def test_the_sign_test_is_scipy_s_permutation_test(n: int) -> None:
    """All signs of a few differences are counted as scipy counts them, ties included."""
    stream = np.random.default_rng(n)

    for values in (stream.normal(0.5, 1, n), stream.integers(-2, 4, n) / 200):
        assert sign_flip_test(values) == pytest.approx(permutation_p(values))


def test_the_sign_test_of_ranks_is_wilcoxon_s() -> None:
    """With ranks for sizes, scipy's exact signed-rank test is the same test."""
    ranks = np.array([1, -2, 3, 4, -5, 6, 7, 8, 9, 10, 11, 12.0])

    assert sign_flip_test(ranks) == pytest.approx(stats.wilcoxon(ranks, method="exact").pvalue)


@pytest.mark.parametrize("positive", [10, 14, 16, 20])
def test_beyond_what_can_be_counted_signs_are_drawn(positive: int) -> None:
    """The drawn p is the exact one but for the error of drawing, never 0, and the same every time."""
    signs = [1.0] * positive + [-1.0] * (20 - positive)
    exact = stats.binomtest(positive, 20).pvalue

    drawn = sign_flip_test(signs)

    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / 20_000) + 1 / 20_000)
    assert drawn == sign_flip_test(signs) >= 1 / 20_000


def test_five_seeds_cannot_reach_a_sign_test_s_level() -> None:
    """Its smallest p is 2**(1-n), whatever the differences."""
    assert sign_flip_test([0.2, 0.3, 0.4, 0.3, 0.2]) == 0.0625


def predictions(both: int, baseline_only: int, other_only: int) -> tuple[Bools, Bools]:
    """Return who is right on each image, of which ten nobody is."""
    counts = [both, baseline_only, other_only, 10]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@given(st.integers(0, 24), st.integers(0, 24))
def test_mcnemar_of_one_seed_and_few_images_is_binomial(baseline_only: int, other_only: int) -> None:
    """Images on which just one network is right are coins."""
    n = baseline_only + other_only
    assume(0 < n < 25)

    found = mcnemar(*predictions(30, baseline_only, other_only))

    assert found == pytest.approx(stats.binomtest(other_only, n).pvalue)


@given(st.integers(0, 400), st.integers(25, 400))
def test_mcnemar_of_one_seed_and_many_images_is_the_classical_one(
    baseline_only: int, other_only: int
) -> None:
    """(b - c)**2 / (b + c) has one degree of freedom."""
    statistic = (baseline_only - other_only) ** 2 / (baseline_only + other_only)

    found = mcnemar(*predictions(30, baseline_only, other_only))

    assert found == pytest.approx(stats.chi2.sf(statistic, 1))


@pytest.mark.parametrize("counts", [(30, 4, 12), (30, 40, 65)])
def test_the_same_predictions_again_are_no_new_evidence(counts: tuple[int, int, int]) -> None:
    """Five seeds that agree on every image count as one, not as five times the images."""
    baseline, other = predictions(*counts)

    assert mcnemar(np.tile(baseline, (5, 1)), np.tile(other, (5, 1))) == pytest.approx(
        mcnemar(baseline, other)
    )


@pytest.mark.parametrize("n_images", [12, 400])
def test_mcnemar_keeps_its_level_where_seeds_go_together(n_images: int) -> None:
    """Each image suits one architecture or the other, whatever the seed; none is better on average."""
    stream = np.random.default_rng(1)
    found = []
    for _ in range(400):
        chances = stream.beta(0.5, 0.2, (2, 1, n_images))
        right = stream.random((2, 5, n_images)) < chances
        found.append(mcnemar(right[0], right[1]))

    assert np.mean(np.array(found) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_mcnemar_without_a_difference_or_an_image_has_p_one() -> None:
    """Networks that are right together cannot be told apart, and shapes must agree."""
    right, _ = predictions(5, 0, 0)

    assert mcnemar(right, right) == 1.0
    assert mcnemar(np.zeros((3, 0), bool), np.zeros((3, 0), bool)) == 1.0
    with pytest.raises(ValueError, match="one shape"):
        mcnemar(right, right[1:])


def test_holm_is_as_by_hand() -> None:
    """The smallest counts k times, the next k - 1 times, and none less than the one before it."""
    assert holm([0.02, 0.001, 0.3, 0.015]).tolist() == pytest.approx([0.045, 0.004, 0.3, 0.045])
    assert holm([0.4, 0.6]).tolist() == [0.8, 0.8]
    assert holm([0.01, math.nan, 0.03]).tolist() == pytest.approx([0.03, math.nan, 0.06], nan_ok=True)
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_holm_never_helps_and_knows_no_order(p_values: list[float], shuffle: Random) -> None:
    """Adjusted values lie between the raw ones and Bonferroni's, in the same order."""
    adjusted = holm(p_values)
    order = list(range(len(p_values)))
    shuffle.shuffle(order)

    assert (adjusted >= p_values).all()
    assert (adjusted <= np.minimum(1, len(p_values) * np.array(p_values)) + 1e-12).all()
    assert holm([p_values[i] for i in order]).tolist() == adjusted[order].tolist()
    assert (np.diff(adjusted[np.argsort(p_values)]) >= 0).all()


def test_holm_works_row_by_row() -> None:
    """Many families at once are each their own."""
    rows = np.random.default_rng(0).random((5, 3))

    assert holm(rows).tolist() == [holm(row).tolist() for row in rows]


def crossed(stream: np.random.Generator, n_seeds: int, n_images: int, hard: float) -> tuple[Bools, Bools]:
    """Return which images two equally good networks get right; ``hard`` images suit one of them better."""
    bias = hard * stream.normal(size=n_images)
    of_seed = 0.05 * stream.normal(size=(2, n_seeds, 1))
    chance = 0.8 + of_seed + np.stack([bias, -bias])[:, None]
    right = stream.random((2, n_seeds, n_images)) < chance
    return right[0], right[1]


def test_the_interval_for_other_images_covers_seeds_and_images() -> None:
    """With images that suit one network, 95 % of these intervals hold; those of the seeds alone do not."""
    stream = np.random.default_rng(0)
    held = held_by_seeds = 0
    for _ in range(300):
        right, other = crossed(stream, 5, 200, hard=0.2)
        low, high = other_images_interval(right, other)
        seeds = paired(other.mean(axis=1) - right.mean(axis=1))
        assert low <= seeds.low <= seeds.high <= high
        held += low <= 0 <= high
        held_by_seeds += seeds.low <= 0 <= seeds.high

    assert held / 300 >= 0.93
    assert held_by_seeds / 300 < 0.93


def test_without_an_effect_of_images_the_two_intervals_are_nearly_the_same() -> None:
    """Images that are alike for both networks add no more than chance does."""
    right, other = crossed(np.random.default_rng(1), 10, 5000, hard=0.0)
    low, high = other_images_interval(right, other)
    seeds = paired(other.mean(axis=1) - right.mean(axis=1))

    assert high - low == pytest.approx(seeds.high - seeds.low, rel=0.05)
    assert all(map(math.isnan, other_images_interval(right[:1], other[:1])))


def test_all_readings_together_spend_less_than_the_level() -> None:
    """The first has most of it, each later one less, and all of them never more than there is."""
    levels = [reading_level(0.1, number) for number in range(1, 60)]

    assert levels[:3] == pytest.approx([0.08, 0.01, 0.005])
    assert levels == sorted(levels, reverse=True)
    assert 0.0999 < sum(levels) <= 0.1

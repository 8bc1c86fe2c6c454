"""Numbers of seeds against their own promises, and against simulated sweeps."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lenet_exp.results.verdicts.seeds import (
    FEWEST_SEEDS,
    MOST_SEEDS,
    power,
    seeds_for_precision,
    seeds_to_settle,
)
from lenet_exp.results.verdicts.statistics import paired_p_values


@given(st.floats(-50, 50), st.integers(2, 60), st.floats(0.001, 0.2))
def test_power_is_the_share_of_samples_that_the_test_rejects(effect: float, n: int, level: float) -> None:
    """Over the quantiles of the sample's spread, the mean's chance to be too many of them from zero."""
    shift, limit = effect * math.sqrt(n), stats.t.isf(level / 2, n - 1)
    spreads = np.sqrt(stats.chi2.ppf((np.arange(4000) + 0.5) / 4000, n - 1) / (n - 1))
    rejected = stats.norm.cdf(shift - limit * spreads) + stats.norm.cdf(-shift - limit * spreads)

    assert power(effect, n, level) == pytest.approx(rejected.mean(), abs=1e-3)


def test_power_at_the_ends() -> None:
    """Without an effect it is the level, with a huge one certain, with one seed nothing."""
    assert power(0, 5, 0.05) == pytest.approx(0.05)
    assert power(math.inf, 2) == power(1e300, 20) == 1.0
    assert power(3, 1) == 0.0
    assert math.isnan(power(math.nan, 5))


@pytest.mark.parametrize("effect", [0.7, 1.5])
def test_a_difference_that_a_tie_left_open_is_settled_by_the_seeds_named(effect: float) -> None:
    """With the larger number four of five such ties are settled, however much the spread was misjudged."""
    stream = np.random.default_rng(1)
    differences = stream.normal(effect, 1, (4000, MOST_SEEDS))
    ties = differences[paired_p_values(differences[:, :5]) > 0.04]
    settled = []
    for values in ties[:400]:
        low, high = seeds_to_settle(float(values[:5].std(ddof=1)), 5, effect, 0.04, 0.005)
        assert low is not None
        assert 5 < low <= (high or MOST_SEEDS)
        settled.append(paired_p_values(values[: high or MOST_SEEDS]) <= 0.005)

    assert np.mean(settled) >= 0.8


def test_what_can_not_be_found_has_no_number() -> None:
    """A difference far below the spread takes more seeds than anyone trains; a spread of 0 is not known."""
    assert seeds_to_settle(0.1, 5, 0.001, 0.04, 0.005) == (None, None)
    assert seeds_to_settle(math.nan, 5, 0.001, 0.04, 0.005) == (None, None)
    assert seeds_to_settle(0.0, 5, 0.001, 0.04, 0.005) == (None, None)


@given(st.floats(1e-4, 0.1), st.integers(2, 20), st.floats(0.001, 0.1), st.floats(0.005, 0.2))
def test_the_seeds_for_a_precision_are_the_fewest_that_give_it(
    sd: float, n: int, precision: float, level: float
) -> None:
    """At Student's quantile of the first stage (Stein), or of the second if that is the smaller."""
    needed = seeds_for_precision([sd / 2, sd, math.nan], n, precision, level)

    def half_width(number: int) -> float:
        return float(stats.t.isf(level / 2, min(n, number) - 1) * sd / math.sqrt(number))

    assert needed >= FEWEST_SEEDS
    assert half_width(needed) <= precision * (1 + 1e-9)
    assert needed == FEWEST_SEEDS or half_width(needed - 1) >= precision * (1 - 1e-9)
    assert seeds_for_precision([], n, precision, level) == FEWEST_SEEDS
    assert seeds_for_precision([sd], n, 5e-324, level) == 10**12

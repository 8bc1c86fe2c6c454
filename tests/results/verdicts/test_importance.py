from __future__ import annotations

import numpy as np

from lenet_exp.results.verdicts.importance import explained_share

#: Share of the variance in rank between the values of `searches` with an effect of 1, from a million trials.
TRUE_SHARE = 0.413


def searches(effect: float) -> np.ndarray:
    """Return share and ends of the interval, at 0.95, for each of 2,000 simulated searches of 30 trials."""
    random, known = np.random.default_rng(0), []
    for _ in range(2000):
        values = random.integers(3, size=30)
        known.append(
            explained_share(values.tolist(), (effect * values + random.normal(size=30)).tolist(), 0.05)
        )
    return np.array(known)


def test_an_interval_holds_the_true_share_about_as_often_as_it_says() -> None:
    """In 0.95 of all searches, less a little for ranks; what chance explains is taken off the estimate."""
    share, low, high = searches(1.0).T

    assert 0.91 < np.mean((low <= TRUE_SHARE) & (high >= TRUE_SHARE)) < 0.96
    assert abs(share.mean() - TRUE_SHARE) < 0.03


def test_without_an_effect_an_interval_seldom_leaves_out_zero() -> None:
    """Such a hyper-parameter would be called clearly above chance: in 0.025 of all searches."""
    _, low, high = searches(0.0).T

    assert 0.015 < np.mean(low > 0) < 0.035
    assert 0.015 < np.mean(high == 0) < 0.035

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lenet_exp.base.records import RunKey, State
from lenet_exp.config.hyperparameters import PRESETS, Configuration, configuration
from lenet_exp.results.aggregate import by_seed, over_seeds, pareto_front
from lenet_exp.study.records import TrialRecord

LENET = configuration(PRESETS["lenet"])


def record(
    role: str,
    number: int,
    seed: int,
    value: float | None,
    tried: Configuration = LENET,
    state: State = "COMPLETE",
    **result: float,
) -> TrialRecord:
    key, label = RunKey(role, number, 1), f"{role} {number}"
    return TrialRecord(key, state, label, tried, seed, {}, result, value)


def test_seeds_of_one_configuration_become_one_with_mean_and_standard_error() -> None:
    """The first stands for all, with the means of what was measured."""
    seeds = [
        record("baseline", 0, 10, 0.80, examples_per_s=100.0),
        record("baseline", 2, 11, 0.90, examples_per_s=300.0),
    ]

    (one,) = over_seeds(seeds)

    assert one.key == seeds[0].key
    assert one.value == pytest.approx(0.85)
    assert one.result["n_seeds"] == 2
    assert one.result["val_accuracy_sem"] == pytest.approx(math.sqrt(0.005) / math.sqrt(2))
    assert one.result["examples_per_s"] == 200.0


def test_a_seed_that_was_trained_on_other_images_later_counts_once() -> None:
    """A repeated confirmation on another data set may divide the images anew; the two are not mixed."""
    other = LENET.model_copy(update={"lr": 0.1})
    before, after = (
        (record("baseline", n, 10, 0.8 + n), record("run", n, 10, 0.9 + n, other)) for n in (0, 1)
    )

    _, run = over_seeds([*before, *after])

    assert (run.value, run.result.get("n_seeds")) == (1.9, 1)
    assert run.result["val_delta"] == pytest.approx(0.1)


def test_the_difference_is_taken_on_the_seeds_that_both_have() -> None:
    """A row that is a seed behind is not compared with a seed of the baseline's that it never saw."""
    records = [
        record("baseline", 0, 10, 0.80),
        record("baseline", 1, 11, 0.90),
        record("ablation", 2, 10, 0.81, LENET.model_copy(update={"lr": 0.1})),
    ]

    _, behind = over_seeds(records)

    assert behind.result["val_delta"] == pytest.approx(0.01)


def test_trials_and_single_trainings_stay_as_they_are() -> None:
    """Two trials of one configuration are two rows; one seed has no spread."""
    records = [
        record("trial", 0, 1, 0.8),
        record("trial", 1, 2, 0.9),
        record("baseline", 0, 3, 0.7),
        record("run", 1, 3, 0.6),
    ]

    assert over_seeds(records) == records


def test_a_seed_without_a_result_is_not_averaged() -> None:
    """What is left is counted; where nothing is left the first speaks."""
    diverged = record("run", 1, 11, None, state="PRUNED")

    (one,) = over_seeds([record("run", 0, 10, 0.8), record("run", 2, 12, 0.9), diverged])

    assert one.result["n_seeds"] == 2
    assert over_seeds([diverged]) == [diverged]
    assert by_seed([diverged]) == {}


@given(st.lists(st.tuples(*[st.integers(0, 5) | st.just(math.nan)] * 2), max_size=15))
def test_the_pareto_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    """A point is on the front if none is as good in both and better in one; unknown points are outside."""

    def beaten(x: float, y: float) -> bool:
        return any(a >= x and b >= y and (a > x or b > y) for a, b in points)

    assert pareto_front(points) == [x == x and y == y and not beaten(x, y) for x, y in points]

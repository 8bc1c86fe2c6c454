from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from lenet_exp.config.experiment import Experiment
from lenet_exp.config.loader import parse
from lenet_exp.study.sampling import hidden_from_sampler, make_pruner, make_sampler


def experiment(**search: Any) -> Experiment:
    return parse({"name": "s", "space": {"pooling": ["avg", "max"]}, "search": search})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tpe", "TPESampler"),
        ("random", "RandomSampler"),
        ("grid", "RandomSampler"),
        ("qmc", "QMCSampler"),
        ("cmaes", "CmaEsSampler"),
    ],
)
def test_every_name_has_its_sampler(name: str, expected: str) -> None:
    """Without a warning, whatever Optuna thinks of its experimental parts."""
    assert type(make_sampler(experiment(sampler=name), seed=2**62)).__name__ == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hyperband", "HyperbandPruner"),
        ("halving", "SuccessiveHalvingPruner"),
        ("median", "MedianPruner"),
        ("none", "NopPruner"),
    ],
)
def test_every_name_has_its_pruner(name: str, expected: str) -> None:
    """As the experiment file writes it."""
    assert type(make_pruner(experiment(pruner=name))).__name__ == expected


def trial(number: int) -> FrozenTrial:
    """Return a trial that is the better the nearer it is to the 300th; every third was pruned."""
    state = TrialState.PRUNED if number % 3 == 0 else TrialState.COMPLETE
    found = create_trial(state=state, value=1 - abs(number - 300) / 10_000)
    found.number = number
    return found


def test_tpe_is_shown_the_best_of_all_and_the_latest() -> None:
    """What is good is what it would be of all trials; some hundreds of the others stand for thousands."""
    trials = [trial(number) for number in range(2000)]

    hidden = hidden_from_sampler(experiment(sampler="tpe"), trials)

    complete = [found for found in trials if found.state == TrialState.COMPLETE]
    best = sorted(complete, key=lambda found: found.value or 0, reverse=True)[:25]
    assert set(range(2000)) - hidden == {found.number for found in best} | set(range(1825, 2000))


@pytest.mark.parametrize(("sampler", "count"), [("tpe", 200), ("cmaes", 2000), ("qmc", 2000)])
def test_a_study_of_hundreds_is_shown_whole_and_to_others_any(sampler: str, count: int) -> None:
    """Nothing is kept from a sampler that needs it."""
    trials = [trial(number) for number in range(count)]

    assert not hidden_from_sampler(experiment(sampler=sampler), trials)

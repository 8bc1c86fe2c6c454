from typing import Any

import optuna
import pytest
from optuna.pruners import HyperbandPruner
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
        ("hyperband", "_Hyperband"),
        ("halving", "SuccessiveHalvingPruner"),
        ("median", "MedianPruner"),
        ("none", "NopPruner"),
    ],
)
def test_every_name_has_its_pruner(name: str, expected: str) -> None:
    """As the experiment file writes it."""
    assert type(make_pruner(experiment(pruner=name))).__name__ == expected


def test_brackets_that_are_remembered_are_optunas() -> None:
    """The same trials are pruned as without the memory."""
    ours = make_pruner(experiment(pruner="hyperband"))
    assert isinstance(ours, HyperbandPruner)
    theirs = HyperbandPruner(min_resource=1, max_resource=10, reduction_factor=3)
    decisions: list[list[bool]] = []
    for pruner in (ours, theirs):
        study = optuna.create_study(study_name="s", direction="maximize", pruner=pruner)
        decisions.append([])
        for number in range(60):
            asked = study.ask(fixed_distributions={})
            for epoch in (1, 2, 3, 6, 9):
                asked.report((number * 37 % 60) / 60 + epoch / 100, epoch)
                decisions[-1].append(asked.should_prune())
            study.tell(asked, number / 60)

    assert decisions[0] == decisions[1]
    assert 0 < sum(decisions[0]) < len(decisions[0])
    assert len({ours._get_bracket_id(study, found) for found in study.trials}) == 3


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

from typing import Any

import pytest

from lenet_exp.experiment import Experiment, parse
from lenet_exp.sampling import make_pruner, make_sampler


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

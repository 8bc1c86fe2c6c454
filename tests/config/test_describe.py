from typing import Any

import pytest

from lenet_exp.config.describe import description, differences
from lenet_exp.config.hyperparameters import HYPERPARAMETERS, PRESETS, configuration, overlay

#: Another valid value for each hyper-parameter, by name.
OTHER: dict[str, Any] = {
    **{"pooling": "avg", "conv_layers": 3, "kernel_size": 3, "padding": 1, "channels": 8},
    **{"activation": "gelu", "fc_layers": 2, "fc_width": 64, "init": "default", "optimizer": "adam"},
    **{"lr": 0.5, "momentum": 0.5, "weight_decay": 0.01, "loss": "mse", "batch_size": 64},
    **{"precision": "float32", "epochs": 20},
}


def values(**changed: Any) -> dict[str, Any]:
    """Return the values of LeNet, trained with sgd so that all of them count, with some changed."""
    return configuration(overlay(PRESETS["lenet"] | {"optimizer": "sgd"}, changed)).to_dict()


def test_the_whole_configuration_is_described() -> None:
    """Values that speak for themselves stand alone, those of layers are joined, and what is 0 is left out."""
    assert description(values()) == (
        "max k5-5 p2-0 c6-16 relu fc120-84 xavier_uniform sgd lr 0.009 cross_entropy batch 256"
        " precision auto epochs 10"
    )
    assert "fc none " in description(values(fc_layers=1))


@pytest.mark.parametrize("name", OTHER)
def test_every_hyperparameter_tells_two_configurations_apart(name: str) -> None:
    """None can be changed, in a configuration or in the baseline, without a word in what differs."""
    changed = values(**{name: OTHER[name]})

    assert differences(changed, values())
    assert differences(values(), changed)
    assert description(changed) != description(values())


def test_no_hyperparameter_is_forgotten() -> None:
    """One that is added to the configuration must be tried above."""
    plain = {key.rstrip("_123") for key in HYPERPARAMETERS}

    assert plain | {"epochs"} == OTHER.keys()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, ""),
        ({"pooling": "avg", "kernel_size_2": 3, "lr": 0.00312345}, "avg k5-3 lr 0.00312"),
        ({"lr": 0.0090001}, "lr 0.0090001"),
        ({"loss": "mse", "init": "default"}, "init default mse"),
        ({"conv_layers": 1, "fc_layers": 1}, "k5 same c6 fc none"),
        ({"kernel_size": [3, 7], "padding": "same"}, "k3-7 same"),
        ({"optimizer": "sgd", "momentum": 0.9}, "sgd momentum 0.9"),
        ({"optimizer": "sgd", "momentum": 0.0}, "sgd"),
        ({"batch_size": 65_536, "weight_decay": 1e-4}, "wd 0.0001 batch 65536"),
    ],
)
def test_only_what_differs_from_the_baseline_is_said(changed: dict[str, Any], expected: str) -> None:
    """In the order of the leaderboard's columns, without what follows from the rest."""
    assert differences(values(**{"optimizer": "adam"} | changed), values(optimizer="adam")) == expected


def test_what_a_record_of_an_older_version_lacks_is_not_called_a_difference() -> None:
    """A hyper-parameter that came later is not in it."""
    older = {key: value for key, value in values(pooling="avg").items() if key != "loss"}

    assert differences(older, values(loss="mse")) == "avg"
    assert differences(values(loss="mse"), older) == "max"

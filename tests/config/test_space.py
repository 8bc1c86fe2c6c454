from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial

from lenet_exp.base.errors import ConfigError
from lenet_exp.config.hyperparameters import PRESETS
from lenet_exp.config.space import SPACE_KEYS, Choice, Fixed, Range, Space, parse_dimension


def space(**dimensions: Any) -> Space:
    parsed = {key: parse_dimension(key, written) for key, written in dimensions.items()}
    return Space(parsed, PRESETS["lenet"])


def test_a_value_fixes_a_list_is_a_choice_and_a_table_is_a_range() -> None:
    """The three ways of writing a dimension."""
    assert parse_dimension("lr", 0.1) == Fixed(0.1)
    assert parse_dimension("pooling", ["avg", "max"]) == Choice(("avg", "max"))
    assert parse_dimension("channels", {"low": 4, "high": 8}) == Range(low=4, high=8)


@pytest.mark.parametrize(
    ("key", "written", "message"),
    [
        ("poolin", ["avg"], "unknown hyper-parameter 'poolin'; did you mean 'pooling'"),
        ("epochs", [1, 2], r"set training\.epochs$"),
        ("pooling", [], "at least one value"),
        ("pooling", ["avg", "avg"], "names each value once"),
        ("pooling", ["avg", "median"], "must be 'avg' or 'max', found 'median'"),
        ("pooling", {"low": 0, "high": 1}, "space.pooling"),
        (
            "lr",
            {"low": 1, "high": 0.1},
            "space.lr: low must not be above high, found {'low': 1, 'high': 0.1}$",
        ),
        ("lr", {"low": 0, "high": 1, "log": True}, "above 0 in a logarithmic range, found {"),
        ("lr", {"low": 0.1, "high": 1, "log": True, "step": 0.1}, "logarithmic range has no step"),
        ("lr", {"low": 0.1}, "a range has low, high"),
        ("lr", {"low": 0.1, "hihg": 1.0}, "a range has low, high"),
        ("channels", {"low": 0, "high": 8}, "greater than or equal to 1, found 0"),
        ("channels", {"low": 1, "high": 9, "step": 1.5}, "whole number, found 1.5"),
        ("channels", [[1, 2]], "each choice must be one value"),
        ("channels", 10**27, "less than or equal to 512"),
    ],
)
def test_a_dimension_that_cannot_be_is_refused_with_its_rule(key: str, written: Any, message: str) -> None:
    """The error names the key, the rule and what was found."""
    with pytest.raises(ConfigError, match=message):
        parse_dimension(key, written)


def test_only_what_a_trial_uses_is_drawn() -> None:
    """A one-layer network draws one kernel, so the sampler never learns from values without effect."""
    trial = FixedTrial({"conv_layers": 1, "kernel_size_1": 3})

    drawn = space(conv_layers=[1, 2, 3], kernel_size=[3, 5]).suggest(trial)

    assert drawn.kernel_size == (3,)
    assert set(trial.params) == {"conv_layers", "kernel_size_1"}


def test_a_layer_s_own_dimension_is_stronger_than_the_shared_one() -> None:
    """``channels_2`` overrides ``channels`` for the second layer."""
    drawn = space(channels=[8], channels_2=32).suggest(FixedTrial({"channels_1": 8}))

    assert drawn.channels == (8, 32)


def test_what_the_space_leaves_out_is_as_in_the_baseline() -> None:
    """A space of one dimension varies one thing."""
    drawn = space(activation=["tanh"]).suggest(FixedTrial({"activation": "tanh"}))

    assert (drawn.activation, drawn.channels, drawn.lr) == ("tanh", (6, 16), 0.009)


def test_every_key_can_be_drawn_by_every_kind_of_optuna_trial() -> None:
    """A space over all kinds of dimension draws through Optuna itself, and stays within its bounds."""
    everything = space(
        conv_layers={"low": 1, "high": 3},
        kernel_size=[3, 5],
        padding=["same", 1],
        channels={"low": 4, "high": 64, "log": True},
        lr={"low": 1e-4, "high": 0.1, "log": True},
        weight_decay={"low": 0.0, "high": 0.1, "step": 0.05},
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))

    drawn = [everything.suggest(study.ask()) for _ in range(50)]

    assert {len(configuration.channels) for configuration in drawn} == {1, 2, 3}
    assert {configuration.weight_decay for configuration in drawn} == {0.0, 0.05, 0.1}
    assert all(4 <= c <= 64 for configuration in drawn for c in configuration.channels)


def test_a_grid_has_each_configuration_once() -> None:
    """Points that differ only in unused values are one; here 1 layer gives 2 kernels and 2 layers give 4."""
    points = space(conv_layers=[1, 2], kernel_size=[3, 5], pooling=["avg", "max"]).grid()

    assert len(points) == 2 * (2 + 4)


def test_a_grid_over_a_range_needs_a_step() -> None:
    """A range that cannot be counted out is refused with its key."""
    with pytest.raises(ConfigError, match=r"space\.lr: a grid needs a list, or a range with a step"):
        space(lr={"low": 0.1, "high": 0.2}).grid()


def test_a_grid_that_nobody_could_finish_is_refused() -> None:
    """The points are counted before they are made."""
    with pytest.raises(ConfigError, match="at most 10,000 points"):
        space(channels={"low": 1, "high": 500}, kernel_size=[1, 3, 5, 7]).grid()


def test_the_keys_of_a_space_are_known_hyperparameters() -> None:
    """Epochs belong to the training, not to the space."""
    assert "epochs" not in SPACE_KEYS
    assert {"kernel_size", "kernel_size_3", "lr", "precision"} <= set(SPACE_KEYS)

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lenet_exp.config.architecture import InfeasibleError, cost, layers
from lenet_exp.config.hyperparameters import (
    PRESETS,
    Activation,
    Configuration,
    Pooling,
    configuration,
    overlay,
)
from lenet_exp.training.network import ACTIVATIONS, LeNet, initialise


def variant(**values: object) -> Configuration:
    return configuration(overlay(PRESETS["lenet"], values))


configurations = st.builds(
    variant,
    pooling=st.sampled_from(get_args(Pooling)),
    activation=st.sampled_from(get_args(Activation)),
    conv_layers=st.integers(1, 3),
    kernel_size=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    padding=st.lists(st.integers(0, 4), min_size=3, max_size=3),
    channels=st.lists(st.integers(1, 8), min_size=3, max_size=3),
    fc_layers=st.integers(1, 3),
)


@settings(max_examples=50, deadline=None)
@given(configurations, st.sampled_from([16, 28, 32]))
def test_the_table_of_layers_is_what_the_network_does(configuration: Configuration, size: int) -> None:
    """Shapes and parameters worked out on paper are those of the network, or both refuse it."""
    try:
        table = layers(configuration, size)
    except InfeasibleError:
        with pytest.raises(InfeasibleError, match="layer"):
            LeNet(configuration, size)
        return
    model = LeNet(configuration, size)
    shapes: list[tuple[int, ...]] = []
    for layer in (*model.features, *model.classifier):
        layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))

    model(torch.zeros(2, 1, size, size))

    assert shapes == [layer.output for layer in table]
    assert sum(p.numel() for p in model.parameters()) == cost(configuration, size).n_parameters


def test_building_and_initialising_leave_the_caller_s_random_stream_alone() -> None:
    """Nothing is drawn from torch's global generator."""
    before = torch.random.get_rng_state()

    initialise(LeNet(variant()), "kaiming_normal", seed=1)

    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    """Weights come from the seed alone."""
    first, second, other = (LeNet(variant()) for _ in range(3))
    for model, seed in ((first, 1), (second, 1), (other, 2)):
        initialise(model, "xavier_uniform", seed)

    for (name, one), (_, two) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(one, two), name
    assert not torch.equal(first.state_dict()["features.0.weight"], other.state_dict()["features.0.weight"])


@pytest.mark.parametrize(
    ("init", "spread"),
    [
        ("xavier_uniform", math.sqrt(2 / (400 + 120))),
        ("xavier_normal", math.sqrt(2 / (400 + 120))),
        ("kaiming_uniform", math.sqrt(2 / 400)),
        ("kaiming_normal", math.sqrt(2 / 400)),
        ("default", 1 / math.sqrt(3 * 400)),
    ],
)
def test_weights_have_the_spread_their_rule_promises(init: str, spread: float) -> None:
    """The standard deviation of a linear layer's 48,000 weights is that of the paper, within 2 %."""
    model = LeNet(variant())

    initialise(model, init, seed=3)  # type: ignore[arg-type]

    assert model.state_dict()["classifier.1.weight"].std().item() == pytest.approx(spread, rel=0.02)


def test_every_activation_that_can_be_named_can_be_built() -> None:
    """The names a file may write are the ones the network knows."""
    assert set(ACTIVATIONS) == set(get_args(Activation))

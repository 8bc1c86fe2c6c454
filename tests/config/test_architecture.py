import pytest

from lenet_exp.config.architecture import InfeasibleError, cost, layers
from lenet_exp.config.hyperparameters import PRESETS, Configuration, configuration, overlay


def variant(**values: object) -> Configuration:
    return configuration(overlay(PRESETS["lenet"], values))


def test_the_baseline_s_layers_have_the_published_shapes() -> None:
    """LeNet on 28x28 gives maps of 28, 14, 10 and 5 pixels, then 400, 120, 84 and 10 numbers."""
    outputs = [layer.output for layer in layers(variant())]

    assert outputs == [
        (6, 28, 28), (6, 28, 28), (6, 14, 14),
        (16, 10, 10), (16, 10, 10), (16, 5, 5),
        (400,), (120,), (120,), (84,), (84,), (10,),
    ]  # fmt: skip


def test_parameters_and_macs_are_those_counted_by_hand() -> None:
    """The baseline has 61,706 parameters and 416,520 multiplications with addition."""
    by_hand = 6 * 25 * 784 + 6 * 16 * 25 * 100 + 400 * 120 + 120 * 84 + 84 * 10

    assert cost(variant()).macs == by_hand
    assert cost(variant()).n_parameters == (150 + 6) + (2400 + 16) + (48_000 + 120) + (10_080 + 84) + 850


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (
            {"kernel_size": [11, 11], "padding": 0, "conv_layers": 2},
            "convolution layer 2: a 11x11 kernel on a 9x9 map",
        ),
        (
            {"conv_layers": 3, "kernel_size": [5, 5, 5], "padding": [2, 0, 0]},
            "pooling layer 3: a 2x2 window on a 1x1",
        ),
    ],
)
def test_a_map_smaller_than_its_kernel_or_window_is_found_without_building(
    values: dict[str, object], reason: str
) -> None:
    """An impossible network is refused with the layer and both sizes."""
    with pytest.raises(InfeasibleError, match=reason):
        layers(variant(**values))

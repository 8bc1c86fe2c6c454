"""The layers a configuration stands for, worked out without building them.

Needs no torch, so that a driver can refuse an impossible network in microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from lenet_exp.config.hyperparameters import CLASSES, Configuration

#: Side and stride of the pooling windows.
POOL = 2


class InfeasibleError(ValueError):
    """The configuration has no network: a feature map is smaller than the kernel or window on it."""


@dataclass(frozen=True)
class Layer:
    """One row of the table of layers.

    Attributes:
        name: What the layer does, as in ``Conv2d 5x5, padding 2``.
        output: Shape of one example after it, channels first.
        n_parameters: Weights and biases.
        macs: Multiplications with an addition that one example costs, forward.
    """

    name: str
    output: tuple[int, ...]
    n_parameters: int = 0
    macs: int = 0


def layers(configuration: Configuration, image_size: int = 28) -> list[Layer]:
    """Return the network's layers in order, the input not among them.

    Args:
        configuration: The network.
        image_size: Side of the square, one-channel input, in pixels.

    Raises:
        InfeasibleError: If a feature map would be smaller than what is laid on it.

    Example:
        >>> from lenet_exp.config.hyperparameters import PRESETS, configuration
        >>> [layer.output for layer in layers(configuration(PRESETS["lenet"])) if "Pool" in layer.name]
        [(6, 14, 14), (16, 5, 5)]
    """
    table: list[Layer] = []
    inputs, size = 1, image_size
    per_layer = zip(configuration.kernel_size, configuration.padding, configuration.channels, strict=True)
    for number, (kernel, padding, channels) in enumerate(per_layer, start=1):
        padded = size + 2 * padding
        if kernel > padded:
            raise InfeasibleError(
                f"convolution layer {number}: a {kernel}x{kernel} kernel on a {padded}x{padded} map"
            )
        size = padded - kernel + 1
        weights = inputs * kernel**2 * channels
        convolution = f"Conv2d {kernel}x{kernel}, padding {padding}"
        table.append(Layer(convolution, (channels, size, size), weights + channels, weights * size**2))
        table.append(Layer(configuration.activation, (channels, size, size)))
        if size < POOL:
            raise InfeasibleError(f"pooling layer {number}: a {POOL}x{POOL} window on a {size}x{size} map")
        size //= POOL
        pooling = {"avg": "AvgPool2d", "max": "MaxPool2d"}[configuration.pooling]
        table.append(Layer(f"{pooling} {POOL}x{POOL}", (channels, size, size)))
        inputs = channels
    features = inputs * size**2
    table.append(Layer("Flatten", (features,)))
    for width in configuration.fc_width:
        table.append(_linear(features, width))
        table.append(Layer(configuration.activation, (width,)))
        features = width
    table.append(_linear(features, CLASSES))
    return table


def _linear(inputs: int, outputs: int) -> Layer:
    return Layer("Linear", (outputs,), inputs * outputs + outputs, inputs * outputs)


@dataclass(frozen=True)
class Cost:
    """What a network weighs: ``n_parameters`` weights and biases, ``macs`` an example, forward."""

    n_parameters: int
    macs: int


def cost(configuration: Configuration, image_size: int = 28) -> Cost:
    """Return parameters and MACs of the network.

    Raises:
        InfeasibleError: As `layers`.

    Example:
        >>> from lenet_exp.config.hyperparameters import PRESETS, configuration
        >>> cost(configuration(PRESETS["lenet"]))
        Cost(n_parameters=61706, macs=416520)
    """
    table = layers(configuration, image_size)
    return Cost(sum(layer.n_parameters for layer in table), sum(layer.macs for layer in table))


def flat_features(configuration: Configuration, image_size: int = 28) -> int:
    """Return the length of what the first fully connected layer takes in."""
    flat = next(layer for layer in layers(configuration, image_size) if layer.name == "Flatten")
    return prod(flat.output)

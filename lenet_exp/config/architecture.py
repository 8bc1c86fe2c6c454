"""The layers of a configuration's network: their shapes and sizes, computed without building the network.

This needs no torch, so the driver can reject an infeasible network in microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from lenet_exp.config.hyperparameters import CLASSES, Configuration

#: Side and stride of the pooling windows, in pixels.
POOL = 2


class InfeasibleError(ValueError):
    """The network cannot exist: a feature map is smaller than the kernel or pooling window on it."""


@dataclass(frozen=True)
class Layer:
    """One layer of a network.

    Attributes:
        name: Kind of the layer with its sizes, such as ``Conv2d 5x5, padding 2``.
        output: Shape of the output for one example, channels first.
        n_parameters: Number of weights and biases.
        macs: Multiply-accumulate operations of one example's forward pass.
    """

    name: str
    output: tuple[int, ...]
    n_parameters: int = 0
    macs: int = 0


def layers(configuration: Configuration, image_size: int = 28) -> list[Layer]:
    """Return the layers of a configuration's network, in order.

    Args:
        configuration: Configuration of the network.
        image_size: Side of the square, one-channel input, in pixels.

    Raises:
        InfeasibleError: If a feature map is smaller than the kernel or pooling window on it.

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
    """The cost of a network: its parameters and its arithmetic.

    Attributes:
        n_parameters: Number of weights and biases.
        macs: Multiply-accumulate operations of one example's forward pass.
    """

    n_parameters: int
    macs: int


def cost(configuration: Configuration, image_size: int = 28) -> Cost:
    """Return the number of parameters and multiply-accumulates of a configuration's network.

    Args:
        configuration: Configuration of the network.
        image_size: Side of the square input, in pixels.

    Raises:
        InfeasibleError: If a feature map is smaller than the kernel or pooling window on it.

    Example:
        >>> from lenet_exp.config.hyperparameters import PRESETS, configuration
        >>> cost(configuration(PRESETS["lenet"]))
        Cost(n_parameters=61706, macs=416520)
    """
    table = layers(configuration, image_size)
    return Cost(sum(layer.n_parameters for layer in table), sum(layer.macs for layer in table))


def flat_features(configuration: Configuration, image_size: int = 28) -> int:
    """Return the number of features that a configuration's first fully connected layer takes.

    Args:
        configuration: Configuration of the network.
        image_size: Side of the square input, in pixels.

    Raises:
        InfeasibleError: If a feature map is smaller than the kernel or pooling window on it.
    """
    flat = next(layer for layer in layers(configuration, image_size) if layer.name == "Flatten")
    return prod(flat.output)

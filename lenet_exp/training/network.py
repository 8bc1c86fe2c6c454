"""`LeNet`, built from its configuration, and the initialisation of its weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from lenet_exp.config.architecture import POOL, flat_features
from lenet_exp.config.hyperparameters import CLASSES, Activation, Configuration, Init

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "softplus": nn.Softplus,
}


class LeNet(nn.Module):
    """A network of one to three blocks (convolution, activation, pooling), then one to three linear layers.

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998; the
    baseline is the variant with ReLU and max pooling.
    """

    def __init__(self, configuration: Configuration, image_size: int = 28) -> None:
        """Create the layers; `initialise` sets their weights.

        Args:
            configuration: Hyper-parameters; only those of the architecture are used.
            image_size: Side of the images, in pixels.

        Raises:
            InfeasibleError: If a feature map would be smaller than the kernel or pooling window on it.
        """
        super().__init__()
        self.configuration = configuration
        # torch's layers draw weights from the global random stream when they are created; the fork leaves the
        # stream's state as the caller had it. (Layers on the device "meta" draw none, but giving them memory
        # loads SymPy, 0.4 s in every attempt: experiments/LOG.md, "Speed: the start, the end, and what lies
        # between trainings".)
        with torch.random.fork_rng(devices=()):
            self._build(configuration, image_size)

    def _build(self, configuration: Configuration, image_size: int) -> None:
        pool = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}[configuration.pooling]
        activation = ACTIVATIONS[configuration.activation]
        channels = (1, *configuration.channels)
        features: list[nn.Module] = []
        for i, (kernel, padding) in enumerate(
            zip(configuration.kernel_size, configuration.padding, strict=True)
        ):
            convolution = nn.Conv2d(channels[i], channels[i + 1], kernel, padding=padding)
            features += [convolution, activation(), pool(POOL)]
        widths = (flat_features(configuration, image_size), *configuration.fc_width, CLASSES)
        classifier: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise(widths):
            classifier += [nn.Linear(inputs, outputs), activation()]
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*classifier[:-1])  # no activation after the classes

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, ``(batch, 10)``, unnormalised.

        Args:
            images: ``(batch, 1, size, size)`` floating point, in [0, 1].
        """
        logits: Tensor = self.classifier(self.features(images))
        return logits


def initialise(model: nn.Module, init: Init, seed: int) -> None:
    """Draw the weights and biases of every convolution and linear layer.

    Args:
        model: Network whose weights and biases are overwritten.
        init: Rule for the weights; ``default`` is torch's own. Biases always follow torch's own rule, uniform
            in ±1/sqrt(fan_in).
        seed: Seed of the random stream that only these weights and biases are drawn from.

    Source: Glorot and Bengio, AISTATS 2010 (Xavier); He et al., arXiv:1502.01852 (Kaiming).
    """
    stream = torch.Generator().manual_seed(seed)
    draw: Callable[[Tensor], Tensor] = {
        "xavier_uniform": lambda weight: nn.init.xavier_uniform_(weight, generator=stream),
        "xavier_normal": lambda weight: nn.init.xavier_normal_(weight, generator=stream),
        "kaiming_uniform": lambda weight: nn.init.kaiming_uniform_(
            weight, nonlinearity="relu", generator=stream
        ),
        "kaiming_normal": lambda weight: nn.init.kaiming_normal_(
            weight, nonlinearity="relu", generator=stream
        ),
        "default": lambda weight: nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=stream),
    }[init]
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            draw(layer.weight)
            assert layer.bias is not None
            bound = 1 / math.sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.bias, -bound, bound, generator=stream)

"""Signs of why a network does not learn: saturated or dead units, and gradients that vanish.

They are measured on a sample of the training images after an epoch, and do not change the training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lenet_exp.training.network import LeNet

#: An output is saturated where the activation's slope is below this share of its largest slope.
FLAT = 0.01

#: For each activation that saturates: its slope as a share of the largest, computed from its output.
_SLOPES: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.Sigmoid: lambda y: 4 * y * (1 - y),
    nn.Tanh: lambda y: 1 - y**2,
}


def measure(model: LeNet, images: Tensor, loss: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Return the diagnostics of each layer; their names end in the layer's: ``*_conv1``, ``*_fc1``, ….

    Args:
        model: Network to examine; its weights and their gradients do not change.
        images: ``(n, 1, size, size)`` float32 in [0, 1], a sample of the training images.
        loss: Maps the images' logits, ``(n, 10)``, to the scalar whose gradient is taken.

    Returns:
        For each layer with weights, ``grad_norm_*``: the L2 norm of the loss's gradient with respect to its
        weights and biases. For each layer with an activation, a share in [0, 1]: with sigmoid and tanh,
        ``saturated_share_*``, the share of outputs at which the activation is flat; with other activations,
        ``dead_share_*``, the share of units (channels of a convolution) that are 0 on every image.
    """
    x = images
    metrics: dict[str, float] = {}
    layers: list[tuple[str, list[nn.Parameter]]] = []
    for name, module in _named(model):
        x = module(x)
        if isinstance(module, nn.Conv2d | nn.Linear):
            layers.append((name, list(module.parameters())))
        elif slope := _SLOPES.get(type(module)):
            metrics[f"saturated_share_{name}"] = (slope(x.detach()) < FLAT).float().mean().item()
        elif not isinstance(module, nn.AvgPool2d | nn.MaxPool2d | nn.Flatten):
            all_but_units = [d for d in range(x.dim()) if d != 1]
            metrics[f"dead_share_{name}"] = (x.detach() == 0).all(dim=all_but_units).float().mean().item()
    gradients = iter(torch.autograd.grad(loss(x), [p for _, parameters in layers for p in parameters]))
    for name, parameters in layers:
        squares = [next(gradients).square().sum() for _ in parameters]
        metrics[f"grad_norm_{name}"] = torch.stack(squares).sum().sqrt().item()
    return metrics


def _named(model: LeNet) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules in order, each with its layer's name.

    A convolution, its activation and its pooling share a name, such as ``conv1``; a linear layer and its
    activation do too, such as ``fc1``.
    """
    name = ""
    for kind, modules in (("conv", model.features), ("fc", model.classifier)):
        number = 0
        for module in modules:
            if isinstance(module, nn.Conv2d | nn.Linear):
                number += 1
                name = f"{kind}{number}"
            yield name, module

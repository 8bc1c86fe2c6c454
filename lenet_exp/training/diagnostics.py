"""Why a network does not learn: units that say nothing any more, and gradients that do not arrive.

Measured on a sample of the training images after an epoch; nothing of the training changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lenet_exp.training.network import LeNet

#: An activation is saturated where its slope is below this share of its largest.
FLAT = 0.01

#: The slope of an activation that saturates, from its output, over its largest.
_SLOPES: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.Sigmoid: lambda y: 4 * y * (1 - y),
    nn.Tanh: lambda y: 1 - y**2,
}


def measure(model: LeNet, images: Tensor, loss: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Return what can be said of each layer, under names that end in ``conv1``, ``fc1`` and so on.

    Args:
        model: Not changed, its gradients neither.
        images: ``(n, 1, size, size)`` float32 in [0, 1], a sample.
        loss: From their logits, ``(n, 10)``, to the scalar whose gradient is taken.

    Returns:
        ``grad_norm_*``, the L2 norm of the loss's gradient by the layer's weights and biases; and
        of each layer with an activation, in [0, 1]: for sigmoid and tanh ``saturated_share_*``, the share of
        outputs where the activation is flat, for the others ``dead_share_*``, the share of units (channels
        of a convolution) that are 0 everywhere on every image.
    """
    x = images
    found: dict[str, float] = {}
    owned: list[tuple[str, list[nn.Parameter]]] = []
    for name, module in _named(model):
        x = module(x)
        if isinstance(module, nn.Conv2d | nn.Linear):
            owned.append((name, list(module.parameters())))
        elif slope := _SLOPES.get(type(module)):
            found[f"saturated_share_{name}"] = (slope(x.detach()) < FLAT).float().mean().item()
        elif not isinstance(module, nn.AvgPool2d | nn.MaxPool2d | nn.Flatten):
            others = [d for d in range(x.dim()) if d != 1]
            found[f"dead_share_{name}"] = (x.detach() == 0).all(dim=others).float().mean().item()
    gradients = iter(torch.autograd.grad(loss(x), [p for _, parameters in owned for p in parameters]))
    for name, parameters in owned:
        squares = [next(gradients).square().sum() for _ in parameters]
        found[f"grad_norm_{name}"] = torch.stack(squares).sum().sqrt().item()
    return found


def _named(model: LeNet) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules in order, each with the name of the last layer with weights."""
    name = ""
    for kind, modules in (("conv", model.features), ("fc", model.classifier)):
        number = 0
        for module in modules:
            if isinstance(module, nn.Conv2d | nn.Linear):
                number += 1
                name = f"{kind}{number}"
            yield name, module

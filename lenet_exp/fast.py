"""The forward pass of training on a CPU: `LeNet` with the same weights and the layers of `kernels`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lenet_exp import kernels
from lenet_exp.model import LeNet


def logits(model: LeNet, pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the logits of a batch, equal to those of ``model`` but for rounding.

    Args:
        model: Its weights get the gradients.
        pixels: ``(n, 1, size, size)`` uint8.
        dtype: Of the arithmetic; the weights are cast to it.

    Returns:
        ``(n, 10)`` float32.
    """
    x = kernels.to_images(pixels.flatten(1), dtype)
    layers = list(model.features)
    for convolution, activation, pool in zip(layers[::3], layers[1::3], layers[2::3], strict=True):
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.bias is not None
        x = kernels.conv_act_pool(
            x,
            convolution.weight,
            convolution.bias,
            int(convolution.padding[0]),
            _function(activation),
            "avg" if isinstance(pool, nn.AvgPool2d) else "max",
            monotone=type(activation) in _MONOTONE,
        )
    x = x.flatten(1)
    for layer in list(model.classifier)[1:]:
        if isinstance(layer, nn.Linear):
            x = F.linear(x, layer.weight.to(dtype), layer.bias.to(dtype))
        else:
            x = _function(layer)(x)
    return x.float()


#: Activations that never decrease: they commute with the maximum, so they can act on a quarter of the map.
_MONOTONE = (nn.ReLU, nn.Sigmoid, nn.Tanh, nn.ELU, nn.LeakyReLU, nn.Softplus)


def _function(activation: nn.Module) -> Callable[[Tensor], Tensor]:
    return kernels.tanh if isinstance(activation, nn.Tanh) else activation

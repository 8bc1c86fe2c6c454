"""Computes the gradients of `LeNet` on a CPU, with the layers of `convolution` and `ops`.

The backward pass is written out instead of recorded by autograd. The operations are so short that recording
them takes a fifth of a step (experiments/LOG.md, "Speed: gradients written out, and on the bits"). Written
out, the pass can also give each gradient the memory order that the layer before it needs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lenet_exp.training.cpu.convolution import convolution
from lenet_exp.training.cpu.ops import (
    ACTIVATIONS,
    Activation,
    avg_pool,
    avg_pool_gradient,
    batch_innermost,
    channels_innermost,
    matmul,
    max_pool,
    max_pool_gradient,
)
from lenet_exp.training.network import LeNet

_POOLS = {"avg": (avg_pool, avg_pool_gradient), "max": (max_pool, max_pool_gradient)}


@torch.no_grad()
def gradients(
    model: LeNet, pixels: Tensor, criterion: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Set the model's gradients for a batch, and return its loss and its logits, ``(n, 10)`` float32.

    Except for rounding, all three are equal to what the model's own layers and autograd give.

    Args:
        model: Network on the CPU, whose parameters get the gradients.
        pixels: ``(n, 1, size, size)`` uint8, the images of the batch.
        criterion: Maps the logits to the loss, a scalar.
        dtype: Floating-point type to compute in; weights are cast to it, and gradients back from it.
    """
    n, _, side, _ = pixels.shape
    x = pixels.view(n, -1).t().contiguous().view(1, side, side, n)
    activation = ACTIVATIONS[model.configuration.activation]
    # Bytes are exact in bfloat16, so they are not divided by 255; the first layer's weights are, instead.
    scale = 1 / 255
    features: list[_Features] = []
    for module in model.features:
        if isinstance(module, nn.Conv2d):
            features.append(_Features(module, activation, model.configuration.pooling, x, dtype, scale))
            x, scale = features[-1].output, 1.0
    x = batch_innermost(x).reshape(-1, n)
    linear: list[_Linear] = []
    modules = [module for module in model.classifier if isinstance(module, nn.Linear)]
    for module in modules:
        linear.append(_Linear(module, activation if module is not modules[-1] else None, x, dtype))
        x = linear[-1].output
    logits = x.t().float()
    with torch.enable_grad():
        loss = criterion(logits.requires_grad_())
        (grad,) = torch.autograd.grad(loss, logits)
    grad = grad.t().to(dtype)
    # Layers are popped, so that freed memory is used again while it is in the cache (see the same log entry).
    while linear:
        grad = linear.pop().backward(grad)
    below: Tensor | None = grad
    while below is not None:
        below = features.pop().backward(below, first=not features)
    return loss.detach(), logits.detach()


class _Features:
    """A convolution with its activation and pooling.

    Creating it computes its output for the input ``x``, ``(ci, h, w, n)``.
    """

    def __init__(
        self,
        module: nn.Conv2d,
        activation: Activation,
        pooling: str,
        x: Tensor,
        dtype: torch.dtype,
        scale: float,
    ) -> None:
        self._module, self._activation = module, activation
        pool, self._pool_gradient = _POOLS[pooling]
        weight, bias = module.weight.detach(), _bias(module).detach()
        self._convolution = convolution(weight, bias, int(module.padding[0]), dtype, scale)
        self._pooled = pool(self._convolution.forward(x), activation)
        self.output = self._pooled.output

    def backward(self, grad: Tensor, *, first: bool) -> Tensor | None:
        """Set the gradients of weight and bias; return the input's, or None if ``first`` is True."""
        # Elementwise operations on tensors of different memory orders are slow.
        arranged = batch_innermost if self.output.stride(3) == 1 else channels_innermost
        grad = arranged(grad.reshape(self.output.shape))
        grad = self._pool_gradient(grad, self._pooled, self._activation)
        weight, bias, below = self._convolution.backward(grad, with_input=not first)
        self._module.weight.grad, _bias(self._module).grad = weight, bias
        return below


class _Linear:
    """A linear layer with its activation, if it has one.

    Creating it computes its output for the input ``x``, ``(inputs, n)``.
    """

    def __init__(
        self, module: nn.Linear, activation: Activation | None, x: Tensor, dtype: torch.dtype
    ) -> None:
        self._module, self._activation, self._x = module, activation, x
        self._weight = module.weight.detach().to(dtype)
        self._before = matmul(self._weight, x).add_(_bias(module).detach().to(dtype)[:, None])
        self.output = activation.forward(self._before) if activation else self._before

    def backward(self, grad: Tensor) -> Tensor:
        """Set the gradients of weight and bias; return the input's. ``grad`` is that of the output."""
        if self._activation:
            grad = self._activation.backward(grad, self._before, self.output)
        dtype = self._module.weight.dtype
        self._module.weight.grad = matmul(grad, self._x.t()).to(dtype)
        _bias(self._module).grad = grad.sum(1, dtype=dtype)
        return matmul(self._weight.t(), grad)


def _bias(module: nn.Conv2d | nn.Linear) -> Tensor:
    assert module.bias is not None
    return module.bias

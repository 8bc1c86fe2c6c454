"""Pooling, activations and products for training on a CPU, each with its gradient, faster than torch's.

Maps are ``(c, h, w, n)``. In memory the batch is innermost, so that slices of a map are long contiguous runs,
or the channels are where there are many. The four outputs of a convolution that a pooling window takes are
``(2, 2, c, h, w, n)``, and pooling is elementwise between them, whatever the order in memory.

What only compares or selects works on the bits of the numbers: torch computes with bfloat16 by way of
float32, which takes three to four times as long as the same on 16-bit integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Activation(NamedTuple):
    """An elementwise function and its gradient.

    Attributes:
        forward: From input to output.
        backward: From the output's gradient, the input and the output to the input's gradient.
        course: ``rising`` if it never decreases, so that it commutes with the maximum; ``valley`` if it
            decreases and then increases, so that its largest value on some numbers is at the largest or at
            the smallest of them.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]
    course: Literal["rising", "valley"]


def _tanh(x: Tensor) -> Tensor:
    """Return ``2 * sigmoid(2 * x) - 1``, which is tanh within 2e-7; torch's own costs five sigmoids."""
    if x.dtype == torch.float64:
        return torch.tanh(x)
    # In float32 throughout: near zero bfloat16 has too few digits left after the subtraction.
    return x.float().mul(2).sigmoid_().mul_(2).sub_(1).to(x.dtype)


def _relu_gradient(grad: Tensor, _: Tensor, y: Tensor) -> Tensor:
    positive = torch.gt(bits(y), 0, out=torch.empty_like(bits(y)))
    return positive.mul_(bits(grad)).view(grad.dtype)


_aten = torch.ops.aten
ACTIVATIONS = {
    "relu": Activation(lambda x: x.clamp_min(0), _relu_gradient, "rising"),
    "sigmoid": Activation(torch.sigmoid, lambda g, _, y: _aten.sigmoid_backward(g, y), "rising"),
    "tanh": Activation(_tanh, lambda g, _, y: _aten.tanh_backward(g, y), "rising"),
    "gelu": Activation(F.gelu, lambda g, x, _: _aten.gelu_backward(g, x), "valley"),
    "silu": Activation(F.silu, lambda g, x, _: _aten.silu_backward(g, x), "valley"),
    "elu": Activation(F.elu, lambda g, x, _: _aten.elu_backward(g, 1, 1, 1, False, x), "rising"),
    "leaky_relu": Activation(
        F.leaky_relu, lambda g, x, _: _aten.leaky_relu_backward(g, x, 0.01, False), "rising"
    ),
    "softplus": Activation(F.softplus, lambda g, x, _: _aten.softplus_backward(g, x, 1, 20), "rising"),
}


class Pooled(NamedTuple):
    """A pooled map, and what its gradient needs.

    Attributes:
        output: ``(c, h, w, n)``.
        before: What the activation was applied to: ``(c, h, w, n)``, or ``(2, 2, c, h, w, n)`` for the mean.
        after: What came out of it.
        four: What was pooled, ``(2, 2, c, h, w, n)``.
    """

    output: Tensor
    before: Tensor
    after: Tensor
    four: Tensor


def max_pool(four: Tensor, activation: Activation) -> Pooled:
    """Return the largest activation of each window.

    Args:
        four: Before the activation, ``(2, 2, c, h, w, n)``.
        activation: It is applied to one number of each window, or to two.
    """
    if activation is ACTIVATIONS["relu"]:
        # As integers, numbers below zero are in reverse order, but all of them are below those above zero.
        best = _extreme(torch.maximum, bits(four))
        y = best.clamp_min(0).view(four.dtype)
        return Pooled(y, best.view(four.dtype), y, four)
    high = _extreme(torch.maximum, four)
    if activation.course == "rising":
        y = activation.forward(high)
        return Pooled(y, high, y, four)
    low = _extreme(torch.minimum, four)
    at_high = activation.forward(high)
    y = torch.maximum(at_high, activation.forward(low))
    is_high = torch.eq(bits(y), bits(at_high), out=torch.empty_like(bits(y)))
    # Integers wrap around, so that this is exactly one or the other.
    best = bits(high).sub_(bits(low)).mul_(is_high).add_(bits(low))
    return Pooled(y, best.view(four.dtype), y, four)


def max_pool_gradient(grad: Tensor, pooled: Pooled, activation: Activation) -> Tensor:
    """Return the gradient of `max_pool`'s input: of equal maxima the first in row order gets it, as in torch.

    Args:
        grad: Of the output, ``(c, h, w, n)``.
        pooled: What `max_pool` returned.
        activation: As there.
    """
    left = bits(activation.backward(grad, pooled.before, pooled.after))
    best, four = bits(pooled.before), bits(pooled.four)
    out = torch.empty_like(four)
    for i, j in ((0, 0), (0, 1), (1, 0)):
        # A comparison into a tensor of numbers gives 0 and 1; a mask of bool costs five times as much.
        torch.eq(four[i, j], best, out=out[i, j]).mul_(left)
        left = torch.sub(left, out[i, j], out=out[1, 1] if i else None)
    return out.view(grad.dtype)


def avg_pool(four: Tensor, activation: Activation) -> Pooled:
    """Return the mean activation of each window.

    Args:
        four: Before the activation, ``(2, 2, c, h, w, n)``.
        activation: It is applied to every number.
    """
    y = activation.forward(four)
    pairs = y[0] + y[1]
    return Pooled((pairs[0] + pairs[1]).mul_(0.25), four, y, four)


def avg_pool_gradient(grad: Tensor, pooled: Pooled, activation: Activation) -> Tensor:
    """Return the gradient of `avg_pool`'s input, as `max_pool_gradient` does."""
    quarter = (grad * 0.25).expand(pooled.four.shape)
    return activation.backward(quarter, pooled.before, pooled.after)


def batch_innermost(maps: Tensor) -> Tensor:
    """Return ``(c, h, w, n)`` with the batch innermost in memory; the order of the rest may differ."""
    c, h, w, n = maps.shape
    if maps.stride(3) == 1 or n == 1:
        return maps
    # torch turns a matrix many times faster than it copies what is permuted.
    return maps.permute(3, 1, 2, 0).reshape(n, -1).t().contiguous().view(h, w, c, n).permute(2, 0, 1, 3)


def channels_innermost(maps: Tensor) -> Tensor:
    """Return ``(c, h, w, n)`` as ``(n, h, w, c)`` is in memory."""
    c, h, w, n = maps.shape
    if maps.permute(3, 0, 1, 2).is_contiguous(memory_format=torch.channels_last):
        return maps
    return maps.permute(1, 2, 0, 3).reshape(-1, n).t().contiguous().view(n, h, w, c).permute(3, 1, 2, 0)


def bits(x: Tensor) -> Tensor:
    """Return floating-point numbers seen as integers, for which equal, select and sign are the same."""
    return x.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b``, in float32 by the faster of two libraries.

    MKL, which torch takes for float32, uses AVX-512 on Intel's processors alone; on others oneDNN is twice as
    fast. With AVX2 alone MKL is faster by a tenth to a third, but for few numbers that are long sums.
    """
    if a.dtype == torch.float32 and _ONEDNN_LINEAR is not None and (not AVX2_ALONE or a.shape[1] > _LONG):
        out: Tensor = _ONEDNN_LINEAR(a, b.t(), None, "none", [], "")
        return out
    return a @ b


# Inductor's operator for float32 linear layers. It is not public, so its absence is no error.
_ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
#: Whether the processor is one of x86 without AVX-512.
AVX2_ALONE = torch.backends.cpu.get_cpu_capability() == "AVX2"
_LONG = 20_000


def _extreme(which: Callable[[Tensor, Tensor], Tensor], four: Tensor) -> Tensor:
    pairs = which(four[:, 0], four[:, 1])
    return which(pairs[0], pairs[1])

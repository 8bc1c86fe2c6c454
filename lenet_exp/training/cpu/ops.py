"""Pooling, activations and matrix products for training on a CPU, with their gradients, faster than torch's.

Feature maps are ``(c, h, w, n)``: channels, rows, columns, images. In memory the images are innermost, so
that slices of a map are long contiguous runs; where there are many channels, the channels are innermost. The
outputs of a convolution that 2x2 pooling takes are ``(2, 2, c, h, w, n)``, where ``(2, 2)`` are row and
column within the window. So pooling is elementwise between four tensors, whatever their memory order.

Operations that only compare or select work on the bits of the values: torch computes bfloat16 by way of
float32, which takes two to four times as long as the same operation on 16-bit integers (experiments/LOG.md,
"Speed: gradients written out, and on the bits").
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
        forward: Maps an input to its output.
        backward: Maps the output's gradient, the input and the output, in this order, to the input's
            gradient.
        course: ``rising`` if the function never decreases, so that its maximum over a window is at the
            largest input; ``valley`` if it decreases and then increases, so that its maximum is at the
            largest or at the smallest input.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]
    course: Literal["rising", "valley"]


def _tanh(x: Tensor) -> Tensor:
    """Return tanh within 2e-7, as ``2 * sigmoid(2 * x) - 1``; torch's own takes as long as five sigmoids."""
    if x.dtype == torch.float64:
        return torch.tanh(x)
    # Computed in float32, as the subtraction would leave bfloat16 too few digits near zero.
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
    """A pooled map, and the values that its gradient is computed from.

    In the shapes ``c`` counts channels, ``h`` and ``w`` rows and columns of the pooled map, and ``n`` images;
    ``(2, 2)`` are row and column within a window.

    Attributes:
        output: ``(c, h, w, n)``, the pooled map.
        before: Inputs of the activation: with max pooling, the one in each window that gives its maximum,
            ``(c, h, w, n)``; with average pooling, all of them, ``(2, 2, c, h, w, n)``.
        after: Outputs of the activation for ``before``, in the same shape.
        windows: ``(2, 2, c, h, w, n)``, all inputs of the activation, grouped by window.
    """

    output: Tensor
    before: Tensor
    after: Tensor
    windows: Tensor


def max_pool(windows: Tensor, activation: Activation) -> Pooled:
    """Apply the activation, and pool each window to its largest value.

    Args:
        windows: ``(2, 2, c, h, w, n)``, inputs of the activation, grouped by window.
        activation: Activation; it is computed only for the one or two inputs of a window that can give its
            maximum.
    """
    if activation is ACTIVATIONS["relu"]:
        # Read as integers, negative numbers are in reverse order, but still below all positive ones.
        best = _extreme(torch.maximum, bits(windows))
        y = best.clamp_min(0).view(windows.dtype)
        return Pooled(y, best.view(windows.dtype), y, windows)
    high = _extreme(torch.maximum, windows)
    if activation.course == "rising":
        y = activation.forward(high)
        return Pooled(y, high, y, windows)
    low = _extreme(torch.minimum, windows)
    at_high = activation.forward(high)
    y = torch.maximum(at_high, activation.forward(low))
    is_high = torch.eq(bits(y), bits(at_high), out=torch.empty_like(bits(y)))
    # The bits of high where is_high is 1, else those of low: exact, as integers that overflow wrap around.
    best = bits(high).sub_(bits(low)).mul_(is_high).add_(bits(low))
    return Pooled(y, best.view(windows.dtype), y, windows)


def max_pool_gradient(grad: Tensor, pooled: Pooled, activation: Activation) -> Tensor:
    """Return the gradient of the ``windows`` that `max_pool` was given, ``(2, 2, c, h, w, n)``.

    If a window has several equal maxima, the first in row order gets the gradient, as in torch.

    Args:
        grad: ``(c, h, w, n)``, gradient of the pooled map.
        pooled: Result of `max_pool`.
        activation: Activation that `max_pool` applied.
    """
    remaining = bits(activation.backward(grad, pooled.before, pooled.after))
    best, windows = bits(pooled.before), bits(pooled.windows)
    out = torch.empty_like(windows)
    for i, j in ((0, 0), (0, 1), (1, 0)):
        # A comparison written into integers gives 0 and 1; a bool mask takes five times as long.
        torch.eq(windows[i, j], best, out=out[i, j]).mul_(remaining)
        remaining = torch.sub(remaining, out[i, j], out=out[1, 1] if i else None)
    return out.view(grad.dtype)


def avg_pool(windows: Tensor, activation: Activation) -> Pooled:
    """Apply the activation, and pool each window to its mean.

    Args:
        windows: ``(2, 2, c, h, w, n)``, inputs of the activation, grouped by window.
        activation: Activation, computed for every input.
    """
    y = activation.forward(windows)
    pairs = y[0] + y[1]
    return Pooled((pairs[0] + pairs[1]).mul_(0.25), windows, y, windows)


def avg_pool_gradient(grad: Tensor, pooled: Pooled, activation: Activation) -> Tensor:
    """Return the gradient of the ``windows`` that `avg_pool` was given, ``(2, 2, c, h, w, n)``.

    Args:
        grad: ``(c, h, w, n)``, gradient of the pooled map.
        pooled: Result of `avg_pool`.
        activation: Activation that `avg_pool` applied.
    """
    quarter = (grad * 0.25).expand(pooled.windows.shape)
    return activation.backward(quarter, pooled.before, pooled.after)


def batch_innermost(maps: Tensor) -> Tensor:
    """Return ``maps``, ``(c, h, w, n)``, with the images innermost in memory, the rest in any order."""
    c, h, w, n = maps.shape
    if maps.stride(3) == 1 or n == 1:
        return maps
    # torch transposes a matrix seven times as fast as it copies a permuted tensor (experiments/LOG.md,
    # "Speed: gradients written out, and on the bits").
    return maps.permute(3, 1, 2, 0).reshape(n, -1).t().contiguous().view(h, w, c, n).permute(2, 0, 1, 3)


def channels_innermost(maps: Tensor) -> Tensor:
    """Return ``maps``, ``(c, h, w, n)``, in the memory order of a contiguous ``(n, h, w, c)`` tensor."""
    c, h, w, n = maps.shape
    if maps.permute(3, 0, 1, 2).is_contiguous(memory_format=torch.channels_last):
        return maps
    return maps.permute(1, 2, 0, 3).reshape(-1, n).t().contiguous().view(n, h, w, c).permute(3, 1, 2, 0)


def bits(x: Tensor) -> Tensor:
    """Return a view of floating-point values as integers of the same size.

    Testing for equality, selecting and testing the sign give the same results on integers, and are faster.
    """
    return x.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b``; float32 is multiplied by MKL or oneDNN, whichever is faster.

    MKL, which torch uses for float32, uses AVX-512 on Intel's processors only; on others oneDNN is twice as
    fast. On a processor with AVX2 but no AVX-512, MKL is faster by a tenth to a third, except for long sums.

    Args:
        a: ``(rows, length)``, in any floating-point type.
        b: ``(length, columns)``, of the same type.
    """
    is_onednn_faster = not AVX2_ALONE or a.shape[1] > _LONG_SUM
    if a.dtype == torch.float32 and _ONEDNN_LINEAR is not None and is_onednn_faster:
        out: Tensor = _ONEDNN_LINEAR(a, b.t(), None, "none", [], "")
        return out
    return a @ b


# Inductor's operator for float32 linear layers. It is not public, so its absence is no error.
_ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
#: True if the processor is an x86 with AVX2 but without AVX-512.
AVX2_ALONE = torch.backends.cpu.get_cpu_capability() == "AVX2"
#: Number of terms in a sum above which oneDNN is faster even with AVX2 alone (experiments/LOG.md, "Speed:
#: what a sweep costs beside its arithmetic").
_LONG_SUM = 20_000


def _extreme(pick: Callable[[Tensor, Tensor], Tensor], windows: Tensor) -> Tensor:
    """Return the largest or smallest value of each window; ``pick`` is ``torch.maximum`` or ``minimum``."""
    pairs = pick(windows[:, 0], windows[:, 1])
    return pick(pairs[0], pairs[1])

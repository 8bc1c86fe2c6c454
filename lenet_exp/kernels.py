"""A convolution layer with 2x2 pooling on a CPU, several times faster than torch's own kernels.

torch's convolutions and pooling are made for many channels and lose most of the machine on the few
that LeNet has. Two changes of layout win it back.

The batch is the innermost dimension (``(c, h, w, n)``), so every slice of a feature map is made of long
contiguous runs: gathering patches and pooling run at the speed of memory.

A pooling window needs four outputs of the convolution, and all four lie in one ``(k + 1) x (k + 1)``
patch of the input. One matrix product makes them, each in a block of its own, and the pooling is taken
between the four blocks. The zeros in that matrix cost ``((k + 1) / k)**2`` times the arithmetic; the shape
of the product more than repays it while channels are few.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

#: The product of a layer's input and output channels up to which the block product beats oneDNN here.
MAX_BLOCK_CHANNELS = 1024

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # <malloc.h>


def keep_freed_memory() -> bool:
    """Keep memory that is freed in this process, and return whether the C library could be told so.

    glibc hands large buffers back to the system and gets them again, zeroed, a page fault every 4 KiB; a
    training step frees and allocates the same tens of megabytes. Call it once, before training.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 1 << 30), (_M_TOP_PAD, 64 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)


def conv_act_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    padding: int,
    activation: Callable[[Tensor], Tensor],
    pooling: Literal["avg", "max"],
    *,
    monotone: bool,
) -> Tensor:
    """Return ``pool(activation(conv(x)))``, with 2x2 pooling that drops an odd last row or column.

    Works under autograd; the arithmetic is in the dtype of ``x``. Equal to torch's own layers but for
    rounding; of equal maxima the first in row order gets the gradient, as in torch.

    Args:
        x: ``(n, ci, h, w)``, floating point, in any memory layout.
        weight: ``(co, ci, k, k)``, of ``x``'s dtype or a wider one.
        bias: ``(co,)``.
        padding: Zeros around the maps, in pixels.
        activation: An elementwise function.
        pooling: The mean or the maximum of each 2x2 window.
        monotone: Whether ``activation`` never decreases, so that it commutes with the maximum.

    Returns:
        ``(n, co, h', w')``, on the fast path with the batch innermost in memory.
    """
    co, ci, k, _ = weight.shape
    small = min(x.shape[2:]) + 2 * padding - k + 1 < 2
    if x.device.type != "cpu" or ci * co > MAX_BLOCK_CHANNELS or small:
        return _by_torch(x, weight, bias, padding, activation, pooling, monotone)
    four: Tensor = _FourConvolutions.apply(batch_last(x), weight, bias, padding)
    if pooling == "avg":
        out = _MeanOfFour.apply(activation(four))
    elif monotone:
        out = activation(_MaxOfFour.apply(four))
    else:
        out = _MaxOfFour.apply(activation(four))
    pooled: Tensor = _BatchLastGradient.apply(out).permute(3, 0, 1, 2)
    return pooled


def _by_torch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    padding: int,
    activation: Callable[[Tensor], Tensor],
    pooling: str,
    monotone: bool,
) -> Tensor:
    """Return what `conv_act_pool` returns, by torch's own kernels."""
    layout = torch.channels_last
    weight, bias = weight.to(x.dtype, memory_format=layout), bias.to(x.dtype)
    out = F.conv2d(x.contiguous(memory_format=layout), weight, bias, padding=padding)
    if pooling == "avg":
        return F.avg_pool2d(activation(out), 2)
    if not monotone:
        return F.max_pool2d(activation(out), 2)
    return activation(F.max_pool2d(out, 2))


def batch_last(x: Tensor) -> Tensor:
    """Return ``(n, c, h, w)`` as contiguous ``(c, h, w, n)``; free if its memory is already so."""
    return x.permute(1, 2, 3, 0).contiguous()


def to_images(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``(n, h * h)`` uint8 pixels as ``(n, 1, h, h)`` in [0, 1], the batch innermost in memory."""
    n, pixels = rows.shape
    side = round(pixels**0.5)
    return rows.t().contiguous().to(dtype).div_(255).view(1, side, side, n).permute(3, 0, 1, 2)


def tanh(x: Tensor) -> Tensor:
    """Return the hyperbolic tangent, on a CPU as ``2 * sigmoid(2 * x) - 1``.

    torch's own costs five times a sigmoid. The difference is at most 2e-7, absolutely.
    """
    if x.device.type != "cpu" or x.dtype == torch.float64:
        return torch.tanh(x)
    out: Tensor = _Tanh.apply(x)
    return out


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # In float32 throughout: near zero bfloat16 has too few digits left after the subtraction.
        y = x.float().mul(2).sigmoid_().mul_(2).sub_(1).to(x.dtype)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        out: Tensor = torch.ops.aten.tanh_backward(grad, y)
        return out


class _BatchLastGradient(torch.autograd.Function):
    """The identity, whose gradient has the layout of its input.

    A layer of torch's after ours gives one with the channels last, and an activation's gradient between two
    layouts takes five times as long.
    """

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Tensor:
        return grad.contiguous()


class _FourConvolutions(torch.autograd.Function):
    """``(ci, h, w, n)`` to ``(4, co, h', w', n)``: the outputs at the four places of each pooling window."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
        _, h, w, n = x.shape
        co, _, k, _ = weight.shape
        rows, columns = (h + 2 * padding - k + 1) // 2, (w + 2 * padding - k + 1) // 2
        patches = _patches(_padded(x, padding), k + 1, rows, columns)
        matrix = _four_kernels(weight, bias).to(x.dtype)
        ctx.save_for_backward(patches, matrix)
        ctx.x_shape, ctx.w_shape, ctx.w_dtype, ctx.padding = x.shape, weight.shape, weight.dtype, padding
        return _matmul(matrix, patches).view(4, co, rows, columns, n)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        patches, matrix = ctx.saved_tensors
        flat = grad.reshape(matrix.shape[0], -1)
        weight, bias = _one_kernel(_matmul(flat, patches.t()).to(ctx.w_dtype), ctx.w_shape)
        if not ctx.needs_input_grad[0]:
            return None, weight, bias, None
        ci, h, w, n = ctx.x_shape
        side, p = ctx.w_shape[2] + 1, ctx.padding
        rows, columns = grad.shape[2:4]
        of_patches = _matmul(matrix[:, :-1].t(), flat).view(ci, side, side, rows, columns, n)
        x = grad.new_zeros(ci, h + 2 * p, w + 2 * p, n)
        for i in range(side):
            for j in range(side):
                x[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2] += of_patches[:, i, j]
        return x[:, p : p + h, p : p + w], weight, bias, None


class _MaxOfFour(torch.autograd.Function):
    """``(4, ...)`` to ``(...)``: the largest of four; the gradient goes to the first that is the largest."""

    @staticmethod
    def forward(ctx: Any, four: Tensor) -> Tensor:
        a, b, c, d = four
        best = torch.maximum(torch.maximum(a, b), torch.maximum(c, d))
        ctx.save_for_backward(four, best)
        return best

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        four, best = ctx.saved_tensors
        out = torch.empty_like(four)
        left = grad
        for place in range(3):
            # A comparison into a float tensor gives 0 and 1; a mask of bool costs five times as much.
            torch.eq(four[place], best, out=out[place])
            out[place].mul_(left)
            left = torch.sub(left, out[place], out=out[3] if place == 2 else None)
        return out


class _MeanOfFour(torch.autograd.Function):
    """``(4, ...)`` to ``(...)``: the mean of four; its gradient is one quarter, seen four times."""

    @staticmethod
    def forward(_: Any, four: Tensor) -> Tensor:
        a, b, c, d = four
        mean: Tensor = (a + b).add_(c + d).mul_(0.25)
        return mean

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Tensor:
        return (grad * 0.25).expand(4, *grad.shape)


def _padded(x: Tensor, padding: int) -> Tensor:
    """Return ``(c, h, w, n)`` with zeros around its maps."""
    if padding == 0:
        return x
    c, h, w, n = x.shape
    out = x.new_zeros(c, h + 2 * padding, w + 2 * padding, n)
    out[:, padding : padding + h, padding : padding + w] = x
    return out


def _patches(x: Tensor, side: int, rows: int, columns: int) -> Tensor:
    """Return the windows of ``side`` at every second pixel, and a row of ones for the bias.

    Args:
        x: ``(c, h, w, n)``, contiguous, padding included.
        side: Of a window, in pixels.
        rows: Of windows.
        columns: Of windows.

    Returns:
        ``(c * side**2 + 1, rows * columns * n)``.
    """
    c, _, _, n = x.shape
    dc, dh, dw, _ = x.stride()
    windows = x.as_strided((c, side, side, rows, columns, n), (dc, dh, dw, 2 * dh, 2 * dw, 1))
    out = x.new_empty(c * side**2 + 1, rows * columns * n)
    out[:-1].view(windows.shape).copy_(windows)
    out[-1] = 1
    return out


def _four_kernels(weight: Tensor, bias: Tensor) -> Tensor:
    """Return the matrix that makes the four outputs of a pooling window from its patch.

    Args:
        weight: ``(co, ci, k, k)``.
        bias: ``(co,)``.

    Returns:
        ``(4 * co, ci * (k + 1)**2 + 1)``: the kernel at each of four places in the patch, zeros elsewhere.
    """
    co, ci, k, _ = weight.shape
    out = weight.new_zeros(2, 2, co, ci * (k + 1) ** 2 + 1)
    kernels = out[..., :-1].view(2, 2, co, ci, k + 1, k + 1)
    for i in range(2):
        for j in range(2):
            kernels[i, j, :, :, i : i + k, j : j + k] = weight
    out[..., -1] = bias
    return out.view(4 * co, -1)


def _one_kernel(grad: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the gradients of weight and bias from that of `_four_kernels`' matrix."""
    co, ci, k, _ = shape
    grad = grad.view(2, 2, co, -1)
    kernels = grad[..., :-1].view(2, 2, co, ci, k + 1, k + 1)
    weight = grad.new_zeros(co, ci, k, k)
    for i in range(2):
        for j in range(2):
            weight += kernels[i, j, :, :, i : i + k, j : j + k]
    return weight, grad[..., -1].sum((0, 1))


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b``, in float32 through oneDNN.

    MKL, which torch takes for float32, uses AVX-512 on Intel's processors alone; elsewhere oneDNN is twice
    as fast.
    """
    if a.dtype == torch.float32 and _ONEDNN_LINEAR is not None:
        out: Tensor = _ONEDNN_LINEAR(a, b.t(), None, "none", [], "")
        return out
    return a @ b


# Inductor's operator for float32 linear layers. It is not public, so its absence is no error.
_ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None)

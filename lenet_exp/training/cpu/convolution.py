"""Convolutions that a 2x2 pooling follows, on a CPU: the four outputs of each window, and the gradients.

torch's convolutions are tuned for many channels and are slow on the few of LeNet. A pooling window needs
four outputs of the convolution, and all four depend on one ``(k + 1) x (k + 1)`` patch of the input. One
matrix product computes them, with a block of rows for each of the four (`BlockConvolution`). The zeros in
that matrix cost ``((k + 1) / k)**2`` times the arithmetic; the better shape of the product more than repays
them while channels are few, or where the processor multiplies tiles (AMX). Elsewhere `OneDnnConvolution` is
used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lenet_exp.training.cpu.ops import AVX2_ALONE, batch_innermost, channels_innermost, matmul

#: oneDNN multiplies a bfloat16 matrix of at most `_FEW_ROWS` long rows at about half its speed, so such rows
#: are cut into pieces of `_COLUMNS` columns (experiments/LOG.md, "Speed: gradients written out, and on the
#: bits").
_FEW_ROWS, _COLUMNS = 32, 12_544


class Convolution(Protocol):
    """A convolution for one training step: `forward` is called once, then `backward` once."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, grouped into the 2x2 windows of the pooling that follows.

        An odd last row or column of outputs is dropped, as pooling drops it.

        Args:
            x: ``(ci, h, w, n)``, floating point or bytes, in any memory order: ``ci`` input channels, ``h``
                rows and ``w`` columns of ``n`` images.

        Returns:
            ``(2, 2, co, rows, columns, n)``: row and column within the window, ``co`` output channels, rows
            and columns of windows, ``n`` images.
        """

    def backward(self, grad: Tensor, *, with_input: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the gradients of weight and bias, in the weight's dtype and layout, and of the input.

        Args:
            grad: Gradient of the tensor that `forward` returned; fastest in that tensor's memory order.
            with_input: True to compute the input's gradient, ``(ci, h, w, n)``; if False, None is returned in
                its place.
        """


def convolution(
    weight: Tensor, bias: Tensor, padding: int, dtype: torch.dtype, scale: float = 1.0
) -> Convolution:
    """Return a convolution of the kind that is faster for these channels on this processor.

    Args:
        weight: ``(co, ci, k, k)`` kernels, for ``co`` output and ``ci`` input channels.
        bias: ``(co,)``, in the weight's dtype.
        padding: Width of the border of zeros around the input, in pixels.
        dtype: Floating-point type to compute in.
        scale: Factor to scale the input by; the weight is scaled instead.
    """
    co, ci = weight.shape[:2]
    kind = BlockConvolution if ci * co <= max_block_channels(dtype) else OneDnnConvolution
    return kind(weight, bias, padding, dtype, scale)


def max_block_channels(dtype: torch.dtype) -> int:
    """Return the largest product of input and output channels at which `BlockConvolution` is the faster one.

    Measured in experiments/LOG.md: 1024 in "Speed: where the time of a training step goes, what helped and
    what did not", 4096 in "Speed: gradients written out, and on the bits", 112 and 512 in "Speed: what a
    sweep costs beside its arithmetic".
    """
    if dtype != torch.bfloat16:
        return 112 if AVX2_ALONE else 512
    return 4096 if torch.cpu._is_amx_tile_supported() else 1024


class BlockConvolution:
    """A convolution as one product: all patches by a matrix that holds the kernel four times.

    Each of its four places in the matrix gives one output of a pooling window.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, padding: int, dtype: torch.dtype, scale: float = 1.0
    ) -> None:
        """Create the matrix that computes a convolution, from its kernels and bias.

        Args:
            weight: ``(co, ci, k, k)`` kernels, for ``co`` output and ``ci`` input channels.
            bias: ``(co,)``, in the weight's dtype.
            padding: Width of the border of zeros around the input, in pixels.
            dtype: Floating-point type to compute in.
            scale: Factor by which the input should be multiplied; it is multiplied into the weight instead.
        """
        self._weight, self._padding, self._dtype, self._scale = weight, padding, dtype, scale
        co, ci, k, _ = weight.shape
        #: Side of a patch, in pixels; even, so that all patches together cover pairs of rows and columns.
        self._side = k + 1 + (k + 1) % 2
        #: Number of values in a patch, and so of the matrix's columns that hold the kernel.
        self._taps = ci * self._side**2
        # One more column for the bias, and some of zeros, as oneDNN is slower on odd sizes
        # (experiments/LOG.md, "Speed: gradients written out, and on the bits").
        matrix = weight.new_zeros(2, 2, co, self._taps + 4 - self._taps % 4)
        kernel = weight if scale == 1 else weight * scale
        for place in self._places(matrix):
            place.copy_(kernel)
        matrix[..., self._taps] = bias
        self._matrix = matrix.flatten(0, 2).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs grouped by window, as `Convolution.forward` describes."""
        x = batch_innermost(x)
        ci, h, w, n = x.shape
        self._size = h, w
        side, (rows, columns) = self._side, self._n_windows(h, w)
        padded = self._padded(x, rows, columns)
        dc, dh, dw, _ = padded.stride()
        shape = (ci, side, side, rows, columns, n)
        patches = padded.new_empty(self._matrix.shape[1], rows * columns * n)
        patches[: self._taps].view(shape).copy_(padded.as_strided(shape, (dc, dh, dw, 2 * dh, 2 * dw, 1)))
        patches[self._taps :].fill_(1)
        self._patches = patches
        return matmul(self._matrix, patches).view(2, 2, -1, rows, columns, n)

    def backward(self, grad: Tensor, *, with_input: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the gradients of weight, bias and input.

        Args:
            grad: ``(2, 2, co, rows, columns, n)``, gradient of the outputs.
            with_input: True to compute the input's gradient; if False, None is returned in its place.
        """
        n = grad.shape[-1]
        grad = grad.reshape(len(self._matrix), -1)
        x = self._input_gradient(grad, n) if with_input else None
        total = self._weight.new_zeros(len(self._patches), len(grad))
        is_cut = grad.dtype == torch.bfloat16 and len(grad) <= _FEW_ROWS
        columns = _COLUMNS if is_cut else grad.shape[1]
        for patches, part in zip(
            torch.split(self._patches, columns, 1), torch.split(grad, columns, 1), strict=True
        ):
            # In this order oneDNN is up to a third faster than for the transpose (experiments/LOG.md, "Speed:
            # gradients written out, and on the bits").
            total += matmul(patches, part.t())
        matrix = total.t().reshape(2, 2, self._weight.shape[0], -1)
        weight = torch.zeros_like(self._weight)
        for place in self._places(matrix):
            weight += place
        return weight.mul_(self._scale), matrix[..., self._taps].sum((0, 1)), x

    def _input_gradient(self, grad: Tensor, n: int) -> Tensor:
        """Return the input's gradient; ``grad`` is that of the outputs, ``(4 * co, rows * columns * n)``."""
        ci, (h, w), p = self._weight.shape[1], self._size, self._padding
        half, (rows, columns) = self._side // 2, self._n_windows(h, w)
        back = matmul(self._matrix[:, : self._taps].t().contiguous(), grad)
        back = back.view(ci, half, 2, half, 2, rows, columns, n)
        pairs = back.new_zeros(ci, rows + half - 1, 2, columns + half - 1, 2, n)
        for i in range(half):
            for j in range(half):
                pairs[:, i : i + rows, :, j : j + columns] += back[:, i, :, j].permute(0, 3, 1, 4, 2, 5)
        seen = pairs.flatten(3, 4).flatten(1, 2)[:, p : p + h, p : p + w]
        if seen.shape[1:3] == (h, w):
            return seen.contiguous()
        x = seen.new_zeros(ci, h, w, n)  # no window covers the last row or column
        x[:, : seen.shape[1], : seen.shape[2]] = seen
        return x

    def _n_windows(self, h: int, w: int) -> tuple[int, int]:
        """Return the number of rows and of columns of windows for an input of ``h`` x ``w`` pixels."""
        growth = 2 * self._padding - self._weight.shape[2] + 1
        return (h + growth) // 2, (w + growth) // 2

    def _padded(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """Return ``x`` padded or cropped to the area that all patches cover, in the dtype to compute in."""
        ci, h, w, n = x.shape
        height, width, p = 2 * rows + self._side - 2, 2 * columns + self._side - 2, self._padding
        if (height, width, p) == (h, w, 0):
            return x.to(self._dtype).contiguous()
        out = x.new_zeros(ci, height, width, n, dtype=self._dtype)
        place = out[:, p : p + h, p : p + w]
        place.copy_(x[:, : place.shape[1], : place.shape[2]])
        return out

    def _places(self, matrix: Tensor) -> Iterator[Tensor]:
        """Yield the four views of ``matrix``, ``(2, 2, co, columns)``, that hold the kernel."""
        co, ci, k, _ = self._weight.shape
        taps = matrix[..., : self._taps].view(2, 2, co, ci, self._side, self._side)
        for i in range(2):
            for j in range(2):
                yield taps[i, j, :, :, i : i + k, j : j + k]


class OneDnnConvolution:
    """torch's own convolution, which oneDNN computes; its outputs have the channels innermost in memory."""

    def __init__(
        self, weight: Tensor, bias: Tensor, padding: int, dtype: torch.dtype, scale: float = 1.0
    ) -> None:
        """Convert the kernels and the bias to the dtype and memory order to compute in.

        Args:
            weight: ``(co, ci, k, k)`` kernels, for ``co`` output and ``ci`` input channels.
            bias: ``(co,)``, in the weight's dtype.
            padding: Width of the border of zeros around the input, in pixels.
            dtype: Floating-point type to compute in.
            scale: Factor by which the input should be multiplied; it is multiplied into the weight instead.
        """
        self._like, self._padding, self._scale = weight, padding, scale
        self._weight = (weight * scale).to(dtype, memory_format=torch.channels_last)
        self._bias = bias.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs grouped by window, as `Convolution.forward` describes."""
        self._images = channels_innermost(x.to(self._weight.dtype)).permute(3, 0, 1, 2)
        images = F.conv2d(self._images, self._weight, self._bias, padding=self._padding)
        maps = images.contiguous(memory_format=torch.channels_last).permute(1, 2, 3, 0)
        self._output_shape = maps.shape
        return self._windows(maps)

    def backward(self, grad: Tensor, *, with_input: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the gradients of weight, bias and input.

        Args:
            grad: ``(2, 2, co, rows, columns, n)``, gradient of the outputs.
            with_input: True to compute the input's gradient; if False, None is returned in its place.
        """
        co, h, w, n = self._output_shape
        images = grad.permute(5, 2, 3, 0, 4, 1).flatten(4).flatten(2, 3)
        if images.shape[2:] != (h, w):
            seen, images = images, grad.new_zeros(n, h, w, co).permute(0, 3, 1, 2)
            images[:, :, : seen.shape[2], : seen.shape[3]] = seen
        p = self._padding
        x, weight, bias = torch.ops.aten.convolution_backward(
            images.contiguous(memory_format=torch.channels_last),
            self._images,
            self._weight,
            [co],
            [1, 1],
            [p, p],
            [1, 1],
            False,
            [0, 0],
            1,
            (with_input, True, True),
        )
        weight = torch.empty_like(self._like).copy_(weight).mul_(self._scale)
        return weight, bias.to(self._like.dtype), x.permute(1, 2, 3, 0) if with_input else None

    @staticmethod
    def _windows(maps: Tensor) -> Tensor:
        """Return ``maps``, ``(co, h, w, n)``, as a view by window, ``(2, 2, co, h // 2, w // 2, n)``."""
        co, h, w, n = maps.shape
        rows, columns = h // 2, w // 2
        windows = maps[:, : 2 * rows, : 2 * columns].view(co, rows, 2, columns, 2, n)
        return windows.permute(2, 4, 0, 1, 3, 5)

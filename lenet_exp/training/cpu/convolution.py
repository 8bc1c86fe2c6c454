"""Convolutions before a 2x2 pooling on a CPU: the four outputs of each window, and their gradients.

torch's convolutions are made for many channels and lose most of the machine on the few that LeNet has. A
pooling window needs four outputs of the convolution, and all four lie in one ``(k + 1) x (k + 1)`` patch of
the input. One matrix product makes them, each in a block of its own (`BlockConvolution`). The zeros in that
matrix cost ``((k + 1) / k)**2`` times the arithmetic; the shape of the product more than repays it while
channels are few, or where the processor multiplies tiles (AMX). Elsewhere oneDNN's convolution stands behind
the same interface.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lenet_exp.training.cpu.ops import AVX2_ALONE, batch_innermost, channels_innermost, matmul

#: With as few rows of bfloat16 oneDNN multiplies long ones at half its speed, so they are cut to this length.
_FEW_ROWS, _COLUMNS = 32, 12_544


class Convolution(Protocol):
    """A convolution in one step: it goes forward once and then backward once."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the four outputs of each window of 2x2.

        An odd last row or column of outputs is dropped, as pooling does.

        Args:
            x: ``(ci, h, w, n)``, floating point or bytes, in any order of memory.

        Returns:
            ``(2, 2, co, rows, columns, n)``, by row and column within the window.
        """

    def backward(self, grad: Tensor, *, wanted: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the gradients of weight and bias, in the weight's dtype and layout, and of the input.

        Args:
            grad: Of what `forward` returned; fastest in the same order of memory.
            wanted: Whether that of the input is needed; else it is None.
        """


def convolution(
    weight: Tensor, bias: Tensor, padding: int, dtype: torch.dtype, scale: float = 1.0
) -> Convolution:
    """Return the convolution that is faster here.

    Args:
        weight: ``(co, ci, k, k)``.
        bias: ``(co,)``.
        padding: Zeros around the maps, in pixels.
        dtype: Of the arithmetic.
        scale: What the input is multiplied with first.
    """
    co, ci = weight.shape[:2]
    kind = BlockConvolution if ci * co <= max_block_channels(dtype) else OneDnnConvolution
    return kind(weight, bias, padding, dtype, scale)


def max_block_channels(dtype: torch.dtype) -> int:
    """Return the product of input and output channels up to which the block product beats oneDNN's own."""
    if dtype != torch.bfloat16:
        return 112 if AVX2_ALONE else 512
    return 4096 if torch.cpu._is_amx_tile_supported() else 1024


class BlockConvolution:
    """Patches times a matrix that has the kernel at each of four places."""

    def __init__(
        self, weight: Tensor, bias: Tensor, padding: int, dtype: torch.dtype, scale: float = 1.0
    ) -> None:
        self._weight, self._padding, self._dtype, self._scale = weight, padding, dtype, scale
        co, ci, k, _ = weight.shape
        #: Of a patch, in pixels; even, so that all patches together cover pairs of rows and columns.
        self._side = k + 1 + (k + 1) % 2
        self._taps = ci * self._side**2
        # A column for the bias, and more of zeros: oneDNN is slower on odd sizes.
        matrix = weight.new_zeros(2, 2, co, self._taps + 4 - self._taps % 4)
        kernel = weight if scale == 1 else weight * scale
        for place in self._places(matrix):
            place.copy_(kernel)
        matrix[..., self._taps] = bias
        self._matrix = matrix.flatten(0, 2).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """See `Convolution`."""
        x = batch_innermost(x)
        ci, h, w, n = x.shape
        self._size = h, w
        side, (rows, columns) = self._side, self._windows(h, w)
        padded = self._padded(x, rows, columns)
        dc, dh, dw, _ = padded.stride()
        shape = (ci, side, side, rows, columns, n)
        patches = padded.new_empty(self._matrix.shape[1], rows * columns * n)
        patches[: self._taps].view(shape).copy_(padded.as_strided(shape, (dc, dh, dw, 2 * dh, 2 * dw, 1)))
        patches[self._taps :].fill_(1)
        self._patches = patches
        return matmul(self._matrix, patches).view(2, 2, -1, rows, columns, n)

    def backward(self, grad: Tensor, *, wanted: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `Convolution`."""
        n = grad.shape[-1]
        grad = grad.reshape(len(self._matrix), -1)
        x = self._input_gradient(grad, n) if wanted else None
        total = self._weight.new_zeros(len(self._patches), len(grad))
        cut = grad.dtype == torch.bfloat16 and len(grad) <= _FEW_ROWS
        columns = _COLUMNS if cut else grad.shape[1]
        for patches, part in zip(
            torch.split(self._patches, columns, 1), torch.split(grad, columns, 1), strict=True
        ):
            # In this order oneDNN is faster than in the other, by up to a third.
            total += matmul(patches, part.t())
        matrix = total.t().reshape(2, 2, self._weight.shape[0], -1)
        weight = torch.zeros_like(self._weight)
        for place in self._places(matrix):
            weight += place
        return weight.mul_(self._scale), matrix[..., self._taps].sum((0, 1)), x

    def _input_gradient(self, grad: Tensor, n: int) -> Tensor:
        """Return the gradient of the input from that of the outputs, ``(4 * co, rows * columns * n)``."""
        ci, (h, w), p = self._weight.shape[1], self._size, self._padding
        half, (rows, columns) = self._side // 2, self._windows(h, w)
        back = matmul(self._matrix[:, : self._taps].t().contiguous(), grad)
        back = back.view(ci, half, 2, half, 2, rows, columns, n)
        pairs = back.new_zeros(ci, rows + half - 1, 2, columns + half - 1, 2, n)
        for i in range(half):
            for j in range(half):
                pairs[:, i : i + rows, :, j : j + columns] += back[:, i, :, j].permute(0, 3, 1, 4, 2, 5)
        seen = pairs.flatten(3, 4).flatten(1, 2)[:, p : p + h, p : p + w]
        if seen.shape[1:3] == (h, w):
            return seen.contiguous()
        x = seen.new_zeros(ci, h, w, n)  # with a last row or column that no window sees
        x[:, : seen.shape[1], : seen.shape[2]] = seen
        return x

    def _windows(self, h: int, w: int) -> tuple[int, int]:
        """Return the rows and columns of windows."""
        more = 2 * self._padding - self._weight.shape[2] + 1
        return (h + more) // 2, (w + more) // 2

    def _padded(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """Return what the patches of all windows cover, in the arithmetic's dtype."""
        ci, h, w, n = x.shape
        height, width, p = 2 * rows + self._side - 2, 2 * columns + self._side - 2, self._padding
        if (height, width, p) == (h, w, 0):
            return x.to(self._dtype).contiguous()
        out = x.new_zeros(ci, height, width, n, dtype=self._dtype)
        place = out[:, p : p + h, p : p + w]
        place.copy_(x[:, : place.shape[1], : place.shape[2]])
        return out

    def _places(self, matrix: Tensor) -> Iterator[Tensor]:
        """Yield the four places of the kernel in the matrix, ``(2, 2, co, taps and more)``."""
        co, ci, k, _ = self._weight.shape
        taps = matrix[..., : self._taps].view(2, 2, co, ci, self._side, self._side)
        for i in range(2):
            for j in range(2):
                yield taps[i, j, :, :, i : i + k, j : j + k]


class OneDnnConvolution:
    """torch's own convolution. Its maps have the channels innermost in memory, and so have its outputs."""

    def __init__(
        self, weight: Tensor, bias: Tensor, padding: int, dtype: torch.dtype, scale: float = 1.0
    ) -> None:
        self._like, self._padding, self._scale = weight, padding, scale
        self._weight = (weight * scale).to(dtype, memory_format=torch.channels_last)
        self._bias = bias.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """See `Convolution`."""
        self._images = channels_innermost(x.to(self._weight.dtype)).permute(3, 0, 1, 2)
        images = F.conv2d(self._images, self._weight, self._bias, padding=self._padding)
        maps = images.contiguous(memory_format=torch.channels_last).permute(1, 2, 3, 0)
        self._outputs = maps.shape
        return self._four(maps)

    def backward(self, grad: Tensor, *, wanted: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `Convolution`."""
        co, h, w, n = self._outputs
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
            (wanted, True, True),
        )
        weight = torch.empty_like(self._like).copy_(weight).mul_(self._scale)
        return weight, bias.to(self._like.dtype), x.permute(1, 2, 3, 0) if wanted else None

    @staticmethod
    def _four(maps: Tensor) -> Tensor:
        """Return a view of ``(co, h, w, n)`` as ``(2, 2, co, h // 2, w // 2, n)``."""
        co, h, w, n = maps.shape
        rows, columns = h // 2, w // 2
        windows = maps[:, : 2 * rows, : 2 * columns].view(co, rows, 2, columns, 2, n)
        return windows.permute(2, 4, 0, 1, 3, 5)

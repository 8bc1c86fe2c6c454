from collections.abc import Callable
from typing import Literal

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lenet_exp import kernels

Function = Callable[[Tensor], Tensor]

#: What is computed, by the kernels and by torch, and whether it never decreases.
ACTIVATIONS: dict[str, tuple[Function, Function, bool]] = {
    "relu": (F.relu, F.relu, True),
    "tanh": (kernels.tanh, torch.tanh, True),
    "gelu": (F.gelu, F.gelu, False),
}
Pooling = Literal["avg", "max"]


def by_torch(
    x: Tensor, weight: Tensor, bias: Tensor, padding: int, act: Function, pooling: Pooling
) -> Tensor:
    mapped = act(F.conv2d(x, weight, bias, padding=padding))
    return F.max_pool2d(mapped, 2) if pooling == "max" else F.avg_pool2d(mapped, 2)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 9),
    channels=st.tuples(st.sampled_from([1, 2, 5]), st.sampled_from([1, 3, 20])),
    size=st.tuples(st.integers(2, 14), st.integers(2, 14)),
    kernel=st.integers(1, 9),
    padding=st.integers(0, 7),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    pooling=st.sampled_from(["avg", "max"]),
)
def test_a_layer_and_its_gradients_are_torch_s(
    batch: int,
    channels: tuple[int, int],
    size: tuple[int, int],
    kernel: int,
    padding: int,
    activation: str,
    pooling: Pooling,
) -> None:
    """Odd maps, any kernel and padding: output and all three gradients agree in double precision."""
    assume(min(size) + 2 * padding - kernel + 1 >= 2)
    stream = torch.Generator().manual_seed(batch)
    inputs, outputs = channels
    shapes = [(batch, inputs, *size), (outputs, inputs, kernel, kernel), (outputs,)]
    x, weight, bias = (
        torch.randn(shape, generator=stream, dtype=torch.float64, requires_grad=True) for shape in shapes
    )
    ours, theirs, monotone = ACTIVATIONS[activation]

    found = kernels.conv_act_pool(x, weight, bias, padding, ours, pooling, monotone=monotone)
    expected = by_torch(x, weight, bias, padding, theirs, pooling)

    seen = torch.randn(expected.shape, generator=stream, dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    for mine, reference in zip(
        torch.autograd.grad(found, (x, weight, bias), seen),
        torch.autograd.grad(expected, (x, weight, bias), seen),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference)


def test_of_equal_maxima_the_first_in_row_order_gets_the_gradient_as_in_torch() -> None:
    """Ties, which integers have in plenty, are broken as torch breaks them."""
    x = (
        torch.randint(0, 2, (4, 1, 9, 9), generator=torch.Generator().manual_seed(0))
        .double()
        .requires_grad_()
    )
    weight, bias = torch.ones(2, 1, 1, 1, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)

    found = kernels.conv_act_pool(x, weight, bias, 0, F.relu, "max", monotone=True)
    expected = by_torch(x, weight, bias, 0, F.relu, "max")

    for mine, reference in zip(
        torch.autograd.grad(found.sum(), x), torch.autograd.grad(expected.sum(), x), strict=True
    ):
        assert torch.equal(mine, reference)


@pytest.mark.parametrize("channels", [(1, 6), (40, 64)])
def test_many_channels_go_through_torch_s_own_kernels_with_the_same_result(channels: tuple[int, int]) -> None:
    """Either way the layer is the same, and in bfloat16 it is the same within its precision."""
    stream = torch.Generator().manual_seed(1)
    inputs, outputs = channels
    x = torch.randn(8, inputs, 12, 12, generator=stream)
    weight = torch.randn(outputs, inputs, 3, 3, generator=stream) / (3 * inputs**0.5)
    bias = torch.randn(outputs, generator=stream)
    expected = by_torch(x, weight, bias, 1, F.relu, "max")

    exact = kernels.conv_act_pool(x, weight, bias, 1, F.relu, "max", monotone=True)
    rough = kernels.conv_act_pool(x.bfloat16(), weight, bias, 1, F.relu, "max", monotone=True)

    torch.testing.assert_close(exact, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rough.float(), expected, atol=0.1, rtol=0.05)


def test_pixels_become_images_from_0_to_1() -> None:
    """Bytes keep their places; 255 is 1."""
    rows = torch.arange(2 * 9, dtype=torch.uint8).view(2, 9) * 15

    images = kernels.to_images(rows, torch.float32)

    assert images.shape == (2, 1, 3, 3)
    torch.testing.assert_close(images.reshape(2, 9), rows / 255)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tanh_is_torch_s_within_its_precision(dtype: torch.dtype) -> None:
    """Value and gradient, also near zero and where it is flat."""
    x = torch.linspace(-10, 10, 2_001).to(dtype).requires_grad_()

    ours, theirs = kernels.tanh(x), torch.tanh(x)

    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
    (mine,), (reference,) = torch.autograd.grad(ours.sum(), x), torch.autograd.grad(theirs.sum(), x)
    torch.testing.assert_close(mine, reference, atol=tolerance, rtol=tolerance)

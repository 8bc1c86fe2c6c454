from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lenet_exp.config.hyperparameters import Activation
from lenet_exp.training.cpu import ops
from lenet_exp.training.cpu.ops import ACTIVATIONS
from lenet_exp.training.network import ACTIVATIONS as MODULES

POOLS: dict[str, tuple[Callable[..., Any], Callable[..., Tensor], Callable[..., Tensor]]] = {
    "avg": (ops.avg_pool, ops.avg_pool_gradient, F.avg_pool2d),
    "max": (ops.max_pool, ops.max_pool_gradient, F.max_pool2d),
}


def drawn(dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Return ``(2, 2, c, h, w, n)``: numbers of both signs, small and large."""
    four = torch.randn(2, 2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (four * 3).to(dtype)


def as_maps(four: Tensor) -> Tensor:
    """Return ``(2, 2, c, h, w, n)`` as ``(n, c, 2 * h, 2 * w)``."""
    return four.permute(5, 2, 3, 0, 4, 1).flatten(4, 5).flatten(2, 3)


def by_torch(four: Tensor, activation: Any, pooling: str) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return the pooled activations ``(c, h, w, n)``, and what gives the gradient of ``four``."""
    before = four.clone().requires_grad_()
    out = POOLS[pooling][2](MODULES[activation]()(as_maps(before)), 2).permute(1, 2, 3, 0)
    return out.detach(), lambda grad: torch.autograd.grad(out, before, grad)[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("pooling", POOLS)
@pytest.mark.parametrize("activation", get_args(Activation))
def test_an_activation_with_its_pooling_and_their_gradient_are_torch_s(
    activation: str, pooling: str, dtype: torch.dtype
) -> None:
    """Every activation that can be chosen, with both kinds of pooling."""
    pool, gradient, _ = POOLS[pooling]
    four = drawn(dtype)
    expected, reference = by_torch(four, activation, pooling)

    pooled = pool(four, ACTIVATIONS[activation])

    torch.testing.assert_close(pooled.output, expected, atol=1e-6, rtol=1e-5)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(
        dtype
    )
    found = gradient(grad, pooled, ACTIVATIONS[activation])
    torch.testing.assert_close(found, reference(grad), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pooling", POOLS)
@pytest.mark.parametrize("activation", get_args(Activation))
def test_bfloat16_is_the_same_within_its_precision(activation: str, pooling: str) -> None:
    """Eight bits of a number, and a gradient at the same place of the window."""
    pool, gradient, _ = POOLS[pooling]
    four = drawn(torch.bfloat16)
    expected, reference = by_torch(four.float(), activation, pooling)

    pooled = pool(four, ACTIVATIONS[activation])
    found = gradient(torch.ones_like(pooled.output), pooled, ACTIVATIONS[activation])

    torch.testing.assert_close(pooled.output.float(), expected, atol=0.03, rtol=0.02)
    torch.testing.assert_close(found.float(), reference(torch.ones_like(expected)), atol=0.03, rtol=0.02)


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0]), min_size=16, max_size=16),
    activation=st.sampled_from(["relu", "leaky_relu", "gelu"]),
)
def test_of_equal_maxima_the_first_in_row_order_gets_the_gradient_as_in_torch(
    values: list[float], activation: str
) -> None:
    """Ties are broken as torch breaks them, also where all of a window is below zero."""
    four = torch.tensor(values, dtype=torch.float64).view(2, 2, 1, 2, 2, 1)
    expected, reference = by_torch(four, activation, "max")

    pooled = ops.max_pool(four, ACTIVATIONS[activation])

    found = ops.max_pool_gradient(torch.ones_like(expected), pooled, ACTIVATIONS[activation])
    torch.testing.assert_close(pooled.output, expected)
    torch.testing.assert_close(found, reference(torch.ones_like(expected)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tanh_is_torch_s_within_its_precision(dtype: torch.dtype) -> None:
    """Value and gradient, also near zero and where it is flat."""
    x = torch.linspace(-10, 10, 2_001).to(dtype)
    tanh = ACTIVATIONS["tanh"]

    y = tanh.forward(x)

    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(y, torch.tanh(x), atol=tolerance, rtol=tolerance)
    slope = 1 - torch.tanh(x.double()) ** 2
    found = tanh.backward(torch.ones_like(x), x, y)
    torch.testing.assert_close(found.double(), slope, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_torch_s(dtype: torch.dtype) -> None:
    """By whatever library, and from transposed operands too."""
    stream = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=stream).to(dtype) for shape in ((5, 7), (7, 3)))

    expected = (a.double() @ b.double()).to(dtype)

    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    for found in (ops.matmul(a, b), ops.matmul(b.t(), a.t()).t()):
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)

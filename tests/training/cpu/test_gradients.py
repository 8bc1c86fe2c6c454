from typing import get_args

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lenet_exp.config.architecture import InfeasibleError
from lenet_exp.config.hyperparameters import PRESETS, Activation, Configuration, configuration, overlay
from lenet_exp.training.cpu import gradients as fast
from lenet_exp.training.network import LeNet, initialise


def variant(**values: object) -> Configuration:
    return configuration(overlay(PRESETS["lenet"], values))


NETWORKS = [
    *(
        variant(activation=activation, pooling=p)
        for activation in get_args(Activation)
        for p in ("avg", "max")
    ),
    variant(conv_layers=3, fc_layers=1, channels=[16, 48, 64], padding="same"),
    variant(conv_layers=1, fc_layers=2, kernel_size=7),
    variant(kernel_size=[4, 2], padding=[1, 0], batch_size=7),
]


def drawn(network: Configuration, images: int) -> tuple[LeNet, Tensor, Tensor]:
    model = LeNet(network)
    initialise(model, network.init, seed=1)
    stream = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (images, 1, 28, 28), generator=stream, dtype=torch.uint8)
    return model, pixels, torch.randint(0, 10, (images,), generator=stream)


def by_autograd(model: LeNet, pixels: Tensor, labels: Tensor) -> list[Tensor]:
    logits = model(pixels / 255)
    loss = F.cross_entropy(logits, labels)
    return [loss.detach(), logits.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def ours(model: LeNet, pixels: Tensor, labels: Tensor, dtype: torch.dtype) -> list[Tensor]:
    found = fast.gradients(model, pixels, lambda logits: F.cross_entropy(logits, labels), dtype)
    gradients = [parameter.grad for parameter in model.parameters()]
    return [*found, *(gradient for gradient in gradients if gradient is not None)]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda c: f"{c.activation}-{c.pooling}-{c.conv_layers}")
def test_the_fast_gradients_are_autograd_s(network: Configuration) -> None:
    """Loss, logits and gradients of every kind of network agree with the plain modules within rounding."""
    model, pixels, labels = drawn(network, images=7)

    found, expected = ours(model, pixels, labels, torch.float32), by_autograd(model, pixels, labels)

    names = ["loss", "logits", *(name for name, _ in model.named_parameters())]
    for name, mine, reference in zip(names, found, expected, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-3, msg=name)
        assert mine.stride() == reference.stride() or mine.dim() != 4, name


LAYER = st.tuples(st.integers(1, 9), st.sampled_from([1, 3, 8, 40]), st.integers(0, 4))


@settings(max_examples=40, deadline=None)
@given(
    layers=st.lists(LAYER, min_size=1, max_size=3),
    fc_layers=st.integers(1, 3),
    activation=st.sampled_from(get_args(Activation)),
    pooling=st.sampled_from(["avg", "max"]),
    size=st.sampled_from([20, 28, 33]),
    images=st.sampled_from([1, 5]),
    dark=st.integers(0, 12),
)
def test_any_network_s_gradients_are_autograd_s_in_double_precision(
    layers: list[tuple[int, int, int]],
    fc_layers: int,
    activation: str,
    pooling: str,
    size: int,
    images: int,
    dark: int,
) -> None:
    """Any kernels, channels and paddings that fit, odd maps, and rows without a bright pixel."""
    kernels, channels, padding = (list(values) for values in zip(*layers, strict=True))
    network = variant(
        conv_layers=len(layers),
        fc_layers=fc_layers,
        kernel_size=kernels,
        channels=channels,
        padding=padding,
        activation=activation,
        pooling=pooling,
    )
    try:
        model = LeNet(network, size).double()
    except InfeasibleError:
        reject()
    initialise(model, network.init, seed=1)
    stream = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (images, 1, size, size), generator=stream, dtype=torch.uint8)
    pixels[:, :, :dark] = 0
    labels = torch.randint(0, 10, (images,), generator=stream)
    loss = F.cross_entropy(model(pixels.double() / 255), labels)
    expected = torch.autograd.grad(loss, list(model.parameters()))

    found = ours(model, pixels, labels, torch.float64)[2:]

    for mine, reference in zip(found, expected, strict=True):
        # Only the loss itself is in float32.
        assert (mine - reference).norm() <= 1e-4 * reference.norm() + 1e-6


@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_in_bfloat16_the_gradients_point_where_those_of_float32_do(activation: str, pooling: str) -> None:
    """They are as near to them as those of torch's own layers in bfloat16, or nearly so."""
    model, pixels, labels = drawn(variant(activation=activation, pooling=pooling), images=64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(pixels / 255)
    loss = F.cross_entropy(logits.float(), labels)

    exact = torch.cat([g.flatten() for g in by_autograd(model, pixels, labels)[2:]])
    theirs = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    rough = torch.cat([g.flatten() for g in ours(model, pixels, labels, torch.bfloat16)[2:]])

    assert (rough - exact).norm() < 2 * (theirs - exact).norm()


def test_a_large_batch_has_the_gradients_of_its_quarters_together() -> None:
    """Long products are cut into pieces, and none of them is lost."""
    model, pixels, labels = drawn(variant(), images=200)

    whole = ours(model, pixels, labels, torch.bfloat16)[2:]
    quarters = [
        ours(model, pixels[at : at + 50], labels[at : at + 50], torch.bfloat16)[2:]
        for at in range(0, 200, 50)
    ]

    for of_all, *of_parts in zip(whole, *quarters, strict=True):
        assert (of_all - sum(of_parts) / 4).norm() < 0.02 * of_all.norm()


def test_a_mean_squared_error_is_followed_too() -> None:
    """Any criterion of the logits will do."""
    model, pixels, labels = drawn(variant(), images=7)
    targets = F.one_hot(labels, 10).float()

    found, _ = fast.gradients(model, pixels, lambda logits: F.mse_loss(logits, targets), torch.float32)
    expected = F.mse_loss(model(pixels / 255), targets)
    reference = torch.autograd.grad(expected, list(model.parameters()))

    torch.testing.assert_close(found, expected.detach())
    for parameter, gradient in zip(model.parameters(), reference, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-3)

import pytest
import torch
from torch.nn import functional as F

from lenet_exp import fast
from lenet_exp.config import PRESETS, Configuration, choices, configuration, overlay
from lenet_exp.model import LeNet, initialise


def variant(**values: object) -> Configuration:
    return configuration(overlay(PRESETS["lenet"], values))


NETWORKS = [
    *(
        variant(activation=activation, pooling=p)
        for activation in choices("activation")
        for p in ("avg", "max")
    ),
    variant(conv_layers=3, fc_layers=1, channels=[16, 48, 64], padding="same"),
    variant(conv_layers=1, fc_layers=2, kernel_size=7),
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda c: f"{c.activation}-{c.pooling}-{c.conv_layers}")
def test_the_fast_forward_pass_is_the_model_s_own(network: Configuration) -> None:
    """Logits and gradients of every kind of network agree with the plain modules within rounding."""
    model = LeNet(network)
    initialise(model, network.init, seed=1)
    stream = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (7, 1, 28, 28), generator=stream, dtype=torch.uint8)
    labels = torch.randint(0, 10, (7,), generator=stream)
    weights = dict(model.named_parameters())

    plain, quick = model(pixels / 255), fast.logits(model, pixels, torch.float32)

    torch.testing.assert_close(quick, plain, atol=1e-4, rtol=1e-4)
    for name, expected, found in zip(
        weights,
        torch.autograd.grad(F.cross_entropy(plain, labels), tuple(weights.values())),
        torch.autograd.grad(F.cross_entropy(quick, labels), tuple(weights.values())),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3, msg=name)

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lenet_exp.config.hyperparameters import PRESETS, configuration, overlay
from lenet_exp.training.diagnostics import measure
from lenet_exp.training.network import LeNet, initialise

LABELS = torch.arange(20) % 10


def network(**values: object) -> LeNet:
    model = LeNet(configuration(overlay(PRESETS["lenet"], values)))
    initialise(model, "xavier_uniform", 0)
    return model


def sample() -> torch.Tensor:
    return torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def loss(logits: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, LABELS)


def test_units_that_are_zero_on_every_image_are_dead() -> None:
    """Channels of a convolution and units of a linear layer, as shares."""
    model = network()
    convolution, linear = model.features[0], model.classifier[1]
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(linear, nn.Linear)
    before = measure(model, sample(), loss)
    with torch.no_grad():
        convolution.weight[:3] = 0
        convolution.bias[:3] = -1.0  # type: ignore[index]  # a convolution of ours has a bias
        linear.weight[:30] = 0
        linear.bias[:30] = -1.0

    after = measure(model, sample(), loss)

    assert before["dead_share_conv1"] < 0.5
    assert after["dead_share_conv1"] == pytest.approx(before["dead_share_conv1"], abs=0.5)
    assert after["dead_share_conv1"] >= 0.5
    assert after["dead_share_fc1"] >= 0.25
    assert "dead_share_fc3" not in after


def test_the_gradient_of_a_layer_that_nothing_reaches_is_zero() -> None:
    """Once a layer is dead, what lies before it learns nothing, and what lies behind only its biases."""
    model = network()
    linear = model.classifier[1]
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.fill_(-1.0)

    found = measure(model, sample(), loss)

    assert found["dead_share_fc1"] == 1.0
    assert found["grad_norm_conv1"] == found["grad_norm_conv2"] == found["grad_norm_fc1"] == 0.0
    assert found["grad_norm_fc3"] > 0


def test_gradient_norms_are_those_of_a_backward_pass() -> None:
    """Weights and biases together, and no gradient is left behind."""
    model = network()
    found = measure(model, sample(), loss)
    assert all(parameter.grad is None for parameter in model.parameters())

    loss(model(sample())).backward()  # type: ignore[no-untyped-call]  # torch's own

    layer = model.classifier[5]
    gradients = [parameter.grad for parameter in layer.parameters()]
    norm = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]).norm()
    assert found["grad_norm_fc3"] == pytest.approx(norm.item(), rel=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_a_sigmoid_far_from_zero_is_saturated(activation: str) -> None:
    """It is flat there, which is what stops its gradient."""
    model = network(activation=activation, fc_layers=2)
    before = measure(model, sample(), loss)
    convolution = model.features[0]
    assert isinstance(convolution, nn.Conv2d)
    with torch.no_grad():
        convolution.bias.fill_(50.0)  # type: ignore[union-attr]  # a convolution of ours has a bias

    after = measure(model, sample(), loss)

    assert before["saturated_share_conv1"] == 0.0
    assert after["saturated_share_conv1"] == 1.0
    assert not [name for name in after if name.startswith("dead")]

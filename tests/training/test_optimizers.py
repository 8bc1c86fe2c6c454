from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lenet_exp.config.hyperparameters import PRESETS, Configuration, configuration
from lenet_exp.training.optimizers import make_optimizer


def chosen(**values: Any) -> Configuration:
    return configuration(PRESETS["lenet"] | {"lr": 0.01, "weight_decay": 0.01} | values)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, 10))
    return layers.to(memory_format=torch.channels_last)


def learn(model: nn.Module, step: Any, n_steps: int = 5) -> None:
    for number in range(n_steps):
        images: Tensor = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(number))
        step.zero_grad()
        model(images).square().mean().backward()
        step.step()


def torchs_own(model: nn.Module, of: Configuration) -> torch.optim.Optimizer:
    if of.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=of.lr, weight_decay=of.weight_decay, fused=True)
    return torch.optim.SGD(
        model.parameters(), lr=of.lr, momentum=of.momentum, weight_decay=of.weight_decay, fused=True
    )


KINDS = [{"optimizer": "adam"}, {"optimizer": "sgd"}, {"optimizer": "sgd", "momentum": 0.9}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_it_computes_what_torch_s_own_does_bit_for_bit(kind: dict[str, Any]) -> None:
    """After some steps the weights are the same."""
    ours, theirs = network(), network()

    learn(ours, make_optimizer(chosen(**kind), ours.parameters()))
    learn(theirs, torchs_own(theirs, chosen(**kind)))

    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_it_goes_on_from_its_state_and_shares_nothing_with_it(kind: dict[str, Any]) -> None:
    """Another optimizer over the same weights goes on bit for bit, and leaves what it was given alone."""
    whole, cut = network(), network()
    first = make_optimizer(chosen(**kind), whole.parameters())
    learn(whole, first)
    cut.load_state_dict(whole.state_dict())
    taken = copy.deepcopy(first.state())
    second = make_optimizer(chosen(**kind), cut.parameters())
    second.load_state(taken)
    before = copy.deepcopy(taken)

    learn(whole, first)
    learn(cut, second)

    for one, other in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.equal(one, other)
    assert taken.keys() == before.keys()
    for name in taken:
        assert all(map(torch.equal, taken[name], before[name]))


def test_a_training_on_a_cpu_does_not_load_the_compiler() -> None:
    """``torch._dynamo`` takes more than a second and SymPy half of one, in every attempt."""
    program = """
import sys, torch
from lenet_exp.config.hyperparameters import PRESETS, configuration
from lenet_exp.training.loop import Images, begin, fit
pixels, labels = torch.zeros(8, 1, 28, 28, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64)
some = Images(pixels, labels, torch.arange(8))
for preset in PRESETS.values():
    for _ in fit(begin(configuration(preset | {"epochs": 1}), seed=1), some, some):
        pass
print([name for name in sys.modules if name in ("torch._dynamo", "sympy")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"

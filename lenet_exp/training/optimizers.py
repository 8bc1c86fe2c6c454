"""Adam and SGD by torch's fused kernels, without the classes around them.

Those load ``torch._dynamo`` in their first step, which takes more than a second of every command's start, and
hooks and groups of parameters are of no use here. The arithmetic is torch's own, bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from lenet_exp.config.hyperparameters import Configuration


class Optimizer(ABC):
    """What changes parameters by their gradients."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        #: What is trained, in the network's order.
        self.parameters = list(parameters)

    @abstractmethod
    def step(self) -> None:
        """Change the parameters, each of which has a gradient."""

    @abstractmethod
    def state(self) -> dict[str, list[Tensor]]:
        """Return what was accumulated: by name, one tensor for each parameter; empty if nothing is."""

    @abstractmethod
    def load_state(self, state: Mapping[str, list[Tensor]]) -> None:
        """Go on from a copy of what `state` returned."""

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def _like_parameters(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Return copies on the parameters' device, laid out in memory as the fused kernels expect them."""
        pairs = zip(self.parameters, tensors, strict=True)
        return [torch.empty_like(p, dtype=t.dtype, requires_grad=False).copy_(t) for p, t in pairs]


class Adam(Optimizer):
    """Adam with torch's defaults; it counts its steps on the device, so that nothing waits for the host.

    Source: Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015.
    """

    def __init__(self, parameters: Iterable[Tensor], *, lr: float, weight_decay: float) -> None:
        super().__init__(parameters)
        self._lr, self._weight_decay = lr, weight_decay
        self._means = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self._squares = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self._steps = [torch.zeros((), device=p.device) for p in self.parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters."""
        adam(
            self.parameters,
            self._gradients(),
            self._means,
            self._squares,
            [],
            self._steps,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._lr,
            weight_decay=self._weight_decay,
            eps=1e-8,
            maximize=False,
        )

    def state(self) -> dict[str, list[Tensor]]:
        """Return the running means, the running means of squares, and the steps so far."""
        return {"exp_avg": self._means, "exp_avg_sq": self._squares, "step": self._steps}

    def load_state(self, state: Mapping[str, list[Tensor]]) -> None:
        """Go on from a copy of it."""
        self._means = self._like_parameters(state["exp_avg"])
        self._squares = self._like_parameters(state["exp_avg_sq"])
        self._steps = [n.to(p.device, copy=True) for n, p in zip(state["step"], self.parameters, strict=True)]


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum as torch has it."""

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(parameters)
        self._lr, self._momentum, self._weight_decay = lr, momentum, weight_decay
        self._velocities: list[Tensor | None] = [None for _ in self.parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters."""
        sgd(
            self.parameters,
            self._gradients(),
            self._velocities,
            fused=True,
            weight_decay=self._weight_decay,
            momentum=self._momentum,
            lr=self._lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def state(self) -> dict[str, list[Tensor]]:
        """Return the velocities, if there are any yet."""
        found = [velocity for velocity in self._velocities if velocity is not None]
        return {"momentum_buffer": found} if found else {}

    def load_state(self, state: Mapping[str, list[Tensor]]) -> None:
        """Go on from a copy of it."""
        if "momentum_buffer" in state:
            self._velocities = list(self._like_parameters(state["momentum_buffer"]))


def optimizer(configuration: Configuration, parameters: Iterable[Tensor]) -> Optimizer:
    """Return the optimizer that the configuration names, before its first step.

    Args:
        configuration: With ``optimizer``, ``lr``, ``momentum`` and ``weight_decay``.
        parameters: What is to be trained, on the device where it is trained.
    """
    lr, decay = configuration.lr, configuration.weight_decay
    if configuration.optimizer == "adam":
        return Adam(parameters, lr=lr, weight_decay=decay)
    return SGD(parameters, lr=lr, momentum=configuration.momentum, weight_decay=decay)

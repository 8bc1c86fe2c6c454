"""Adam and SGD with torch's fused kernels, without the classes of ``torch.optim``.

Those classes load ``torch._dynamo`` in their first step, which takes a second of every command's start
(experiments/LOG.md, "Speed: the start, the end, and what lies between trainings"); their hooks and parameter
groups are of no use here. The arithmetic is torch's own, bit for bit.
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
    """Base class of the optimizers, which update parameters in place from their gradients."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        #: The parameters that are trained, in the network's order.
        self.parameters = list(parameters)

    @abstractmethod
    def step(self) -> None:
        """Update the parameters from their gradients; every parameter must have one."""

    @abstractmethod
    def state(self) -> dict[str, list[Tensor]]:
        """Return the accumulated state: by name, a list of one tensor per parameter. It may be empty."""

    @abstractmethod
    def load_state(self, state: Mapping[str, list[Tensor]]) -> None:
        """Set the accumulated state to a copy of one that `state` returned."""

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for parameter in self.parameters:
            parameter.grad = None

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def _like_parameters(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Return copies of ``tensors`` on the parameters' device, in the layout of the fused kernels."""
        pairs = zip(self.parameters, tensors, strict=True)
        return [torch.empty_like(p, dtype=t.dtype, requires_grad=False).copy_(t) for p, t in pairs]


class Adam(Optimizer):
    """Adam with torch's default betas; it counts its steps on the device, so that nothing waits for the host.

    Source: Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015.
    """

    def __init__(self, parameters: Iterable[Tensor], *, lr: float, weight_decay: float) -> None:
        """Create the optimizer, with all running means and the number of steps at zero.

        Args:
            parameters: Parameters to train, on the device to train on.
            lr: Learning rate, above 0.
            weight_decay: Factor of the L2 penalty that is added to the gradients; 0 means no penalty.
        """
        super().__init__(parameters)
        self._lr, self._weight_decay = lr, weight_decay
        self._means = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self._squares = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self._steps = [torch.zeros((), device=p.device) for p in self.parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters from their gradients; every parameter must have one."""
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
        """Return the running means of gradients and of their squares, and the number of steps."""
        return {"exp_avg": self._means, "exp_avg_sq": self._squares, "step": self._steps}

    def load_state(self, state: Mapping[str, list[Tensor]]) -> None:
        """Set the accumulated state to a copy of one that `state` returned."""
        self._means = self._like_parameters(state["exp_avg"])
        self._squares = self._like_parameters(state["exp_avg_sq"])
        self._steps = [n.to(p.device, copy=True) for n, p in zip(state["step"], self.parameters, strict=True)]


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum in torch's form (no dampening, not Nesterov's)."""

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float, momentum: float, weight_decay: float
    ) -> None:
        """Create the optimizer, without velocities; its first step creates them.

        Args:
            parameters: Parameters to train, on the device to train on.
            lr: Learning rate, above 0.
            momentum: Share of the velocity that each step keeps, in [0, 1).
            weight_decay: Factor of the L2 penalty that is added to the gradients; 0 means no penalty.
        """
        super().__init__(parameters)
        self._lr, self._momentum, self._weight_decay = lr, momentum, weight_decay
        self._velocities: list[Tensor | None] = [None for _ in self.parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters from their gradients; every parameter must have one."""
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
        """Return the velocities; empty before the first step, and without momentum."""
        velocities = [velocity for velocity in self._velocities if velocity is not None]
        return {"momentum_buffer": velocities} if velocities else {}

    def load_state(self, state: Mapping[str, list[Tensor]]) -> None:
        """Set the accumulated state to a copy of one that `state` returned."""
        if "momentum_buffer" in state:
            self._velocities = list(self._like_parameters(state["momentum_buffer"]))


def make_optimizer(configuration: Configuration, parameters: Iterable[Tensor]) -> Optimizer:
    """Return a new optimizer of the kind that the configuration names.

    Args:
        configuration: Hyper-parameters; only the optimizer's name and settings are used.
        parameters: Parameters to train, on the device to train on.
    """
    lr, decay = configuration.lr, configuration.weight_decay
    if configuration.optimizer == "adam":
        return Adam(parameters, lr=lr, weight_decay=decay)
    return SGD(parameters, lr=lr, momentum=configuration.momentum, weight_decay=decay)

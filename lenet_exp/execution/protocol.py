"""The messages between the driver and an attempt's process, and the interface of a module that trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from lenet_exp.base import environment
from lenet_exp.base.layout import Layout
from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.hyperparameters import Precision
from lenet_exp.data.images import ImageSet
from lenet_exp.execution.resources import DEFAULT, Limits, WorkerPlan
from lenet_exp.study.records import Attempt


@dataclass(frozen=True)
class Machine:
    """The devices that attempts run on.

    Attributes:
        devices: Torch's names of the devices that share the attempts: ``cpu``, or ``cuda:0`` and ``cuda:1``.
        name: Product name of the processor or accelerator.
        precision: Precision that ``auto`` stands for on them.
        torch: Version of torch.
    """

    devices: tuple[str, ...]
    name: str
    precision: Precision
    torch: str


@dataclass(frozen=True)
class Conditions:
    """Everything that all attempts of a sweep have in common.

    Attributes:
        experiment: Experiment whose precision is no longer ``auto``.
        images: Training images, the validation images among them.
        machine: Devices that the attempts run on.
        layout: Paths of the files that they leave.
        plan: Number of attempts that run at once, and of their threads.
        limits: Time and memory that an attempt may take, and disk space to leave free.
        test_images: Test images that a fixed list shows in its curves; None in every search.
    """

    experiment: Experiment
    images: ImageSet
    machine: Machine
    layout: Layout
    plan: WorkerPlan
    limits: Limits = DEFAULT
    test_images: ImageSet | None = None

    def metadata(self) -> dict[str, str | int]:
        """Return what is stored with the result of a training: machine, versions, threads."""
        training, device = self.experiment.training, self.machine.devices[0]
        return environment.metadata(
            device=device,
            device_name=self.machine.name,
            torch=self.machine.torch,
            threads=self.plan.threads,
            compiled=training.compile and device != "cpu",
            kernels=training.kernels if device == "cpu" else "torch",
        )


@dataclass(frozen=True)
class Task:
    """All that a process needs to train one attempt.

    Attributes:
        attempt: Attempt with its configuration, its seed, and the images that it learns from.
        conditions: Everything that it has in common with the other attempts.
        device: Torch's name of the device to train on.
        checkpoints: True to write checkpoints, and to resume from the newest one.
    """

    attempt: Attempt
    conditions: Conditions
    device: str
    checkpoints: bool = True

    @property
    def key(self) -> RunKey:
        """The attempt's key."""
        return self.attempt.key


@dataclass(frozen=True)
class Epoch:
    """An attempt finished an epoch.

    Attributes:
        key: Attempt that the epoch belongs to.
        result: Result of the epoch.
        replayed: True if an earlier attempt trained the epoch, and this one resumed after it.
    """

    key: RunKey
    result: EpochResult
    replayed: bool = False


@dataclass(frozen=True)
class Warned:
    """Something went wrong that does not end the attempt."""

    key: RunKey
    warning: str


@dataclass(frozen=True)
class Ended:
    """An attempt is over.

    Attributes:
        key: Attempt that is over.
        how: Outcome: it ``completed`` all epochs; its loss ``diverged``; it ``stopped`` when told to; it
            raised an exception (``failed``), ran out of memory (``oom``), or its process ``died``.
        reason: Cause in one line; empty if it completed.
        details: Traceback of the exception; empty without one.
    """

    key: RunKey
    how: Literal["completed", "diverged", "stopped", "failed", "oom", "died"]
    reason: str = ""
    details: str = ""


Event = Epoch | Warned | Ended


class RunningTraining(Protocol):
    """A training under way, as `Trainer.begin` returns it."""

    def epochs(self) -> Iterator[EpochResult]:
        """Train the remaining epochs, and yield the result of each.

        Raises:
            DivergedError: If the loss becomes NaN or infinite.
        """

    def snapshot(self) -> bytes:
        """Return the state between two epochs, from which `restore` goes on bit for bit."""

    def restore(self, taken: bytes, last: EpochResult) -> None:
        """Set a training that has not begun to the state of a snapshot.

        Args:
            taken: State that `snapshot` returned, for the same configuration and seed.
            last: Result of the epoch before the snapshot.
        """

    def save_weights(self, path: Path) -> None:
        """Write the weights to ``path`` as safetensors."""


class Trainer(Protocol):
    """The interface of a module that trains."""

    def begin(self, task: Task) -> RunningTraining:
        """Return a training before its first epoch."""

    def probe(self, device: str) -> Machine:
        """Return what ``device`` stands for on this machine, after it has computed something.

        Raises:
            DeviceError: If it cannot be used.
        """

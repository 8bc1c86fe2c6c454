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
    """The devices that attempts are trained on.

    Attributes:
        devices: Torch's names of the devices that share the attempts: ``cpu``, or ``cuda:0``, ``cuda:1`` …
        name: Product name of the processor or accelerator.
        precision: Precision that ``auto`` stands for on these devices.
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
        experiment: Experiment, with a precision that is no longer ``auto``.
        images: Images of the training part: the training and the validation split.
        machine: Devices that the attempts are trained on.
        layout: Paths of the files that the attempts write.
        plan: Number of attempts that run in parallel, and threads of each.
        limits: Time and memory that an attempt may take, and disk space to leave free.
        test_images: Test images to measure after each epoch, which only listed runs may do; None otherwise.
    """

    experiment: Experiment
    images: ImageSet
    machine: Machine
    layout: Layout
    plan: WorkerPlan
    limits: Limits = DEFAULT
    test_images: ImageSet | None = None

    def metadata(self) -> dict[str, str | int]:
        """Return the metadata to store with each result: machine, versions, threads."""
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
        attempt: Attempt with its configuration, its seed, and the images to train on.
        conditions: Everything that the attempt shares with the other attempts of its sweep.
        device: Torch's name of the device to train on.
        checkpoints: True to write checkpoints, and to resume from the newest checkpoint of the training.
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
    """Event: an attempt has an epoch behind it.

    Attributes:
        key: Key of the attempt.
        result: Result of the epoch.
        replayed: True if an earlier attempt trained the epoch, and this attempt resumes after it.
    """

    key: RunKey
    result: EpochResult
    replayed: bool = False


@dataclass(frozen=True)
class Warned:
    """Event: something went wrong that does not end the attempt; ``warning`` says what in one line."""

    key: RunKey
    warning: str


@dataclass(frozen=True)
class Ended:
    """Event: an attempt has ended.

    Attributes:
        key: Key of the attempt.
        how: Outcome: the attempt ``completed`` all epochs; its loss ``diverged``; it ``stopped`` when told
            to; it raised an exception (``failed``), ran out of memory (``oom``), or its process ``died``.
        reason: Cause in one line; empty if the attempt completed.
        details: Traceback of the exception; empty if there was no exception.
    """

    key: RunKey
    how: Literal["completed", "diverged", "stopped", "failed", "oom", "died"]
    reason: str = ""
    details: str = ""


Event = Epoch | Warned | Ended


class RunningTraining(Protocol):
    """A training in progress, as `Trainer.begin` returns it."""

    def epochs(self) -> Iterator[EpochResult]:
        """Train the remaining epochs, and yield the result of each.

        Raises:
            DivergedError: By the end of the epoch in which the loss or a weight becomes NaN or infinite.
        """

    def snapshot(self) -> bytes:
        """Return the state between two epochs; after `restore`, a training continues from it bit for bit."""

    def restore(self, taken: bytes, last: EpochResult) -> None:
        """Set a training that has not started to the state of a snapshot.

        Args:
            taken: State that `snapshot` returned in a training of the same configuration and seed.
            last: Result of the last epoch before the snapshot.
        """

    def save_weights(self, path: Path) -> None:
        """Write the weights to ``path`` as safetensors."""


class Trainer(Protocol):
    """The interface of a module that trains."""

    def begin(self, task: Task) -> RunningTraining:
        """Return the training of the task's attempt, before its first epoch."""

    def probe(self, device: str) -> Machine:
        """Try ``device`` with a small computation, and return what its name stands for on this machine.

        Raises:
            DeviceError: If the device cannot be used.
        """

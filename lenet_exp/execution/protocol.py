"""What passes between the driver and an attempt's process, and what a module that trains must offer."""

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
    """What an attempt would run on.

    Attributes:
        devices: As torch names them, such as ``cpu``, or ``cuda:0`` and ``cuda:1``, which share the attempts.
        name: The processor's or accelerator's own name.
        precision: What ``auto`` means there.
        torch: torch's version.
    """

    devices: tuple[str, ...]
    name: str
    precision: Precision
    torch: str


@dataclass(frozen=True)
class Conditions:
    """What all attempts of a sweep share.

    Attributes:
        experiment: With its precision resolved.
        images: The training images; validation images are among them.
        machine: What the attempts run on.
        layout: Where they leave their files.
        plan: How many attempts run at once, and their threads.
        limits: What an attempt may take, and what is to be left of the disk.
        test_images: What a fixed list shows beside its curves; None in every search.
    """

    experiment: Experiment
    images: ImageSet
    machine: Machine
    layout: Layout
    plan: WorkerPlan
    limits: Limits = DEFAULT
    test_images: ImageSet | None = None

    def metadata(self) -> dict[str, str | int]:
        """Return what is kept with the result of a training: machine, versions, threads."""
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
        attempt: What to train, from which seed, and on which of the images.
        conditions: What it shares with the other attempts.
        device: Where to train, as torch names it.
        checkpoints: Whether checkpoints are written and gone on from.
    """

    attempt: Attempt
    conditions: Conditions
    device: str
    checkpoints: bool = True

    @property
    def key(self) -> RunKey:
        """The attempt's role, number and try."""
        return self.attempt.key


@dataclass(frozen=True)
class Epoch:
    """An attempt finished an epoch.

    Attributes:
        key: The attempt.
        result: What it gave.
        replayed: Whether an attempt before this one trained it.
    """

    key: RunKey
    result: EpochResult
    replayed: bool = False


@dataclass(frozen=True)
class Warned:
    """Something went wrong that the attempt can do without."""

    key: RunKey
    warning: str


@dataclass(frozen=True)
class Ended:
    """An attempt is over.

    Attributes:
        key: The attempt.
        how: ``completed`` all epochs; the loss ``diverged``; it ``stopped`` when told to; it raised
            (``failed``), had no memory left (``oom``), or its process ``died``.
        reason: One line; empty if it completed.
        details: The traceback, where there is one.
    """

    key: RunKey
    how: Literal["completed", "diverged", "stopped", "failed", "oom", "died"]
    reason: str = ""
    details: str = ""


Event = Epoch | Warned | Ended


class RunningTraining(Protocol):
    """A training under way, as a trainer gives it."""

    def epochs(self) -> Iterator[EpochResult]:
        """Train the epochs that are left, and yield the result of each.

        Raises:
            DivergedError: If the loss becomes NaN or infinite.
        """

    def snapshot(self) -> bytes:
        """Return all that `restore` needs to go on bit for bit."""

    def restore(self, taken: bytes, last: EpochResult) -> None:
        """Go on from a snapshot, which was taken after the epoch of ``last``."""

    def save_weights(self, path: Path) -> None:
        """Write the weights to ``path`` as safetensors."""


class Trainer(Protocol):
    """A module that trains."""

    def begin(self, task: Task) -> RunningTraining:
        """Return a training before its first epoch."""

    def probe(self, device: str) -> Machine:
        """Return what ``device`` means here, after it has computed something.

        Raises:
            DeviceError: If it cannot be used.
        """

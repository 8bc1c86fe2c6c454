"""What happens in the process of an attempt: train, keep checkpoints, tell the driver, and end with it.

How an epoch is trained is the trainer's affair, a module that is named and loaded in that process alone:
`trainer` is the real one. Nothing here needs torch.
"""

from __future__ import annotations

import importlib
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, Protocol, cast

from lenet_exp.base import environment, failpoints
from lenet_exp.base.errors import DeviceError, DiskError, DivergedError
from lenet_exp.base.records import EpochResult, RunKey, TrainOn
from lenet_exp.config.hyperparameters import Configuration, Precision
from lenet_exp.data.images import ImageSet
from lenet_exp.execution import checkpoint, limits
from lenet_exp.execution.processes import settle_in


@dataclass(frozen=True)
class Task:
    """All that a process needs to train one attempt.

    Attributes:
        key: The attempt.
        configuration: What to train.
        seed: Root of its random streams.
        images: The training images; validation images are among them.
        validation: How many of them are kept for validation.
        split_seed: Of the division.
        limit: How many of the rest are trained on; None for all.
        device: As the user named it.
        threads: For torch's operations.
        weights: Where the process leaves its weights, a safetensors file.
        checkpoints: Where it leaves them, and finds those of the attempts before it; None for none.
        memory_bytes: What it may allocate; None for no limit.
        compiled: Whether an accelerator runs a step as one compiled graph.
        test_images: What ``test_loss`` and ``test_accuracy`` are measured on after each epoch; None for not
            at all, as in every search.
        diagnostics: Whether `lenet_exp.training.diagnostics` looks at the network after each epoch.
        train_on: The images to learn from.
    """

    key: RunKey
    configuration: Configuration
    seed: int
    images: ImageSet
    validation: int
    split_seed: int
    limit: int | None
    device: str
    threads: int
    weights: Path
    checkpoints: Path | None = None
    memory_bytes: int | None = None
    compiled: bool = False
    test_images: ImageSet | None = None
    diagnostics: bool = False
    train_on: TrainOn = "train"


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

    def facts(self, *, threads: int, compiled: bool) -> dict[str, str | int]:
        """Return what is kept with the result of a training here."""
        return environment.facts(
            device=self.devices[0],
            device_name=self.name,
            torch=self.torch,
            threads=threads,
            compiled=compiled and self.devices[0] != "cpu",
        )


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


class Training(Protocol):
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

    def begin(self, task: Task) -> Training:
        """Return a training before its first epoch."""

    def probe(self, device: str) -> Machine:
        """Return what ``device`` means here, after it has computed something.

        Raises:
            DeviceError: If it cannot be used.
        """


def load_trainer(name: str) -> Trainer:
    """Return the trainer that is the module ``name``."""
    return cast(Trainer, importlib.import_module(name))


def probe(pipe: Connection, trainer: str, device: str) -> None:
    """Send the `Machine` that ``device`` means, or why it is none; the body of a process."""
    try:
        found: Machine | str = load_trainer(trainer).probe(device)
    except DeviceError as error:
        found = str(error)
    _send(pipe, found)


def work(pipe: Connection, trainer: str, task: Task) -> None:
    """Train ``task`` and stream its events; the body of an attempt's process."""
    settle_in()
    finish = threading.Event()
    threading.Thread(target=_listen, args=(pipe, finish), daemon=True).start()
    try:
        if task.memory_bytes is not None:
            limits.limit_memory(task.memory_bytes)
        ended = attempt(task, load_trainer(trainer), partial(_send, pipe), finish.is_set)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        how: Literal["oom", "failed"] = "oom" if limits.is_out_of_memory(error) else "failed"
        ended = Ended(task.key, how, reason, traceback.format_exc())
    _send(pipe, ended)


def _send(pipe: Connection, message: object) -> None:
    """Send to the driver, and end with it, as `_listen` does, without a word."""
    try:
        pipe.send(message)
    except OSError:
        os._exit(1)


def _listen(pipe: Connection, finish: threading.Event) -> None:
    """Obey the driver, and end with it: a worker whose driver is gone trains for nobody."""
    try:
        while pipe.recv() == "finish epoch":
            finish.set()
    except (EOFError, OSError):
        os._exit(1)


def attempt(
    task: Task, trainer: Trainer, send: Callable[[Event], None], is_to_stop: Callable[[], bool]
) -> Ended:
    """Train ``task`` from its newest checkpoint on.

    Args:
        task: What to train.
        trainer: How.
        send: Takes each event but the last.
        is_to_stop: Asked after each epoch.

    Returns:
        The last event.
    """
    training = trainer.begin(task)
    history = _resume(task, training, send)
    warned = False
    try:
        for result in training.epochs():
            failpoints.point("epoch")
            history.append(result)
            # Before the driver hears of the epoch, so that what is on record can be gone on from.
            warning = _keep(task, history, training)
            if warning and not warned:
                warned = True
                send(Warned(task.key, warning))
            failpoints.point("before_send")
            send(Epoch(task.key, result))
            if is_to_stop() and result.epoch < task.configuration.epochs:
                return Ended(task.key, "stopped", "interrupted")
    except DivergedError as error:
        return Ended(task.key, "diverged", f"diverged: {error}")
    training.save_weights(task.weights)
    failpoints.point("completed")
    return Ended(task.key, "completed")


def _resume(task: Task, training: Training, send: Callable[[Event], None]) -> list[EpochResult]:
    """Go on from the newest checkpoint, and send the epochs behind it as they were; return them."""
    found = checkpoint.newest(task.checkpoints) if task.checkpoints else None
    if found is None:
        return []
    training.restore(found.state, found.history[-1])
    for result in found.history:
        send(Epoch(task.key, result, replayed=True))
    return list(found.history)


def _keep(task: Task, history: list[EpochResult], training: Training) -> str | None:
    """Write a checkpoint; return what is wrong if it cannot be written, which costs no epoch by itself."""
    if task.checkpoints is None:
        return None
    try:
        checkpoint.save(task.checkpoints, history, training.snapshot())
    except DiskError as error:
        return f"no checkpoint: {error}"
    return None

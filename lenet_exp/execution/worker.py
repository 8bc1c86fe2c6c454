"""What happens in the process of an attempt: train, keep checkpoints, tell the driver, and end with it.

How an epoch is trained is the trainer's affair, a module that is named and loaded in that process alone:
`lenet_exp.training.trainer` is the real one. Nothing here needs torch.
"""

from __future__ import annotations

import importlib
import os
import threading
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, cast

from lenet_exp.base import failpoints
from lenet_exp.base.errors import DiskError, DivergedError
from lenet_exp.base.records import EpochResult
from lenet_exp.execution import checkpoint, resources
from lenet_exp.execution.processes import settle_in
from lenet_exp.execution.protocol import Ended, Epoch, Event, Machine, RunningTraining, Task, Trainer, Warned


def load_trainer(name: str) -> Trainer:
    """Return the trainer that is the module ``name``."""
    return cast(Trainer, importlib.import_module(name))


def probe(trainer: str, device: str) -> Machine:
    """Return what ``device`` means here to a trainer; called in a process of its own.

    Args:
        trainer: The name of the module that trains.
        device: As the user named it.

    Raises:
        DeviceError: If it cannot be used.
    """
    return load_trainer(trainer).probe(device)


def work(pipe: Connection, trainer: str, task: Task) -> None:
    """Train ``task`` and stream its events; the body of an attempt's process."""
    settle_in()
    finish = threading.Event()
    threading.Thread(target=_listen, args=(pipe, finish), daemon=True).start()
    try:
        if (size := task.conditions.limits.trial_memory_bytes) is not None:
            resources.limit_memory(size)
        ended = attempt(task, load_trainer(trainer), partial(_send, pipe), finish.is_set)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        how: Literal["oom", "failed"] = "oom" if resources.is_out_of_memory(error) else "failed"
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
            if is_to_stop() and result.epoch < task.attempt.configuration.epochs:
                return Ended(task.key, "stopped", "interrupted")
    except DivergedError as error:
        return Ended(task.key, "diverged", f"diverged: {error}")
    training.save_weights(task.conditions.layout.weights(task.key))
    failpoints.point("completed")
    return Ended(task.key, "completed")


def _resume(task: Task, training: RunningTraining, send: Callable[[Event], None]) -> list[EpochResult]:
    """Go on from the newest checkpoint, and send the epochs behind it as they were; return them."""
    found = checkpoint.newest(_folder(task)) if task.checkpoints else None
    if found is None:
        return []
    training.restore(found.state, found.history[-1])
    for result in found.history:
        send(Epoch(task.key, result, replayed=True))
    return list(found.history)


def _keep(task: Task, history: list[EpochResult], training: RunningTraining) -> str | None:
    """Write a checkpoint; return what is wrong if it cannot be written, which costs no epoch by itself."""
    if not task.checkpoints:
        return None
    try:
        checkpoint.save(_folder(task), history, training.snapshot())
    except DiskError as error:
        return f"no checkpoint: {error}"
    return None


def _folder(task: Task) -> Path:
    """Return the folder of the checkpoints, which all attempts at a training share."""
    return task.conditions.layout.training(task.attempt.origin)

"""The process of an attempt: it trains, writes checkpoints, and reports to the driver, whose end ends it too.

How an epoch is trained is up to the trainer, a module that only this process imports, by its name:
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
from lenet_exp.base.errors import DivergedError, LenetExpError
from lenet_exp.base.records import EpochResult
from lenet_exp.execution import checkpoint, resources
from lenet_exp.execution.processes import settle_in
from lenet_exp.execution.protocol import Ended, Epoch, Event, Machine, RunningTraining, Task, Trainer, Warned


def load_trainer(name: str) -> Trainer:
    """Import the module that trains by its dotted name."""
    return cast(Trainer, importlib.import_module(name))


def probe(trainer: str, device: str) -> Machine:
    """Try ``device`` with a small computation, and return what its name stands for on this machine.

    Called in a process of its own, as it loads torch.

    Args:
        trainer: Dotted name of the module that trains.
        device: Device as the user named it, such as ``auto`` or ``cuda:1``.

    Raises:
        DeviceError: If the device cannot be used.
    """
    return load_trainer(trainer).probe(device)


def work(pipe: Connection, trainer: str, task: Task) -> None:
    """Train an attempt, and send its events to the driver; the main function of the attempt's process.

    Args:
        pipe: Connection to the driver.
        trainer: Dotted name of the module that trains.
        task: Attempt to train, with its conditions.
    """
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
    """Send a message to the driver; end this process silently if the driver is gone."""
    try:
        pipe.send(message)
    except OSError:
        os._exit(1)


def _listen(pipe: Connection, finish: threading.Event) -> None:
    """Set ``finish`` when the driver asks for it; end this process if the driver is gone."""
    try:
        while pipe.recv() == "finish epoch":
            finish.set()
    except (EOFError, OSError):
        os._exit(1)


def attempt(
    task: Task, trainer: Trainer, send: Callable[[Event], None], is_to_stop: Callable[[], bool]
) -> Ended:
    """Train an attempt, from the newest checkpoint of its training if there is one.

    Args:
        task: Attempt to train, with its conditions.
        trainer: Module that trains.
        send: Function that is called with each event but the last, to send it to the driver.
        is_to_stop: Function that is called after each epoch; if it returns True, the attempt stops there.

    Returns:
        The last event, which the caller sends.
    """
    training = trainer.begin(task)
    history = _resume(task, training, send)
    warned = False
    try:
        for result in training.epochs():
            failpoints.point("epoch")
            history.append(result)
            # Before the driver hears of the epoch, so that a training can resume from every recorded epoch.
            warning = _save_checkpoint(task, history, training)
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
    """Restore the newest checkpoint of the training, if there is one.

    Returns:
        The results of the checkpoint's epochs, which are also sent as replayed `Epoch` events. The list is
        empty without a checkpoint.
    """
    newest = checkpoint.newest(_folder(task)) if task.checkpoints else None
    if newest is None:
        return []
    training.restore(newest.state, newest.history[-1])
    for result in newest.history:
        send(Epoch(task.key, result, replayed=True))
    return list(newest.history)


def _save_checkpoint(task: Task, history: list[EpochResult], training: RunningTraining) -> str | None:
    """Write a checkpoint; if that fails, return a warning for the user, and the attempt continues."""
    if not task.checkpoints:
        return None
    try:
        checkpoint.save(_folder(task), history, training.snapshot())
    except LenetExpError as error:
        return f"no checkpoint: {error}"
    return None


def _folder(task: Task) -> Path:
    """Return the folder of the training's checkpoints, which all its attempts share."""
    return task.conditions.layout.training(task.attempt.origin)

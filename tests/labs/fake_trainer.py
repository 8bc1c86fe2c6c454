"""A trainer whose epochs take a millisecond, for tests of everything around the training.

Its numbers follow from the configuration and the seed alone, and each epoch's from that of the epoch
before, so that a resumed training which is not the same shows.
Set ``LENET_EXP_TRAINER=tests.labs.fake_trainer``.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from lenet_exp.base.records import EpochResult
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.execution.protocol import Machine, Task

#: Seconds that an epoch takes.
EPOCH_S = float(os.environ.get("FAKE_TRAINER_EPOCH_S", "0.001"))
#: If set, what an epoch allocates, in bytes.
ALLOCATES = int(os.environ.get("FAKE_TRAINER_ALLOCATES", "0"))


class FakeTraining:
    """A chain of hashes that looks like a training."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._state = _first(task.attempt.configuration, task.attempt.seed)
        self._epoch = 0

    def epochs(self) -> Iterator[EpochResult]:
        """Yield what is left."""
        while self._epoch < self._task.attempt.configuration.epochs:
            time.sleep(EPOCH_S)
            if ALLOCATES:
                bytes(ALLOCATES)
            self._epoch += 1
            self._state = _next(self._state)
            yield _result(self._epoch, self._state)

    def snapshot(self) -> bytes:
        """Return the state."""
        return self._state

    def restore(self, taken: bytes, last: EpochResult) -> None:
        """Go on from it."""
        self._state, self._epoch = taken, last.epoch

    def save_weights(self, path: Path) -> None:
        """Leave nothing: there is no model."""


def begin(task: Task) -> FakeTraining:
    """Return the training."""
    return FakeTraining(task)


def probe(device: str) -> Machine:
    """Return a machine of our own, whatever ``device`` is."""
    return Machine(("cpu",), "fake", "float32", "0")


def expected(configuration: Configuration, seed: int) -> float:
    """Return the accuracy after the last epoch of a training that nothing disturbed."""
    state = _first(configuration, seed)
    for _ in range(configuration.epochs):
        state = _next(state)
    return _result(configuration.epochs, state).val_accuracy


def _first(configuration: Configuration, seed: int) -> bytes:
    return hashlib.sha256(f"{configuration.id} {seed}".encode()).digest()


def _next(state: bytes) -> bytes:
    return hashlib.sha256(state).digest()


def _result(epoch: int, state: bytes) -> EpochResult:
    accuracy = int.from_bytes(state[:6], "big") / 2**48
    return EpochResult(epoch, 1 - accuracy, accuracy, 1 - accuracy, accuracy, 1000.0, epoch * EPOCH_S)

"""The trainer of an attempt's process: a `Task` as a training of `LeNet` on a device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from lenet_exp.base import environment
from lenet_exp.base.records import EpochResult
from lenet_exp.data.images import ImageSet
from lenet_exp.data.split import division
from lenet_exp.execution.processes import keep_freed_memory
from lenet_exp.execution.protocol import Machine, Task
from lenet_exp.training import diagnostics, loop

#: Training images that diagnostics look at.
DIAGNOSED = 1_000


class LeNetTraining:
    """One training, with the images it needs; see `lenet_exp.execution.protocol.RunningTraining`."""

    def __init__(self, task: Task) -> None:
        """Load the images and draw the weights."""
        keep_freed_memory()
        conditions, attempt = task.conditions, task.attempt
        experiment, images = conditions.experiment, conditions.images
        torch.set_num_threads(conditions.plan.threads)
        device = loop.resolve_device(task.device)
        pixels, labels = loop.load(images, device)
        split = division(experiment.data, labels.cpu().numpy())
        if attempt.train_on == "train+validation":
            split = split.joined()
        self._training, self._validation = (
            loop.Images(pixels, labels, torch.from_numpy(index).to(device))
            for index in (split.train, split.validation)
        )
        self._state = loop.begin(
            attempt.configuration,
            seed=attempt.seed,
            device=device,
            image_size=images.image_size,
            training=experiment.training,
        )
        self._test = _all_of(conditions.test_images, device) if conditions.test_images else None
        self._diagnosed = self._training.index[:DIAGNOSED] if experiment.watch.diagnostics else None

    def epochs(self) -> Iterator[EpochResult]:
        """Train the epochs that are left."""
        began, trained_s = time.perf_counter(), self._state.train_s
        for result in loop.fit(self._state, self._training, self._validation):
            # What an epoch takes beyond its training pass is its evaluation.
            evaluation_s = time.perf_counter() - began - (result.train_s - trained_s)
            yield replace(result, watched=self._watched(), evaluation_s=evaluation_s)
            began, trained_s = time.perf_counter(), result.train_s

    def _watched(self) -> dict[str, float]:
        """Return all that the task watches besides, measured after an epoch."""
        found: dict[str, float] = {}
        model, loss = self._state.model, self._state.configuration.loss
        if self._test is not None:
            found["test_loss"], found["test_accuracy"] = loop.evaluate(model, self._test, loss)
        if self._diagnosed is not None:
            pixels = loop.as_input(self._training.pixels[self._diagnosed])
            labels = self._training.labels[self._diagnosed]
            found |= diagnostics.measure(model, pixels, lambda logits: loop.criterion(logits, labels, loss))
        return found

    def snapshot(self) -> bytes:
        """Return what `restore` takes."""
        return loop.snapshot(self._state)

    def restore(self, taken: bytes, last: EpochResult) -> None:
        """Go on from a snapshot."""
        loop.restore(self._state, taken, last)

    def save_weights(self, path: Path) -> None:
        """Write the weights to ``path``."""
        loop.save_weights(self._state.model, path)


def _all_of(images: ImageSet, device: torch.device) -> loop.Images:
    pixels, labels = loop.load(images, device)
    return loop.Images(pixels, labels, torch.arange(len(labels), device=device))


def begin(task: Task) -> LeNetTraining:
    """Return the training before its first epoch."""
    return LeNetTraining(task)


def probe(device: str) -> Machine:
    """Return what ``device`` means here, after it has computed something.

    Raises:
        DeviceError: If it cannot be used.
    """
    found = [loop.resolve_device(device)]
    if found[0].type == "cuda" and found[0].index is None:  # any of them will do, so all of them do
        found = [loop.resolve_device(f"cuda:{index}") for index in range(torch.cuda.device_count())]
    name = torch.cuda.get_device_name(found[0]) if found[0].type == "cuda" else environment.processor()
    devices = tuple(str(device) for device in found)
    # torch's own class of versions would have the driver load torch, two seconds, to read the answer.
    version = str(torch.__version__)
    return Machine(devices, name, loop.resolve_precision("auto", found[0]), version)

"""The trainer that an attempt's process loads: it creates the training of a `LeNet` from a `Task`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from lenet_exp.base import environment
from lenet_exp.base.records import EpochResult
from lenet_exp.data.images import ImageSet
from lenet_exp.data.split import division, division_seed
from lenet_exp.execution.processes import keep_freed_memory
from lenet_exp.execution.protocol import Machine, Task
from lenet_exp.training import diagnostics, loop
from lenet_exp.training.device import resolve_device, resolve_precision
from lenet_exp.training.usage import Usage

#: Number of training images to compute diagnostics on, the same images after every epoch.
DIAGNOSED = 1_000


class LeNetTraining:
    """The training of one attempt; implements `lenet_exp.execution.protocol.RunningTraining`."""

    def __init__(self, task: Task) -> None:
        """Load the task's images onto its device, and initialise the network."""
        keep_freed_memory()
        conditions, attempt = task.conditions, task.attempt
        experiment, images = conditions.experiment, conditions.images
        torch.set_num_threads(conditions.plan.threads)
        device = resolve_device(task.device)
        pixels, labels = loop.load(images, device)
        divided_by = division_seed(experiment.data, attempt.train_on, attempt.seed)
        split = division(experiment.data, labels.cpu().numpy(), divided_by)
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
        self._test = _all_images(conditions.test_images, device) if conditions.test_images else None
        self._diagnosed = self._training.index[:DIAGNOSED] if experiment.watch.diagnostics else None
        self._usage = Usage(conditions.plan.threads, device) if experiment.watch.system_metrics else None

    def epochs(self) -> Iterator[EpochResult]:
        """Train the remaining epochs, and yield the result of each.

        Raises:
            DivergedError: By the end of the epoch in which the loss or a weight becomes NaN or infinite.
        """
        began, trained_s = time.perf_counter(), self._state.train_s
        for result in loop.fit(self._state, self._training, self._validation):
            # `fit` times its training passes; the rest of an epoch's time is the evaluation.
            evaluation_s = time.perf_counter() - began - (result.train_s - trained_s)
            yield replace(result, watched=self._watched(), evaluation_s=evaluation_s)
            began, trained_s = time.perf_counter(), result.train_s

    def _watched(self) -> dict[str, float]:
        """Return the metrics that the experiment's ``[watch]`` asks for, measured after an epoch."""
        metrics: dict[str, float] = {}
        model, loss = self._state.model, self._state.configuration.loss
        if self._test is not None:
            metrics["test_loss"], metrics["test_accuracy"] = loop.evaluate(model, self._test, loss)
        if self._diagnosed is not None:
            pixels = loop.as_input(self._training.pixels[self._diagnosed])
            labels = self._training.labels[self._diagnosed]
            metrics |= diagnostics.measure(model, pixels, lambda logits: loop.criterion(logits, labels, loss))
        if self._usage is not None:
            metrics |= self._usage.measure()
        return metrics

    def snapshot(self) -> bytes:
        """Return the training's state, from which `restore` continues bit for bit."""
        return loop.snapshot(self._state)

    def restore(self, taken: bytes, last: EpochResult) -> None:
        """Set this training to the state of a snapshot; it must be one of the same training.

        Args:
            taken: Bytes that `snapshot` returned.
            last: Result of the last epoch before the snapshot.
        """
        loop.restore(self._state, taken, last)

    def save_weights(self, path: Path) -> None:
        """Write the weights to ``path`` as safetensors."""
        loop.save_weights(self._state.model, path)


def _all_images(images: ImageSet, device: torch.device) -> loop.Images:
    pixels, labels = loop.load(images, device)
    return loop.Images(pixels, labels, torch.arange(len(labels), device=device))


def begin(task: Task) -> LeNetTraining:
    """Return a new training for the task, at epoch 0."""
    return LeNetTraining(task)


def probe(device: str) -> Machine:
    """Return the devices that the name ``device`` stands for, after a test computation on each.

    The name ``cuda`` stands for all GPUs of this machine, ``auto`` for the accelerator or else the CPU.

    Raises:
        DeviceError: If a device cannot be used.
    """
    devices = [resolve_device(device)]
    if devices[0].type == "cuda" and devices[0].index is None:  # "cuda" without a number: all of them
        devices = [resolve_device(f"cuda:{index}") for index in range(torch.cuda.device_count())]
    first = devices[0]
    name = torch.cuda.get_device_name(first) if first.type == "cuda" else environment.processor()
    # A str, because unpickling torch's own class of versions makes the driver load torch, which takes seconds
    # (experiments/LOG.md, "Speed: gradients written out, and on the bits").
    version = str(torch.__version__)
    return Machine(tuple(str(device) for device in devices), name, resolve_precision("auto", first), version)

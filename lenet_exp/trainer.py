"""The trainer of an attempt's process: a `Task` as a training of `LeNet` on a device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from lenet_exp import kernels, train
from lenet_exp.data import validation_split
from lenet_exp.record import EpochResult
from lenet_exp.worker import Machine, Task


class LeNetTraining:
    """One training, with the images it needs; see `lenet_exp.worker.Training`."""

    def __init__(self, task: Task) -> None:
        """Load the images and draw the weights."""
        kernels.keep_freed_memory()
        torch.set_num_threads(task.threads)
        device = train.resolve_device(task.device)
        pixels, labels = train.load(task.images, device)
        split = validation_split(labels.cpu().numpy(), task.validation, task.split_seed, task.limit)
        self._training, self._validation = (
            train.Images(pixels, labels, torch.from_numpy(index).to(device))
            for index in (split.train, split.validation)
        )
        size = task.images.image_size
        self._state = train.begin(task.configuration, seed=task.seed, device=device, image_size=size)

    def epochs(self) -> Iterator[EpochResult]:
        """Train the epochs that are left."""
        return train.fit(self._state, self._training, self._validation)

    def snapshot(self) -> bytes:
        """Return what `restore` takes."""
        return train.snapshot(self._state)

    def restore(self, taken: bytes, last: EpochResult) -> None:
        """Go on from a snapshot."""
        train.restore(self._state, taken, last)

    def save_weights(self, path: Path) -> None:
        """Write the weights to ``path``."""
        train.save_weights(self._state.model, path)


def begin(task: Task) -> LeNetTraining:
    """Return the training before its first epoch."""
    return LeNetTraining(task)


def probe(device: str) -> Machine:
    """Return what ``device`` means here, after it has computed something.

    Raises:
        DeviceError: If it cannot be used.
    """
    found = train.resolve_device(device)
    accelerator = torch.cuda.get_device_name(found) if found.type == "cuda" else _processor()
    return Machine(str(found), accelerator, train.resolve_precision("auto", found), torch.__version__)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        import platform

        return platform.processor() or platform.machine()

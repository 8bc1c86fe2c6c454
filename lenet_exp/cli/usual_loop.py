"""The usual training loop of tutorials, with which the speed of ours is compared.

It reads images one by one through ``ToTensor`` in the processes of a `DataLoader`, trains an
`nn.Sequential` in float32, and reads loss and accuracy back after every step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lenet_exp.base.seeding import derive_seed
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.data.images import ImageSet
from lenet_exp.training.network import LeNet, initialise

#: Number of processes that read images; tutorials use two.
READERS = 2

#: Steps before the clock starts; the first ones wait for the reading processes to start.
WARM_UP_STEPS = 8


class Pictures(Dataset[tuple[Tensor, int]]):
    """Labelled images, read as torchvision's data sets do: each becomes a PIL image, then a tensor."""

    def __init__(self, images: ImageSet, index: Sequence[int] | NDArray[np.integer] | None = None) -> None:
        """Open the images.

        Args:
            images: Images to read from.
            index: Indices of the images to read, in this order; None for all.
        """
        # Imported late: a machine that has neither can still run the loop on images that are read otherwise.
        from PIL import Image
        from torchvision import transforms

        # Indexing an array is faster than indexing a tensor.
        self._pixels, self._labels = map(np.asarray, images.open())
        self._index = np.arange(images.count) if index is None else np.asarray(index)
        self._picture = Image.fromarray
        self._transform = transforms.Compose([transforms.ToTensor()])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._index)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        """Return an image, ``(1, size, size)`` float32 in [0, 1], and its class."""
        where = self._index[number]
        return self._transform(self._picture(self._pixels[where])), int(self._labels[where])


def batches(
    pictures: Dataset[tuple[Tensor, int]], batch_size: int, *, shuffle: bool = True
) -> DataLoader[tuple[Tensor, int]]:
    """Return a loader of batches, which starts its reading processes anew in every epoch.

    Args:
        pictures: Labelled images to load.
        batch_size: Number of images in a batch.
        shuffle: True to load them in a new random order in each epoch.
    """
    return DataLoader(pictures, batch_size=batch_size, shuffle=shuffle, num_workers=READERS)


@dataclass
class UsualTraining:
    """Network and optimizer of a configuration, built as usual: always in float32 with cross-entropy.

    Attributes:
        configuration: Configuration to train.
        image_size: Side of the images, in pixels.
        seed: Root of the random stream of the initial weights.
        device: Device to train on.
    """

    configuration: Configuration
    image_size: int = 28
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        """Build network and optimizer."""
        model = LeNet(self.configuration, self.image_size)
        initialise(model, self.configuration.init, derive_seed(self.seed, "init"))
        self.network = nn.Sequential(*model.features, *model.classifier).to(self.device)
        self.optimizer = self._optimizer()

    def _optimizer(self) -> torch.optim.Optimizer:
        chosen, parameters = self.configuration, self.network.parameters()
        if chosen.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=chosen.lr, weight_decay=chosen.weight_decay)
        return torch.optim.SGD(
            parameters, lr=chosen.lr, momentum=chosen.momentum, weight_decay=chosen.weight_decay
        )

    def epoch(self, loader: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[int, float, float]]:
        """Train for one epoch; after each step yield the batch's number of images, mean loss and accuracy."""
        self.network.train()
        for batch in loader:
            images, labels = (part.to(self.device) for part in batch)
            logits = self.network(images)
            loss = nn.functional.cross_entropy(logits, labels)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's has no types
            self.optimizer.step()
            hits = (logits.argmax(dim=1) == labels).float().mean()
            yield len(labels), loss.item(), hits.item()


def throughput(
    configuration: Configuration,
    images: ImageSet,
    *,
    for_s: float,
    device: torch.device | None = None,
    pictures: Callable[[ImageSet], Dataset[tuple[Tensor, int]]] = Pictures,
) -> float:
    """Train in the usual loop, and return its training examples per second of wall time, reading included.

    The first steps are not counted. This favours the usual loop, because the time to start the reading
    processes is left out, except before a second epoch. Torch chooses the number of threads.

    Args:
        configuration: Configuration to train.
        images: Images of an epoch; all of them are trained on.
        for_s: Seconds to measure.
        device: Device to train on; None for the CPU.
        pictures: Function that returns the data set to load from; by default PIL images through ``ToTensor``.
    """
    training = UsualTraining(configuration, images.image_size, device=device or torch.device("cpu"))
    loader = batches(pictures(images), configuration.batch_size)
    examples, steps, began = 0, 0, 0.0
    while True:
        for count, _, _ in training.epoch(loader):
            steps += 1
            if steps <= WARM_UP_STEPS:
                began = time.perf_counter()
                continue
            examples += count
            seconds = time.perf_counter() - began
            if seconds >= for_s:
                return examples / seconds

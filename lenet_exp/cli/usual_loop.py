"""The usual training loop of tutorials, with which the speed of ours is compared.

It reads pictures one by one through ``ToTensor`` in the processes of a `DataLoader`, trains an
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

#: Processes that read pictures; tutorials use two.
READERS = 2

#: Steps before the clock starts; the first ones wait for the reading processes to begin.
WARM_UP_STEPS = 8


class Pictures(Dataset[tuple[Tensor, int]]):
    """Labelled pictures as torchvision's data sets give them: a PIL image each, then the transforms."""

    def __init__(self, images: ImageSet, index: Sequence[int] | NDArray[np.integer] | None = None) -> None:
        """Choose the pictures.

        Args:
            images: The data set.
            index: Numbers of the pictures to take; None takes all.
        """
        # Only here: a machine that has neither can still run the loop, over pictures read otherwise.
        from PIL import Image
        from torchvision import transforms

        # Plain arrays give a picture faster than tensors do.
        self._pixels, self._labels = map(np.asarray, images.open())
        self._index = np.arange(images.count) if index is None else np.asarray(index)
        self._picture = Image.fromarray
        self._transform = transforms.Compose([transforms.ToTensor()])

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._index)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        """Return a picture, ``(1, size, size)`` float32 in [0, 1], and its class."""
        where = self._index[number]
        return self._transform(self._picture(self._pixels[where])), int(self._labels[where])


def batches(
    pictures: Dataset[tuple[Tensor, int]], batch_size: int, *, shuffle: bool = True
) -> DataLoader[tuple[Tensor, int]]:
    """Return a loader, which starts its reading processes anew in every epoch.

    Args:
        pictures: The pictures to load.
        batch_size: Pictures of a step.
        shuffle: True to give each epoch a new random order.
    """
    return DataLoader(pictures, batch_size=batch_size, shuffle=shuffle, num_workers=READERS)


@dataclass
class UsualTraining:
    """Network and optimiser of a configuration, built as usual: always in float32 with cross-entropy.

    Attributes:
        configuration: The configuration to train.
        image_size: Side of the pictures, in pixels.
        seed: Root of the random stream of the initial weights.
        device: Device that trains.
    """

    configuration: Configuration
    image_size: int = 28
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        """Build network and optimiser."""
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
        """Train one epoch, and yield examples, mean loss and accuracy of the batch after each step."""
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
    """Return training examples per second of wall time, reading included.

    The first steps are not counted. This favours the usual loop, as the time to start the reading processes
    is left out, unless the measurement is longer than an epoch. Torch chooses the number of threads.

    Args:
        configuration: The configuration to train.
        images: Images of an epoch; all of them are trained on.
        for_s: Seconds to measure.
        device: Device that trains; None for the CPU.
        pictures: Function that makes the data set to read from; by default PIL images through ``ToTensor``.
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

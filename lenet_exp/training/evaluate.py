"""What trained networks reach on images, and how fast one trains: computed in a worker, for a confirmation.

Nothing here imports torch in the process that asks.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lenet_exp.base.errors import DataError, DivergedError
from lenet_exp.base.files import write_atomically
from lenet_exp.config.experiment import Training
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.data.images import ImageSet
from lenet_exp.data.split import Split

if TYPE_CHECKING:
    from lenet_exp.training.network import LeNet

#: Steps before the clock starts: the first ones find memory and choose their algorithms.
WARM_UP_STEPS = 8


@dataclass(frozen=True)
class SavedNetwork:
    """A trained network on disk.

    Attributes:
        configuration: Of the network.
        weights: Its ``weights.safetensors``.
        predictions: Where to leave what it says of each image.
    """

    configuration: Configuration
    weights: Path
    predictions: Path


def evaluate_networks(
    networks: Sequence[SavedNetwork], images: ImageSet, device: str, threads: int
) -> list[tuple[float, float]]:
    """Return accuracy and mean loss of each network on all of the images, in float32.

    Each leaves an ``.npz`` with ``predicted``, ``(n_images,)`` uint8.

    Args:
        networks: One after the other.
        images: Opened once.
        device: As torch names it.
        threads: For torch's operations.

    Raises:
        DataError: If weights are not there, damaged, or of another network.
        DiskError: If predictions cannot be written.
    """
    import torch

    from lenet_exp.training.loop import Images, criterion, load, predict

    torch.set_num_threads(threads)
    pixels, labels = load(images, torch.device(device))
    everything = Images(pixels, labels, torch.arange(images.count, device=labels.device))
    found = []
    for network in networks:
        model = _loaded(network, images.image_size).to(device).to(memory_format=torch.channels_last)
        logits = predict(model, everything)
        predicted = logits.argmax(dim=1)
        loss = criterion(logits, labels, network.configuration.loss).item()
        found.append(((predicted == labels).sum().item() / images.count, loss))
        content = io.BytesIO()
        np.savez_compressed(content, predicted=predicted.cpu().numpy().astype(np.uint8))
        network.predictions.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(network.predictions, content.getvalue())
    return found


def _loaded(network: SavedNetwork, image_size: int) -> LeNet:
    from safetensors.torch import load_file

    from lenet_exp.training.network import LeNet

    model = LeNet(network.configuration, image_size)
    try:
        model.load_state_dict(load_file(network.weights))
    except Exception as error:  # safetensors and torch each have their own
        raise DataError(f"{network.weights}: no network of this configuration: {error}") from None
    return model.eval()


def correct_predictions(predictions: Path, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which images a network classified rightly, ``(n_images,)``, from what `score` left."""
    with np.load(predictions, allow_pickle=False) as kept:
        return np.asarray(kept["predicted"] == labels)


def alone_examples_per_s(
    configuration: Configuration,
    images: ImageSet,
    split: Split,
    device: str,
    threads: int,
    seed: int,
    training: Training,
) -> float | None:
    """Return training examples over the wall time of one epoch, with nothing beside it; None if it diverges.

    Args:
        configuration: To train.
        images: The training images.
        split: Whose ``train`` is learned from.
        device: As torch names it.
        threads: For torch's operations.
        seed: Of the weights and of the order.
        training: How a step is computed.
    """
    import torch

    from lenet_exp.execution.processes import keep_freed_memory
    from lenet_exp.training.loop import Images, begin, fit, load

    keep_freed_memory()
    torch.set_num_threads(threads)
    pixels, labels = load(images, torch.device(device))
    index = torch.from_numpy(split.train).to(labels.device)
    once_more = configuration.model_copy(update={"epochs": 2})
    state = begin(
        once_more, seed=seed, device=torch.device(device), image_size=images.image_size, training=training
    )
    nothing = Images(pixels, labels, index[:0])
    warm_up = Images(pixels, labels, index[: WARM_UP_STEPS * configuration.batch_size])
    try:
        next(fit(state, warm_up, nothing))
        return next(fit(state, Images(pixels, labels, index), nothing)).examples_per_s
    except DivergedError:
        return None

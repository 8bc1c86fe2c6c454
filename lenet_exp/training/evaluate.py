"""The accuracy of trained networks, and the speed of a training: computed in a process of its own.

Importing this file does not load torch, so the driver can import these functions and have a worker call them.
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

#: Steps before the clock starts: the first ones allocate memory and choose algorithms.
WARM_UP_STEPS = 8


@dataclass(frozen=True)
class SavedNetwork:
    """A trained network on disk.

    Attributes:
        configuration: Configuration that the network was trained by.
        weights: File of its weights, ``weights.safetensors``.
        predictions: ``.npz`` file to write its predictions to; its folder is made if need be.
    """

    configuration: Configuration
    weights: Path
    predictions: Path


def evaluate_networks(
    networks: Sequence[SavedNetwork], images: ImageSet, device: str, threads: int
) -> list[tuple[float, float]]:
    """Return accuracy and mean loss of each network on all images, computed in float32.

    The classes that a network predicts are written to its ``predictions``, an ``.npz`` file with the array
    ``predicted``, ``(n_images,)`` uint8.

    Args:
        networks: Networks to evaluate, one after the other.
        images: Images to evaluate them on, opened once.
        device: Device that computes, by torch's name.
        threads: Number of threads that torch computes with.

    Raises:
        DataError: If a file of weights is missing, damaged, or another network's.
        DiskError: If predictions cannot be written.
    """
    import torch

    from lenet_exp.training.loop import Images, criterion, load, predict

    torch.set_num_threads(threads)
    pixels, labels = load(images, torch.device(device))
    all_images = Images(pixels, labels, torch.arange(images.count, device=labels.device))
    scores = []
    for network in networks:
        model = _loaded(network, images.image_size).to(device).to(memory_format=torch.channels_last)
        logits = predict(model, all_images)
        predicted = logits.argmax(dim=1)
        loss = criterion(logits, labels, network.configuration.loss).item()
        scores.append(((predicted == labels).sum().item() / images.count, loss))
        content = io.BytesIO()
        np.savez_compressed(content, predicted=predicted.cpu().numpy().astype(np.uint8))
        network.predictions.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(network.predictions, content.getvalue())
    return scores


def _loaded(network: SavedNetwork, image_size: int) -> LeNet:
    from safetensors.torch import load_file

    from lenet_exp.training.network import LeNet

    model = LeNet(network.configuration, image_size)
    try:
        model.load_state_dict(load_file(network.weights))
    except Exception as error:  # safetensors and torch have exceptions of their own
        raise DataError(
            f"{network.weights}: cannot be loaded as a network of this configuration: {error}"
        ) from None
    return model.eval()


def correct_predictions(predictions: Path, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which images a network classified correctly, ``(n_images,)``.

    Args:
        predictions: ``.npz`` file that `evaluate_networks` wrote.
        labels: True classes of the same images, ``(n_images,)``, in the same order.
    """
    with np.load(predictions, allow_pickle=False) as arrays:
        return np.asarray(arrays["predicted"] == labels)


def alone_examples_per_s(
    configuration: Configuration,
    images: ImageSet,
    split: Split,
    device: str,
    threads: int,
    seed: int,
    training: Training,
) -> float | None:
    """Return the training speed while no other training runs beside it, which the caller sees to.

    Args:
        configuration: Configuration to train, for one epoch that is timed after some warm-up steps.
        images: Images of the training split, the validation images among them.
        split: Division of the images; those of ``train`` are learned from.
        device: Device that trains, by torch's name.
        threads: Number of threads that torch computes with.
        seed: Root of the training's random streams.
        training: Choice of how a step is computed.

    Returns:
        Training examples per second of wall time, or None if the training diverges.
    """
    import torch

    from lenet_exp.execution.processes import keep_freed_memory
    from lenet_exp.training.loop import Images, begin, fit, load

    keep_freed_memory()
    torch.set_num_threads(threads)
    pixels, labels = load(images, torch.device(device))
    index = torch.from_numpy(split.train).to(labels.device)
    two_epochs = configuration.model_copy(update={"epochs": 2})
    state = begin(
        two_epochs, seed=seed, device=torch.device(device), image_size=images.image_size, training=training
    )
    no_images = Images(pixels, labels, index[:0])
    warm_up = Images(pixels, labels, index[: WARM_UP_STEPS * configuration.batch_size])
    try:
        next(fit(state, warm_up, no_images))
        return next(fit(state, Images(pixels, labels, index), no_images)).examples_per_s
    except DivergedError:
        return None

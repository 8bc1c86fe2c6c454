"""Evaluates trained networks, and measures the speed of a training, in a process of its own.

Importing this file does not load torch, so the driver can import these functions and have another process
call them.
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
from lenet_exp.base.files import make_folder, write_atomically
from lenet_exp.config.experiment import Training
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.data.images import ImageSet
from lenet_exp.data.split import Split
from lenet_exp.training.weights import read_weights

if TYPE_CHECKING:
    from lenet_exp.training.network import LeNet

#: Training steps before the timed epoch: the first ones allocate memory and choose algorithms.
WARM_UP_STEPS = 8


@dataclass(frozen=True)
class SavedNetwork:
    """A trained network on disk.

    Attributes:
        configuration: Configuration that the network was trained with.
        weights: File with the network's weights, ``weights.safetensors``.
        predictions: ``.npz`` file to write the network's predictions to; its folder is created if it does not
            exist.
        sha256: Recorded digest of the weights; None if none was recorded.
    """

    configuration: Configuration
    weights: Path
    predictions: Path
    sha256: str | None = None


def evaluate_networks(
    networks: Sequence[SavedNetwork], images: ImageSet, device: str, threads: int
) -> list[tuple[float, float]]:
    """Evaluate each network on all images, write its predictions, and return its accuracy and mean loss.

    Both are computed in float32. The file ``SavedNetwork.predictions`` has one array, ``predicted``: the
    predicted class of each image, ``(n_images,)`` uint8.

    Args:
        networks: Networks to evaluate, one after the other.
        images: Images to evaluate the networks on; their files are opened once.
        device: Torch's name of the device to compute on.
        threads: Number of threads that torch computes with.

    Raises:
        DataError: If a weights file is missing, is damaged, or has the weights of another network.
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
        make_folder(network.predictions.parent)
        write_atomically(network.predictions, content.getvalue())
    return scores


def faults(networks: Sequence[SavedNetwork], image_size: int) -> list[str]:
    """Load each network, and return for each what is wrong with its weights; an empty string if nothing is.

    Args:
        networks: Networks to load, one after the other.
        image_size: Side of the images, in pixels.
    """

    def fault(network: SavedNetwork) -> str:
        try:
            _loaded(network, image_size)
        except DataError as error:
            return str(error)
        return ""

    return [fault(network) for network in networks]


def _loaded(network: SavedNetwork, image_size: int) -> LeNet:
    from safetensors.torch import load

    from lenet_exp.training.network import LeNet

    content = read_weights(network.weights, network.sha256)
    model = LeNet(network.configuration, image_size)
    try:
        model.load_state_dict(load(content))
    except Exception as error:  # safetensors and torch have exceptions of their own
        raise DataError(
            f"{network.weights}: cannot be loaded as a network of this configuration: {error}"
        ) from None
    return model.eval()


@dataclass(frozen=True)
class Inspection:
    """What a trained network does with some images.

    Attributes:
        predicted: Predicted class of each image, ``(n,)``.
        confidence: Softmax probability of the predicted class, ``(n,)``, in [0, 1].
        filters: Filters of the first convolution, ``(channels, kernel, kernel)``.
        maps: Feature maps of one image, ``(channels, rows, columns)`` for each convolution, after its
            activation and before pooling.
    """

    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    filters: NDArray[np.float32]
    maps: tuple[NDArray[np.float32], ...]


def inspect_networks(
    networks: Sequence[SavedNetwork], images: ImageSet, indices: NDArray[np.int64]
) -> list[Inspection]:
    """Run each network on some images; the first of them is that of `Inspection.maps`.

    Args:
        networks: Networks to run, one after the other; nothing is written.
        images: Training part of the data set.
        indices: Indices of the images, ``(n,)``, at least one.

    Raises:
        DataError: If a file is missing or damaged.
    """
    import torch
    from torch import nn

    torch.set_num_threads(1)  # a hundred images at a time: two threads would mostly wait for each other
    pixels = torch.from_numpy(images.open()[0][indices])[:, None]  # (n, 1, size, size)
    inspections = []
    with torch.inference_mode():
        for network in networks:
            model = _loaded(network, images.image_size).to(memory_format=torch.channels_last)
            # Maps of 100 images stay in the cache: of 500, they take twice as long.
            chunks = [
                model(chunk.float() / 255).softmax(dim=1).max(dim=1) for chunk in torch.split(pixels, 100)
            ]
            confidence, predicted = (torch.cat(parts).numpy() for parts in zip(*chunks, strict=True))
            x, maps = pixels[:1].float() / 255, []
            assert isinstance(model.features, nn.Sequential)
            for layer in model.features:
                x = layer(x)
                # What is neither convolution nor pooling is an activation.
                if not isinstance(layer, nn.Conv2d | nn.AvgPool2d | nn.MaxPool2d):
                    maps.append(x[0].numpy())
            filters = next(model.features.parameters())[:, 0].numpy()
            inspections.append(Inspection(predicted, confidence, filters, tuple(maps)))
    return inspections


def correct_predictions(predictions: Path, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return for each image whether a network classified it correctly, ``(n_images,)``.

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
    """Train for one epoch and return its speed; the caller must run no other training at the same time.

    Args:
        configuration: Configuration to train: some warm-up steps, then the epoch that is timed.
        images: Training part of the data set, the validation images among them.
        split: Division of the images; those of ``split.train`` are trained on.
        device: Torch's name of the device to train on.
        threads: Number of threads that torch computes with.
        seed: Root of the training's random streams.
        training: Section of which ``kernels`` and ``compile`` are used.

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

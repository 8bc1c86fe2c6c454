"""Compute the feature maps of a trained network's first two layers for some validation images.

The images are chosen by class; the test split is never opened.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lenet_exp.base.errors import ConfigError, NoResultError
from lenet_exp.data.split import Split
from lenet_exp.results.lookup import ExperimentResults
from lenet_exp.study.records import TrialRecord
from lenet_exp.tracking.model import load_network
from lenet_exp.training.weights import recorded_digest

#: Number of convolution layers shown, from the first on.
LAYERS = 2


@dataclass(frozen=True)
class Input:
    """An image with the network's prediction and feature maps.

    Attributes:
        index: Index of the image in the data set's training files.
        label: Index of the image's class.
        pixels: ``(size, size)`` float32 in [0, 1].
        predicted: Index of the class that the network predicts.
        confidence: Softmax probability of the predicted class, in [0, 1].
        layers: Feature maps ``(channels, rows, columns)`` of each of the first `LAYERS` convolutions, after
            the activation and before pooling.
    """

    index: int
    label: int
    pixels: NDArray[np.float32]
    predicted: int
    confidence: float
    layers: tuple[NDArray[np.float32], ...]


def parse_classes(text: str, names: Sequence[str]) -> list[int]:
    """Return the indices of the classes that a text names, each once.

    Args:
        text: Names or indices of classes, separated by commas; upper and lower case are the same.
        names: Names of the data set's classes, by index.

    Raises:
        ConfigError: If one of the names or indices is not that of a class.

    Example:
        >>> parse_classes("coat,0", ["Shirt", "Coat"])
        [1, 0]
    """
    folded = [name.casefold() for name in names]
    numbers: dict[int, None] = {}
    for word in (part.strip() for part in text.split(",")):
        if word.casefold() in folded:
            numbers[folded.index(word.casefold())] = None
        elif word.isdecimal() and int(word[:9]) < len(names):
            numbers[int(word)] = None
        else:
            close = difflib.get_close_matches(word.casefold(), folded, n=1)
            hint = f"known are {', '.join(names)}"
            if close:
                hint = f"did you mean {names[folded.index(close[0])]!r}?"
            raise ConfigError(f"--classes: no class {word!r}; {hint}")
    return list(numbers)


def trained_network(results: ExperimentResults, record: TrialRecord) -> nn.Module:
    """Load the network that an attempt trained.

    Args:
        results: Everything that the experiment has recorded.
        record: Record of the attempt; for a duplicate, the network of the training that it repeats is loaded.

    Raises:
        NoResultError: If the attempt is not complete, and so has no weights.
        DataError: If the weights are missing or damaged.
    """
    if record.state != "COMPLETE":
        raise NoResultError(
            f"{record.label} has no weights, as it was not trained to its end ({record.state});"
            " name another run"
        )
    original, study = results.original(record), results.spool.study()
    weights = results.layout.weights(original.key)
    digest = recorded_digest(original.key, original.result, study.kept if study else {})
    params = {**record.values, "epochs": record.configuration.epochs}
    return load_network(params, weights, results.experiment.data.resize, digest)


def choose(
    split: Split, labels: NDArray[np.uint8], classes: Sequence[int], inputs: int, names: Sequence[str]
) -> NDArray[np.int64]:
    """Return the indices of the first ``inputs`` validation images of each class.

    Args:
        split: Division of the training files into training and validation images.
        labels: ``(n,)``, the class index of every image in the training files.
        classes: Indices of the classes, in the order of the result.
        inputs: Number of images of each class.
        names: Names of the data set's classes, for the error message.

    Raises:
        ConfigError: If the validation split has fewer images of a class.
    """
    chosen = []
    for number in classes:
        of_class = split.validation[labels[split.validation] == number]
        if len(of_class) < inputs:
            raise ConfigError(
                f"--inputs must be at most {len(of_class)}, found {inputs}; the validation split has no more"
                f" images of {names[number]!r}"
            )
        chosen.append(of_class[:inputs])
    return np.concatenate(chosen)


@torch.inference_mode()
def look(
    network: nn.Module, pixels: NDArray[np.uint8], labels: NDArray[np.uint8], indices: NDArray[np.int64]
) -> list[Input]:
    """Run a network on images, and return its prediction and feature maps for each.

    Args:
        network: A trained `lenet_exp.training.network.LeNet`.
        pixels: The images, ``(n, size, size)`` uint8.
        labels: ``(n,)``, the class index of each image.
        indices: ``(n,)``, the index of each image in the training files.
    """
    images = torch.from_numpy(np.array(pixels))[:, None].float() / 255  # (n, 1, size, size)
    confidence, predicted = network(images).softmax(dim=1).max(dim=1)
    maps: list[NDArray[np.float32]] = []
    x = images
    assert isinstance(network.features, nn.Sequential)
    for layer in network.features:
        x = layer(x)
        # What is neither convolution nor pooling is an activation.
        if not isinstance(layer, nn.Conv2d | nn.AvgPool2d | nn.MaxPool2d) and len(maps) < LAYERS:
            maps.append(x.numpy())
    return [
        Input(
            int(indices[i]),
            int(labels[i]),
            images[i, 0].numpy(),
            int(predicted[i]),
            float(confidence[i]),
            tuple(layer[i] for layer in maps),
        )
        for i in range(len(indices))
    ]

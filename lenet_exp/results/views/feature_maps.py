"""What a trained network makes of some validation images: the channels of its first two layers.

The images are chosen by class; those of the test split are never opened.
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

#: Layers shown, from the first on.
LAYERS = 2


@dataclass(frozen=True)
class Input:
    """An image, and what the network makes of it.

    Attributes:
        number: The image's place in the data set's training files.
        label: The image's class.
        pixels: ``(size, size)`` in [0, 1].
        predicted: The class that the network sees.
        confidence: How sure the network is of that, in [0, 1].
        layers: ``(channels, rows, columns)`` after each convolution and its activation, before pooling.
    """

    number: int
    label: int
    pixels: NDArray[np.float32]
    predicted: int
    confidence: float
    layers: tuple[NDArray[np.float32], ...]


def parse_classes(text: str, names: Sequence[str]) -> list[int]:
    """Return the classes that a text names, each once.

    Args:
        text: Names or numbers, with commas between.
        names: What the classes are called.

    Raises:
        ConfigError: If there is none of a name.

    Example:
        >>> parse_classes("coat,0", ["Shirt", "Coat"])
        [1, 0]
    """
    folded = [name.casefold() for name in names]
    found: dict[int, None] = {}
    for word in (part.strip() for part in text.split(",")):
        if word.casefold() in folded:
            found[folded.index(word.casefold())] = None
        elif word.isdecimal() and int(word[:9]) < len(names):
            found[int(word)] = None
        else:
            near = difflib.get_close_matches(word.casefold(), folded, n=1)
            hint = (
                f"did you mean {names[folded.index(near[0])]!r}?" if near else f"known are {', '.join(names)}"
            )
            raise ConfigError(f"--classes: no class {word!r}; {hint}")
    return list(found)


def trained_network(results: ExperimentResults, record: TrialRecord) -> nn.Module:
    """Return the network of an attempt, with its weights.

    Args:
        results: The experiment's records.
        record: The attempt.

    Raises:
        NoResultError: If it has none.
        DataError: If they are damaged.
    """
    if record.state != "COMPLETE":
        raise NoResultError(
            f"{record.label} has no weights, as it was not trained to its end ({record.state});"
            " name another run"
        )
    weights = results.layout.weights(results.original(record).key)
    params = {**record.values, "epochs": record.configuration.epochs}
    return load_network(params, weights, results.experiment.data.resize)


def choose(
    split: Split, labels: NDArray[np.uint8], classes: Sequence[int], inputs: int, names: Sequence[str]
) -> NDArray[np.int64]:
    """Return the numbers of the first validation images of each class.

    Args:
        split: How the images were divided.
        labels: The class of every image, of the training images too.
        classes: The classes to show, in order.
        inputs: Images of each class.
        names: What the classes are called.

    Raises:
        ConfigError: If a class has not as many.
    """
    chosen = []
    for number in classes:
        of_class = split.validation[labels[split.validation] == number]
        if len(of_class) < inputs:
            raise ConfigError(
                f"--inputs must be at most {len(of_class)}, as the validation split has no more images of"
                f" {names[number]!r}, found {inputs}"
            )
        chosen.append(of_class[:inputs])
    return np.concatenate(chosen)


@torch.inference_mode()
def look(
    network: nn.Module, pixels: NDArray[np.uint8], labels: NDArray[np.uint8], numbers: NDArray[np.int64]
) -> list[Input]:
    """Show images to a network, and return what it makes of each.

    Args:
        network: A `lenet_exp.training.network.LeNet`.
        pixels: ``(n, size, size)`` uint8.
        labels: ``(n,)``, the images' classes.
        numbers: ``(n,)``, the images' places in the training files.
    """
    images = torch.from_numpy(np.array(pixels))[:, None].float() / 255  # (n, 1, size, size)
    sure, predicted = network(images).softmax(dim=1).max(dim=1)
    maps: list[NDArray[np.float32]] = []
    x = images
    assert isinstance(network.features, nn.Sequential)
    for layer in network.features:
        x = layer(x)
        # The last of a convolution, its activation and pooling.
        if not isinstance(layer, nn.Conv2d | nn.AvgPool2d | nn.MaxPool2d) and len(maps) < LAYERS:
            maps.append(x.numpy())
    return [
        Input(
            int(numbers[i]),
            int(labels[i]),
            images[i, 0].numpy(),
            int(predicted[i]),
            float(sure[i]),
            tuple(layer[i] for layer in maps),
        )
        for i in range(len(numbers))
    ]

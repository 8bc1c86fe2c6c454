"""What a trained network makes of some images: a picture of the channels of its first two layers.

The images are validation images, chosen by class; those of the test split are never opened.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

from lenet_exp.base.errors import ConfigError, NoResultError, printable
from lenet_exp.base.files import disk_error
from lenet_exp.base.messages import say
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.data.datasets import find_dataset
from lenet_exp.data.images import training_images
from lenet_exp.data.split import Split, division
from lenet_exp.results.lookup import Recorded, read
from lenet_exp.study.records import TrialRecord
from lenet_exp.tracking.model import load_network
from lenet_exp.tracking.store import local_uri

#: Layers shown, from the first on.
LAYERS = 2

# Of the picture, in inches.
_TILE = 0.58
_LABELS = 1.75
_GAP = 0.35
#: Channels of both layers in a line; more go to further lines below.
_IN_A_LINE = 26
#: The share of a layer's values that its colours tell apart; a few large ones would hide the others.
_TOLD_APART = 0.995


@dataclass(frozen=True)
class Input:
    """An image, and what the network makes of it.

    Attributes:
        number: Of the image, in the data set's training files.
        label: Its class.
        pixels: ``(size, size)`` in [0, 1].
        predicted: The class that the network sees.
        confidence: Of that, in [0, 1].
        layers: After each convolution and its activation, before pooling: ``(channels, rows, columns)``.
    """

    number: int
    label: int
    pixels: NDArray[np.float32]
    predicted: int
    confidence: float
    layers: tuple[NDArray[np.float32], ...]


def draw_activations(
    experiment: Experiment,
    root: Path,
    run: str,
    classes: str,
    *,
    inputs: int = 3,
    tracking_uri: str | None = None,
    storage: str | None = None,
    say: Callable[[str], Any] = say,
) -> Path:
    """Write the picture of an attempt beside its experiment's other files, and add it to its run in MLflow.

    Args:
        experiment: Whose attempt.
        root: Folder of everything that runs write.
        run: As `Recorded.find` takes it.
        classes: Their names or numbers, with commas between.
        inputs: Images of each class.
        tracking_uri: Of an MLflow store; None for the one below ``root``.
        storage: Of the study, where it is not a file below ``root``.
        say: Told why MLflow has not got the picture.

    Returns:
        Where the picture is.

    Raises:
        ConfigError: If there is no such attempt, class, or so many images of one.
        NoResultError: If the attempt has no weights.
        DataError: If the images or the weights are missing or damaged.
        DiskError: If the picture cannot be written.
    """
    recorded = read(experiment, root, storage)
    record = recorded.find(run)
    section = recorded.experiment.data
    names = find_dataset(section).classes
    wanted = parse_classes(classes, names)
    network = trained_network(recorded, record)
    images = training_images(section)
    pixels, labels = images.open()
    numbers = choose(division(section, labels), labels, wanted, inputs, names)
    seen = look(network, pixels[numbers], labels[numbers], numbers)
    configuration = record.configuration
    score = f", val_accuracy {record.value:.4f}" if record.value is not None else ""
    figure = draw(seen, names, configuration, f"{recorded.experiment.name}, {record.label}{score}")
    slug = "-".join(re.sub(r"[^a-z0-9]+", "-", names[number].lower()).strip("-") for number in wanted)
    path = recorded.layout.home / f"activations-{record.key.stem}-{slug}.png"
    _save(figure, path)
    recorded.add_to_run(record.key.stem, path, tracking_uri or local_uri(root.absolute()), say)
    return path


def parse_classes(text: str, names: Sequence[str]) -> list[int]:
    """Return the classes that ``text`` names, each once.

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


def trained_network(recorded: Recorded, record: TrialRecord) -> nn.Module:
    """Return the network of an attempt, with its weights.

    Raises:
        NoResultError: If it has none.
        DataError: If they are damaged.
    """
    if record.state != "COMPLETE":
        raise NoResultError(
            f"{record.label} has no weights, as it was not trained to its end ({record.state});"
            " name another run"
        )
    weights = recorded.layout.weights(recorded.original(record).key)
    params = record.configuration.to_dict()
    return load_network(params, weights, recorded.experiment.data.resize)


def choose(
    split: Split, labels: NDArray[np.uint8], classes: Sequence[int], inputs: int, names: Sequence[str]
) -> NDArray[np.int64]:
    """Return the numbers of the first ``inputs`` validation images of each class.

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
        labels: ``(n,)``.
        numbers: ``(n,)``, of the images.
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


def mosaic(maps: NDArray[np.float32], columns: int, lines: int) -> NDArray[np.float32]:
    """Lay the channels of one image side by side, ``columns`` to a line, with gaps of one pixel that are NaN.

    Args:
        maps: The channels, ``(channels, rows, columns)``.
        columns: Channels in a line.
        lines: How many lines; what is left of the last is NaN.

    Example:
        >>> mosaic(np.array([[[0.0]], [[1.0]]]), 2, 1).tolist()
        [[0.0, nan, 1.0, nan]]
    """
    side = maps.shape[1]
    whole = np.full((lines * (side + 1) - 1, columns * (side + 1)), np.nan, np.float32)
    for number, channel in enumerate(maps):
        row, column = divmod(number, columns)
        top, left = row * (side + 1), column * (side + 1)
        whole[top : top + side, left : left + side] = channel
    return whole


def draw(inputs: Sequence[Input], names: Sequence[str], configuration: Configuration, title: str) -> Figure:
    """Return the picture: a band for each image, from left to right the image and the channels it makes.

    Colours are shared by a layer's channels and by all images, so that they can be compared.
    """
    counts = [len(layer) for layer in inputs[0].layers]
    lines = -(-sum(counts) // _IN_A_LINE)
    columns = [-(-count // lines) for count in counts]
    band, width = lines * _TILE, _LABELS + lines * _TILE + sum(_GAP + n * _TILE for n in columns) + _GAP
    breaks = [i > 0 and inputs[i].label != inputs[i - 1].label for i in range(len(inputs))]
    body = len(inputs) * (band + 0.1) + sum(breaks) * _GAP
    above, below = 1.05, 0.85
    height = above + body + below
    figure = Figure(figsize=(max(width, 7.0), height), dpi=110)
    FigureCanvasAgg(figure)
    width = max(width, 7.0)

    def axes(left: float, top: float, across: float, down: float) -> Any:
        found = figure.add_axes((left / width, 1 - (top + down) / height, across / width, down / height))
        found.set_xticks([])
        found.set_yticks([])
        for spine in found.spines.values():
            spine.set_visible(False)
        return found

    figure.text(
        0.15 / width, 1 - 0.12 / height, printable(title), va="top", size=12, weight="bold", parse_math=False
    )
    scales = [_scale([image.layers[layer] for image in inputs]) for layer in range(len(counts))]
    top = above
    for i, image in enumerate(inputs):
        top += _GAP if breaks[i] else 0
        shown = axes(_LABELS, top, band, band)
        shown.imshow(image.pixels, cmap="gray", vmin=0, vmax=1)
        if i == 0:
            figure.text(_LABELS / width, 1 - (top - 0.1) / height, "input", va="bottom", size=9)
        right = image.predicted == image.label
        said = f"seen as {names[image.predicted]}, {image.confidence:.2f}"
        for text, at, style in (
            (names[image.label], 0.16, {"weight": "bold", "size": 10}),
            (f"image {image.number}", 0.31, {"size": 7, "color": "dimgray"}),
            (said, 0.44, {"size": 7, "color": "dimgray" if right else "firebrick"}),
        ):
            place = 1 - (top + band / 2 - 0.3 + at) / height
            figure.text(0.15 / width, place, text, va="center", parse_math=False, **style)
        left = _LABELS + band + _GAP
        for layer, (norm, colours, _) in enumerate(scales):
            across = columns[layer] * _TILE
            tiles = axes(left, top, across, band)
            whole = mosaic(image.layers[layer], columns[layer], lines)
            tiles.imshow(whole, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
            side = image.layers[layer].shape[1] + 1
            if i == 0:
                tiles.xaxis.tick_top()
                tiles.set_xticks([(n + 0.5) * side - 1 for n in range(columns[layer])])
                tiles.set_xticklabels(range(1, columns[layer] + 1), size=7)
                tiles.tick_params(length=0, pad=1)
                heading = _heading(configuration, layer, image.layers[layer])
                figure.text(
                    left / width, 1 - (top - 0.3) / height, heading, va="bottom", size=9, linespacing=1.35
                )
            if lines > 1 and (i == 0 or breaks[i]):
                tiles.set_yticks([(n + 0.5) * side - 1 for n in range(lines)])
                tiles.set_yticklabels([f"+{n * columns[layer]}" for n in range(lines)], size=6)
                tiles.tick_params(length=0, pad=1)
            left += across + _GAP
        top += band + 0.1
    left = _LABELS + band + _GAP
    for layer, (norm, colours, extend) in enumerate(scales):
        across = columns[layer] * _TILE
        bar = figure.add_axes(
            (left / width, (below - 0.35) / height, min(across, 4.0) / width, 0.13 / height)
        )
        shown_bar = figure.colorbar(
            ScalarMappable(norm, colours), cax=bar, orientation="horizontal", extend=extend
        )
        shown_bar.ax.tick_params(labelsize=7)
        shown_bar.set_label(f"{configuration.activation} of layer {layer + 1}", size=8)
        left += across + _GAP
    return figure


def _heading(configuration: Configuration, layer: int, maps: NDArray[np.float32]) -> str:
    kernel, padding = configuration.kernel_size[layer], configuration.padding[layer]
    channels, rows, columns = maps.shape
    return (
        f"convolution layer {layer + 1}: {channels} channels of {rows}x{columns}\n"
        f"after {configuration.activation}, before pooling; kernel {kernel}x{kernel}, padding {padding}"
    )


def _scale(maps: Sequence[NDArray[np.float32]]) -> tuple[Normalize, str, str]:
    """Return how values become colours: dark to light, or with values below zero blue, white at zero, red."""
    values = np.concatenate([layer.ravel() for layer in maps])
    low, high = float(values.min()), float(values.max())
    if low < 0:
        most = float(np.quantile(np.abs(values), _TOLD_APART)) or 1.0
        extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get(
            (low < -most, high > most), "neither"
        )
        return TwoSlopeNorm(0, -most, most), "RdBu_r", extend
    most = float(np.quantile(values, _TOLD_APART))
    most = most if most > low else max(high, low + 1e-6)
    return Normalize(low, most), "magma", "max" if high > most else "neither"


def _save(figure: Figure, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        with warnings.catch_warnings():
            # A name may have characters that the font has not; they are shown as boxes.
            warnings.filterwarnings("ignore", message="Glyph")
            figure.savefig(part, format="png")
        part.replace(path)
    except OSError as error:
        raise disk_error(path, error) from None

"""Draw the feature maps of a trained network for some images, channel by channel."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lenet_exp.base.errors import printable
from lenet_exp.base.files import write_atomically
from lenet_exp.base.messages import say
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.data.datasets import find_dataset
from lenet_exp.data.images import training_images
from lenet_exp.data.split import division, division_seed
from lenet_exp.results.figures.picture import png
from lenet_exp.results.lookup import read_results
from lenet_exp.results.views.feature_maps import Input, choose, look, parse_classes, trained_network
from lenet_exp.tracking.store import local_uri

# Sizes of the figure's elements, in inches.
_TILE = 0.58
_LABELS = 1.75
_GAP = 0.35
_ABOVE, _BELOW = 1.05, 0.85
#: Largest number of channels in a line, those of both layers together; the rest go to further lines below.
_CHANNELS_PER_LINE = 26
#: Quantile of a layer's values at which its colour scale ends; a few large values would dim all others.
_COLOUR_QUANTILE = 0.995

#: Colour scale of a layer: normalisation, colour map, and matplotlib's name for the ends that values exceed.
_Scale = tuple[Normalize, str, str]


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
    """Draw the feature maps of a trained network into a PNG file, and upload it to the network's MLflow run.

    The file is written to the experiment's folder. The images come from the validation split of the network's
    own training.

    Args:
        experiment: The experiment that trained the network.
        root: Folder below which sweeps write everything.
        run: Name of the attempt that trained the network, as `ExperimentResults.find` takes it.
        classes: Names or indices of the classes to show, separated by commas.
        inputs: Number of images to show of each class.
        tracking_uri: URI of an MLflow store; None for the one below ``root``.
        storage: URL of the studies' storage in PostgreSQL; None for the file below ``root``.
        say: Called with a one-line warning if the file could not be uploaded.

    Returns:
        Path of the PNG file.

    Raises:
        ConfigError: If there is no such attempt or class, or a class has fewer than ``inputs`` validation
            images.
        NoResultError: If the experiment was never run, or the attempt has no weights.
        DataError: If the images or the weights are missing or damaged.
        DiskError: If the file cannot be written.
    """
    results = read_results(experiment, root, storage)
    record = results.find(run)
    section = results.experiment.data
    names = find_dataset(section).classes
    wanted = parse_classes(classes, names)
    network = trained_network(results, record)
    images = training_images(section)
    pixels, labels = images.open()
    split = division(section, labels, division_seed(section, record.train_on, record.seed))
    indices = choose(split, labels, wanted, inputs, names)
    shown = look(network, pixels[indices], labels[indices], indices)
    score = f", val_accuracy {record.value:.4f}" if record.value is not None else ""
    title = f"{results.experiment.name}, {record.label}{score}"
    figure = draw(shown, names, record.configuration, title)
    slug = "-".join(re.sub(r"[^a-z0-9]+", "-", names[number].lower()).strip("-") for number in wanted)
    path = results.layout.home / f"activations-{record.key.stem}-{slug}.png"
    write_atomically(path, png(figure))
    results.add_to_run(record.key.stem, path, tracking_uri or local_uri(root.absolute()), say)
    return path


def mosaic(maps: NDArray[np.float32], columns: int, lines: int) -> NDArray[np.float32]:
    """Tile the feature maps of one image into one 2-D array, with gaps of one pixel that are NaN.

    Args:
        maps: Feature maps of a layer, ``(channels, side, side)``.
        columns: Number of channels in a line.
        lines: Number of lines; what remains of the last line is NaN.

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


@dataclass(frozen=True)
class _Sheet:
    """A figure whose elements are placed in inches from its upper left corner.

    Attributes:
        figure: The figure to draw into.
        width: Width of the figure, in inches.
        height: Height of the figure, in inches.
    """

    figure: Figure
    width: float
    height: float

    def axes(self, left: float, top: float, across: float, down: float) -> Axes:
        """Add axes without ticks and frame.

        Args:
            left: Distance of the axes from the figure's left edge, in inches.
            top: Distance of the axes from the figure's top edge, in inches.
            across: Width of the axes, in inches.
            down: Height of the axes, in inches.
        """
        rectangle = (
            left / self.width,
            1 - (top + down) / self.height,
            across / self.width,
            down / self.height,
        )
        axes = self.figure.add_axes(rectangle)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return axes

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        """Write ``text`` at ``left`` and ``top`` inches; matplotlib does not interpret formulas in it."""
        self.figure.text(left / self.width, 1 - top / self.height, text, parse_math=False, **style)


def draw(inputs: Sequence[Input], names: Sequence[str], configuration: Configuration, title: str) -> Figure:
    """Draw a figure with a band for each image: the image on the left, its feature maps to the right.

    A layer has one colour scale for all its channels and all images, so that they can be compared.

    Args:
        inputs: The images with their feature maps, grouped by class.
        names: Names of the data set's classes.
        configuration: Configuration of the network.
        title: Text at the top of the figure.
    """
    counts = [len(layer) for layer in inputs[0].layers]
    lines = -(-sum(counts) // _CHANNELS_PER_LINE)
    columns = [-(-count // lines) for count in counts]
    band = lines * _TILE
    *lefts, width = itertools.accumulate((n * _TILE + _GAP for n in columns), initial=_LABELS + band + _GAP)
    breaks = [i > 0 and inputs[i].label != inputs[i - 1].label for i in range(len(inputs))]
    width, height = max(width, 7.0), _ABOVE + len(inputs) * (band + 0.1) + sum(breaks) * _GAP + _BELOW
    sheet = _Sheet(Figure(figsize=(width, height), dpi=110), width, height)
    sheet.text(0.15, 0.12, printable(title), va="top", size=12, weight="bold")
    sheet.text(_LABELS, _ABOVE - 0.1, "input", va="bottom", size=9)
    scales = [_scale([image.layers[layer] for image in inputs]) for layer in range(len(counts))]
    top = _ABOVE
    for i, image in enumerate(inputs):
        top += _GAP if breaks[i] else 0
        _draw_input(sheet, image, names, top, band)
        for layer, left in enumerate(lefts):
            maps = image.layers[layer]
            axes = sheet.axes(left, top, columns[layer] * _TILE, band)
            whole = mosaic(maps, columns[layer], lines)
            norm, colours, _ = scales[layer]
            axes.imshow(whole, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
            side = maps.shape[1] + 1
            if i == 0:
                heading = _heading(configuration, layer, maps)
                sheet.text(left, top - 0.3, heading, va="bottom", size=9, linespacing=1.35)
                axes.xaxis.tick_top()
                _number(axes.xaxis, side, range(1, columns[layer] + 1), 7)
            if lines > 1 and (i == 0 or breaks[i]):
                _number(axes.yaxis, side, [f"+{n * columns[layer]}" for n in range(lines)], 6)
        top += band + 0.1
    for layer, left in enumerate(lefts):
        meaning = f"{configuration.activation} of layer {layer + 1}"
        _draw_scale(sheet, scales[layer], left, min(columns[layer] * _TILE, 4.0), meaning)
    return sheet.figure


def _draw_input(sheet: _Sheet, image: Input, names: Sequence[str], top: float, band: float) -> None:
    """Draw an image, and to its left its class and the network's prediction."""
    sheet.axes(_LABELS, top, band, band).imshow(image.pixels, cmap="gray", vmin=0, vmax=1)
    prediction = f"predicted {names[image.predicted]}, {image.confidence:.2f}"
    right = image.predicted == image.label
    styles: tuple[tuple[str, float, dict[str, Any]], ...] = (
        (names[image.label], 0.16, {"weight": "bold", "size": 10}),
        (f"image {image.index}", 0.31, {"size": 7, "color": "dimgray"}),
        (prediction, 0.44, {"size": 7, "color": "dimgray" if right else "firebrick"}),
    )
    for text, below, style in styles:
        sheet.text(0.15, top + band / 2 - 0.3 + below, text, va="center", **style)


def _number(axis: Axis, side: int, labels: Sequence[object], size: int) -> None:
    """Put labels at the centres of the channels along an axis; channel and gap are ``side`` pixels wide."""
    axis.set_ticks([(n + 0.5) * side - 1 for n in range(len(labels))], list(map(str, labels)), size=size)
    axis.set_tick_params(length=0, pad=1)


def _draw_scale(sheet: _Sheet, scale: _Scale, left: float, across: float, meaning: str) -> None:
    norm, colours, extend = scale
    cax = sheet.axes(left, sheet.height - _BELOW + 0.22, across, 0.13)
    bar = sheet.figure.colorbar(
        ScalarMappable(norm, colours), cax=cax, orientation="horizontal", extend=extend
    )
    bar.ax.tick_params(labelsize=7)
    bar.set_label(meaning, size=8)


def _heading(configuration: Configuration, layer: int, maps: NDArray[np.float32]) -> str:
    kernel, padding = configuration.kernel_size[layer], configuration.padding[layer]
    channels, rows, columns = maps.shape
    return (
        f"convolution layer {layer + 1}: {channels} channels of {rows}x{columns}\n"
        f"after {configuration.activation}, before pooling; kernel {kernel}x{kernel}, padding {padding}"
    )


def _scale(maps: Sequence[NDArray[np.float32]]) -> _Scale:
    """Return a layer's colour scale: dark to light, or blue to red if some values are negative."""
    values = np.concatenate([layer.ravel() for layer in maps])
    low, high = float(values.min()), float(values.max())
    if low < 0:
        most = float(np.quantile(np.abs(values), _COLOUR_QUANTILE)) or 1.0
        extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get(
            (low < -most, high > most), "neither"
        )
        return TwoSlopeNorm(0, -most, most), "RdBu_r", extend
    most = float(np.quantile(values, _COLOUR_QUANTILE))
    most = most if most > low else max(high, low + 1e-6)
    return Normalize(low, most), "magma", "max" if high > most else "neither"

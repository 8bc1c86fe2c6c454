"""The figures of trained networks, champion and baseline side by side, on validation images.

They show the networks of the search, list or confirmation that never saw these images; the test split stays
sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lenet_exp.base.errors import NoResultError, printable
from lenet_exp.base.messages import counted
from lenet_exp.data.cache import Cache
from lenet_exp.data.datasets import find_dataset
from lenet_exp.data.images import training_images
from lenet_exp.data.split import division
from lenet_exp.execution.calls import run_in_process
from lenet_exp.results.figures.chart import Axis, Chart, Heat, Images, Panel
from lenet_exp.results.figures.selection import baseline_of, complete, subject
from lenet_exp.results.lookup import ExperimentResults
from lenet_exp.study.records import TrialRecord
from lenet_exp.training.evaluate import Inspection, SavedNetwork, inspect_networks
from lenet_exp.training.weights import read_weights, recorded_digest

#: Most validation images that the networks classify for the figures: LeNet takes 0.2 s for them.
MAX_IMAGES = 5_000
_MISTAKES, _FILTERS, _MAPS, _LAYERS = 12, 32, 16, 2


@dataclass(frozen=True)
class Seen:
    """What networks make of validation images.

    Attributes:
        labels: Label of each network, the champion or best so far first.
        networks: Predictions, filters and feature maps of each network.
        truth: True class of each image, ``(n,)``.
        pixels: The images, ``(n, size, size)`` uint8.
        indices: Index of each image in the data set's training files, ``(n,)``.
        classes: Name of each class.
        which: Phrase that says which images these are, for captions.
    """

    labels: Sequence[str]
    networks: Sequence[Inspection]
    truth: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    indices: NDArray[np.int64]
    classes: Sequence[str]
    which: str


def see(results: ExperimentResults) -> Seen | None:
    """Return what champion and baseline make of validation images; None if no network was trained for that.

    The networks run in a process of its own, which loads torch.

    Raises:
        NoResultError: If the images would have to be downloaded, which a figure is no reason for.
        DataError: If weights or images are missing or damaged.
    """
    chosen = _chosen(results)
    if not chosen:
        return None
    section = results.experiment.data
    dataset = find_dataset(section)
    if not (section.folder or (Cache(dataset.name).folder / dataset.train.images.name).is_file()):
        raise NoResultError(f"the images of {dataset.name} are not on this machine")
    images = training_images(section)
    pixels, labels = images.open()
    validation = division(section, labels).validation
    indices = validation[:MAX_IMAGES]
    study = results.spool.study()
    kept = study.kept if study else {}
    networks = []
    for record in map(results.original, chosen):
        digest = recorded_digest(record.key, record.result, kept)
        files = results.layout.weights(record.key), results.layout.predictions(record.key)
        read_weights(files[0], digest)  # tells what is missing before a process loads torch
        networks.append(SavedNetwork(record.configuration, *files, digest))
    inspected = run_in_process(inspect_networks, networks, images, indices)
    part = "the" if len(indices) == len(validation) else f"{len(indices):,} of the"
    which = f"{part} {len(validation):,} validation images, which neither network was trained on"
    names = [printable(record.label) for record in chosen]
    return Seen(names, inspected, labels[indices], pixels[indices], indices, dataset.classes, which)


def _chosen(results: ExperimentResults) -> list[TrialRecord]:
    """Return the best trial or listed run and the baseline; a confirmed champion if that is not the baseline.

    All are trained on the division of the search, so that they can be compared on its validation images.
    """
    evaluation = results.confirmation.evaluation
    champion = evaluation.champion if evaluation else ""
    best = sorted(complete(results.records), key=lambda r: (r.config != champion, -(r.value or 0.0), r.trial))
    baseline = baseline_of(results.records)
    return [*best[:1], baseline] if best and baseline else best[:1]


def confusion(seen: Seen) -> Chart:
    """Return the confusion matrices, which share one scale of colours."""
    n, names = len(seen.classes), list(seen.classes)
    matrices, sentences = [], []
    for label, network in zip(seen.labels, seen.networks, strict=True):
        counts = np.zeros((n, n), int)
        np.add.at(counts, (seen.truth, network.predicted), 1)
        errors = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        np.fill_diagonal(errors, np.nan)
        true, taken = divmod(int(np.nanargmax(errors)), n)
        sentences.append(
            f"{subject(label)} takes {names[true]} for {names[taken]} most often,"
            f" {counts[true, taken]} times of {counts[true].sum()}."
        )
        right = float((network.predicted == seen.truth).mean())
        matrices.append((f"{label}: {right:.4f} right", counts, errors))
    most = max(float(np.nanmax(errors)) for _, _, errors in matrices)
    axes = Axis("predicted class", "category", names), Axis("true class", "category", names)
    panels = []
    for title, counts, errors in matrices:
        texts: list[list[str]] = counts.astype(str).tolist()
        heat = Heat(names, names, errors, "share of a class taken for another", texts, least=0, most=most)
        panels.append(Panel([heat], *axes, title=title, height=400))
    caption = f"{' '.join(sentences)} Each cell has the number of images; they are {seen.which}."
    return Chart("confusion", "What is taken for what", caption, panels)


def mistakes(seen: Seen) -> Chart | None:
    """Return the most confident mistakes; None if there are none."""
    panels, sentences = list[Panel](), list[str]()
    for label, network in zip(seen.labels, seen.networks, strict=True):
        wrong = np.flatnonzero(network.predicted != seen.truth)
        sure = wrong[np.argsort(-network.confidence[wrong], kind="stable")][:_MISTAKES]
        if not len(sure):
            continue
        titles = [
            f"{seen.classes[seen.truth[i]]}\nas {seen.classes[network.predicted[i]]}"
            f"\n{network.confidence[i]:.3f}"
            for i in sure
        ]
        certain = int((network.confidence[wrong] > 0.9).sum())
        who = subject(label, is_first=bool(sentences))
        sentences.append(f"{who} is wrong in {len(wrong):,}, in {certain:,} of them surer than 0.9.")
        title = f"{label}: the {counted(len(sure), 'surest mistake')}"
        panels.append(Panel([Images(seen.pixels[sure], titles, per_row=4)], title=title))
    if not panels:
        return None
    caption = (
        f"Of {seen.which}, {' '.join(sentences)}"
        " Above each image: its class, the network's, and how sure it is."
    )
    return Chart("mistakes", "The most confident mistakes", caption, panels)


def filters(seen: Seen) -> Chart:
    """Return the filters of the first convolution."""
    panels, sentences = [], []
    for label, network in zip(seen.labels, seen.networks, strict=True):
        n, side = network.filters.shape[:2]
        shown = network.filters[:_FILTERS]
        size = np.abs(network.filters).reshape(n, -1).max(axis=1)
        weak = int((size < 0.1 * size.max()).sum())
        of = f"Of the {n} filters of {subject(label, is_first=False)}"
        sentences.append(f"{of}, {weak or 'none'} {'is' if weak == 1 else 'are'} nearly zero.")
        title = f"{label}: {n} filters of {side}x{side}" + (f", the first {_FILTERS}" if n > _FILTERS else "")
        panels.append(Panel([Images(shown, symmetric=True)], title=title))
    caption = (
        f"{' '.join(sentences)} Orange weights are positive, blue negative;"
        " a filter with an orange and a blue side finds edges."
    )
    return Chart("filters", "Filters of the first convolution", caption, panels)


def activations(seen: Seen) -> Chart:
    """Return the feature maps of one image, each network in a column of its own."""
    index, truth = int(seen.indices[0]), seen.classes[seen.truth[0]]
    # Layers that only some of them have are left out, so that the columns stay side by side.
    n_layers = min(_LAYERS, *(len(network.maps) for network in seen.networks))
    rows: list[list[Panel]] = [[] for _ in range(1 + n_layers)]
    sentences = []
    for label, network in zip(seen.labels, seen.networks, strict=True):
        answer = f"{seen.classes[network.predicted[0]]} ({network.confidence[0]:.3f})"
        sentences.append(f"{subject(label)} says {answer}.")
        rows[0].append(Panel([Images(seen.pixels[:1])], title=f"{label}: {truth}, taken for {answer}"))
        for layer, maps in enumerate(network.maps[:n_layers], start=1):
            shape = f"{min(len(maps), _MAPS)} of {len(maps)} maps of {maps.shape[1]}x{maps.shape[2]}"
            panel = Panel([Images(maps[:_MAPS])], title=f"{label}, convolution {layer}: {shape}")
            rows[layer].append(panel)
    caption = (
        f"Validation image {index} is of the class {truth}. {' '.join(sentences)}"
        " A map is light where its filter, after the activation, answers most strongly."
    )
    panels = [panel for row in rows for panel in row]
    return Chart("activations", "What the networks see in an image", caption, panels)

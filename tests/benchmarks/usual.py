"""What the other contenders share: the usual loop on the networks and images of an experiment file."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lenet_exp.cli.usual_loop import Pictures, UsualTraining, batches
from lenet_exp.config import loader
from lenet_exp.config.experiment import Data, Experiment
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.data.images import ImageSet, training_images
from lenet_exp.data.split import division


def read_arguments() -> tuple[Experiment, ImageSet, Path]:
    """Return what a contender's command line names: the experiment, its images, and where to write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    experiment = loader.load(given.experiment, given.set)
    return experiment, training_images(experiment.data), given.root


def networks(experiment: Experiment) -> dict[str, Configuration]:
    """Return the networks by name, the baseline first."""
    return {"baseline": experiment.baseline_configuration, **dict(experiment.runs())}


def train(configuration: Configuration, images: ImageSet, data: Data) -> Iterator[dict[str, float]]:
    """Train as the usual loop does, on the same images as ours, and yield the metrics of each epoch."""
    split = division(data, images.open()[1])
    training = UsualTraining(configuration, images.image_size, device=best_device())
    learn = batches(Pictures(images, split.train), configuration.batch_size)
    validate = batches(Pictures(images, split.validation), configuration.batch_size, shuffle=False)
    for _ in range(configuration.epochs):
        examples = 0
        sums = {"train_loss": 0.0, "train_accuracy": 0.0}
        for count, loss, share in training.epoch(learn):
            examples += count
            sums["train_loss"] += loss * count
            sums["train_accuracy"] += share * count
        means = {name: total / examples for name, total in sums.items()}
        yield means | {"val_accuracy": accuracy(training, validate)}


@torch.no_grad()
def accuracy(training: UsualTraining, loader: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the share of pictures that the network puts into the right class."""
    training.network.eval()
    hits = count = 0
    for images, labels in loader:
        predicted = training.network(images.to(training.device)).argmax(dim=1)
        hits += int((predicted == labels.to(training.device)).sum().item())
        count += len(labels)
    return hits / count


def best_device() -> torch.device:
    """Return the accelerator if there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def parameters(configuration: Configuration) -> dict[str, Any]:
    """Return what is logged of a network."""
    return configuration.hyperparameters() | {"precision": "float32"}

import time

import numpy as np
import pytest
import torch
from torch import nn

from lenet_exp.base.seeding import derive_seed
from lenet_exp.cli.usual_loop import Pictures, UsualTraining, batches, throughput
from lenet_exp.config.hyperparameters import PRESETS, Configuration, configuration, overlay
from lenet_exp.data.images import ImageSet
from lenet_exp.training.network import LeNet, initialise
from tests.benchmarks.usual import accuracy


def small(**values: object) -> Configuration:
    return configuration(
        overlay(PRESETS["lenet"], {"channels": 4, "fc_layers": 1, "batch_size": 100, **values})
    )


def test_pictures_are_read_as_torchvision_reads_them(mini: ImageSet) -> None:
    """Each is the picture's bytes over 255, with its class, in the order asked for."""
    pixels, labels = mini.open()

    pictures = Pictures(mini, [7, 3])
    picture, label = pictures[1]

    assert len(pictures) == 2
    assert (picture.shape, picture.dtype, label) == ((1, 28, 28), torch.float32, labels[3])
    assert torch.equal(picture[0], torch.from_numpy(pixels[3] / np.float32(255)))


def test_the_network_is_the_configuration_s(mini: ImageSet) -> None:
    """A plain `nn.Sequential` gives what `LeNet` gives, and torch's plain optimiser steps it."""
    chosen = small(optimizer="sgd", lr=0.1, momentum=0.5)
    model = LeNet(chosen)
    initialise(model, chosen.init, derive_seed(1, "init"))
    images = torch.rand(3, 1, 28, 28)

    training = UsualTraining(chosen, seed=1)

    assert type(training.network) is nn.Sequential
    assert torch.equal(training.network(images), model(images))
    assert isinstance(training.optimizer, torch.optim.SGD)
    assert isinstance(UsualTraining(small()).optimizer, torch.optim.Adam)


def test_an_epoch_sees_every_picture_once_and_learns(mini: ImageSet) -> None:
    """Each step tells its examples, loss and accuracy; after some epochs the loss is less."""
    training = UsualTraining(small(lr=0.01))
    loader = batches(Pictures(mini), 100)

    steps = [list(training.epoch(loader)) for _ in range(3)]

    assert [sum(count for count, _, _ in epoch) for epoch in steps] == [1000] * 3
    assert steps[-1][-1][1] < steps[0][0][1]
    assert accuracy(training, batches(Pictures(mini, range(200)), 100, shuffle=False)) > 0.5


def test_throughput_is_of_the_whole_loop(mini: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading that takes longer makes it slower: the data are in."""
    chosen = small(batch_size=20)
    quick = throughput(chosen, mini, for_s=0.2)
    read = Pictures.__getitem__

    def slow(self: Pictures, number: int) -> tuple[torch.Tensor, int]:
        time.sleep(0.02)
        return read(self, number)

    monkeypatch.setattr(Pictures, "__getitem__", slow)

    assert 0 < throughput(chosen, mini, for_s=0.2) < quick

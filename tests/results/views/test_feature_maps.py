from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lenet_exp.base.errors import ConfigError, NoResultError
from lenet_exp.config import loader
from lenet_exp.config.hyperparameters import PRESETS, Configuration, configuration, overlay
from lenet_exp.data.datasets import DATASETS
from lenet_exp.results.lookup import read_results
from lenet_exp.results.views.feature_maps import Input, look, parse_classes, trained_network
from lenet_exp.training.network import LeNet, initialise
from tests.labs.swept import Swept

FASHION = DATASETS["fashion-mnist"].classes


def network(**values: object) -> tuple[LeNet, Configuration]:
    chosen = configuration(overlay(PRESETS["lenet"], values))
    made = LeNet(chosen)
    initialise(made, "xavier_uniform", seed=1)
    return made.eval(), chosen


def seen(made: LeNet, count: int = 4) -> list[Input]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28)).astype(np.uint8)
    labels = np.repeat(np.array([2, 4], np.uint8), count // 2)
    return look(made, pixels, labels, np.arange(count))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_channels_are_those_after_the_activation(layers: int) -> None:
    """Each of the first two layers is shown after its activation, before pooling."""
    made, _ = network(conv_layers=layers, padding="same", channels=[3, 5, 4], activation="tanh")

    first, *rest = seen(made)[0].layers

    assert first.shape == (3, 28, 28)
    assert [layer.shape for layer in rest] == [(5, 14, 14)][: layers - 1]
    pixels = torch.from_numpy(seen(made)[0].pixels)[None, None]
    with torch.inference_mode():
        wanted = made.features[1](made.features[0](pixels))[0].numpy()
    assert np.allclose(first, wanted, atol=1e-6)


def test_classes_are_named_as_people_do() -> None:
    """Names in any case, numbers, each once and in the order asked for."""
    assert parse_classes("Coat, pullover,4,COAT", FASHION) == [4, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [("pulover", "did you mean 'Pullover'"), ("10", "known are T-shirt/top"), ("coat,", "no class ''")],
)
def test_an_unknown_class_is_refused(text: str, message: str) -> None:
    """The nearest name, or all of them, are told."""
    with pytest.raises(ConfigError, match=message):
        parse_classes(text, FASHION)


def test_what_was_not_trained_to_its_end_has_no_network(swept_once: Swept) -> None:
    """A pruned trial left no weights, which is told before a file is looked for."""
    results = read_results(loader.load(swept_once.file), swept_once.root)
    pruned = replace(results.find("baseline"), state="PRUNED")

    with pytest.raises(NoResultError, match="baseline has no weights, as it was not trained to its end"):
        trained_network(results, pruned)

from pathlib import Path

import numpy as np
import pytest
import torch

from lenet_exp.base.errors import DataError
from lenet_exp.config.hyperparameters import PRESETS, configuration, overlay
from lenet_exp.data.images import ImageSet
from lenet_exp.data.split import validation_split
from lenet_exp.training.evaluate import (
    SavedNetwork,
    alone_examples_per_s,
    correct_predictions,
    evaluate_networks,
)
from lenet_exp.training.loop import DEFAULT_TRAINING, Images, begin, evaluate, load, save_weights
from lenet_exp.training.network import LeNet

SMALL = configuration(
    overlay(PRESETS["lenet"], {"channels": 4, "fc_layers": 1, "precision": "float32", "batch_size": 20})
)


def test_a_network_scores_what_evaluating_it_gives(mini: ImageSet, tmp_path: Path) -> None:
    """Accuracy and loss are those of `evaluate`, and the predictions that are left add up to them."""
    model = begin(SMALL, seed=1).model
    save_weights(model, tmp_path / "weights.safetensors")
    network = SavedNetwork(SMALL, tmp_path / "weights.safetensors", tmp_path / "new" / "predictions.npz")

    ((accuracy, loss),) = evaluate_networks([network], mini, "cpu", threads=1)

    pixels, labels = load(mini, torch.device("cpu"))
    expected = evaluate(model, Images(pixels, labels, torch.arange(mini.count)), SMALL.loss)
    assert (loss, accuracy) == expected
    correct = correct_predictions(network.predictions, np.asarray(mini.open()[1]))
    assert correct.shape == (mini.count,)
    assert correct.mean() == accuracy


def test_weights_of_another_network_are_refused(mini: ImageSet, tmp_path: Path) -> None:
    """The message names the file."""
    save_weights(LeNet(configuration(PRESETS["lenet"])), tmp_path / "weights.safetensors")
    network = SavedNetwork(SMALL, tmp_path / "weights.safetensors", tmp_path / "predictions.npz")

    with pytest.raises(
        DataError, match=r"weights.safetensors: cannot be loaded as a network of this configuration"
    ):
        evaluate_networks([network], mini, "cpu", threads=1)


def test_a_network_alone_has_a_speed_unless_it_diverges(mini: ImageSet) -> None:
    """Examples per second of an epoch, warm-up left out."""
    split = validation_split(mini.open()[1], 200, 0)
    wild = SMALL.model_copy(update={"lr": 100.0, "optimizer": "sgd", "loss": "mse", "batch_size": 4})

    assert (alone_examples_per_s(SMALL, mini, split, "cpu", 1, 1, DEFAULT_TRAINING) or 0) > 100
    assert alone_examples_per_s(wild, mini, split, "cpu", 1, 1, DEFAULT_TRAINING) is None

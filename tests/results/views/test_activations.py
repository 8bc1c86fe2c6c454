from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lenet_exp.base.errors import ConfigError, DataError, NoResultError
from lenet_exp.base.records import RunKey
from lenet_exp.config import loader
from lenet_exp.config.hyperparameters import PRESETS, Configuration, configuration, overlay
from lenet_exp.data.datasets import DATASETS
from lenet_exp.data.images import training_images
from lenet_exp.data.split import division
from lenet_exp.results.lookup import read
from lenet_exp.results.views import activations
from lenet_exp.results.views.activations import Input, draw, draw_activations, look, mosaic, parse_classes
from lenet_exp.tracking.store import connect, local_uri
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


def test_the_picture_is_kept_and_logged(swept: Swept, capsys: pytest.CaptureFixture[str]) -> None:
    """The command's work: a PNG in the experiment's folder, and among the artifacts of the run."""
    chosen = loader.load(swept.file)

    path = draw_activations(chosen, swept.root, "baseline", "2, 4", inputs=2)

    assert path == swept.home / "activations-baseline-00000-1-2-4.png"
    with Image.open(path) as picture:
        assert picture.size[0] > 700
    run_id = read(chosen, swept.root).spool.run_ids()[RunKey("baseline", 0, 1)]
    files = [file.path for file in connect(local_uri(swept.root)).list_artifacts(run_id)]
    assert path.name in files
    assert capsys.readouterr().err == ""


def test_without_mlflow_the_picture_is_kept(swept: Swept) -> None:
    """A store that does not answer costs a warning, not the picture."""
    told: list[str] = []

    path = draw_activations(
        loader.load(swept.file),
        swept.root,
        "champion",
        "0",
        tracking_uri="http://127.0.0.1:9",
        say=told.append,
    )

    assert path.exists()
    assert len(told) == 1
    assert told[0].startswith("warning: the tracking store http://127.0.0.1:9 did not take it")


def test_only_validation_images_are_shown(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown was neither trained on nor is it of the test split, whose files are not opened."""
    shown: list[Input] = []

    def watched(*given: Any) -> list[Input]:
        shown.extend(look(*given))
        return shown

    monkeypatch.setattr(activations, "look", watched)
    recorded = read(loader.load(swept.file), swept.root)

    draw_activations(recorded.experiment, swept.root, "baseline", "2,4")

    data = recorded.experiment.data
    pixels, labels = training_images(data).open()
    split = division(data, labels)
    assert [image.label for image in shown] == [2, 2, 2, 4, 4, 4]
    assert {image.number for image in shown} <= set(split.validation.tolist())
    for image in shown:
        assert labels[image.number] == image.label
        assert np.array_equal(image.pixels, pixels[image.number].astype(np.float32) / 255)
    assert not list((swept.root.parent / "data-cache").rglob("t10k*"))


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


@pytest.mark.parametrize(
    "values",
    [
        {"activation": "sigmoid"},
        {"activation": "tanh", "channels": [40, 70]},
        {"conv_layers": 1, "channels": [1]},
        {"channels": [1, 2], "activation": "gelu"},
    ],
)
def test_any_network_can_be_drawn(values: dict[str, object], tmp_path: Path) -> None:
    """One layer or many channels, all of one sign or not: a picture comes out, however a run is called."""
    made, chosen = network(**values)

    figure = draw(seen(made), FASHION, chosen, "cost $5 \x1b[31m \N{SNOWMAN}")
    activations._save(figure, tmp_path / "picture.png")

    with Image.open(tmp_path / "picture.png") as picture:
        assert max(picture.size) < 4000


def test_a_dead_layer_can_be_drawn() -> None:
    """A layer that gives zero for every image is shown as such."""
    made, chosen = network()
    with torch.no_grad():
        for parameter in made.features.parameters():
            parameter.zero_()

    draw(seen(made), FASHION, chosen, "dead").canvas.draw()


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


def test_a_mosaic_leaves_nothing_out() -> None:
    """Every channel is in the mosaic, at its place, whole."""
    maps = np.arange(5 * 9, dtype=np.float32).reshape(5, 3, 3)

    whole = mosaic(maps, columns=3, lines=2)

    assert whole.shape == (7, 12)
    assert np.array_equal(whole[4:7, 4:7], maps[4])
    assert np.isfinite(whole).sum() == 45


def test_what_cannot_be_drawn_is_told(swept: Swept) -> None:
    """Too many images, weights that are gone or damaged, a run that has none: one line each."""
    chosen = loader.load(swept.file)
    recorded = read(chosen, swept.root)
    with pytest.raises(
        ConfigError, match=r"--inputs must be at most 20, as the validation split has no more"
    ):
        draw_activations(chosen, swept.root, "baseline", "2", inputs=21)
    weights = swept.home / "checkpoints" / "baseline-00000-1" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match=r"no model from .*baseline-00000-1"):
        draw_activations(chosen, swept.root, "baseline", "2")
    weights.unlink()
    with pytest.raises(DataError, match=r"no model from .*baseline-00000-1"):
        draw_activations(chosen, swept.root, "baseline", "2")
    pruned = replace(recorded.find("baseline"), state="PRUNED")
    with pytest.raises(NoResultError, match="baseline has no weights, as it was not trained to its end"):
        activations.trained_network(recorded, pruned)

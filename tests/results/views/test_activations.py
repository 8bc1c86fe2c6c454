from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lenet_exp.base.errors import ConfigError, DataError
from lenet_exp.base.records import RunKey
from lenet_exp.config import loader
from lenet_exp.data.images import training_images
from lenet_exp.data.split import division
from lenet_exp.results.figures.picture import png
from lenet_exp.results.lookup import read_results
from lenet_exp.results.views import activations
from lenet_exp.results.views.activations import draw, draw_activations, mosaic
from lenet_exp.results.views.feature_maps import Input, look
from lenet_exp.tracking.store import connect, local_uri
from tests.labs.swept import Swept
from tests.results.views.test_feature_maps import FASHION, network, seen


def test_the_picture_is_kept_and_logged(swept: Swept, capsys: pytest.CaptureFixture[str]) -> None:
    """The command's work: a PNG in the experiment's folder, and among the artifacts of the run."""
    chosen = loader.load(swept.file)

    path = draw_activations(chosen, swept.root, "baseline", "2, 4", inputs=2)

    assert path == swept.home / "activations-baseline-00000-1-2-4.png"
    with Image.open(path) as picture:
        assert picture.size[0] > 700
    run_id = read_results(chosen, swept.root).spool.run_ids()[RunKey("baseline", 0, 1)]
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
    assert told[0].startswith("warning: the tracking store http://127.0.0.1:9 did not accept ")


def test_only_validation_images_are_shown(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown was neither trained on nor is it of the test split, whose files are not opened."""
    shown: list[Input] = []

    def watched(*given: Any) -> list[Input]:
        shown.extend(look(*given))
        return shown

    monkeypatch.setattr(activations, "look", watched)
    results = read_results(loader.load(swept.file), swept.root)

    draw_activations(results.experiment, swept.root, "baseline", "2,4")

    data = results.experiment.data
    pixels, labels = training_images(data).open()
    split = division(data, labels)
    assert [image.label for image in shown] == [2, 2, 2, 4, 4, 4]
    assert {image.index for image in shown} <= set(split.validation.tolist())
    for image in shown:
        assert labels[image.index] == image.label
        assert np.array_equal(image.pixels, pixels[image.index].astype(np.float32) / 255)
    assert not list((swept.root.parent / "data-cache").rglob("t10k*"))


@pytest.mark.parametrize(
    "values",
    [
        {"activation": "sigmoid"},
        {"activation": "tanh", "channels": [40, 70]},
        {"conv_layers": 1, "channels": [1]},
        {"channels": [1, 2], "activation": "gelu"},
    ],
)
def test_any_network_can_be_drawn(values: dict[str, object]) -> None:
    """One layer or many channels, all of one sign or not: a picture comes out, however a run is called."""
    made, chosen = network(**values)

    figure = draw(seen(made), FASHION, chosen, "cost $5 \x1b[31m \N{SNOWMAN}")
    with Image.open(io.BytesIO(png(figure))) as picture:
        assert max(picture.size) < 4000


def test_a_dead_layer_can_be_drawn() -> None:
    """A layer that gives zero for every image is shown as such."""
    made, chosen = network()
    with torch.no_grad():
        for parameter in made.features.parameters():
            parameter.zero_()

    assert png(draw(seen(made), FASHION, chosen, "dead"))


def test_a_mosaic_leaves_nothing_out() -> None:
    """Every channel is in the mosaic, at its place, whole."""
    maps = np.arange(5 * 9, dtype=np.float32).reshape(5, 3, 3)

    whole = mosaic(maps, columns=3, lines=2)

    assert whole.shape == (7, 12)
    assert np.array_equal(whole[4:7, 4:7], maps[4])
    assert np.isfinite(whole).sum() == 45


def test_what_cannot_be_drawn_is_told(swept: Swept) -> None:
    """Too many images, weights that are gone or damaged: one line each."""
    chosen = loader.load(swept.file)
    with pytest.raises(
        ConfigError, match=r"--inputs must be at most 20, found 21; the validation split has no more"
    ):
        draw_activations(chosen, swept.root, "baseline", "2", inputs=21)
    weights = swept.home / "checkpoints" / "baseline-00000-1" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match=r"baseline-00000-1.*doctor --repair.* trains it again"):
        draw_activations(chosen, swept.root, "baseline", "2")
    weights.unlink()
    with pytest.raises(DataError, match=r"baseline-00000-1.*doctor --repair.* trains it again"):
        draw_activations(chosen, swept.root, "baseline", "2")

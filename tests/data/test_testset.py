from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lenet_exp.base.errors import ConfigError, DataError
from lenet_exp.config.experiment import Experiment, Watch
from lenet_exp.config.loader import parse
from lenet_exp.data import datasets
from lenet_exp.data.images import training_images
from lenet_exp.data.sources import SYSTEM_FOLDER, Dataset
from lenet_exp.data.testset import ensure_available, read_test_split, shown_test_images
from tests.data.test_images import opened_by
from tests.labs.mirror import Answer, Mirror
from tests.labs.sections import section


def test_the_test_images_are_read(data_cache: Path, mini_folder: Path) -> None:
    """The test images come from their own files, resized as the training images are."""
    images, labels = read_test_split(section("mini", mini_folder, resize=32)).open()

    assert images.shape == (200, 32, 32)
    assert np.bincount(labels).tolist() == [20] * 10


def test_the_test_files_are_pinned_when_they_are_read(data_cache: Path, mini_folder: Path) -> None:
    """A user's test files have no checksum until they are first read, and keep it from then on."""
    training_images(section("mini", mini_folder))
    pins = data_cache / "mini" / "checksums.json"
    before = set(json.loads(pins.read_text()))

    read_test_split(section("mini", mini_folder))

    assert before == {"train-images-idx3-ubyte", "train-labels-idx1-ubyte"}
    assert set(json.loads(pins.read_text())) - before == {"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"}


def test_making_sure_opens_nothing_that_is_there(data_cache: Path, mini_folder: Path) -> None:
    """Test images that are within reach are not opened to make sure of it."""
    opened = opened_by(f"testset.ensure_available({section('mini', mini_folder)!r})")

    assert not [path for path in opened if "t10k" in path]
    assert not list(data_cache.rglob("*t10k*"))


def test_making_sure_fetches_what_is_missing(
    known: Dataset, mini_folder: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test images that only a mirror has are fetched, so that they can be read without a network."""
    for path in mini_folder.glob("t10k*.gz"):
        mirror.answers[path.name] = [Answer(path.read_bytes())]
    monkeypatch.setitem(datasets.DATASETS, "known", replace(known, mirrors=lambda: [mirror.url]))

    ensure_available(section("known"))

    monkeypatch.setitem(datasets.DATASETS, "known", known)
    assert read_test_split(section("known")).count == 200


def test_making_sure_says_what_is_missing(data_cache: Path, mini_folder: Path, tmp_path: Path) -> None:
    """A user's own data set without test images is told before the search, not after it."""
    for path in mini_folder.glob("train*.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())

    with pytest.raises(DataError, match="holds no t10k-images-idx3-ubyte"):
        ensure_available(section("own", tmp_path))


def experiment(folder: Path, **parts: Any) -> Experiment:
    return parse({"name": "e", "data": {"dataset": "mini", "folder": str(folder)}, **parts})


def test_a_list_that_asks_for_them_gets_the_test_images(data_cache: Path, mini_folder: Path) -> None:
    """They are the data set's own, at the size that is trained on."""
    images = shown_test_images(experiment(mini_folder, run=[{"lr": 0.1}], watch={"test_split": True}))

    assert images is not None
    assert images.count == 200


def test_what_does_not_ask_opens_nothing(data_cache: Path, mini_folder: Path) -> None:
    """Not one of the test files is touched."""
    table = {"name": "e", "data": {"dataset": "mini", "folder": str(mini_folder)}, "run": [{"lr": 0.1}]}

    opened = opened_by(f"assert testset.shown_test_images(parse({table!r})) is None")

    assert opened
    assert not [path for path in opened if "t10k" in path]


@pytest.mark.parametrize("kind", [{"space": {"lr": [0.1, 0.2]}}, {"ablate": {"lr": [0.1]}}])
def test_whatever_chooses_is_refused_even_if_its_file_was_not(
    data_cache: Path, mini_folder: Path, kind: dict[str, Any]
) -> None:
    """The rule is held where the images are opened, too."""
    slipped = experiment(mini_folder, **kind).model_copy(update={"watch": Watch(test_split=True)})

    with pytest.raises(ConfigError, match=r"only a list of \[\[run\]\] may measure the test split"):
        shown_test_images(slipped)


@pytest.mark.full_data
@pytest.mark.parametrize("name", [name for name, known in datasets.DATASETS.items() if known.built_in])
def test_the_full_test_images_are_the_originals(data_cache: Path, name: str) -> None:
    """The files that the system has are those of the table."""
    if not (SYSTEM_FOLDER / name).exists():
        pytest.skip(f"needs {SYSTEM_FOLDER / name}")

    assert read_test_split(section(name)).count == 10_000

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lenet_exp.base.errors import DataError
from lenet_exp.data import datasets
from lenet_exp.data.datasets import prepare
from lenet_exp.data.sources import SYSTEM_FOLDER, Dataset
from lenet_exp.data.testset import ensure_available, read_test_split
from tests.data.test_datasets import opened_by
from tests.labs.mirror import Answer, Mirror


def test_the_test_images_are_read(data_cache: Path, mini_folder: Path) -> None:
    """The test images come from their own files, resized as the training images are."""
    images, labels = read_test_split("mini", folder=mini_folder, resize=32).open()

    assert images.shape == (200, 32, 32)
    assert np.bincount(labels).tolist() == [20] * 10


def test_the_test_files_are_pinned_when_they_are_read(data_cache: Path, mini_folder: Path) -> None:
    """A user's test files have no checksum until they are first read, and keep it from then on."""
    prepare("mini", folder=mini_folder)
    pins = data_cache / "mini" / "checksums.json"
    before = set(json.loads(pins.read_text()))

    read_test_split("mini", folder=mini_folder)

    assert before == {"train-images-idx3-ubyte", "train-labels-idx1-ubyte"}
    assert set(json.loads(pins.read_text())) - before == {"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"}


def test_making_sure_opens_nothing_that_is_there(data_cache: Path, mini_folder: Path) -> None:
    """Test images that are within reach are not opened to make sure of it."""
    opened = opened_by(f"testset.ensure_available('mini', folder=Path({str(mini_folder)!r}))")

    assert not [path for path in opened if "t10k" in path]
    assert not list(data_cache.rglob("*t10k*"))


def test_making_sure_fetches_what_is_missing(
    known: Dataset, mini_folder: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test images that only a mirror has are fetched, so that they can be read without a network."""
    for path in mini_folder.glob("t10k*.gz"):
        mirror.answers[path.name] = [Answer(path.read_bytes())]
    monkeypatch.setitem(datasets.DATASETS, "known", replace(known, mirrors=lambda: [mirror.url]))

    ensure_available("known")

    monkeypatch.setitem(datasets.DATASETS, "known", known)
    assert read_test_split("known").count == 200


def test_making_sure_says_what_is_missing(data_cache: Path, mini_folder: Path, tmp_path: Path) -> None:
    """A user's own data set without test images is told before the search, not after it."""
    for path in mini_folder.glob("train*.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())

    with pytest.raises(DataError, match="holds no t10k-images-idx3-ubyte"):
        ensure_available("own", folder=tmp_path)


@pytest.mark.full_data
@pytest.mark.parametrize("name", [name for name, known in datasets.DATASETS.items() if known.built_in])
def test_the_full_test_images_are_the_originals(data_cache: Path, name: str) -> None:
    """The files that the system has are those of the table."""
    if not (SYSTEM_FOLDER / name).exists():
        pytest.skip(f"needs {SYSTEM_FOLDER / name}")

    assert read_test_split(name).count == 10_000

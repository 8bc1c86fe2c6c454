from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lenet_exp.base.errors import ConfigError
from lenet_exp.data.images import ImageSet
from lenet_exp.data.split import division, division_seed, validation_split
from tests.labs.sections import section


@st.composite
def divisions(draw: st.DrawFn) -> tuple[NDArray[np.uint8], int, int | None]:
    """Labels, how many to keep for validation, and how many of the others to train on."""
    labels = np.array(draw(st.lists(st.integers(0, 9), min_size=2, max_size=300)), np.uint8)
    validation = draw(st.integers(1, len(labels) - 1))
    limit = draw(st.none() | st.integers(1, len(labels) - validation))
    return labels, validation, limit


@given(divisions(), st.integers(0, 2**63 - 1))
def test_a_split_keeps_every_class_its_share(
    division: tuple[NDArray[np.uint8], int, int | None], seed: int
) -> None:
    """The sides have the sizes asked for, share no image, and have each class's share to within one image."""
    labels, validation, limit = division

    split = validation_split(labels, validation, seed, limit)

    left = len(labels) - validation
    assert len(split.validation) == validation
    assert len(split.train) == (left if limit is None else limit)
    both = np.concatenate([split.train, split.validation])
    assert len(np.unique(both)) == len(both)
    assert both.min() >= 0
    assert both.max() < len(labels)
    counts = np.bincount(labels, minlength=10)
    kept = np.bincount(labels[split.validation], minlength=10)
    used = np.bincount(labels[split.train], minlength=10)
    assert np.abs(kept - counts * validation / len(labels)).max() < 1
    assert np.abs(used - (counts - kept) * len(split.train) / left).max() < 1


def test_a_split_is_its_seeds(mini: ImageSet) -> None:
    """The same seed gives the same division, another seed another one, and the digest tells."""
    _, labels = mini.open()

    first, again, other = (validation_split(labels, 200, seed) for seed in (0, 0, 1))

    assert np.array_equal(first.train, again.train)
    assert first.digest == again.digest
    assert first.digest == hashlib.sha256(first.train.tobytes() + first.validation.tobytes()).hexdigest()
    assert other.digest != first.digest
    assert not np.array_equal(first.validation, other.validation)
    assert first.train.dtype == np.int64
    assert (np.diff(first.train) > 0).all()
    assert (np.diff(first.validation) > 0).all()


def test_a_limit_leaves_the_validation_images(mini: ImageSet) -> None:
    """With fewer training images the validation images stay, and the training images are some of the same."""
    _, labels = mini.open()

    full, some, few = (validation_split(labels, 200, 0, limit) for limit in (None, 300, 50))

    assert np.array_equal(full.validation, few.validation)
    assert set(few.train) < set(some.train) < set(full.train)


def test_an_experiment_says_how_its_images_are_divided(mini: ImageSet) -> None:
    """How many are kept, how many of the others are trained on, and at random from which seed."""
    _, labels = mini.open()
    data = section("mini", validation=200, limit=300, seed=4)

    assert division(data, labels).digest == validation_split(labels, 200, seed=4, limit=300).digest


def test_a_resampled_training_has_a_division_of_its_own_seed(mini: ImageSet) -> None:
    """It has the search's sizes and shares of the classes, and nothing of the search's own division."""
    _, labels = mini.open()
    searched = section("mini", validation=200, limit=300, seed=4)
    otherwise = section("mini", validation=200, limit=300, seed=5)
    seeds = [division_seed(searched, "train, resampled", seed) for seed in (4, 9)]

    splits = [division(searched, labels, seed) for seed in (None, *seeds)]

    assert [division_seed(otherwise, "train, resampled", seed) for seed in (4, 9)] == seeds
    assert {division_seed(searched, images, 9) for images in ("train", "train+validation")} == {4}
    for part in ("train", "validation"):
        drawn = [getattr(split, part) for split in splits]
        assert len({tuple(np.bincount(labels[images])) for images in drawn}) == 1
        assert len({tuple(images) for images in drawn}) == 3


@pytest.mark.parametrize(
    ("validation", "limit", "message"),
    [
        (1000, None, "data.validation must be 1 to 999, as there are 1,000 training images, found 1,000$"),
        (0, None, "data.validation must be 1 to 999.* found 0$"),
        (200, 801, "data.limit must be 1 to 800, as 200 of 1,000 images are for validation, found 801$"),
    ],
)
def test_a_split_of_too_few_images_is_refused(
    mini: ImageSet, validation: int, limit: int | None, message: str
) -> None:
    """Asking for more images than there are is refused with the numbers."""
    _, labels = mini.open()

    with pytest.raises(ConfigError, match=message):
        validation_split(labels, validation, 0, limit)

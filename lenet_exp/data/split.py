"""The division of a data set's training images into a training split and a validation split."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lenet_exp.base.errors import ConfigError
from lenet_exp.base.records import TrainOn
from lenet_exp.base.seeding import derive_seed

if TYPE_CHECKING:
    # A worker loads this module too, and has no experiment.
    from lenet_exp.config.experiment import Data


@dataclass(frozen=True, eq=False)
class Split:
    """A division of the training images.

    Attributes:
        train: Indices of the images to train on, ``(n,)`` int64, ascending.
        validation: Indices of the images to validate on, ``(m,)`` int64, ascending.
        digest: SHA-256 of ``train`` and then ``validation``; 64 hexadecimal digits.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    digest: str

    def joined(self) -> Split:
        """Return the division with both splits to train on and none to validate on; the digest stays."""
        both = np.sort(np.concatenate([self.train, self.validation]))
        return Split(both, self.validation[:0], self.digest)


def division(section: Data, labels: NDArray[np.integer], seed: int | None = None) -> Split:
    """Return a division of the training images into splits of the sizes that an experiment asks for.

    Args:
        section: Section ``[data]`` of the experiment.
        labels: Labels of all training images, ``(count,)`` integers from 0.
        seed: Seed of the random division, see `division_seed`; None for that of the search, ``data.seed``.

    Raises:
        ConfigError: If the section asks for more images than there are.
    """
    seed = section.seed if seed is None else seed
    return validation_split(labels, section.validation, seed, section.limit)


def division_seed(section: Data, train_on: TrainOn, seed: int) -> int:
    """Return the seed of the division on which a network is trained.

    It is that of the search, unless the training is resampled. Then it follows from the training's own seed
    alone: all configurations share the division of a seed, and whoever repeats the training repeats it too.

    Args:
        section: Section ``[data]`` of the experiment.
        train_on: Images that the network is trained on.
        seed: Root of the training's random streams.
    """
    return derive_seed(seed, "division") if train_on == "train, resampled" else section.seed


def validation_split(
    labels: NDArray[np.integer], validation: int, seed: int, limit: int | None = None
) -> Split:
    """Divide images at random into two splits, with the same proportions of the classes in both.

    The validation images do not depend on ``limit``. The training images of a smaller ``limit`` are among
    those of a larger one.

    Args:
        labels: Labels of all images, ``(count,)`` integers from 0.
        validation: Number of images to validate on.
        seed: Seed of the random division; any integer.
        limit: Number of the other images to train on; None for all of them.

    Raises:
        ConfigError: If there are too few images for ``validation`` and ``limit``.
    """
    count = len(labels)
    if not 0 < validation < count:
        raise ConfigError(
            f"data.validation must be 1 to {count - 1:,}, as there are {count:,} training images,"
            f" found {validation:,}"
        )
    left = count - validation
    if limit is not None and not 0 < limit <= left:
        raise ConfigError(
            f"data.limit must be 1 to {left:,}, as {validation:,} of {count:,} images are for"
            f" validation, found {limit:,}"
        )
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "split")))
    order = generator.permutation(count)
    by_class = np.bincount(labels)
    # The images by class, in random order within each class.
    grouped = np.split(order[np.argsort(labels[order], kind="stable")], np.cumsum(by_class)[:-1])
    kept = _shares(by_class, validation)
    used = _shares(by_class - kept, left if limit is None else limit)
    parts = [np.split(group, [k, k + u])[:2] for group, k, u in zip(grouped, kept, used, strict=True)]
    held_out, train = (np.sort(np.concatenate(part)) for part in zip(*parts, strict=True))
    digest = hashlib.sha256(train.tobytes() + held_out.tobytes()).hexdigest()
    return Split(train, held_out, digest)


def _shares(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Divide ``total`` in proportion to ``counts``, by largest remainders; the first wins a tie.

    Example:
        >>> _shares(np.array([5, 3, 2]), 4).tolist()
        [2, 1, 1]
    """
    shares, remainders = np.divmod(total * counts, counts.sum())
    more = np.argsort(-remainders, kind="stable")[: total - shares.sum()]
    shares[more] += 1
    return shares

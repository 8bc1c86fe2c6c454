"""How the training images are divided into those to train on and those to choose by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lenet_exp.base.errors import ConfigError
from lenet_exp.base.seeding import derive_seed

if TYPE_CHECKING:
    # A worker loads this module too, and has no experiment.
    from lenet_exp.config.experiment import Data


@dataclass(frozen=True, eq=False)
class Split:
    """How the training images are divided.

    Attributes:
        train: ``(n,)`` int64, ascending: the numbers of the images to train on.
        validation: ``(m,)`` int64, ascending: the numbers of the images to choose by.
        digest: SHA-256 of both, in this order; 64 hexadecimal digits.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    digest: str

    def joined(self) -> Split:
        """Return the division in which all of these images are trained on, and none are left to choose by."""
        both = np.sort(np.concatenate([self.train, self.validation]))
        return Split(both, self.validation[:0], self.digest)


def division(section: Data, labels: NDArray[np.integer]) -> Split:
    """Return how an experiment divides its training images.

    Args:
        section: The experiment's ``[data]``.
        labels: ``(count,)``, the images' classes.

    Raises:
        ConfigError: If there are not as many images.
    """
    return validation_split(labels, section.validation, section.seed, section.limit)


def validation_split(
    labels: NDArray[np.integer], validation: int, seed: int, limit: int | None = None
) -> Split:
    """Divide the images at random, every class with its share on either side.

    The validation images do not depend on ``limit``, and a smaller limit takes some of a larger one's images.

    Args:
        labels: ``(count,)``, the images' classes.
        validation: The number of images to keep for validation.
        seed: The root of the random division; any integer.
        limit: The number of other images to train on; None for all of them.

    Raises:
        ConfigError: If there are not as many images.
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
    # The images class by class, those of a class in random order.
    grouped = np.split(order[np.argsort(labels[order], kind="stable")], np.cumsum(by_class)[:-1])
    kept = _shares(by_class, validation)
    used = _shares(by_class - kept, left if limit is None else limit)
    parts = [np.split(group, [k, k + u])[:2] for group, k, u in zip(grouped, kept, used, strict=True)]
    held_out, train = (np.sort(np.concatenate(part)) for part in zip(*parts, strict=True))
    digest = hashlib.sha256(train.tobytes() + held_out.tobytes()).hexdigest()
    return Split(train, held_out, digest)


def _shares(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Divide ``total`` in proportion to ``counts``, by largest remainders; the first of equals gets more.

    Example:
        >>> _shares(np.array([5, 3, 2]), 4).tolist()
        [2, 1, 1]
    """
    shares, remainders = np.divmod(total * counts, counts.sum())
    more = np.argsort(-remainders, kind="stable")[: total - shares.sum()]
    shares[more] += 1
    return shares

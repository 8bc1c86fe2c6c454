"""The test images: found, verified and opened here and nowhere else.

Only the confirmation imports `read_test_split`, once its finalists are frozen.
"""

from __future__ import annotations

from pathlib import Path

from lenet_exp.data.datasets import ImageSet, find_dataset, image_set
from lenet_exp.data.sources import obtain, within_reach


def read_test_split(name: str, *, folder: Path | None = None, resize: int = 28) -> ImageSet:
    """Find, verify and unpack the test images of a data set, resized if need be.

    Args:
        name: Of the data set, as for `lenet_exp.data.datasets.prepare`.
        folder: Where the files lie; looked in before any download.
        resize: Side of the images, in pixels.

    Raises:
        ConfigError: If the name is not known, and no folder says where the files are.
        DataError: If a file is damaged, or is nowhere to be had.
        DiskError: If the cache cannot be written.
    """
    dataset = find_dataset(name, folder)
    return image_set(dataset, dataset.test, folder, resize)


def ensure_available(name: str, *, folder: Path | None = None) -> None:
    """Make sure that the test images can be read later, even if the network is gone by then.

    Files that are here are not opened. Others are fetched into the cache, and looked at only as far as
    verifying them on their way takes.

    Args:
        name: Of the data set, as for `lenet_exp.data.datasets.prepare`.
        folder: Where the files lie; looked in before any download.

    Raises:
        ConfigError: If the name is not known, and no folder says where the files are.
        DataError: If they are nowhere to be had.
        DiskError: If the cache cannot be written.
    """
    dataset = find_dataset(name, folder)
    if not within_reach(dataset, dataset.test, folder):
        obtain(dataset, dataset.test, folder)

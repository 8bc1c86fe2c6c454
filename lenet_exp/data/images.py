"""The training images of a data set, verified and mapped into memory.

The test images are read by `lenet_exp.data.testset`; nothing here opens their files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lenet_exp.base.errors import DataError
from lenet_exp.base.messages import say, step
from lenet_exp.data import idx
from lenet_exp.data.cache import Cache
from lenet_exp.data.datasets import find_dataset, user_folder
from lenet_exp.data.idx import IdxFile
from lenet_exp.data.sources import CachedFile, Dataset, Part, obtain

if TYPE_CHECKING:
    # A worker loads this module too, and has no experiment.
    from lenet_exp.config.experiment import Data

#: Number of images to resize at a time, which limits the memory that resizing takes.
_RESIZE_CHUNK = 2048


@dataclass(frozen=True)
class ImageSet:
    """Verified files of images and their labels; cheap to send to another process, which opens the files.

    Attributes:
        name: Name of the data set.
        images: IDX file of ``(count, image_size, image_size)`` bytes.
        labels: IDX file of ``(count,)`` bytes.
        count: Number of images.
        image_size: Side of an image, in pixels.
        digest: Hash of the images before resizing, the labels and the image size; 32 hexadecimal digits.
    """

    name: str
    images: Path
    labels: Path
    count: int
    image_size: int
    digest: str

    def open(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Map the files into memory, which is shared by all processes that do so.

        Returns:
            The images, ``(count, image_size, image_size)``, from 0 for black to 255 for white, and the
            labels, ``(count,)``, from 0 to 9. Both are read-only.

        Raises:
            DataError: If a file cannot be mapped, such as one that was deleted after it was verified.
        """
        shape = (self.count, self.image_size, self.image_size)
        try:
            images = np.memmap(self.images, np.uint8, "r", idx.IMAGES_OFFSET, shape)
            labels = np.memmap(self.labels, np.uint8, "r", idx.LABELS_OFFSET, (self.count,))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.name}: {error}; run the command again to restore the files") from None
        return images, labels


def training_images(section: Data) -> ImageSet:
    """Return the training images of an experiment, downloaded and resized if necessary, and verified.

    Raises:
        ConfigError: If the data set is unknown, and ``section`` names no folder with its files.
        DataError: If a file is damaged, or no source has it.
        DiskError: If the cache cannot be written.
    """
    dataset = find_dataset(section)
    return image_set(section, dataset, dataset.train)


def image_set(section: Data, dataset: Dataset, part: Part) -> ImageSet:
    """Return the images of one part of a data set; files of the other part are not opened.

    Args:
        section: Section ``[data]`` of the experiment; its folder and image size are used.
        dataset: Data set that ``section`` names.
        part: Training or test part of ``dataset``.

    Raises:
        DataError: If a file is damaged, or no source has it.
        DiskError: If the cache cannot be written.
    """
    images, labels = obtain(dataset, part, user_folder(section))
    count, size = images.shape[:2]
    path = images.path if size == section.resize else _resized(dataset, images, section.resize)
    digest = hashlib.sha256(f"{images.sha256} {labels.sha256} {section.resize}".encode()).hexdigest()[:32]
    return ImageSet(dataset.name, path, labels.path, count, section.resize, digest)


def _resized(dataset: Dataset, images: CachedFile, size: int) -> Path:
    """Return the IDX file of the images at another size, which is created in the cache at first use."""
    cache = Cache(dataset.name)
    stem = images.path.name.removesuffix("-idx3-ubyte")
    # The name contains the checksum of the original, so that different originals have different files.
    name = f"{stem}-{size}-{images.sha256[:12]}-idx3-ubyte"
    shape = (images.shape[0], size, size)
    try:
        if cache.verified(IdxFile(name, 3, shape, cache.pinned().get(name))):
            return cache.folder / name
    except DataError as error:
        say(f"warning: {error}; resizing the images again")
    with cache.lock(), step(f"resizing the images of {dataset.name} to {size}x{size}"):
        digest = hashlib.sha256()
        with cache.replacing(name) as sink:
            for piece in (idx.header(shape), *_resized_bytes(images, size)):
                sink.write(piece)
                digest.update(piece)
        cache.pin({name: digest.hexdigest()})
    return cache.folder / name


def _resized_bytes(images: CachedFile, size: int) -> Iterator[bytes]:
    """Yield the images in chunks, resized as ``torchvision.transforms.Resize`` resizes PIL images."""
    import torch
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    original = np.memmap(images.path, np.uint8, "r", idx.IMAGES_OFFSET, images.shape)
    for start in range(0, len(original), _RESIZE_CHUNK):
        chunk = torch.from_numpy(np.array(original[start : start + _RESIZE_CHUNK]))  # (n, rows, columns)
        yield resize(chunk, [size, size], InterpolationMode.BILINEAR, antialias=True).numpy().tobytes()

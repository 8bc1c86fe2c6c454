"""The data sets: the training images, verified and mapped into memory, and how they are divided.

The test images are behind `lenet_exp.data.testset`; nothing here touches their files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lenet_exp.base.errors import ConfigError, DataError
from lenet_exp.base.messages import say
from lenet_exp.base.seeding import derive_seed
from lenet_exp.data import idx
from lenet_exp.data.cache import Cache
from lenet_exp.data.idx import IdxFile
from lenet_exp.data.sources import Dataset, Found, Part, obtain

#: Images resized at a time, which bounds the memory it takes.
_RESIZE_CHUNK = 2048


def _part(
    prefix: str, count: int | None = None, images: str | None = None, labels: str | None = None
) -> Part:
    """Return what the two files of a part must be: their number of 28x28 images, and their SHA-256."""
    return Part(
        IdxFile(f"{prefix}-images-idx3-ubyte", 3, (count, 28, 28) if count else None, images),
        IdxFile(f"{prefix}-labels-idx1-ubyte", 1, (count,) if count else None, labels),
    )


def _torchvision_mirrors(name: str) -> Callable[[], Sequence[str]]:
    """Return what gives the mirrors that torchvision knows for its data set ``name``."""

    def mirrors() -> Sequence[str]:
        import torchvision.datasets  # costs seconds, and only a download needs it

        found: Sequence[str] = getattr(torchvision.datasets, name).mirrors
        return found

    return mirrors


def _torchvision_md5s(name: str) -> Callable[[], Mapping[str, str]]:
    """Return what gives the MD5 that torchvision knows for each packed file of its data set ``name``."""

    def md5s() -> Mapping[str, str]:
        import torchvision.datasets

        return dict(getattr(torchvision.datasets, name).resources)

    return md5s


#: The data sets that are known by the SHA-256 of their files, or by the MD5 of what mirrors have.
DATASETS = {
    "fashion-mnist": Dataset(
        name="fashion-mnist",
        train=_part(
            "train",
            60_000,
            images="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            labels="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        test=_part(
            "t10k",
            10_000,
            images="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            labels="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        mirrors=_torchvision_mirrors("FashionMNIST"),
        subfolder="FashionMNIST/raw",
        debian_package="dataset-fashion-mnist",
    ),
    "mnist": Dataset(
        name="mnist",
        train=_part(
            "train",
            60_000,
            images="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            labels="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        test=_part(
            "t10k",
            10_000,
            images="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            labels="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        classes=tuple("0123456789"),
        mirrors=_torchvision_mirrors("MNIST"),
        subfolder="MNIST/raw",
    ),
    "kmnist": Dataset(
        name="kmnist",
        train=_part("train", 60_000),
        test=_part("t10k", 10_000),
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        mirrors=_torchvision_mirrors("KMNIST"),
        md5s=_torchvision_md5s("KMNIST"),
        subfolder="KMNIST/raw",
    ),
}


@dataclass(frozen=True)
class ImageSet:
    """Where images and their labels lie: cheap to send to another process, which opens them itself.

    Attributes:
        name: Of the data set.
        images: An IDX file of ``(count, image_size, image_size)`` bytes.
        labels: An IDX file of ``(count,)`` bytes.
        count: How many images there are.
        image_size: Their side, in pixels.
        digest: Of the original images, the labels and the size; 32 hexadecimal digits.
    """

    name: str
    images: Path
    labels: Path
    count: int
    image_size: int
    digest: str

    def open(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Map the files into memory, shared by all who do.

        Returns:
            The images, ``(count, image_size, image_size)``, 0 black to 255 white, and the labels,
            ``(count,)``, 0 to 9. Both are read-only.

        Raises:
            DataError: If the files have gone since they were verified.
        """
        shape = (self.count, self.image_size, self.image_size)
        try:
            images = np.memmap(self.images, np.uint8, "r", idx.IMAGES_OFFSET, shape)
            labels = np.memmap(self.labels, np.uint8, "r", idx.LABELS_OFFSET, (self.count,))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.name}: {error}; run the command again to have the files back") from None
        return images, labels


def prepare(name: str, *, folder: Path | None = None, resize: int = 28) -> ImageSet:
    """Find, verify and unpack the training images of a data set, resized if need be.

    Args:
        name: A data set of `DATASETS`, or any other name for the files in ``folder``, whose checksums
            are pinned at their first use.
        folder: Where the files lie; looked in before any download.
        resize: Side of the images, in pixels.

    Raises:
        ConfigError: If the name is not known, and no folder says where the files are.
        DataError: If a file is damaged, or is nowhere to be had.
        DiskError: If the cache cannot be written.
    """
    dataset = find_dataset(name, folder)
    return image_set(dataset, dataset.train, folder, resize)


def find_dataset(name: str, folder: Path | None) -> Dataset:
    """Return the data set called ``name``: one of `DATASETS`, or else the user's own.

    Raises:
        ConfigError: If it is neither.
    """
    if name in DATASETS:
        return DATASETS[name]
    if folder is None and not Cache(name).pinned():
        raise ConfigError(
            f"unknown data set {name!r}; known are {', '.join(DATASETS)};"
            " your own needs its folder: --set data.folder=..."
        )
    return Dataset(name, train=_part("train"), test=_part("t10k"), classes=tuple("0123456789"))


def image_set(dataset: Dataset, part: Part, folder: Path | None, resize: int) -> ImageSet:
    """Return the images of ``part``, one of the data set's; no file of another part is touched.

    Raises:
        DataError, DiskError: As `prepare`.
    """
    images, labels = obtain(dataset, part, folder)
    count, size = images.shape[:2]
    path = images.path if size == resize else _resized(dataset, images, resize)
    digest = hashlib.sha256(f"{images.sha256} {labels.sha256} {resize}".encode()).hexdigest()[:32]
    return ImageSet(dataset.name, path, labels.path, count, resize, digest)


def _resized(dataset: Dataset, images: Found, size: int) -> Path:
    """Return an IDX file of the images at another size, made once and kept in the cache."""
    cache = Cache(dataset.name)
    stem = images.path.name.removesuffix("-idx3-ubyte")
    # The original's checksum in the name keeps images of other content apart.
    name = f"{stem}-{size}-{images.sha256[:12]}-idx3-ubyte"
    shape = (images.shape[0], size, size)
    try:
        if cache.verified(IdxFile(name, 3, shape, cache.pinned().get(name))):
            return cache.folder / name
    except DataError as error:
        say(f"warning: {error}; resizing the images anew")
    with cache.lock():
        digest = hashlib.sha256()
        with cache.replacing(name) as sink:
            for piece in (idx.header(shape), *_resized_bytes(images, size)):
                sink.write(piece)
                digest.update(piece)
        cache.pin({name: digest.hexdigest()})
    return cache.folder / name


def _resized_bytes(images: Found, size: int) -> Iterator[bytes]:
    """Give the images resized as ``torchvision.transforms.Resize`` does before ``ToTensor``, in chunks."""
    import torch
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    original = np.memmap(images.path, np.uint8, "r", idx.IMAGES_OFFSET, images.shape)
    for start in range(0, len(original), _RESIZE_CHUNK):
        chunk = torch.from_numpy(np.array(original[start : start + _RESIZE_CHUNK]))  # (n, rows, columns)
        yield resize(chunk, [size, size], InterpolationMode.BILINEAR, antialias=True).numpy().tobytes()


@dataclass(frozen=True, eq=False)
class Split:
    """How the training images are divided.

    Attributes:
        train: ``(n,)`` int64, ascending: the images to train on.
        validation: ``(m,)`` int64, ascending: the images to choose by.
        digest: SHA-256 of both, in this order; 64 hexadecimal digits.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    digest: str

    def joined(self) -> Split:
        """Return the division in which all of these images are trained on, and none are left to choose by."""
        both = np.sort(np.concatenate([self.train, self.validation]))
        return Split(both, self.validation[:0], self.digest)


def validation_split(
    labels: NDArray[np.integer], validation: int, seed: int, limit: int | None = None
) -> Split:
    """Divide the images at random, every class with its share on either side.

    The validation images do not depend on ``limit``, and a smaller limit takes some of a larger one's images.

    Args:
        labels: ``(count,)``, the images' classes.
        validation: How many images to keep for validation.
        seed: Of the division; any integer.
        limit: How many of the others to train on; None is all of them.

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

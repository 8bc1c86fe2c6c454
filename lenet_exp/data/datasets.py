"""The known data sets: the properties of their files, and the sources to obtain them from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_exp.base.errors import ConfigError
from lenet_exp.data.cache import Cache
from lenet_exp.data.idx import IdxFile
from lenet_exp.data.sources import Dataset, Part

if TYPE_CHECKING:
    # A worker loads this module too, and has no experiment.
    from lenet_exp.config.experiment import Data


def _part(
    prefix: str, count: int | None = None, images: str | None = None, labels: str | None = None
) -> Part:
    """Return the properties of a part's two files; those that are None are not checked.

    Args:
        prefix: Start of the files' names.
        count: Number of images, of 28x28 pixels each.
        images: SHA-256 of the file of images.
        labels: SHA-256 of the file of labels.
    """
    return Part(
        IdxFile(f"{prefix}-images-idx3-ubyte", 3, (count, 28, 28) if count else None, images),
        IdxFile(f"{prefix}-labels-idx1-ubyte", 1, (count,) if count else None, labels),
    )


def _torchvision(name: str, attribute: str) -> Any:
    """Return an attribute of the class ``name`` in `torchvision.datasets`: its mirrors, or its files' MD5."""
    import torchvision.datasets  # imported here, as it takes seconds and only downloads need it

    return getattr(getattr(torchvision.datasets, name), attribute)


#: The built-in data sets, verified by the SHA-256 of their files or the MD5 of the gzipped ones on mirrors.
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
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        mirrors=lambda: _torchvision("FashionMNIST", "mirrors"),
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
        mirrors=lambda: _torchvision("MNIST", "mirrors"),
        subfolder="MNIST/raw",
    ),
    "kmnist": Dataset(
        name="kmnist",
        train=_part("train", 60_000),
        test=_part("t10k", 10_000),
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        mirrors=lambda: _torchvision("KMNIST", "mirrors"),
        md5s=lambda: dict(_torchvision("KMNIST", "resources")),
        subfolder="KMNIST/raw",
    ),
}


def user_folder(section: Data) -> Path | None:
    """Return ``data.folder``, the user's folder with IDX files, or None if the experiment names none."""
    return Path(section.folder).expanduser() if section.folder else None


def find_dataset(section: Data) -> Dataset:
    """Return the data set that an experiment names: one of `DATASETS`, or the user's own.

    Raises:
        ConfigError: If the name is unknown, and ``section`` names no folder with its files.
    """
    name = section.dataset
    if name in DATASETS:
        return DATASETS[name]
    if not section.folder and not Cache(name).pinned():
        raise ConfigError(
            f"unknown data set {name!r}; known are {', '.join(DATASETS)};"
            " for your own, name its folder with --set data.folder=..."
        )
    return Dataset(name, train=_part("train"), test=_part("t10k"), classes=tuple("0123456789"))

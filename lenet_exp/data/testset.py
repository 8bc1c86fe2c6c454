"""The test images: found, verified and opened here and nowhere else, and for two purposes only.

The confirmation reads them once its finalists are frozen. A fixed list of runs may show them after each
epoch: such a list chooses nothing, so nothing can be chosen by what it shows. A search or an ablation that
asks for them is refused when its file is read (`lenet_exp.config.experiment`), and here once more.
"""

from __future__ import annotations

from lenet_exp.base.errors import ConfigError
from lenet_exp.config.experiment import Data, Experiment
from lenet_exp.data.datasets import find_dataset, user_folder
from lenet_exp.data.images import ImageSet, image_set
from lenet_exp.data.sources import obtain, within_reach


def read_test_split(section: Data) -> ImageSet:
    """Return the test images of an experiment: found, verified, unpacked, and resized if need be.

    Raises:
        ConfigError: If the data set is not known, and no folder says where its files are.
        DataError: If a file is damaged, or is nowhere to be had.
        DiskError: If the cache cannot be written.
    """
    dataset = find_dataset(section)
    return image_set(section, dataset, dataset.test)


def ensure_available(section: Data) -> None:
    """Make sure that the test images can be read later, even if the network is gone by then.

    Files that are here are not opened. Others are fetched into the cache, and looked at only as far as
    verifying them on their way takes.

    Raises:
        ConfigError: If the data set is not known, and no folder says where its files are.
        DataError: If they are nowhere to be had.
        DiskError: If the cache cannot be written.
    """
    dataset, folder = find_dataset(section), user_folder(section)
    if not within_reach(dataset, dataset.test, folder):
        obtain(dataset, dataset.test, folder)


def shown_test_images(experiment: Experiment) -> ImageSet | None:
    """Return the test images if the experiment shows them after each epoch, else None and open nothing.

    Raises:
        ConfigError: If the experiment chooses among configurations.
        DataError: If the images are missing or damaged.
    """
    if not experiment.watch.test_split:
        return None
    if experiment.space or experiment.ablate:
        raise ConfigError("watch.test_split: only a list of [[run]] may show the test split")
    return read_test_split(experiment.data)

"""The test images: opened here and nowhere else, and for two purposes only.

The confirmation opens them after its finalists are chosen. A list of runs may be evaluated on them after each
epoch: it chooses nothing, so no choice can depend on them. A search or an ablation that asks for this is
rejected when its file is read (`lenet_exp.config.experiment`), and once more here.
"""

from __future__ import annotations

from lenet_exp.base.errors import ConfigError
from lenet_exp.config.experiment import Data, Experiment
from lenet_exp.data.datasets import find_dataset, user_folder
from lenet_exp.data.images import ImageSet, image_set
from lenet_exp.data.sources import obtain, within_reach


def read_test_split(section: Data) -> ImageSet:
    """Return the test images of an experiment, downloaded and resized if necessary, and verified.

    Raises:
        ConfigError: If the data set is unknown, and ``section`` names no folder with its files.
        DataError: If a file is damaged, or no source has it.
        DiskError: If the cache cannot be written.
    """
    dataset = find_dataset(section)
    return image_set(section, dataset, dataset.test)


def ensure_available(section: Data) -> None:
    """Make sure that the test images can be read later without a network.

    Files that are on this machine are not opened. Others are downloaded into the cache and verified.

    Raises:
        ConfigError: If the data set is unknown, and ``section`` names no folder with its files.
        DataError: If no source has a file.
        DiskError: If the cache cannot be written.
    """
    dataset, folder = find_dataset(section), user_folder(section)
    if not within_reach(dataset, dataset.test, folder):
        obtain(dataset, dataset.test, folder)


def shown_test_images(experiment: Experiment) -> ImageSet | None:
    """Return the test images for an experiment with ``watch.test_split``; for others, None, unopened.

    Raises:
        ConfigError: If the experiment is a search or an ablation, which chooses among configurations.
        DataError: If a file is damaged, or no source has it.
        DiskError: If the cache cannot be written.
    """
    if not experiment.watch.test_split:
        return None
    if experiment.space or experiment.ablate:
        raise ConfigError("watch.test_split: only a list of [[run]] may measure the test split")
    return read_test_split(experiment.data)

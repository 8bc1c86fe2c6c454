"""The one way, besides the confirmation, to the test images: a fixed list of runs shows them.

Such a list chooses nothing, so nothing can be chosen by what it shows. A search or an ablation is refused
when its file is read (`lenet_exp.config.experiment`), and here once more.
"""

from __future__ import annotations

from pathlib import Path

from lenet_exp.base.errors import ConfigError
from lenet_exp.config.experiment import Experiment
from lenet_exp.data.datasets import ImageSet
from lenet_exp.data.testset import read_test_split


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
    chosen = experiment.data
    folder = Path(chosen.folder).expanduser() if chosen.folder else None
    return read_test_split(chosen.dataset, folder=folder, resize=chosen.resize)

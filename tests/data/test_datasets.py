from __future__ import annotations

import re
from pathlib import Path

import pytest

from lenet_exp.base.errors import ConfigError
from lenet_exp.data.datasets import DATASETS, find_dataset
from tests.labs.sections import section


@pytest.mark.parametrize("name", ["fashion_mnist", "qmnist", "emnist-digits"])
def test_an_unknown_name_is_refused(data_cache: Path, name: str) -> None:
    """A name that is neither known nor has a folder is refused, with those that are known."""
    known = "known are fashion-mnist, mnist, kmnist; for your own, name its folder with --set data.folder="

    with pytest.raises(ConfigError, match=f"unknown data set '{name}'; {known}"):
        find_dataset(section(name))


def test_the_table_names_what_torchvision_knows() -> None:
    """Every data set of the table has ten classes and mirrors that torchvision gives."""
    for name, dataset in DATASETS.items():
        assert find_dataset(section(name)) is dataset
        assert len(dataset.classes) == 10
        assert all(mirror.startswith("http") for mirror in dataset.mirrors())


def test_torchvision_knows_kmnist_s_files() -> None:
    """Each of the four has the MD5 by which it is taken."""
    kmnist = DATASETS["kmnist"]
    assert kmnist.md5s

    md5s = kmnist.md5s()

    for want in (*kmnist.train, *kmnist.test):
        assert re.fullmatch("[0-9a-f]{32}", md5s[f"{want.name}.gz"])

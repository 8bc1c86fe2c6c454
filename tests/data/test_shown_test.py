from pathlib import Path
from typing import Any

import pytest

from lenet_exp.base.errors import ConfigError
from lenet_exp.config.experiment import Experiment, Watch
from lenet_exp.config.loader import parse
from lenet_exp.data.shown_test import shown_test_images
from tests.data.test_datasets import opened_by


def experiment(folder: Path, **parts: Any) -> Experiment:
    return parse({"name": "e", "data": {"dataset": "mini", "folder": str(folder)}, **parts})


def test_a_list_that_asks_for_them_gets_the_test_images(data_cache: Path, mini_folder: Path) -> None:
    """They are the data set's own, at the size that is trained on."""
    images = shown_test_images(experiment(mini_folder, run=[{"lr": 0.1}], watch={"test_split": True}))

    assert images is not None
    assert images.count == 200


def test_what_does_not_ask_opens_nothing(data_cache: Path, mini_folder: Path) -> None:
    """Not one of the test files is touched."""
    table = {"name": "e", "data": {"dataset": "mini", "folder": str(mini_folder)}, "run": [{"lr": 0.1}]}

    opened = opened_by(
        "from lenet_exp.config import loader; from lenet_exp.data import shown_test;"
        f"assert shown_test.shown_test_images(loader.parse({table!r})) is None"
    )

    assert opened
    assert not [path for path in opened if "t10k" in path]


@pytest.mark.parametrize("kind", [{"space": {"lr": [0.1, 0.2]}}, {"ablate": {"lr": [0.1]}}])
def test_whatever_chooses_is_refused_even_if_its_file_was_not(
    data_cache: Path, mini_folder: Path, kind: dict[str, Any]
) -> None:
    """The rule is held where the images are opened, too."""
    slipped = experiment(mini_folder, **kind).model_copy(update={"watch": Watch(test_split=True)})

    with pytest.raises(ConfigError, match=r"only a list of \[\[run\]\] may show the test split"):
        shown_test_images(slipped)

from pathlib import Path

import pytest

from lenet_exp.base.errors import ConfigError
from lenet_exp.config.loader import load


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "e.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_flags_are_stronger_than_set_and_set_is_stronger_than_the_file(tmp_path: Path) -> None:
    """The order of strength is flags, --set, file, defaults."""
    path = written(tmp_path, 'name = "x"\n[search]\ntrials = 1\nseed = 1\nmin_epochs = 2\n')

    search = load(
        path,
        ["search.trials=2", "search.seed=2", "search.sampler=random"],
        {"search.trials": 3, "search.seed": None},
    ).search

    assert (search.trials, search.seed, search.min_epochs, search.sampler) == (3, 2, 2, "random")
    assert search.pruner == "hyperband"


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """Editors that begin files with a mark are no mistake of the user's."""
    assert load(written(tmp_path, b"\xef\xbb\xbfname = 'a'")).name == "a"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """A gigabyte named by mistake costs nothing."""
    path = tmp_path / "e.toml"
    with path.open("wb") as file:
        file.truncate(10**9)

    with pytest.raises(ConfigError, match="at most 1,000,000 bytes"):
        load(path)


@pytest.mark.parametrize(
    ("what", "message"), [("missing.toml", "no such experiment file"), (".", "is a folder")]
)
def test_a_path_that_is_no_file_is_refused(tmp_path: Path, what: str, message: str) -> None:
    """What was named is said."""
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / what)


@pytest.mark.parametrize(
    "override", ["trials", "search.trials=-1", "search=3", "search.trials.x=1", "name.x=1"]
)
def test_a_set_that_cannot_be_is_refused(tmp_path: Path, override: str) -> None:
    """--set is checked like the file."""
    path = written(tmp_path, 'name = "a"\n[search]\ntrials = 1')

    with pytest.raises(ConfigError, match=r"--set|search"):
        load(path, [override])

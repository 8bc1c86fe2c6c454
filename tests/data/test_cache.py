from __future__ import annotations

import io
from pathlib import Path

import pytest

from lenet_exp.base.errors import ConfigError, DataError, DiskError
from lenet_exp.data.cache import Cache, root
from lenet_exp.data.idx import IdxFile, header

LABELS = IdxFile("labels", 1)
GOOD = header((2,)) + b"\1\2"


def test_the_environment_names_the_cache(data_cache: Path) -> None:
    """LENET_EXP_DATA is where the data sets are kept."""
    assert root() == data_cache


def test_the_users_cache_folder_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without LENET_EXP_DATA the data sets are kept in the user's cache folder."""
    monkeypatch.delenv("LENET_EXP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))

    assert root().name == "lenet_exp"
    assert root().is_relative_to(tmp_path)


@pytest.mark.parametrize(
    "name", ["", "..", "../etc", "/etc", "a/b", "a b", "Fashion", "-a", "a\0", "a\n", "a" * 101]
)
def test_a_name_that_is_no_folders_is_refused(name: str) -> None:
    """A data set's name cannot lead out of the cache, nor mean different folders on different systems."""
    with pytest.raises(ConfigError, match="the name of a data set must be 1 to 100 lower-case letters"):
        Cache(name)


def test_a_refused_file_leaves_the_good_one(data_cache: Path) -> None:
    """A bad file never replaces a good one, and leaves nothing behind."""
    cache = Cache("set")
    with cache.lock():
        cache.store(io.BytesIO(GOOD), LABELS, "good")

        with pytest.raises(DataError, match="bad: is 9 bytes long"):
            cache.store(io.BytesIO(GOOD[:9]), LABELS, "bad")

    assert {path.name for path in cache.folder.iterdir()} == {"labels", "lock"}
    assert (cache.folder / "labels").read_bytes() == GOOD


def test_a_file_set_aside_is_kept(data_cache: Path) -> None:
    """A file that is set aside can still be looked at."""
    cache = Cache("set")
    with cache.lock():
        cache.store(io.BytesIO(GOOD), LABELS, "good")

        aside = cache.set_aside("labels")

    assert aside.name == "labels.bad"
    assert aside.read_bytes() == GOOD
    assert not (cache.folder / "labels").exists()


def test_pins_add_up(data_cache: Path) -> None:
    """A pin stays when others are added."""
    cache = Cache("set")
    with cache.lock():
        cache.pin({"a": "1"})
        cache.pin({"b": "2"})

    assert Cache("set").pinned() == {"a": "1", "b": "2"}


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_damaged_pins_are_told(data_cache: Path, text: str) -> None:
    """A list of checksums that cannot be read is named, with what to do."""
    cache = Cache("set")
    cache.folder.mkdir(parents=True)
    cache.pins.write_text(text)

    with pytest.raises(DataError, match=r"checksums\.json: .*delete it"):
        cache.pinned()


def test_a_cache_that_cannot_be_written_is_a_disk_error(data_cache: Path) -> None:
    """A cache that cannot be made or written is told with its folder and what to do."""
    data_cache.write_text("a file, where the folder should be")

    with (
        pytest.raises(DiskError, match=r"data-cache/set cannot be written: .*set LENET_EXP_DATA"),
        Cache("set").lock(),
    ):
        pass

import errno
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lenet_exp.base.errors import ConfigError, DiskError, LockedError, StoreError
from lenet_exp.base.files import (
    disk_error,
    lock,
    lock_holder,
    move_aside,
    read_file,
    writable_folder,
    write_atomically,
)

HOLD = """
import sys
from pathlib import Path
from lenet_exp.base.files import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """The new content is there, and nothing else is left beside it."""
    path = tmp_path / "a.csv"
    path.write_text("old")

    write_atomically(path, b"new")

    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    """An error in writing keeps what was there and says where and what to do."""
    path = tmp_path / "a.csv"
    path.write_text("old")
    (tmp_path / "a.csv.part").mkdir()  # stands in the way, also of root

    with pytest.raises(StoreError, match=r"a\.csv\.part is a folder where a file belongs"):
        write_atomically(path, b"new")

    assert path.read_text() == "old"


def test_a_full_disk_and_a_forbidden_folder_are_told_apart() -> None:
    """Each says what to do about it."""
    full = disk_error(Path("x"), OSError(errno.ENOSPC, "no"))
    forbidden = disk_error(Path("x"), OSError(errno.EROFS, "no"))

    assert "make room" in str(full)
    assert "--root" in str(forbidden)


def test_a_folder_below_a_file_is_no_folder_to_write_in(tmp_path: Path) -> None:
    """The folder is tried before the work begins."""
    (tmp_path / "file").write_text("")

    with pytest.raises(DiskError, match="cannot be written"):
        writable_folder(tmp_path / "file" / "below")


def test_a_lock_is_held_by_one_process_and_says_by_which(tmp_path: Path) -> None:
    """The second is refused with the first one's pid, host and command; a killed holder holds nothing."""
    path, script = tmp_path / ".lock", tmp_path / "hold.py"
    script.write_text(HOLD)
    with subprocess.Popen(
        [sys.executable, str(script), str(path), "http://ann:s3cret@host"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        with pytest.raises(LockedError, match=f"in use by pid {holder.pid} since") as refused, lock(path):
            pass
        assert f"on host {platform.node()}, command: python" in str(refused.value)
        assert "http://***@host" in str(refused.value)
        assert str(lock_holder(path)) in str(refused.value)

        holder.kill()
    assert lock_holder(path) is None
    with lock(path):
        pass
    assert lock_holder(tmp_path / "none") is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "x"}', "\0\0"])
def test_a_lock_whose_holder_is_not_written_down_is_a_lock(tmp_path: Path, content: str) -> None:
    """It is the kernel's word that counts, whatever the file says."""
    path = tmp_path / ".lock"
    with lock(path):
        path.write_text(content)

        with pytest.raises(LockedError, match="in use by an unknown process"), lock(path):
            pass


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


PLACES: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a socket": bind,
    "a link": lambda path: path.symlink_to("target"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_what_is_no_file_is_neither_read_nor_written_nor_waited_for(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is named, and the target of a link stays as it is."""
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    target, path = Path("target"), Path("path")
    target.write_text("precious")
    PLACES[kind](path)

    for use in (read_file, lock_holder, lambda path: lock(path).__enter__()):
        with pytest.raises((StoreError, ConfigError), match=f"path is {kind}"):
            use(path)
    if kind != "a link":  # which is replaced
        with pytest.raises(StoreError, match=f"path is {kind} where a file belongs"):
            write_atomically(path, b"new")
    assert target.read_text() == "precious"


@pytest.mark.parametrize("kind", ["a FIFO", "a socket", "a link"])
def test_what_somebody_put_in_the_place_of_a_part_is_deleted(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link's target stays as it is."""
    monkeypatch.chdir(tmp_path)
    Path("target").write_text("precious")
    PLACES[kind](Path("a.csv.part"))

    write_atomically(Path("a.csv"), b"new")

    assert Path("a.csv").read_bytes() == b"new"
    assert Path("target").read_text() == "precious"


def test_a_lock_whose_file_is_removed_is_noticed(tmp_path: Path) -> None:
    """Another sweep could begin, so this one is told."""
    path = tmp_path / ".lock"
    with lock(path) as ensure_held:
        ensure_held()
        path.unlink()

        with pytest.raises(LockedError, match="was removed or replaced"):
            ensure_held()


def test_a_lock_is_not_written_into_a_file_with_another_name(tmp_path: Path) -> None:
    """It may be somebody else's file."""
    (tmp_path / "theirs").write_text("precious")
    (tmp_path / ".lock").hardlink_to(tmp_path / "theirs")

    with lock(tmp_path / ".lock"):
        assert (tmp_path / "theirs").read_text() == "precious"


def test_of_two_files_put_aside_within_a_second_both_stay(tmp_path: Path) -> None:
    """Neither replaces the other."""
    for content in ("a", "b"):
        (tmp_path / "x").write_text(content)
        move_aside(tmp_path / "x")

    assert sorted(file.read_text() for file in tmp_path.iterdir()) == ["a", "b"]

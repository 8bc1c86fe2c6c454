import errno
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from lenet_exp.base.errors import DiskError, LockedError, StoreError
from lenet_exp.base.files import disk_error, lock, lock_holder, writable_folder, write_atomically

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

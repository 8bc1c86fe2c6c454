import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lenet_exp.base import failpoints
from lenet_exp.base.errors import DiskError
from lenet_exp.base.records import EpochResult
from lenet_exp.execution import checkpoint
from lenet_exp.execution.checkpoint import Checkpoint


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm(None)


def history(epochs: int) -> tuple[EpochResult, ...]:
    return tuple(EpochResult(n, 0.1 + n, float("inf"), 1 / 3, 0.5, 1e4, n / 7) for n in range(1, epochs + 1))


def save(folder: Path, epochs: int) -> None:
    for epoch in range(1, epochs + 1):
        checkpoint.save(folder, history(epoch), bytes([epoch]) * 1000)


def test_the_newest_checkpoint_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    """State and history, infinities among its numbers, are as they were."""
    save(tmp_path / "t", 3)

    assert checkpoint.newest(tmp_path / "t") == Checkpoint(history(3), bytes([3]) * 1000)


def test_two_are_kept(tmp_path: Path) -> None:
    """However long a training is, it takes the room of two."""
    save(tmp_path, 5)

    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == [f"epoch-0000{n}.{ending}" for n in (4, 5) for ending in ("json", "state")]


@pytest.mark.parametrize("ending", ["state", "json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, ending: str, damage: str
) -> None:
    """Cut short, one bit wrong, empty or gone: it is noticed, and costs one epoch."""
    save(tmp_path, 3)
    file = tmp_path / f"epoch-00003.{ending}"
    content = bytearray(file.read_bytes())
    if damage == "cut":
        content = content[:-1]
    elif damage == "flip":
        content[len(content) // 2] ^= 1
    elif damage == "empty":
        content.clear()
    file.unlink() if damage == "gone" else file.write_bytes(content)

    found = checkpoint.newest(tmp_path)

    assert found == Checkpoint(history(2), bytes([2]) * 1000)


def test_without_a_whole_checkpoint_a_training_begins_anew(tmp_path: Path) -> None:
    """Nothing is worth less than something damaged."""
    save(tmp_path, 2)
    for file in tmp_path.glob("*.state"):
        os.truncate(file, 10)

    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "nowhere") is None


def test_a_full_disk_leaves_the_old_ones_and_nothing_half_written(tmp_path: Path) -> None:
    """What is raised names the disk; what was there can be gone on from."""
    save(tmp_path, 2)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    failpoints.arm("checkpoint:enospc")

    with pytest.raises(DiskError, match=r"epoch-00003\.state: no space left") as error:
        checkpoint.save(tmp_path, history(3), b"3")

    assert isinstance(error.value.__cause__, OSError)
    assert error.value.__cause__.errno == errno.ENOSPC
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_what_is_discarded_is_gone_but_for_the_weights(tmp_path: Path) -> None:
    """Also what a crash left half written; an empty folder goes too."""
    save(tmp_path / "a", 2)
    (tmp_path / "a" / ".epoch-00003.state.part").touch()
    save(tmp_path / "b", 2)
    (tmp_path / "b" / "weights.safetensors").touch()

    for name in ("a", "b", "nowhere"):
        checkpoint.discard(tmp_path / name)

    assert [str(file.relative_to(tmp_path)) for file in sorted(tmp_path.rglob("*"))] == [
        "b",
        "b/weights.safetensors",
    ]

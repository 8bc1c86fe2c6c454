"""Checkpoints: the state of a training after an epoch, on disk, from which a cut-off attempt is resumed.

The newest two are kept. Beside each lies a file with its size, the epochs that led to it, and the SHA-256 of
both. A checkpoint that differs from what its file says is ignored, and the one before it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lenet_exp.base import failpoints
from lenet_exp.base.files import disk_error, sync_file
from lenet_exp.base.records import EpochResult

#: Version of the format; a checkpoint of another one is ignored.
_FORMAT = 1
_KEPT = 2
_STATE, _METADATA = ".state", ".json"


@dataclass(frozen=True)
class Checkpoint:
    """A training after one of its epochs.

    Attributes:
        history: Results of its epochs so far, at least one.
        state: All that the trainer needs to go on from there; loading it runs no code.
    """

    history: tuple[EpochResult, ...]
    state: bytes


def save(folder: Path, history: Sequence[EpochResult], state: bytes) -> None:
    """Write a checkpoint, and delete all but the newest two.

    Args:
        folder: Folder of the training, which is created if it does not exist.
        history: Results of the epochs so far, at least one; the last epoch names the files.
        state: State after the last epoch, as the trainer's ``snapshot`` returned it.

    Raises:
        DiskError: If it cannot be written; older checkpoints are left as they are.
    """
    stem = f"epoch-{history[-1].epoch:05d}"
    epochs = [result.to_dict() for result in history]
    digest = _digest(epochs, state)
    metadata = {"format": _FORMAT, "size_bytes": len(state), "sha256": digest, "history": epochs}
    parts = {folder / f".{stem}{_STATE}.part": state, folder / f".{stem}{_METADATA}.part": _json(metadata)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part, content in parts.items():
            _write(part, content)
        failpoints.point("checkpoint")
        for part in parts:
            part.replace(folder / part.name.removeprefix(".").removesuffix(".part"))
        sync_file(folder)
    except OSError as error:
        for part in parts:
            part.unlink(missing_ok=True)
        raise disk_error(folder / f"{stem}{_STATE}", error) from error
    for old in _stems(folder)[_KEPT:]:
        # The metadata last, as a state without it would never be found and deleted.
        (folder / f"{old}{_STATE}").unlink(missing_ok=True)
        (folder / f"{old}{_METADATA}").unlink(missing_ok=True)


def newest(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint that is not damaged; None if there is none."""
    for stem in _stems(folder):
        try:
            metadata = json.loads((folder / f"{stem}{_METADATA}").read_bytes())
            state = (folder / f"{stem}{_STATE}").read_bytes()
            is_whole = metadata["format"] == _FORMAT and metadata["size_bytes"] == len(state)
            if is_whole and metadata["sha256"] == _digest(metadata["history"], state):
                return Checkpoint(tuple(EpochResult(**result) for result in metadata["history"]), state)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it is cut short or damaged; the one before it may not be
    return None


def discard(folder: Path) -> None:
    """Delete a training's checkpoints, and their folder unless it contains something else."""
    if not folder.is_dir():
        return
    for file in [*folder.glob("epoch-*"), *folder.glob(".epoch-*")]:
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the folder contains the weights
        folder.rmdir()


def _stems(folder: Path) -> list[str]:
    """Return the names of the checkpoints, newest first."""
    return sorted((file.stem for file in folder.glob(f"epoch-*{_METADATA}")), reverse=True)


def _digest(epochs: list[dict[str, Any]], state: bytes) -> str:
    """Return a SHA-256 that changes with any damage to the state or the history."""
    return hashlib.sha256(_json(epochs) + state).hexdigest()


def _json(values: object) -> bytes:
    # Python writes and reads infinities and NaN, and every float to its last bit.
    return json.dumps(values, separators=(",", ":")).encode()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

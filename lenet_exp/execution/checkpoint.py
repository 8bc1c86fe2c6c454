"""Checkpoints: the state of a training after an epoch, on disk, so that a cut-off attempt goes on from there.

Two are kept. Beside each lies a file with its size, the epochs that led to it, and the SHA-256 of both; a
checkpoint that is not what that file says is passed over for the one before it.
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

#: A checkpoint of another format is as good as none.
_FORMAT = 1
_KEPT = 2
_STATE, _METADATA = ".state", ".json"


@dataclass(frozen=True)
class Checkpoint:
    """A training after one of its epochs.

    Attributes:
        history: The results of its epochs so far, at least one.
        state: What the trainer needs to go on from here; nothing that could run code.
    """

    history: tuple[EpochResult, ...]
    state: bytes


def save(folder: Path, history: Sequence[EpochResult], state: bytes) -> None:
    """Write a checkpoint, and delete all but the newest two.

    Args:
        folder: Of the training, made if need be.
        history: As in `Checkpoint`; the last epoch names the files.
        state: Likewise.

    Raises:
        DiskError: If it cannot be written; those that were there are as before.
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
        # The metadata last: without it nobody would look for the state again.
        (folder / f"{old}{_STATE}").unlink(missing_ok=True)
        (folder / f"{old}{_METADATA}").unlink(missing_ok=True)


def newest(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint that is whole; None if there is none."""
    for stem in _stems(folder):
        try:
            metadata = json.loads((folder / f"{stem}{_METADATA}").read_bytes())
            state = (folder / f"{stem}{_STATE}").read_bytes()
            whole = metadata["format"] == _FORMAT and metadata["size_bytes"] == len(state)
            if whole and metadata["sha256"] == _digest(metadata["history"], state):
                return Checkpoint(tuple(EpochResult(**result) for result in metadata["history"]), state)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # cut short or damaged, which is what the one before it is for
    return None


def discard(folder: Path) -> None:
    """Delete the training's checkpoints, and the folder unless there is something else in it."""
    if not folder.is_dir():
        return
    for file in [*folder.glob("epoch-*"), *folder.glob(".epoch-*")]:
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the weights are in it
        folder.rmdir()


def _stems(folder: Path) -> list[str]:
    """Return the names of the checkpoints, newest first."""
    return sorted((file.stem for file in folder.glob(f"epoch-*{_METADATA}")), reverse=True)


def _digest(epochs: list[dict[str, Any]], state: bytes) -> str:
    """Return what tells a checkpoint from one that was damaged, in its state or in its history."""
    return hashlib.sha256(_json(epochs) + state).hexdigest()


def _json(values: object) -> bytes:
    # Python writes and reads infinities and NaN, and every float to its last bit.
    return json.dumps(values, separators=(",", ":")).encode()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

"""Checkpoints: the state of a training after an epoch, on disk, from which its next attempt resumes.

The newest two of a training stay. Beside each state is a JSON file with its size, the results of its epochs,
and a SHA-256 of state and results. A state that does not match its JSON file is ignored, and the checkpoint
before it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lenet_exp.base import failpoints
from lenet_exp.base.errors import LenetExpError
from lenet_exp.base.files import disk_error, own_folder, read_file, sync_file, write_new
from lenet_exp.base.records import EpochResult

#: Version of the format; a checkpoint of another version is ignored.
_FORMAT = 1
_KEPT = 2
_STATE, _METADATA = ".state", ".json"


@dataclass(frozen=True)
class Checkpoint:
    """A training as it was after one of its epochs.

    Attributes:
        history: Results of the epochs so far, at least one.
        state: All that the trainer needs to continue, from its ``snapshot``; loading it runs no code.
    """

    history: tuple[EpochResult, ...]
    state: bytes


def save(folder: Path, history: Sequence[EpochResult], state: bytes) -> None:
    """Write a checkpoint, and delete all but the newest two.

    Args:
        folder: Folder of the training, which is created if it does not exist.
        history: Results of the epochs so far, at least one; the files are named after the last epoch.
        state: State after the last epoch, as the trainer's ``snapshot`` returned it.

    Raises:
        DiskError: If the checkpoint cannot be written; older checkpoints are left as they are.
        StoreError: If a folder is in the place of a file.
        ConfigError: If the folder is a link that leads out of the folder above it.
    """
    stem = f"epoch-{history[-1].epoch:05d}"
    epochs = [result.to_dict() for result in history]
    digest = _digest(epochs, state)
    metadata = {"format": _FORMAT, "size_bytes": len(state), "sha256": digest, "history": epochs}
    parts = {folder / f".{stem}{_STATE}.part": state, folder / f".{stem}{_METADATA}.part": _json(metadata)}
    own_folder(folder)
    try:
        for part, content in parts.items():
            write_new(part, content)
        failpoints.point("checkpoint")
        for part in parts:
            part.replace(folder / part.name.removeprefix(".").removesuffix(".part"))
        sync_file(folder)
    except OSError as error:
        for part in parts:
            _delete(part)
        raise disk_error(folder / f"{stem}{_STATE}", error) from error
    for old in _stems(folder)[_KEPT:]:
        # The metadata last, as a state without it would never be found and deleted.
        _delete(folder / f"{old}{_STATE}")
        _delete(folder / f"{old}{_METADATA}")


def newest(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint in ``folder`` that is not damaged, or None if there is none."""
    for stem in _stems(folder):
        try:
            metadata = json.loads(read_file(folder / f"{stem}{_METADATA}"))
            state = read_file(folder / f"{stem}{_STATE}")
            is_whole = metadata["format"] == _FORMAT and metadata["size_bytes"] == len(state)
            if is_whole and metadata["sha256"] == _digest(metadata["history"], state):
                return Checkpoint(tuple(EpochResult(**result) for result in metadata["history"]), state)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, LenetExpError):
            continue  # cut short, damaged or no file at all; the checkpoint before it may be whole
    return None


def discard(folder: Path) -> None:
    """Delete the checkpoints of the training in ``folder``, and the folder unless something else is in it."""
    if not folder.is_dir() or folder.is_symlink():
        return
    for file in [*folder.glob("epoch-*"), *folder.glob(".epoch-*")]:
        _delete(file)
    with contextlib.suppress(OSError):  # the folder contains the weights
        folder.rmdir()


def _delete(file: Path) -> None:
    with contextlib.suppress(OSError):  # a folder in its place stays; it is not ours
        file.unlink(missing_ok=True)


def _stems(folder: Path) -> list[str]:
    """Return the names of the checkpoints without their suffixes, newest first."""
    return sorted((file.stem for file in folder.glob(f"epoch-*{_METADATA}")), reverse=True)


def _digest(epochs: list[dict[str, Any]], state: bytes) -> str:
    """Return a SHA-256 that changes with any damage to the state or the history."""
    return hashlib.sha256(_json(epochs) + state).hexdigest()


def _json(values: object) -> bytes:
    # Python's JSON keeps infinities and NaN, and every float to its last bit.
    return json.dumps(values, separators=(",", ":")).encode()

"""Files that are written whole or not at all, and the lock that keeps a second sweep away."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lenet_exp import faults
from lenet_exp.errors import DiskError, LockedError


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path`` and rename it there, so that a reader sees old or new.

    Raises:
        DiskError: If the disk is full or the folder cannot be written; ``path`` is as before.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.suffix == ".csv":
            faults.point("in_csv")
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise disk_error(path, error) from error


def sync_file(path: Path) -> None:
    """See to the disk what another library wrote to ``path``."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def writable_folder(folder: Path) -> Path:
    """Return ``folder``, created if need be, after a file was written in it.

    Raises:
        DiskError: If that is not possible.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0")
        probe.unlink()
    except OSError as error:
        raise disk_error(folder, error) from None
    return folder


def disk_error(path: Path, error: OSError) -> DiskError:
    """Return the error to raise when ``path`` could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(f"{path}: no space left on its disk; make room and run the same command again")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return DiskError(f"{path}: cannot be written: {reason}; choose another folder with --root")


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold ``path`` for one process; the kernel lets go when the process ends, however it ends.

    Raises:
        LockedError: If another process holds it, with who it is.
    """
    file = path.open("a+")
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                f"{path.parent} is held by another sweep: {_holder(path)}; wait for it"
            ) from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}))
        file.flush()
        yield
    finally:
        file.close()


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"pid {int(holder['pid'])} since {str(holder['since'])[:19]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "an unknown process"

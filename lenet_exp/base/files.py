"""Files that are written completely or not at all, and the lock that keeps a second sweep away."""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lenet_exp.base import failpoints
from lenet_exp.base.errors import DiskError, LockedError, mask_url


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see either the old content or all of the new content.

    Args:
        path: File to replace or create, in a folder that exists.
        content: All bytes of the new file.

    Raises:
        DiskError: If the disk is full or the folder cannot be written; ``path`` is unchanged.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.suffix == ".csv":
            failpoints.point("in_csv")
        part.replace(path)
        sync_file(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise disk_error(path, error) from error


def sync_file(path: Path) -> None:
    """Flush the content of a file, or the entries of a folder, to the disk, to survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def writable_folder(folder: Path) -> Path:
    """Create ``folder`` if need be, check that a file can be written in it, and return it.

    Raises:
        DiskError: If it cannot be created or written to.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0")
        probe.unlink()
    except OSError as error:
        raise disk_error(folder, error) from None
    return folder


def move_aside(path: Path) -> Path:
    """Rename what is damaged, with ``-wal`` and ``-shm`` of a SQLite file, so that it can be examined later.

    Returns:
        The new path, which ends in ``.damaged-`` and the time.

    Raises:
        DiskError: If a file cannot be renamed.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"{path.name}.damaged-{stamp}"
    taken = len(list(path.parent.glob(f"{glob.escape(name)}*")))  # by another of the same second
    target = path.with_name(f"{name}-{taken}" if taken else name)
    try:
        for ending in ("-wal", "-shm", ""):
            source = path.with_name(path.name + ending)
            if os.path.lexists(source):
                source.rename(target.with_name(target.name + ending))
    except OSError as error:
        raise disk_error(path, error) from error
    return target


def disk_error(path: Path, error: OSError) -> DiskError:
    """Return the `DiskError` to raise when ``path`` could not be written; it says what to do about it.

    Args:
        path: File or folder that could not be written.
        error: Error that the operating system reported.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(f"{path}: no space left on its disk; make room and run the same command again")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return DiskError(f"{path}: cannot be written: {reason}; choose another folder with --root")


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Context manager: hold a lock on the file ``path``, which is released even if the process is killed.

    Raises:
        LockedError: If another process holds the lock; the message describes that process.
        DiskError: If the file cannot be written.
    """
    try:
        file = path.open("a+")
    except OSError as error:
        raise disk_error(path, error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                f"{path.parent} is in use by {_holder(path)}; wait until it ends, or stop it"
            ) from None
        file.truncate(0)
        file.write(json.dumps(_this_process()))
        file.flush()
        yield


def lock_holder(path: Path) -> str | None:
    """Return a description of the process that holds the lock on ``path``, or None if no process does."""
    try:
        with path.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(path)
    except OSError:
        return None
    return None


def _this_process() -> dict[str, object]:
    command = " ".join([Path(sys.executable).name, *sys.orig_argv[1:]])
    return {
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "host": platform.node(),
        "command": mask_url(command)[:200],
    }


def _holder(path: Path) -> str:
    try:
        holder = {name: str(value) for name, value in json.loads(path.read_text()).items()}
        return (
            f"pid {int(holder['pid'])} since {holder['since'][:19]} on host {holder['host'][:100]}, "
            f"command: {holder['command'][:200]}"
        )
    except (OSError, ValueError, KeyError, AttributeError):
        return "an unknown process"

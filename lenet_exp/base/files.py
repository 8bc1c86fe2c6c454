"""Files that are opened only if they are files, written whole or not at all; the lock of an experiment.

Anybody may have prepared the folder that we write in. So no link is followed where a file belongs, and
nothing is opened that could block.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lenet_exp.base import failpoints
from lenet_exp.base.errors import ConfigError, DiskError, LenetExpError, LockedError, StoreError, mask_url

#: Endings of the files that SQLite keeps beside a database.
_SQLITE = ("", "-wal", "-shm", "-journal")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFREG: "a file",
}


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file and return its descriptor; a link is not followed, and a FIFO does not block.

    Args:
        path: File to open.
        flags: Flags of `os.open`, such as ``O_WRONLY | O_CREAT | O_APPEND``.

    Raises:
        ConfigError: If a link is in its place.
        StoreError: If a folder, FIFO, socket or device is in its place, or a file in that of its folder.
        OSError: If it cannot be opened; `FileNotFoundError` if there is nothing in its place.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        raise
    except OSError:
        check_file(path)
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        check_file(path)
    return descriptor


def read_file(path: Path) -> bytes:
    """Return the content of a regular file; the errors are those of `open_file`."""
    with os.fdopen(open_file(path), "rb") as file:
        return file.read()


def check_file(path: Path) -> None:
    """Check that nothing but a regular file is at ``path``; there may be nothing.

    Raises:
        ConfigError: If it is a link.
        StoreError: If it is a folder, a FIFO, a socket or a device, or its folder is a file.
    """
    try:
        mode = path.lstat().st_mode
    except NotADirectoryError:
        raise StoreError(f"{_parent(path)}; move it away") from None
    except OSError:  # there is nothing, or it is told when it is opened
        return
    if stat.S_ISLNK(mode):
        raise ConfigError(f"{path} is a link, to {path.readlink()}; put the file itself in its place")
    if not stat.S_ISREG(mode):
        raise StoreError(f"{path} is {_kind(mode)} where a file belongs; move it away")


def check_database(path: Path) -> None:
    """Check that a SQLite file and those beside it are regular files, if they exist; see `check_file`."""
    for ending in _SQLITE:
        check_file(path.with_name(path.name + ending))


def refuse_second_name(path: Path) -> None:
    """Check that a SQLite file and those beside it have no second name, as SQLite changes them in place.

    Raises:
        ConfigError: If one has: a hard link, as some backups are.
    """
    for ending in _SQLITE:
        file = path.with_name(path.name + ending)
        if file.exists() and file.stat().st_nlink > 1:
            raise ConfigError(
                f"{file} has a second name (a hard link), whose content would change too; copy it"
            )


def check_folder(path: Path, root: Path) -> None:
    """Check that nothing but a folder is at ``path``, and that no link leads from there out of the root.

    Args:
        path: Folder, which need not exist.
        root: Folder that contains it; it may itself be a link.

    Raises:
        ConfigError: If a link leads out of ``root``, or to no folder.
        StoreError: If something else is in its place.
    """
    refuse_link_out(path, root)
    if path.is_symlink() and not path.is_dir():
        raise ConfigError(f"{path} is a link, to {path.readlink()}, which is no folder; remove it")
    try:
        mode = path.stat().st_mode
    except NotADirectoryError:
        raise StoreError(f"{_parent(path)}; move it away") from None
    except OSError:
        return
    if not stat.S_ISDIR(mode):
        raise StoreError(f"{path} is {_kind(mode)} where a folder belongs; move it away")


def refuse_link_out(path: Path, root: Path) -> None:
    """Check that a path does not lead out of the root when all links are followed.

    Args:
        path: Path to check; it need not exist.
        root: Folder that it must be in; it may itself be a link.

    Raises:
        ConfigError: If it is not.
    """
    # `Path.resolve` raises an error for a link to itself.
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise ConfigError(
            f"{path} is a link that leads out of {root}; remove it, or make {root} itself a link"
        )


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def _parent(path: Path) -> str:
    """Return what is wrong with a folder above ``path`` that is no folder."""
    parent = next((p for p in path.parents if os.path.lexists(p) and not p.is_dir()), path.parent)
    return f"{parent} is {_kind(parent.lstat().st_mode)} where a folder belongs"


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file so that readers see either the old content or all of the new content.

    Args:
        path: File to replace or create, in a folder that exists.
        content: All bytes of the new file.
        durable: True to return when it is on the disk; False if a power cut may undo it.

    Raises:
        DiskError: If the disk is full or the folder cannot be written; ``path`` is unchanged.
        StoreError: If something else than a file is in its place.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        write_new(part, content, durable=durable)
        if path.suffix == ".csv":
            failpoints.point("in_csv")
        if not path.is_symlink():  # a link is replaced; what it leads to stays as it is
            check_file(path)
        part.replace(path)
        if durable:
            sync_file(path.parent)
    except (OSError, LenetExpError) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, LenetExpError):
            raise
        raise disk_error(path, error) from error


def write_new(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Create a file; what an earlier process left in its place is deleted.

    Args:
        path: File to create, in a folder that exists. A link in its place is deleted, not followed.
        content: All bytes of the file.
        durable: True to return when it is on the disk; False if a power cut may undo it.

    Raises:
        StoreError: If a folder is in its place.
        OSError: If it cannot be written; a part of it may then be left.
    """
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
    check_file(path)
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(open_file(path, new), "wb") as file:
        file.write(content)
        file.flush()
        if durable:
            os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Flush the content of a file, or the entries of a folder, to the disk, to survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> Path:
    """Create ``folder`` if need be, with the folders above it, and return it.

    Raises:
        DiskError: If it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DiskError(
            f"{folder}: cannot be written: {_parent(folder / 'file')}; choose another folder with --root"
        ) from None
    except OSError as error:
        raise disk_error(folder, error) from None
    return folder


def own_folder(folder: Path) -> Path:
    """Create ``folder`` if need be, and return it; what is in its place and no folder is moved aside.

    Raises:
        DiskError: If it cannot be created.
        ConfigError: If it is a link that leads out of the folder above it.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        move_aside(folder)
    make_folder(folder)
    refuse_link_out(folder, folder.parent)
    return folder


def writable_folder(folder: Path) -> Path:
    """Create ``folder`` if need be, check that a file can be written in it, and return it.

    Raises:
        DiskError: If it cannot be created or written to.
    """
    make_folder(folder)
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0")
    except OSError as error:
        raise disk_error(folder, error) from None
    return folder


def move_aside(path: Path) -> Path:
    """Rename what is damaged, with SQLite's files beside it, so that it can be examined later.

    Returns:
        The new path, which ends in ``.damaged-`` and the time.

    Raises:
        DiskError: If a file cannot be renamed.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    target, n = path.with_name(f"{path.name}.damaged-{stamp}"), 1
    while os.path.lexists(target):  # a second one within a second
        target, n = path.with_name(f"{path.name}.damaged-{stamp}-{n}"), n + 1
    try:
        for ending in reversed(_SQLITE):
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
def lock(path: Path) -> Iterator[Callable[[], None]]:
    """Context manager: hold a lock on the file ``path``, which is released even if the process is killed.

    Yields:
        A function that raises LockedError once the file is gone or another one, so that the lock protects
        nothing any more.

    Raises:
        LockedError: If another process holds the lock; the message describes that process.
        DiskError: If the file cannot be written.
        ConfigError: If a link is in its place.
        StoreError: If something else than a file is in its place.
    """
    try:
        file = os.fdopen(open_file(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "a+")
    except OSError as error:
        raise disk_error(path, error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                f"{path.parent} is in use by {_holder(path)}; wait until it ends, or stop it"
            ) from None
        ours = os.fstat(file.fileno())
        if ours.st_nlink == 1:  # what has another name may be somebody else's file
            file.truncate(0)
            file.write(json.dumps(_this_process()))
            file.flush()

        def ensure_held() -> None:
            try:
                is_held = os.path.samestat(path.lstat(), ours)
            except OSError:
                is_held = False
            if not is_held:
                raise LockedError(
                    f"{path} was removed or replaced, so that another sweep could begin; stopped;"
                    " run the same command again to go on"
                )

        yield ensure_held


def lock_holder(path: Path) -> str | None:
    """Return a description of the process that holds the lock on ``path``, or None if no process does.

    Raises:
        ConfigError: If a link is in its place.
        StoreError: If something else than a file is in its place.
    """
    try:
        with os.fdopen(open_file(path)) as file:
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
        holder = {name: str(value) for name, value in json.loads(read_file(path)).items()}
        return (
            f"pid {int(holder['pid'])} since {holder['since'][:19]} on host {holder['host'][:100]}, "
            f"command: {holder['command'][:200]}"
        )
    except (OSError, ValueError, KeyError, AttributeError, LenetExpError):
        return "an unknown process"

"""The cache of data sets: a folder for each, whose files are written completely or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lenet_exp.base.errors import ConfigError, DataError, DiskError
from lenet_exp.base.files import sync_file
from lenet_exp.base.messages import say
from lenet_exp.data import idx

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")


def root() -> Path:
    """Return the folder with the caches of all data sets: ``LENET_EXP_DATA``, or the user's cache folder."""
    if folder := os.environ.get("LENET_EXP_DATA"):
        return Path(folder).expanduser().absolute()
    # Imported here: the process of an attempt imports this module, but does not look for the folder.
    import platformdirs

    return platformdirs.user_cache_path("lenet_exp")


class Cache:
    """The folder of one data set in the cache.

    Hold its `lock` to change it. Reading needs no lock, because each file is verified when it is read.
    """

    def __init__(self, name: str) -> None:
        """Set the folder for the data set called ``name``, without creating it.

        Raises:
            ConfigError: If ``name`` is not a valid folder name on every system.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                "the name of a data set must be 1 to 100 lower-case letters, digits, '-' or '_', a letter or"
                f" digit first, found {name[:60]!r}"
            )
        self.name = name
        self.folder = root() / name

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Context manager: turn an `OSError` in its block into a `DiskError` that names the folder."""
        try:
            yield
        except OSError as error:
            raise DiskError(
                f"the data cache {self.folder} cannot be written: {error.strerror or error};"
                " make room, or set LENET_EXP_DATA to another folder"
            ) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Context manager: wait for the folder's lock and hold it; the folder is created if necessary."""
        with self.writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = (self.folder / "lock").open("a")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting: another process is preparing the data set {self.name}")
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def verified(self, expected: idx.IdxFile) -> idx.Content | None:
        """Verify a file in the cache and return its content, or None if it is missing or its SHA-256 unknown.

        Raises:
            DataError: If the file is damaged.
        """
        path = self.folder / expected.name
        if expected.sha256 is None or not path.exists():
            return None
        with idx.opened(path) as stream:
            return idx.verify(stream, expected, str(path))

    def store(self, stream: idx.Readable, expected: idx.IdxFile, shown: str) -> idx.Content:
        """Verify a file while copying it into the cache, and return its content.

        Args:
            stream: Bytes of the file, unpacked.
            expected: Properties that the file must have, and its name in the cache.
            shown: Name of the file for messages.

        Raises:
            DataError: If the file does not have these properties; an older file in the cache is unchanged.
        """
        with self.replacing(expected.name) as sink:
            return idx.verify(stream, expected, shown, sink)

    @contextmanager
    def replacing(self, name: str) -> Iterator[IO[bytes]]:
        """Context manager: yield a file to write to, which replaces the file ``name`` if all goes well."""
        target = self.folder / name
        part = target.with_name(f"{name}.part")
        with self.writing():
            try:
                with part.open("wb") as sink:
                    yield sink
                    sink.flush()
                    os.fsync(sink.fileno())
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
            sync_file(self.folder)

    def set_aside(self, name: str) -> Path:
        """Rename a damaged file to end in ``.bad``, so that it can be examined, and return its new path."""
        path = self.folder / name
        with self.writing():
            return path.replace(path.with_name(f"{name.removesuffix('.part')}.bad"))

    @property
    def pins(self) -> Path:
        """The JSON file with the SHA-256 of the files that were pinned at first use."""
        return self.folder / "checksums.json"

    def pinned(self) -> dict[str, str]:
        """Return the SHA-256 of each pinned file, by the file's name.

        Raises:
            DataError: If the file `pins` is damaged.
        """
        try:
            pins = json.loads(self.pins.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise DataError(f"{self.pins}: cannot be read: {error}; repair it, or delete it") from None
        if not isinstance(pins, dict):
            raise DataError(
                f"{self.pins}: must be a JSON object with checksums, found a {type(pins).__name__}; delete it"
            )
        return {str(name): str(sha256) for name, sha256 in pins.items()}

    def pin(self, sums: Mapping[str, str]) -> None:
        """Record the SHA-256 of files, by the files' names; from now on the files must have it."""
        text = json.dumps(self.pinned() | dict(sums), indent=2, sort_keys=True)
        with self.replacing(self.pins.name) as sink:
            sink.write(f"{text}\n".encode())

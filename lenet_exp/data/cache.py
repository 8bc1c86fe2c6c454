"""The cache of data sets: a folder for each, whose files appear whole or not at all."""

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
    """Return the folder of all data sets: ``LENET_EXP_DATA``, or one in the user's cache folder."""
    if folder := os.environ.get("LENET_EXP_DATA"):
        return Path(folder).expanduser().absolute()
    # An attempt's process loads this module and looks for no folder.
    import platformdirs

    return platformdirs.user_cache_path("lenet_exp")


class Cache:
    """The folder of one data set in the cache.

    Whoever changes it holds its `lock`. Readers hold none: they verify the files that they read.
    """

    def __init__(self, name: str) -> None:
        """Choose the folder of the data set called ``name``, without creating it.

        Raises:
            ConfigError: If ``name`` cannot be a folder's name on every system.
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
        """Turn an `OSError` of the block into a `DiskError` that names the folder."""
        try:
            yield
        except OSError as error:
            raise DiskError(
                f"the data cache {self.folder} cannot be written: {error.strerror or error};"
                " make room, or set LENET_EXP_DATA to another folder"
            ) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from changing the folder, which is created if need be."""
        with self.writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = (self.folder / "lock").open("a")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another process that prepares the data set {self.name}")
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def verified(self, expected: idx.IdxFile) -> idx.Content | None:
        """Return the content of a cached file, or None if it is missing or has no known checksum.

        Raises:
            DataError: If the file is damaged.
        """
        path = self.folder / expected.name
        if expected.sha256 is None or not path.exists():
            return None
        with idx.opened(path) as stream:
            return idx.verify(stream, expected, str(path))

    def store(self, stream: idx.Readable, expected: idx.IdxFile, shown: str) -> idx.Content:
        """Verify a file, copy it into the cache, and return its content.

        Args:
            stream: Bytes of the file, unpacked.
            expected: Properties that the file must have, its name in the cache among them.
            shown: Name of the file in messages.

        Raises:
            DataError: If it has other properties; a file of this name in the cache stays.
        """
        with self.replacing(expected.name) as sink:
            return idx.verify(stream, expected, shown, sink)

    @contextmanager
    def replacing(self, name: str) -> Iterator[IO[bytes]]:
        """Yield a file to write to, which replaces the file ``name`` when the block ends without an error."""
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
        """Rename the file ``name`` to end in ``.bad``, so that it can be examined; return its new path."""
        path = self.folder / name
        with self.writing():
            return path.replace(path.with_name(f"{name.removesuffix('.part')}.bad"))

    @property
    def pins(self) -> Path:
        """The file with the checksums of the files that were pinned at first use."""
        return self.folder / "checksums.json"

    def pinned(self) -> dict[str, str]:
        """Return the SHA-256 of each pinned file, by the file's name.

        Raises:
            DataError: If the file of checksums is damaged.
        """
        try:
            pins = json.loads(self.pins.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise DataError(f"{self.pins}: cannot be read: {error}; repair it, or delete it") from None
        if not isinstance(pins, dict):
            raise DataError(
                f"{self.pins}: must hold a table of checksums, found a {type(pins).__name__}; delete it"
            )
        return {str(name): str(sha256) for name, sha256 in pins.items()}

    def pin(self, sums: Mapping[str, str]) -> None:
        """Pin the SHA-256 ``sums``, by the files' names: from now on the files must have them."""
        text = json.dumps(self.pinned() | dict(sums), indent=2, sort_keys=True)
        with self.replacing(self.pins.name) as sink:
            sink.write(f"{text}\n".encode())

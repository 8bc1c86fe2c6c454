"""The cache of data sets: one folder each, whose files appear whole or not at all."""

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
    if named := os.environ.get("LENET_EXP_DATA"):
        return Path(named).expanduser().absolute()
    # An attempt's process loads this module and looks for no folder.
    import platformdirs

    return platformdirs.user_cache_path("lenet_exp")


class Cache:
    """The folder of one data set.

    Whoever changes it holds its lock. Evaluation needs none: files are verified as they are read.
    """

    def __init__(self, name: str) -> None:
        """Name the folder; nothing is made yet.

        Raises:
            ConfigError: If ``name`` is not fit for a folder's name everywhere.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                "the name of a data set is 1 to 100 lower-case letters, digits, '-' or '_', a letter or digit"
                f" first, found {name[:60]!r}"
            )
        self.name = name
        self.folder = root() / name

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn the system's errors into a `DiskError` that names the folder."""
        try:
            yield
        except OSError as error:
            raise DiskError(
                f"the data cache {self.folder} cannot be written: {error.strerror or error};"
                " make room, or set LENET_EXP_DATA to another folder"
            ) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder against other processes; it is made if need be."""
        with self.writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = (self.folder / "lock").open("a")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another process that prepares {self.name}")
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def verified(self, want: idx.IdxFile) -> idx.Content | None:
        """Return what a cached file holds; None if it is not there, or no checksum of it is known.

        Raises:
            DataError: If the file is damaged.
        """
        path = self.folder / want.name
        if want.sha256 is None or not path.exists():
            return None
        with idx.opened(path) as stream:
            return idx.verify(stream, want, str(path))

    def store(self, stream: idx.Readable, want: idx.IdxFile, shown: str) -> idx.Content:
        """Copy a file into the cache if it is what is wanted, and return what it holds.

        Args:
            stream: The bytes of the file, unpacked.
            want: The file that they must be, and its name in the cache.
            shown: The file's name in messages.

        Raises:
            DataError: If it is not what is wanted; what the cache held before stays.
        """
        with self.replacing(want.name) as sink:
            return idx.verify(stream, want, shown, sink)

    @contextmanager
    def replacing(self, name: str) -> Iterator[IO[bytes]]:
        """Give a handle to write to; when the block ends without an error, the file ``name`` is replaced."""
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
        """Rename the file ``name`` to end in ``.bad``, so that it can be looked at, and return it."""
        path = self.folder / name
        with self.writing():
            return path.replace(path.with_name(f"{name.removesuffix('.part')}.bad"))

    @property
    def pins(self) -> Path:
        """The file that keeps the checksums of the files that were pinned at first use."""
        return self.folder / "checksums.json"

    def pinned(self) -> dict[str, str]:
        """Return the SHA-256 of each pinned file, by the file's name.

        Raises:
            DataError: If the file of the pins is damaged.
        """
        try:
            pins = json.loads(self.pins.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise DataError(f"{self.pins}: cannot be read: {error}; delete it, or mend it") from None
        if not isinstance(pins, dict):
            raise DataError(
                f"{self.pins}: must hold a table of checksums, found a {type(pins).__name__}; delete it"
            )
        return {str(name): str(sha256) for name, sha256 in pins.items()}

    def pin(self, sums: Mapping[str, str]) -> None:
        """Add to the pins the SHA-256 that files must have from now on, by the files' names."""
        text = json.dumps(self.pinned() | dict(sums), indent=2, sort_keys=True)
        with self.replacing(self.pins.name) as sink:
            sink.write(f"{text}\n".encode())

"""Data sets whose publishers pack or write their files otherwise: what they call them, and how ours are made.

The MD5 of the packed file, which torchvision knows, says that it is the publisher's; the files that are made
of it are pinned by their SHA-256 at first use, as a user's own are.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lenet_exp.base.errors import DataError
from lenet_exp.data import idx
from lenet_exp.data.idx import Readable

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Archive:
    """What a mirror has.

    Attributes:
        urls: Where it is; tried in order.
        md5: Of its bytes.
        most_bytes: No copy is larger.
    """

    urls: tuple[str, ...]
    md5: str
    most_bytes: int = 100_000_000


@dataclass(frozen=True)
class Published:
    """How one of our files is published.

    Attributes:
        name: As the publisher calls it, unpacked.
        member: Its gzipped name in a zip archive; None if it is gzipped on its own.
        convert: Makes of its bytes those of an IDX file of images or labels. What is not of the
            publisher's format is passed on as it is, to be refused by `idx.verify`.
    """

    name: str
    member: str | None = None
    convert: Callable[[Readable], Readable] = lambda stream: stream

    @property
    def archive(self) -> str:
        """The file's name on a mirror."""
        return "gzip.zip" if self.member else f"{self.name}.gz"


def check(path: Path, md5: str, shown: str) -> None:
    """Make sure that a downloaded archive is the publisher's.

    Raises:
        DataError: If it is not.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise DataError(f"{shown}: its MD5 is {found}, expected {md5}")


@contextmanager
def opened(path: Path, published: Published) -> Iterator[Readable]:
    """Give the bytes of our file, from an archive or from the published file, gzipped or plain.

    Raises:
        DataError: If an archive is damaged, or has no such file.
    """
    if published.member is None or path.suffix != ".zip":
        with idx.opened(path) as stream:
            yield published.convert(stream)
        return
    try:
        with zipfile.ZipFile(path) as archive, archive.open(published.member) as member:
            yield published.convert(gzip.GzipFile(fileobj=member))
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{path}: is a damaged archive: {error}") from None


class _Chunks:
    """What an iterator of bytes gives, to be read like a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def read(self, size: int, /) -> bytes:
        """Return the next ``size`` bytes, or fewer where they end."""
        while len(self._left) < size and (chunk := next(self._chunks, b"")):
            self._left += chunk
        given, self._left = self._left[:size], self._left[size:]
        return given


def qmnist_labels(stream: Readable) -> Readable:
    """Make labels of QMNIST's, of which each has eight big-endian integers, the class first.

    Source: Yadav and Bottou, "Cold case: the lost MNIST digits", arXiv:1905.10498, and its README.
    """

    def chunks() -> Iterator[bytes]:
        head = _read(stream, 12)
        if head[:4] != b"\0\0\x0c\x02" or len(head) < 12 or struct.unpack(">I", head[8:])[0] != 8:
            yield head
            yield from _rest(stream)
            return
        yield idx.header((struct.unpack(">I", head[4:8])[0],))
        for rows in _whole(stream, 32):
            classes = np.frombuffer(rows, ">i4").reshape(-1, 8)[:, 0]
            # A class that no byte holds must not turn into one that is right.
            yield np.where((classes >= 0) & (classes < 255), classes, 255).astype(np.uint8).tobytes()

    return _Chunks(chunks())


def upright(stream: Readable) -> Readable:
    """Turn EMNIST's images, whose rows and columns are exchanged, the way MNIST's are.

    Source: Cohen et al., "EMNIST: an extension of MNIST to handwritten letters", arXiv:1702.05373.
    """

    def chunks() -> Iterator[bytes]:
        head = _read(stream, idx.IMAGES_OFFSET)
        yield head
        rows, columns = struct.unpack(">2I", head[8:]) if len(head) == idx.IMAGES_OFFSET else (0, 0)
        if not 0 < rows == columns < 1000:
            yield from _rest(stream)
            return
        for images in _whole(stream, rows * columns):
            turned = np.frombuffer(images, np.uint8).reshape(-1, rows, columns).transpose(0, 2, 1)
            yield turned.tobytes()

    return _Chunks(chunks())


def _read(stream: Readable, size: int) -> bytes:
    """Return ``size`` bytes, or fewer where they end; one call of ``read`` may give less before that."""
    found = b""
    while len(found) < size and (chunk := stream.read(size - len(found))):
        found += chunk
    return found


def _rest(stream: Readable) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk


def _whole(stream: Readable, size: int) -> Iterator[bytes]:
    """Give the bytes in chunks of whole pieces of ``size``; half a piece at the end is left out."""
    while chunk := _read(stream, max(1, _CHUNK_BYTES // size) * size):
        yield chunk[: len(chunk) // size * size]
        if len(chunk) % size:
            return

"""The IDX format of MNIST's files: header, size, labels and checksum are checked while a file is read.

An IDX file of bytes starts with two zero bytes, 0x08 for unsigned bytes, and the number of dimensions. The
length of each dimension follows (big-endian, 32 bits), then the values in row-major order.

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", section "File formats".
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from lenet_exp.base.errors import DataError

#: Number of bytes before the values of a file: the length of its header.
IMAGES_OFFSET = 16
LABELS_OFFSET = 8

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class IdxFile:
    """The properties that a file must have to be accepted by `verify`.

    Attributes:
        name: Name of the unpacked file.
        dimensions: Number of dimensions: 3 for images, ``(count, rows, columns)``; 1 for labels.
        shape: Shape that the header must give; None to accept any.
        sha256: SHA-256 of the unpacked file, in hexadecimal digits; None if it is unknown.
        classes: Number of classes; every label must be below it.
    """

    name: str
    dimensions: int
    shape: tuple[int, ...] | None = None
    sha256: str | None = None
    classes: int = 10


class Readable(Protocol):
    """A source of bytes: a file, or a stream that unpacks one."""

    def read(self, size: int, /) -> bytes:
        """Return the next ``size`` bytes, or what remains if that is less."""
        ...


@dataclass(frozen=True)
class Content:
    """The shape and the checksum of a file that `verify` has accepted.

    Attributes:
        shape: Shape that the header gives.
        sha256: SHA-256 of all bytes, in hexadecimal digits.
    """

    shape: tuple[int, ...]
    sha256: str


def header(shape: tuple[int, ...]) -> bytes:
    """Return the header of an IDX file that holds bytes of this ``shape``.

    Example:
        >>> header((2,)).hex()
        '0000080100000002'
    """
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)


@contextmanager
def opened(path: Path) -> Iterator[Readable]:
    """Context manager: open a file for `verify`, unpacking it while it is read if its name ends in ``.gz``.

    Raises:
        DataError: If the file cannot be opened.
    """
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(gzip.GzipFile(path) if path.suffix == ".gz" else path.open("rb"))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        yield stream


def verify(stream: Readable, expected: IdxFile, shown: str, sink: IO[bytes] | None = None) -> Content:
    """Read a file to its end, check that it is the expected one, and return its shape and checksum.

    Header, size and labels are checked before the checksum, because their messages say more.

    Args:
        stream: Bytes of the file, unpacked.
        expected: Properties that the file must have.
        shown: Name of the file for messages.
        sink: File to copy the bytes to; None to copy nothing. If an error is raised, discard the copy.

    Raises:
        DataError: If the file does not have these properties, or cannot be read. The message says what is
            wrong; the caller adds what is done about it.
    """
    head = _read(stream, 4 + 4 * expected.dimensions, shown)
    shape = _shape(head, expected, shown)
    promised = len(head) + math.prod(shape)
    digest, size, highest = hashlib.sha256(), 0, 0
    chunk = head
    while chunk:
        size += len(chunk)
        if size > promised:
            raise DataError(f"{shown}: is longer than the {promised:,} bytes that its header promises")
        if sink is not None:
            sink.write(chunk)
        digest.update(chunk)
        chunk = _read(stream, _CHUNK_BYTES, shown)
        if expected.dimensions == 1:
            highest = max(max(chunk, default=0), highest)
    if size < promised:
        raise DataError(f"{shown}: is {size:,} bytes long, but its header promises {promised:,}")
    if highest >= expected.classes:
        raise DataError(f"{shown}: holds the label {highest}; labels must be 0 to {expected.classes - 1}")
    if expected.sha256 not in (None, digest.hexdigest()):
        raise DataError(f"{shown}: its SHA-256 is {digest.hexdigest()}, expected {expected.sha256}")
    return Content(shape, digest.hexdigest())


def _shape(head: bytes, expected: IdxFile, shown: str) -> tuple[int, ...]:
    """Check the header of a file, and return the shape that it gives."""
    kind = "images" if expected.dimensions == 3 else "labels"
    magic = bytes([0, 0, 8, expected.dimensions])
    if head[:4] != magic:
        raise DataError(
            f"{shown}: begins with 0x{head[:4].hex()}; an IDX file of {kind} begins with 0x{magic.hex()}"
        )
    if len(head) < 4 + 4 * expected.dimensions:
        raise DataError(f"{shown}: is {len(head)} bytes long, too short for the header of an IDX file")
    shape = struct.unpack(f">{expected.dimensions}I", head[4:])
    if expected.shape not in (None, shape):
        raise DataError(
            f"{shown}: its header says {_lengths(shape)}, expected {_lengths(expected.shape or ())}"
        )
    if expected.dimensions == 3 and shape[1] != shape[2]:
        raise DataError(f"{shown}: its header says {_lengths(shape)}, expected square images")
    if 0 in shape:
        raise DataError(f"{shown}: its header says {_lengths(shape)}, expected at least one image")
    return shape


def _read(stream: Readable, size: int, shown: str) -> bytes:
    try:
        return stream.read(size)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{shown}: is a damaged gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{shown}: cannot be read: {error.strerror or error}") from None


def _lengths(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{length:,}" for length in shape)

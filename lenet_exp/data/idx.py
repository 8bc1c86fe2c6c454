"""The IDX format of MNIST and its kin, read with suspicion.

An IDX file of bytes begins with two zeros, 0x08 for unsigned bytes and the number of dimensions; then
comes each dimension's length (big-endian, 32 bits), then the values, the last dimension running fastest.

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

#: Where the values of a file begin, by its number of dimensions.
IMAGES_OFFSET = 16
LABELS_OFFSET = 8

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class IdxFile:
    """What a file must be to be taken.

    Attributes:
        name: The file's name, unpacked.
        dimensions: 3 for images, ``(count, rows, columns)``; 1 for labels.
        shape: The shape that the header must say; None if any will do.
        sha256: The checksum of the unpacked file; None if it is not known yet.
        classes: The number of classes; labels are below it.
    """

    name: str
    dimensions: int
    shape: tuple[int, ...] | None = None
    sha256: str | None = None
    classes: int = 10


class Readable(Protocol):
    """What bytes can be read from: a file, or what unpacks one."""

    def read(self, size: int, /) -> bytes:
        """Return the next ``size`` bytes, or fewer where they end."""
        ...


@dataclass(frozen=True)
class Content:
    """What a verified file holds: the shape in its header, and the SHA-256 of all its bytes."""

    shape: tuple[int, ...]
    sha256: str


def header(shape: tuple[int, ...]) -> bytes:
    """Return the header of a file of ``shape``.

    Example:
        >>> header((2,)).hex()
        '0000080100000002'
    """
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)


@contextmanager
def opened(path: Path) -> Iterator[Readable]:
    """Open a file for `verify`, unpacking it on the way if its name ends in ``.gz``.

    Raises:
        DataError: If it cannot be opened.
    """
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(gzip.GzipFile(path) if path.suffix == ".gz" else path.open("rb"))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        yield stream


def verify(stream: Readable, want: IdxFile, shown: str, sink: IO[bytes] | None = None) -> Content:
    """Read ``stream`` to its end, and refuse all but the file that is wanted.

    The header, the size and the labels are judged before the checksum, as they tell more.

    Args:
        stream: The bytes of a file, unpacked.
        want: The file that they must be.
        shown: The file's name in messages.
        sink: The file to copy the bytes to; the caller throws away what a refused file left there.

    Raises:
        DataError: With ``shown``, what was found and what was expected.
    """
    head = _read(stream, 4 + 4 * want.dimensions, shown)
    shape = _shape(head, want, shown)
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
        if want.dimensions == 1:
            highest = max(max(chunk, default=0), highest)
    if size < promised:
        raise DataError(f"{shown}: is {size:,} bytes long, its header promises {promised:,}")
    if highest >= want.classes:
        raise DataError(f"{shown}: holds the label {highest}, labels are 0 to {want.classes - 1}")
    if want.sha256 not in (None, digest.hexdigest()):
        raise DataError(f"{shown}: its SHA-256 is {digest.hexdigest()}, expected {want.sha256}")
    return Content(shape, digest.hexdigest())


def _shape(head: bytes, want: IdxFile, shown: str) -> tuple[int, ...]:
    """Return the shape that a file's first bytes promise."""
    kind = "images" if want.dimensions == 3 else "labels"
    magic = bytes([0, 0, 8, want.dimensions])
    if head[:4] != magic:
        raise DataError(
            f"{shown}: begins with 0x{head[:4].hex()}, an IDX file of {kind} with 0x{magic.hex()}"
        )
    if len(head) < 4 + 4 * want.dimensions:
        raise DataError(f"{shown}: is {len(head)} bytes long, too short for the header of an IDX file")
    shape = struct.unpack(f">{want.dimensions}I", head[4:])
    if want.shape not in (None, shape):
        raise DataError(f"{shown}: its header says {_lengths(shape)}, expected {_lengths(want.shape or ())}")
    if want.dimensions == 3 and shape[1] != shape[2]:
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

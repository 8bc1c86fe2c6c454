from __future__ import annotations

import gzip
import hashlib
import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lenet_exp.base.errors import DataError
from lenet_exp.data.idx import Content, IdxFile, header, opened, verify

IMAGES = IdxFile("images", 3)
LABELS = IdxFile("labels", 1)
GOOD_IMAGES = header((2, 3, 3)) + bytes(range(18))
GOOD_LABELS = header((4,)) + bytes([0, 9, 3, 3])


def test_a_good_file_is_copied_and_described() -> None:
    """A good file arrives whole, and its shape and checksum are told."""
    sink = io.BytesIO()

    content = verify(io.BytesIO(GOOD_IMAGES), IMAGES, "a", sink)

    assert content == Content((2, 3, 3), hashlib.sha256(GOOD_IMAGES).hexdigest())
    assert sink.getvalue() == GOOD_IMAGES


@pytest.mark.parametrize(
    ("content", "want", "message"),
    [
        (GOOD_IMAGES[:20], IMAGES, "x: is 20 bytes long, but its header promises 34$"),
        (GOOD_IMAGES + b"\0", IMAGES, "x: is longer than the 34 bytes that its header promises$"),
        (GOOD_IMAGES[:9], IMAGES, "x: is 9 bytes long, too short for the header"),
        (b"", IMAGES, "x: begins with 0x; an IDX file of images begins with 0x00000803$"),
        (b"<html>", LABELS, "x: begins with 0x3c68746d; an IDX file of labels begins with 0x00000801$"),
        (GOOD_LABELS, IMAGES, "x: begins with 0x00000801; an IDX file of images begins with 0x00000803$"),
        (header((2, 3, 4)) + bytes(24), IMAGES, "x: its header says 2 x 3 x 4, expected square images$"),
        (header((0,)), LABELS, "x: its header says 0, expected at least one image$"),
        (GOOD_LABELS, replace(LABELS, shape=(60_000,)), "x: its header says 4, expected 60,000$"),
    ],
    ids=["cut", "long", "no header", "empty", "html", "labels", "not square", "no image", "count"],
)
def test_a_wrong_header_or_size_is_told(content: bytes, want: IdxFile, message: str) -> None:
    """A file whose header or size is wrong is refused with what was found and what was expected."""
    with pytest.raises(DataError, match=message):
        verify(io.BytesIO(content), want, "x")


def test_a_label_is_judged_before_the_checksum() -> None:
    """A label above 9 is told as such, although the checksum is wrong too."""
    want = replace(LABELS, sha256=hashlib.sha256(GOOD_LABELS).hexdigest())

    with pytest.raises(DataError, match=r"x: holds the label 10; labels must be 0 to 9$"):
        verify(io.BytesIO(header((4,)) + bytes([0, 9, 10, 3])), want, "x")


@given(at=st.integers(0, len(GOOD_IMAGES) - 1), bit=st.integers(0, 7))
def test_no_flipped_bit_passes(at: int, bit: int) -> None:
    """Whichever bit of a file is flipped, the file is refused where its checksum is known."""
    want = replace(IMAGES, sha256=hashlib.sha256(GOOD_IMAGES).hexdigest())
    flipped = bytearray(GOOD_IMAGES)
    flipped[at] ^= 1 << bit

    with pytest.raises(DataError, match=r"^x: "):
        verify(io.BytesIO(flipped), want, "x")


@given(size=st.integers(0, len(GOOD_IMAGES) - 1))
def test_no_cut_file_passes(size: int) -> None:
    """Wherever a file is cut, it is refused, known checksum or not."""
    with pytest.raises(DataError, match=r"^x: "):
        verify(io.BytesIO(GOOD_IMAGES[:size]), IMAGES, "x")


def test_a_gzip_file_is_unpacked_on_the_way(tmp_path: Path) -> None:
    """A file whose name ends in .gz is read as what it unpacks to."""
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(GOOD_LABELS))

    with opened(path) as stream:
        content = verify(stream, LABELS, "x")

    assert content == Content((4,), hashlib.sha256(GOOD_LABELS).hexdigest())


PACKED = gzip.compress(GOOD_IMAGES, mtime=0)


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (PACKED[:-8] + bytes(8), "CRC check failed"),
        (PACKED[:10] + b"\xff" + PACKED[11:], "Error -3 while decompressing"),
        (PACKED[:-10], "Compressed file ended before"),
        (PACKED[1:], "Not a gzipped file"),
    ],
    ids=["crc", "damaged", "cut", "no beginning"],
)
def test_a_damaged_gzip_file_is_told(tmp_path: Path, packed: bytes, message: str) -> None:
    """A gzip file with a wrong check sum, damage within, no end or no beginning is refused as such."""
    path = tmp_path / "images.gz"
    path.write_bytes(packed)

    with opened(path) as stream, pytest.raises(DataError, match=f"x: is a damaged gzip file: {message}"):
        verify(stream, IMAGES, "x")


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    """A file that cannot be opened is a data error that names it."""
    with (
        pytest.raises(DataError, match="nowhere: cannot be read: No such file"),
        opened(tmp_path / "nowhere"),
    ):
        pass

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from lenet_exp.base.errors import ConfigError, DataError
from lenet_exp.data import idx
from lenet_exp.data.archives import Archive, Published, qmnist_labels, upright
from lenet_exp.data.cache import Cache
from lenet_exp.data.datasets import DATASETS, find_dataset, prepare
from lenet_exp.data.sources import Dataset, obtain, within_reach
from tests.labs.mirror import Answer, Mirror

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def unpacked(folder: Path, name: str) -> bytes:
    return gzip.decompress((folder / f"{name}.gz").read_bytes())


def long_labels(labels: bytes) -> bytes:
    """Return a file of labels as QMNIST writes them: eight integers each."""
    rows = [struct.pack(">8i", label, 7, 6, 5, 4, 3, 2, 1) for label in labels[8:]]
    return struct.pack(">3I", 0xC02, len(rows), 8) + b"".join(rows)


def turned(images: bytes) -> bytes:
    """Return a file of images as EMNIST writes them: rows and columns exchanged."""
    pixels = np.frombuffer(images[16:], np.uint8).reshape(-1, 28, 28)
    return images[:16] + pixels.transpose(0, 2, 1).tobytes()


def zipped(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"gzip/{name}.gz", gzip.compress(content))
    return out.getvalue()


@pytest.fixture
def published(data_cache: Path, mini_folder: Path, mirror: Mirror) -> dict[str, Dataset]:
    """The small data set, on a mirror in each of the ways in which publishers pack theirs."""
    images, labels = unpacked(mini_folder, IMAGES), unpacked(mini_folder, LABELS)
    bodies = {
        f"{IMAGES}.gz": gzip.compress(images),
        f"{LABELS}.gz": gzip.compress(labels),
        "q-images.gz": gzip.compress(images),
        "q-labels.gz": gzip.compress(long_labels(labels)),
        "gzip.zip": zipped({"e-images": turned(images), "e-labels": labels}),
    }
    archives = {}
    for name, body in bodies.items():
        mirror.answers[name] = [Answer(body)]
        archives[name] = Archive((f"{mirror.url}{name}",), hashlib.md5(body).hexdigest())
    ways: dict[str, dict[str, Published]] = {
        "plain": {},
        "qmnist": {IMAGES: Published("q-images"), LABELS: Published("q-labels", convert=qmnist_labels)},
        "emnist": {
            IMAGES: Published("e-images", member="gzip/e-images.gz", convert=upright),
            LABELS: Published("e-labels", member="gzip/e-labels.gz"),
            "t10k-images-idx3-ubyte": Published("e-test-images", member="gzip/e-test-images.gz"),
            "t10k-labels-idx1-ubyte": Published("e-test-labels", member="gzip/e-test-labels.gz"),
        },
    }
    plain = find_dataset("own", mini_folder)
    return {
        name: Dataset(name, plain.train, plain.test, plain.classes, published=way, archives=lambda: archives)
        for name, way in ways.items()
    }


@pytest.mark.parametrize("way", ["plain", "qmnist", "emnist"])
def test_files_are_made_of_what_publishers_pack(
    published: dict[str, Dataset], way: str, mini_folder: Path, mirror: Mirror
) -> None:
    """Whatever the archive, the same images and labels come out, are pinned, and need no network again."""
    dataset = published[way]

    images, labels = obtain(dataset, dataset.train, None)

    assert images.path.read_bytes() == unpacked(mini_folder, IMAGES)
    assert labels.path.read_bytes() == unpacked(mini_folder, LABELS)
    assert Cache(way).pinned() == {IMAGES: images.sha256, LABELS: labels.sha256}
    mirror.answers.clear()
    assert obtain(dataset, dataset.train, None) == (images, labels)


def test_an_archive_of_several_files_is_fetched_once(published: dict[str, Dataset], mirror: Mirror) -> None:
    """What else it holds is then to be had without a network; an archive of one file is not kept."""
    for way in ("emnist", "plain"):
        obtain(published[way], published[way].train, None)

    assert [name for name, _ in mirror.asked].count("gzip.zip") == 1
    assert within_reach(published["emnist"], published["emnist"].test, None)
    assert not within_reach(published["plain"], published["plain"].test, None)
    assert not list(Cache("plain").folder.glob("*.gz*"))


def test_an_archive_that_is_not_the_publisher_s_is_refused(
    published: dict[str, Dataset], mirror: Mirror, mini_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A good file of another content is not pinned, but kept aside and told."""
    other = gzip.compress(unpacked(mini_folder, LABELS), mtime=1)
    mirror.answers[f"{LABELS}.gz"] = [Answer(other)]

    with pytest.raises(
        DataError, match=rf"no good copy of {LABELS} of plain found.*its MD5 is [0-9a-f]+, expe"
    ):
        obtain(published["plain"], published["plain"].train, None)

    assert f"archive-{LABELS}.gz.bad" in capsys.readouterr().err
    assert Cache("plain").pinned() == {}


def test_a_cut_download_goes_on(published: dict[str, Dataset], mirror: Mirror, mini_folder: Path) -> None:
    """The rest is asked for, and another file's beginning does no harm."""
    body = mirror.answers["gzip.zip"][0].body
    mirror.answers["gzip.zip"] = [Answer(body, cut=True), Answer(body)]
    folder = Cache("plain").folder
    folder.mkdir(parents=True)
    (folder / f"archive-{IMAGES}.gz.part").write_bytes(b"of another file")

    for way in ("emnist", "plain"):
        images, _ = obtain(published[way], published[way].train, None)
        assert images.path.read_bytes() == unpacked(mini_folder, IMAGES)

    assert [wanted for name, wanted in mirror.asked if name == "gzip.zip"] == [
        None,
        f"bytes={len(body) // 2}-",
    ]


def test_a_kept_archive_that_was_damaged_is_fetched_anew_later(
    published: dict[str, Dataset], mirror: Mirror
) -> None:
    """A damaged archive is set aside, so that the next call begins afresh."""
    dataset = published["emnist"]
    first = obtain(dataset, dataset.train, None)
    kept = Cache("emnist").folder / "archive-gzip.zip"
    kept.write_bytes(kept.read_bytes()[:-100])
    first[0].path.unlink()

    with pytest.raises(DataError, match="is a damaged archive"):
        obtain(dataset, dataset.train, None)

    assert obtain(dataset, dataset.train, None) == first


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_published_files_in_a_folder_are_taken(
    published: dict[str, Dataset], mirror: Mirror, mini_folder: Path, tmp_path: Path, suffix: str
) -> None:
    """As torchvision leaves them, gzipped or not; what they were first they must stay."""
    folder = tmp_path / "here"
    folder.mkdir()
    labels = long_labels(unpacked(mini_folder, LABELS))
    for name, content in (("q-images", unpacked(mini_folder, IMAGES)), ("q-labels", labels)):
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)

    _, found = obtain(published["qmnist"], published["qmnist"].train, folder)

    assert found.path.read_bytes() == unpacked(mini_folder, LABELS)
    assert mirror.asked == []
    changed = bytearray(labels)
    changed[12 + 3] ^= 1
    (folder / f"q-labels{suffix}").write_bytes(gzip.compress(changed) if suffix else bytes(changed))
    with pytest.raises(DataError, match=r"its SHA-256 is .*for a changed data set take a new name"):
        obtain(published["qmnist"], published["qmnist"].train, folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda good: good[:-5], r"is 1,007 bytes long, its header promises 1,008"),
        (lambda good: b"\0\0\x08\x02" + good[4:], "begins with 0x00000802"),
        (lambda good: good[:7], "begins with 0x00000c02"),
        (lambda good: good[:12] + b"\0\0\1\0" + good[16:], "holds the label 255"),
        (lambda good: good[:12] + b"\xff\xff\xff\xff" + good[16:], "holds the label 255"),
    ],
)
def test_damaged_labels_are_refused(mini_folder: Path, spoil: object, message: str) -> None:
    """Cut, of another format, or a class that no digit has."""
    assert callable(spoil)
    spoilt = spoil(long_labels(unpacked(mini_folder, LABELS)))
    want = DATASETS["mnist"].train.labels
    want = idx.IdxFile(want.name, 1)

    with pytest.raises(DataError, match=message):
        idx.verify(qmnist_labels(io.BytesIO(spoilt)), want, "labels")


def test_damaged_images_are_refused(mini_folder: Path) -> None:
    """A cut file stays a cut file when it is turned, and another format is told as it is."""
    good = turned(unpacked(mini_folder, IMAGES))
    want = idx.IdxFile(IMAGES, 3)

    with pytest.raises(DataError, match="its header promises 784,016"):
        idx.verify(upright(io.BytesIO(good[:-1])), want, "images")
    with pytest.raises(DataError, match="begins with 0x504b0304"):
        idx.verify(upright(io.BytesIO(b"PK\3\4")), want, "images")


def test_torchvision_has_what_is_asked_of_it(data_cache: Path) -> None:
    """Every published file of every data set is in an archive whose MD5 torchvision knows."""
    packed = {name: dataset for name, dataset in DATASETS.items() if dataset.archives}

    assert packed.keys() == {"kmnist", "qmnist", "emnist-digits", "emnist-mnist"}
    for dataset in packed.values():
        assert dataset.archives is not None
        there = dataset.archives()
        for part in (dataset.train, dataset.test):
            for want in part:
                archive = there[dataset.origin(want).archive]
                assert archive.urls
                assert len(archive.md5) == 32
        assert len(dataset.classes) == 10


def test_a_split_of_other_classes_is_not_known(data_cache: Path) -> None:
    """EMNIST's splits of letters have more classes than the networks; the nearest that fits is told."""
    with pytest.raises(ConfigError, match="unknown data set 'emnist-digit'; did you mean 'emnist-digits'"):
        prepare("emnist-digit")

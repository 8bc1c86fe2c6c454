from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lenet_exp.base.errors import DataError
from lenet_exp.data import sources
from lenet_exp.data.cache import Cache
from lenet_exp.data.datasets import find_dataset
from lenet_exp.data.sources import Dataset, Part, obtain
from tests.labs.mirror import Answer, Mirror
from tests.labs.sections import section

IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"


def packed(mini_folder: Path, name: str) -> bytes:
    """Return a file as mirrors have it."""
    return (mini_folder / f"{name}.gz").read_bytes()


def unpacked(mini_folder: Path, name: str) -> bytes:
    """Return a file as the cache has it."""
    return gzip.decompress(packed(mini_folder, name))


@pytest.fixture
def own_copy(mini_folder: Path, tmp_path: Path) -> Path:
    """A folder of plain files that a test may damage."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name in (IMAGES, LABELS):
        (folder / name).write_bytes(unpacked(mini_folder, name))
    return folder


def stock(mirror: Mirror, mini_folder: Path) -> None:
    """Give the mirror good copies of all that has no other answer yet."""
    for path in mini_folder.glob("*.gz"):
        mirror.answers.setdefault(path.name, []).append(Answer(path.read_bytes()))


def md5s_of(mini_folder: Path) -> dict[str, str]:
    """Return the MD5 of each file as mirrors have it."""
    return {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in mini_folder.glob("*.gz")}


@pytest.mark.parametrize("below", [".", "known", "Known/raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_may_be_laid_out_as_others_do(
    known: Dataset, mini_folder: Path, tmp_path: Path, below: str, suffix: str
) -> None:
    """Files are found gzipped or plain, in the folder, below it by name, or as torchvision leaves them."""
    folder = tmp_path / "user"
    (folder / below).mkdir(parents=True)
    for name in (IMAGES, LABELS):
        content = packed(mini_folder, name) if suffix else unpacked(mini_folder, name)
        (folder / below / f"{name}{suffix}").write_bytes(content)

    images, labels = obtain(replace(known, subfolder="Known/raw"), known.train, folder)

    assert images.path.read_bytes() == unpacked(mini_folder, IMAGES)
    assert labels.path.read_bytes() == unpacked(mini_folder, LABELS)
    assert images.shape == (1000, 28, 28)


def test_the_cache_is_enough(known: Dataset, mini_folder: Path) -> None:
    """What was found once is found again, without the folder it came from."""
    first = obtain(known, known.train, mini_folder)

    assert obtain(known, known.train, None) == first


def test_the_systems_data_sets_are_used(known: Dataset, mini_folder: Path) -> None:
    """Files that a Debian package has installed are taken."""
    shutil.copytree(mini_folder, sources.SYSTEM_FOLDER / "known")

    images, _ = obtain(known, known.train, None)

    assert images.sha256 == known.train.images.sha256


def test_a_damaged_file_of_the_system_is_passed_over(
    known: Dataset, mini_folder: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged file that the user did not name is warned of, and the next source is asked."""
    shutil.copytree(mini_folder, sources.SYSTEM_FOLDER / "known")
    (sources.SYSTEM_FOLDER / "known" / f"{LABELS}.gz").write_bytes(b"nothing of the kind")
    stock(mirror, mini_folder)

    obtain(replace(known, mirrors=lambda: [mirror.url]), known.train, None)

    assert "warning: " in capsys.readouterr().err
    assert [name for name, _ in mirror.asked] == [f"{LABELS}.gz"]


DAMAGES = pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (IMAGES, lambda good: good[:-1], "is 784,015 bytes long, but its header promises 784,016"),
        (
            IMAGES,
            lambda good: good[:-1] + bytes([good[-1] ^ 1]),
            "its SHA-256 is [0-9a-f]{64}, expected a7e5",
        ),
        (IMAGES, lambda good: b"\0\0\x08\x01" + good[4:], "begins with 0x00000801"),
        (LABELS, lambda good: good[:-1] + b"\x0a", "holds the label 10; labels must be 0 to 9"),
        (LABELS, lambda good: good[:4] + b"\0\0\0\x07" + good[8:15], "its header says 7, expected 1,000"),
    ],
    ids=["cut", "flipped", "magic", "label", "count"],
)


@DAMAGES
def test_a_damaged_file_in_a_named_folder_ends_it(
    known: Dataset, own_copy: Path, name: str, damage: object, message: str
) -> None:
    """A damaged file in the folder that the user named is an error at once, even where the cache is good."""
    assert callable(damage)
    obtain(known, known.train, own_copy)
    (own_copy / name).write_bytes(damage((own_copy / name).read_bytes()))

    with pytest.raises(DataError, match=f"own/{name}: {message}.*; replace the file$"):
        obtain(known, known.train, own_copy)


@DAMAGES
def test_a_damaged_cache_mends_itself(
    known: Dataset,
    mini_folder: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: object,
    message: str,
) -> None:
    """A damaged file of the cache is told, kept aside and replaced by a good one."""
    assert callable(damage)
    images, _ = obtain(known, known.train, mini_folder)
    cached = images.path.with_name(name)
    bad = damage(cached.read_bytes())
    cached.write_bytes(bad)

    obtain(known, known.train, mini_folder)

    assert cached.read_bytes() == unpacked(mini_folder, name)
    assert cached.with_name(f"{name}.bad").read_bytes() == bad
    assert f"{name}.bad" in capsys.readouterr().err


def test_a_damaged_cache_without_another_copy_is_an_error(known: Dataset, mini_folder: Path) -> None:
    """Where no good copy is to be had, one line says what was tried and what to do."""
    images, _ = obtain(known, known.train, mini_folder)
    images.path.write_bytes(b"")

    with pytest.raises(
        DataError, match=r"no good copy of train-images.*data\.folder.*tried: .*data-cache"
    ) as error:
        obtain(known, known.train, None)

    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_told(known: Dataset, tmp_path: Path) -> None:
    """A folder that the user named and that does not exist is told."""
    with pytest.raises(DataError, match=r"nowhere: no such folder; data\.folder must be"):
        obtain(known, known.train, tmp_path / "nowhere")


def test_a_mirrors_bad_file_is_kept_aside(
    known: Dataset, mini_folder: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mirror's file with a wrong checksum is kept as .bad, and the next mirror is asked."""
    bad = gzip.compress(unpacked(mini_folder, IMAGES)[:-1] + b"\xff")
    mirror.answers[f"{IMAGES}.gz"] = [Answer(bad)]
    stock(mirror, mini_folder)
    twice = replace(known, mirrors=lambda: [f"{mirror.url}one", f"{mirror.url}two/"])

    images, _ = obtain(twice, known.train, None)

    assert images.path.read_bytes() == unpacked(mini_folder, IMAGES)
    assert images.path.with_name(f"{IMAGES}.gz.bad").read_bytes() == bad
    assert "its SHA-256 is" in capsys.readouterr().err


def test_only_what_is_asked_for_is_downloaded(known: Dataset, mini_folder: Path, mirror: Mirror) -> None:
    """The training images come without the test images, and leave no piece of a download behind."""
    stock(mirror, mini_folder)

    images, _ = obtain(replace(known, mirrors=lambda: [mirror.url]), known.train, None)

    assert [name for name, _ in mirror.asked] == [f"{IMAGES}.gz", f"{LABELS}.gz"]
    assert {path.name for path in images.path.parent.iterdir()} == {IMAGES, LABELS, "lock"}


@pytest.mark.parametrize("by_md5", [False, True])
def test_another_mirrors_beginning_does_no_harm(
    known: Dataset, mini_folder: Path, mirror: Mirror, by_md5: bool
) -> None:
    """A download that goes on from another mirror's piece is made anew when it does not fit."""
    stock(mirror, mini_folder)
    md5s = md5s_of(mini_folder)
    known = replace(known, mirrors=lambda: [mirror.url], md5s=(lambda: md5s) if by_md5 else None)
    folder = obtain(known, known.train, mini_folder)[0].path.parent
    (folder / IMAGES).unlink()
    (folder / f"{IMAGES}.gz.part").write_bytes(bytes(1000))

    images, _ = obtain(known, known.train, None)

    assert images.path.read_bytes() == unpacked(mini_folder, IMAGES)
    assert [wanted for _, wanted in mirror.asked] == ["bytes=1000-", None]
    assert not (folder / f"{IMAGES}.gz.part").exists()


def test_no_good_mirror_is_an_error(known: Dataset, mirror: Mirror) -> None:
    """When all mirrors fail, the error names each with its reason."""
    with pytest.raises(
        DataError, match=r"tried: .*/train-images-idx3-ubyte\.gz: cannot be downloaded: HTTP 404"
    ):
        obtain(replace(known, mirrors=lambda: [mirror.url]), known.train, None)


def unknown(part: Part) -> Part:
    """Return a part of whose files no checksum is known."""
    return Part(replace(part.images, sha256=None), replace(part.labels, sha256=None))


@pytest.fixture
def kuzushiji(known: Dataset, mini_folder: Path, mirror: Mirror) -> Dataset:
    """The data set as KMNIST is known, by the MD5 of what a mirror has."""
    stock(mirror, mini_folder)
    md5s = md5s_of(mini_folder)
    train, test = unknown(known.train), unknown(known.test)
    return replace(known, train=train, test=test, mirrors=lambda: [mirror.url], md5s=lambda: md5s)


def test_files_known_by_their_md5_are_pinned(kuzushiji: Dataset, mirror: Mirror) -> None:
    """What a mirror gave once needs no network again, and leaves no piece of a download behind."""
    images, labels = obtain(kuzushiji, kuzushiji.train, None)

    assert Cache("known").pinned() == {IMAGES: images.sha256, LABELS: labels.sha256}
    assert {path.name for path in images.path.parent.iterdir()} == {IMAGES, LABELS, "lock", "checksums.json"}
    mirror.answers.clear()
    assert obtain(kuzushiji, kuzushiji.train, None) == (images, labels)


def test_a_file_of_another_md5_is_refused(
    kuzushiji: Dataset, mirror: Mirror, mini_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Good images packed otherwise are not what is known: kept aside, told, and not pinned."""
    other = gzip.compress(unpacked(mini_folder, LABELS), mtime=1)
    mirror.answers[f"{LABELS}.gz"] = [Answer(other)]

    with pytest.raises(
        DataError, match=rf"no good copy of {LABELS} of known found.*its MD5 is \w+, expected"
    ):
        obtain(kuzushiji, kuzushiji.train, None)

    assert f"{LABELS}.gz.bad" in capsys.readouterr().err
    assert Cache("known").pinned() == {}


def test_a_folder_needs_no_mirror_but_must_stay_what_it_was(
    kuzushiji: Dataset, mirror: Mirror, own_copy: Path
) -> None:
    """Files in the user's folder are taken first, pinned, and refused when they have changed."""
    obtain(kuzushiji, kuzushiji.train, own_copy)
    assert mirror.asked == []
    changed = bytearray((own_copy / LABELS).read_bytes())
    changed[-1] ^= 1
    (own_copy / LABELS).write_bytes(changed)

    with pytest.raises(DataError, match=r"its SHA-256 is .*if the data set has changed, give it a new name"):
        obtain(kuzushiji, kuzushiji.train, own_copy)


def test_what_a_folder_lacks_comes_from_a_mirror(kuzushiji: Dataset, mirror: Mirror, tmp_path: Path) -> None:
    """A data set that mirrors have is not the user's own, so an empty folder is no error."""
    images, _ = obtain(kuzushiji, kuzushiji.train, tmp_path)

    assert images.shape == (1000, 28, 28)
    assert len(mirror.asked) == 2


def test_one_of_several_downloads_for_all(known: Dataset, mini_folder: Path, mirror: Mirror) -> None:
    """Who finds another at work waits for it and takes what it fetched."""
    stock(mirror, mini_folder)
    dataset = replace(known, mirrors=lambda: [mirror.url])
    start, found = threading.Barrier(4), []

    def fetch() -> None:
        start.wait()
        found.append(obtain(dataset, dataset.train, None))

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 4
    assert len(mirror.asked) == 2


@pytest.fixture
def package(known: Dataset, mini_folder: Path, tmp_path: Path) -> bytes:
    """A Debian package of the data set."""
    if not shutil.which("dpkg-deb"):
        pytest.skip("needs dpkg-deb")
    tree = tmp_path / "tree"
    shutil.copytree(mini_folder, tree / "usr/share/datasets/known")
    (tree / "DEBIAN").mkdir()
    control = (
        "Package: dataset-known\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.example>\nDescription: a\n"
    )
    (tree / "DEBIAN/control").write_text(control)
    subprocess.run(
        ["dpkg-deb", "--build", str(tree), str(tmp_path / "a.deb")], check=True, capture_output=True
    )
    return (tmp_path / "a.deb").read_bytes()


def test_a_kept_package_has_the_other_files_too(known: Dataset, package: bytes, data_cache: Path) -> None:
    """A package fetched for the training images gives the test images later, without a network."""
    dataset = replace(known, debian_package="dataset-known")
    kept = data_cache / "known" / "dataset-known.deb"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(package)

    images, _ = obtain(dataset, dataset.train, None)
    before = {path.name for path in kept.parent.iterdir()}
    test_images, _ = obtain(dataset, dataset.test, None)

    assert images.shape == (1000, 28, 28)
    assert before == {IMAGES, LABELS, "lock", kept.name}
    assert test_images.shape == (200, 28, 28)


def test_a_damaged_package_is_set_aside(
    known: Dataset, package: bytes, data_cache: Path, mini_folder: Path, mirror: Mirror
) -> None:
    """A kept package that cannot be read is kept as .bad, and the next source is asked."""
    stock(mirror, mini_folder)
    dataset = replace(known, debian_package="dataset-known", mirrors=lambda: [mirror.url])
    kept = data_cache / "known" / "dataset-known.deb"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(package[:1000])

    images, _ = obtain(dataset, dataset.train, None)

    assert images.sha256 == known.train.images.sha256
    assert kept.with_name("dataset-known.deb.bad").read_bytes() == package[:1000]


def test_an_own_data_set_stays_what_it_was(data_cache: Path, own_copy: Path) -> None:
    """A changed file of a user's own data set is refused, with both checksums and what to do."""
    own = find_dataset(section("own", own_copy))
    obtain(own, own.train, own_copy)
    changed = bytearray((own_copy / IMAGES).read_bytes())
    changed[-1] ^= 1
    (own_copy / IMAGES).write_bytes(changed)

    with pytest.raises(
        DataError, match=r"SHA-256 is .*, expected a7e5.* give it a new name, or delete .*checksums"
    ):
        obtain(own, own.train, own_copy)


def test_an_own_data_set_needs_its_folder_once(data_cache: Path, own_copy: Path) -> None:
    """What was pinned and cached is found again without the folder."""
    own = find_dataset(section("own", own_copy))
    first = obtain(own, own.train, own_copy)

    assert obtain(own, own.train, None) == first


def test_nothing_is_pinned_of_a_data_set_that_does_not_fit(data_cache: Path, own_copy: Path) -> None:
    """Images and labels of different numbers are refused, and may be mended under the same name."""
    own = find_dataset(section("own", own_copy))
    good = (own_copy / LABELS).read_bytes()
    (own_copy / LABELS).write_bytes(good[:4] + (999).to_bytes(4, "big") + good[8:-1])

    with pytest.raises(DataError, match="own: there are 1,000 images and 999 labels"):
        obtain(own, own.train, own_copy)

    (own_copy / LABELS).write_bytes(good)
    assert obtain(own, own.train, own_copy)[1].shape == (1000,)


def test_an_own_folder_must_have_the_files(data_cache: Path, own_copy: Path) -> None:
    """A folder that lacks a file of the user's own data set is told with the file's name."""
    own = find_dataset(section("own", own_copy))
    (own_copy / LABELS).unlink()

    with pytest.raises(DataError, match=r"own: holds no train-labels-idx1-ubyte, plain or \.gz"):
        obtain(own, own.train, own_copy)

from __future__ import annotations

import hashlib
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from lenet_exp.base.errors import ConfigError, DataError
from lenet_exp.data import idx
from lenet_exp.data.datasets import DATASETS, ImageSet, find_dataset, prepare, validation_split
from lenet_exp.data.sources import SYSTEM_FOLDER


def test_images_are_mapped_and_cannot_be_changed(mini: ImageSet) -> None:
    """The images are the file's bytes, mapped rather than read, and nobody can write to them."""
    images, labels = mini.open()

    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    assert not labels.flags.writeable
    assert images.shape == (1000, 28, 28)
    assert images.tobytes() == mini.images.read_bytes()[16:]
    assert np.bincount(labels).tolist() == [100] * 10


def test_a_set_is_cheap_to_send(mini: ImageSet) -> None:
    """Another process gets where the images lie, not the images."""
    sent = pickle.dumps(mini)

    assert len(sent) < 1000
    assert pickle.loads(sent) == mini


def test_files_that_have_gone_are_told(mini: ImageSet, tmp_path: Path) -> None:
    """Whoever opens a set whose files were deleted is told to have them back."""
    gone = ImageSet("gone", tmp_path / "images", mini.labels, 1000, 28, "")

    with pytest.raises(DataError, match=r"gone: .*run the command again"):
        gone.open()


@pytest.mark.parametrize("name", ["fashion_mnist", "qmnist", "emnist-digits"])
def test_an_unknown_name_is_refused(data_cache: Path, name: str) -> None:
    """A name that is neither known nor has a folder is refused, with those that are known."""
    known = "known are fashion-mnist, mnist, kmnist; your own needs its folder: --set data.folder="

    with pytest.raises(ConfigError, match=f"unknown data set '{name}'; {known}"):
        prepare(name)


def test_the_digest_tells_content_and_size(mini: ImageSet, data_cache: Path, mini_folder: Path) -> None:
    """Two sets share a digest only if their images, labels and size are the same."""
    again = prepare("another-name", folder=mini_folder)
    larger = prepare("another-name", folder=mini_folder, resize=32)

    assert again.digest == mini.digest
    assert larger.digest != mini.digest
    assert len(larger.digest) <= 36


def test_resizing_is_the_book_loaders(data_cache: Path, mini_folder: Path) -> None:
    """Resized images are those of Pillow's bilinear filter, at most one level apart."""
    original, _ = prepare("mini", folder=mini_folder).open()

    resized, labels = prepare("mini", folder=mini_folder, resize=40).open()

    assert resized.shape == (1000, 40, 40)
    assert len(labels) == 1000
    for i in range(0, 1000, 100):
        pillow = Image.fromarray(original[i]).resize((40, 40), Image.Resampling.BILINEAR)
        assert np.abs(resized[i].astype(int) - np.asarray(pillow).astype(int)).max() <= 1


def test_resized_images_are_made_once(data_cache: Path, mini_folder: Path) -> None:
    """The second call takes what the first has made."""
    first = prepare("mini", folder=mini_folder, resize=20)
    made = first.images.stat().st_mtime_ns

    assert prepare("mini", folder=mini_folder, resize=20) == first
    assert first.images.stat().st_mtime_ns == made


def test_damaged_resized_images_are_made_anew(
    data_cache: Path, mini_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resized images that were damaged are told and made again."""
    images = prepare("mini", folder=mini_folder, resize=20).images
    good = images.read_bytes()
    images.write_bytes(good[:-1])

    prepare("mini", folder=mini_folder, resize=20)

    assert images.read_bytes() == good
    assert "warning: " in capsys.readouterr().err


def test_own_images_of_another_size_are_resized(data_cache: Path, tmp_path: Path) -> None:
    """A data set of the user's own may have any size of square images."""
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx.header((3, 8, 8)) + bytes(192))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx.header((3,)) + b"\0\1\2")

    images, _ = prepare("tiny", folder=tmp_path).open()

    assert images.shape == (3, 28, 28)


LISTEN = """
import sys
from pathlib import Path
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
from lenet_exp.data import datasets as data, testset
{call}
print("\\n".join(opened))
"""


def opened_by(call: str) -> list[str]:
    """Return what a fresh process opens as it makes ``call``."""
    command = [sys.executable, "-c", LISTEN.format(call=call)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_preparing_touches_no_test_file(data_cache: Path, mini_folder: Path) -> None:
    """The training images are prepared without a look at the test images, at first and later."""
    prepared = f"data.prepare('mini', folder=Path({str(mini_folder)!r}))"

    opened = opened_by(f"{prepared}; {prepared}.open()")

    assert any("train-images" in path for path in opened)
    assert not [path for path in opened if "t10k" in path]
    assert not list(data_cache.rglob("*t10k*"))


def test_preparing_leaves_torch_alone(data_cache: Path, mini_folder: Path) -> None:
    """Images that need no resizing are prepared without importing torch, which costs seconds."""
    call = f"data.prepare('mini', folder=Path({str(mini_folder)!r})); print('torch' in sys.modules)"

    assert opened_by(call)[0] == "False"


def test_processes_may_prepare_at_once(data_cache: Path, mini_folder: Path) -> None:
    """Processes that prepare the same data set at the same time all get it, whole."""
    script = (
        "import sys; from pathlib import Path; from lenet_exp.data.datasets import prepare;"
        "print('ready', flush=True); sys.stdin.readline();"
        f"print(prepare('mini', folder=Path({str(mini_folder)!r})).digest)"
    )
    command = [sys.executable, "-c", script]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()

    digests = {process.communicate()[0].strip() for process in processes}

    assert digests == {prepare("mini", folder=mini_folder).digest}


@st.composite
def divisions(draw: st.DrawFn) -> tuple[NDArray[np.uint8], int, int | None]:
    """Labels, how many to keep for validation, and how many of the others to train on."""
    labels = np.array(draw(st.lists(st.integers(0, 9), min_size=2, max_size=300)), np.uint8)
    validation = draw(st.integers(1, len(labels) - 1))
    limit = draw(st.none() | st.integers(1, len(labels) - validation))
    return labels, validation, limit


@given(divisions(), st.integers(0, 2**63 - 1))
def test_a_split_keeps_every_class_its_share(
    division: tuple[NDArray[np.uint8], int, int | None], seed: int
) -> None:
    """The sides have the sizes asked for, share no image, and have each class's share to within one image."""
    labels, validation, limit = division

    split = validation_split(labels, validation, seed, limit)

    left = len(labels) - validation
    assert len(split.validation) == validation
    assert len(split.train) == (left if limit is None else limit)
    both = np.concatenate([split.train, split.validation])
    assert len(np.unique(both)) == len(both)
    assert both.min() >= 0
    assert both.max() < len(labels)
    counts = np.bincount(labels, minlength=10)
    kept = np.bincount(labels[split.validation], minlength=10)
    used = np.bincount(labels[split.train], minlength=10)
    assert np.abs(kept - counts * validation / len(labels)).max() < 1
    assert np.abs(used - (counts - kept) * len(split.train) / left).max() < 1


def test_a_split_is_its_seeds(mini: ImageSet) -> None:
    """The same seed gives the same division, another seed another one, and the digest tells."""
    _, labels = mini.open()

    first, again, other = (validation_split(labels, 200, seed) for seed in (0, 0, 1))

    assert np.array_equal(first.train, again.train)
    assert first.digest == again.digest
    assert first.digest == hashlib.sha256(first.train.tobytes() + first.validation.tobytes()).hexdigest()
    assert other.digest != first.digest
    assert not np.array_equal(first.validation, other.validation)
    assert first.train.dtype == np.int64
    assert (np.diff(first.train) > 0).all()
    assert (np.diff(first.validation) > 0).all()


def test_a_limit_leaves_the_validation_images(mini: ImageSet) -> None:
    """With fewer training images the validation images stay, and the training images are some of the same."""
    _, labels = mini.open()

    full, some, few = (validation_split(labels, 200, 0, limit) for limit in (None, 300, 50))

    assert np.array_equal(full.validation, few.validation)
    assert set(few.train) < set(some.train) < set(full.train)


@pytest.mark.parametrize(
    ("validation", "limit", "message"),
    [
        (1000, None, "data.validation must be 1 to 999, as there are 1,000 training images, found 1,000$"),
        (0, None, "data.validation must be 1 to 999.* found 0$"),
        (200, 801, "data.limit must be 1 to 800, as 200 of 1,000 images are for validation, found 801$"),
    ],
)
def test_a_split_of_too_few_images_is_refused(
    mini: ImageSet, validation: int, limit: int | None, message: str
) -> None:
    """Asking for more images than there are is refused with the numbers."""
    _, labels = mini.open()

    with pytest.raises(ConfigError, match=message):
        validation_split(labels, validation, 0, limit)


def test_the_table_names_what_torchvision_knows() -> None:
    """Every data set of the table has ten classes and mirrors that torchvision gives."""
    for name, dataset in DATASETS.items():
        assert find_dataset(name, None) is dataset
        assert len(dataset.classes) == 10
        assert all(mirror.startswith("http") for mirror in dataset.mirrors())


def test_torchvision_knows_kmnist_s_files() -> None:
    """Each of the four has the MD5 by which it is taken."""
    kmnist = DATASETS["kmnist"]
    assert kmnist.md5s

    md5s = kmnist.md5s()

    for want in (*kmnist.train, *kmnist.test):
        assert re.fullmatch("[0-9a-f]{32}", md5s[f"{want.name}.gz"])


@pytest.mark.full_data
@pytest.mark.parametrize("name", [name for name, known in DATASETS.items() if known.built_in])
def test_the_full_training_images_are_the_originals(data_cache: Path, name: str) -> None:
    """The files that the system has are those of the table: 6,000 images of each class, or so."""
    if not (SYSTEM_FOLDER / name).exists():
        pytest.skip(f"needs {SYSTEM_FOLDER / name}")

    images, labels = prepare(name).open()

    assert images.shape == (60_000, 28, 28)
    assert np.bincount(labels).min() > 5_000

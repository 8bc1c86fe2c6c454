from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lenet_exp.base.errors import DataError
from lenet_exp.data import idx
from lenet_exp.data.datasets import DATASETS
from lenet_exp.data.images import ImageSet, training_images
from lenet_exp.data.sources import SYSTEM_FOLDER
from tests.labs.sections import section


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


def test_the_digest_tells_content_and_size(mini: ImageSet, data_cache: Path, mini_folder: Path) -> None:
    """Two sets share a digest only if their images, labels and size are the same."""
    again = training_images(section("another-name", mini_folder))
    larger = training_images(section("another-name", mini_folder, resize=32))

    assert again.digest == mini.digest
    assert larger.digest != mini.digest
    assert len(larger.digest) <= 36


def test_resizing_is_the_book_loaders(data_cache: Path, mini_folder: Path) -> None:
    """Resized images are those of Pillow's bilinear filter, at most one level apart."""
    original, _ = training_images(section("mini", mini_folder)).open()

    resized, labels = training_images(section("mini", mini_folder, resize=40)).open()

    assert resized.shape == (1000, 40, 40)
    assert len(labels) == 1000
    for i in range(0, 1000, 100):
        pillow = Image.fromarray(original[i]).resize((40, 40), Image.Resampling.BILINEAR)
        assert np.abs(resized[i].astype(int) - np.asarray(pillow).astype(int)).max() <= 1


def test_resized_images_are_made_once(data_cache: Path, mini_folder: Path) -> None:
    """The second call takes what the first has made."""
    first = training_images(section("mini", mini_folder, resize=20))
    made = first.images.stat().st_mtime_ns

    assert training_images(section("mini", mini_folder, resize=20)) == first
    assert first.images.stat().st_mtime_ns == made


def test_damaged_resized_images_are_made_anew(
    data_cache: Path, mini_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resized images that were damaged are told and made again."""
    images = training_images(section("mini", mini_folder, resize=20)).images
    good = images.read_bytes()
    images.write_bytes(good[:-1])

    training_images(section("mini", mini_folder, resize=20))

    assert images.read_bytes() == good
    assert "warning: " in capsys.readouterr().err


def test_a_folder_may_begin_at_home(
    data_cache: Path, mini_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An experiment file is not read by a shell, so ``~`` is understood here."""
    monkeypatch.setenv("HOME", str(mini_folder.parent))

    assert training_images(section("mini", Path("~") / mini_folder.name)).count == 1000


def test_own_images_of_another_size_are_resized(data_cache: Path, tmp_path: Path) -> None:
    """A data set of the user's own may have any size of square images."""
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx.header((3, 8, 8)) + bytes(192))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx.header((3,)) + b"\0\1\2")

    images, _ = training_images(section("tiny", tmp_path)).open()

    assert images.shape == (3, 28, 28)


LISTEN = """
import sys
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
from lenet_exp.config.loader import parse
from lenet_exp.config.experiment import Data
from lenet_exp.data.images import training_images
from lenet_exp.data import testset
{call}
print("\\n".join(opened))
"""


def opened_by(call: str) -> list[str]:
    """Return what a fresh process opens as it makes ``call``."""
    command = [sys.executable, "-c", LISTEN.format(call=call)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_preparing_touches_no_test_file(data_cache: Path, mini_folder: Path) -> None:
    """The training images are prepared without a look at the test images, at first and later."""
    images = f"training_images({section('mini', mini_folder)!r})"

    opened = opened_by(f"{images}; {images}.open()")

    assert any("train-images" in path for path in opened)
    assert not [path for path in opened if "t10k" in path]
    assert not list(data_cache.rglob("*t10k*"))


def test_preparing_leaves_torch_alone(data_cache: Path, mini_folder: Path) -> None:
    """Images that need no resizing are prepared without importing torch, which costs seconds."""
    call = f"training_images({section('mini', mini_folder)!r}); print('torch' in sys.modules)"

    assert opened_by(call)[0] == "False"


def test_processes_may_prepare_at_once(data_cache: Path, mini_folder: Path) -> None:
    """Processes that prepare the same data set at the same time all get it, whole."""
    script = (
        "import sys; from lenet_exp.config.experiment import Data;"
        "from lenet_exp.data.images import training_images;"
        "print('ready', flush=True); sys.stdin.readline();"
        f"print(training_images({section('mini', mini_folder)!r}).digest)"
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

    assert digests == {training_images(section("mini", mini_folder)).digest}


@pytest.mark.full_data
@pytest.mark.parametrize("name", [name for name, known in DATASETS.items() if known.built_in])
def test_the_full_training_images_are_the_originals(data_cache: Path, name: str) -> None:
    """The files that the system has are those of the table: 6,000 images of each class, or so."""
    if not (SYSTEM_FOLDER / name).exists():
        pytest.skip(f"needs {SYSTEM_FOLDER / name}")

    images, labels = training_images(section(name)).open()

    assert images.shape == (60_000, 28, 28)
    assert np.bincount(labels).min() > 5_000

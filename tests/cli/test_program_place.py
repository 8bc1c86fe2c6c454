"""What a command needs of the machine, and how it says that it has not got it."""

import gzip
import os
import re
import shutil
import socket
import webbrowser
from pathlib import Path

import pytest

from lenet_exp.base import files
from lenet_exp.tracking import ui
from tests.labs.cli_lab import Command
from tests.labs.places import MINI_FOLDER


def test_a_damaged_data_file_is_found_before_any_trial(command: Command, tmp_path: Path) -> None:
    """Exit code 4, the file's path, and no study."""
    folder = shutil.copytree(MINI_FOLDER, tmp_path / "cut")
    images = folder / "train-images-idx3-ubyte.gz"
    images.write_bytes(gzip.compress(gzip.decompress(images.read_bytes())[:-1]))

    refused = command("sweep", "mini.toml", "--set", f"data.folder={folder}")

    assert (refused.code, refused.out) == (4, "")
    assert re.fullmatch(rf"error: .*{re.escape(str(images))}.*\n", refused.err)
    assert not list(tmp_path.rglob("study.db"))


def test_a_root_that_cannot_be_written_is_refused(command: Command) -> None:
    """Exit code 5, the path and what to do."""
    Path("mlruns").write_text("a file in the way")

    refused = command("sweep", "mini.toml")

    assert (refused.code, refused.out) == (5, "")
    assert re.fullmatch(
        r"error: .*/mlruns: cannot be written: .*; choose another folder with --root\n", refused.err
    )


def test_a_second_sweep_is_kept_away(command: Command) -> None:
    """Exit code 8, and who holds the experiment."""
    folder = Path("mlruns/mini")
    folder.mkdir(parents=True)

    with files.lock(folder / ".lock"):
        refused = command("sweep", "mini.toml")

    assert (refused.code, refused.out) == (8, "")
    assert re.fullmatch(
        rf"error: .*mini is in use by pid {os.getpid()} since .* on host .*; wait until .*, or stop it\n",
        refused.err,
    )
    assert not Path("mlruns/study.db").exists()


def test_a_device_that_is_not_there_is_refused(command: Command) -> None:
    """Exit code 10, before a study is begun."""
    refused = command("sweep", "mini.toml", "--device", "cuda:99")

    assert (refused.code, refused.out) == (10, "")
    assert re.fullmatch(r"error: device 'cuda:99' cannot be used: .*\n", refused.err)
    assert not Path("mlruns/study.db").exists()


def test_a_port_in_use_is_refused(command: Command) -> None:
    """Exit code 6, and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = command("ui", "--port", str(port))

    assert refused.code == 6
    assert re.fullmatch(rf"error: port {port} is in use by .*; choose another with --port\n", refused.err)


@pytest.mark.parametrize(("flags", "n_opened"), [([], 1), (["--no-open"], 0)])
def test_the_ui_opens_in_a_browser(
    command: Command, flags: list[str], n_opened: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its address is printed and opened; --no-open only prints it."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(ui, "shows_windows", lambda: True)
    monkeypatch.setattr(ui, "open_ui", lambda *_, on_ready, **__: on_ready("http://127.0.0.1/"))

    told = command("ui", *flags)

    assert told.out == "MLflow's UI is at http://127.0.0.1/ (Ctrl-C ends it)\n"
    assert opened == ["http://127.0.0.1/"] * n_opened


@pytest.mark.parametrize("device", ["meta", "cuda:-1", "cuda:99", "xla", "", "cpu:x", "\x1b[31m"])
def test_a_device_is_tried_before_it_is_taken(command: Command, device: str) -> None:
    """Names that torch knows and cannot compute on, and those that it does not know: exit code 10."""
    refused = command("sweep", "mini.toml", "--device", device)

    assert (refused.code, refused.out) == (10, "")
    assert re.fullmatch(r"error: device '[^\n]*' cannot be used: [^\n]+\n", refused.err)


@pytest.mark.parametrize("linked", ["mini", "mini/spool", "mini/checkpoints"])
@pytest.mark.parametrize("name", ["sweep", "sync"])
def test_a_link_that_leads_out_of_the_root_is_not_followed(command: Command, linked: str, name: str) -> None:
    """Exit code 2, and nothing is written at its other end."""
    link, outside = Path("mlruns", linked), Path("outside")
    link.parent.mkdir(parents=True)
    outside.mkdir()
    link.symlink_to(outside.absolute())

    refused = command(name, "mini.toml")

    assert (refused.code, refused.out) == (2, "")
    assert re.fullmatch(r"error: .* is a link that leads out of .*/mlruns; .*\n", refused.err)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("root", ["50%", "why?", "a#b"])
def test_a_root_that_mlflow_misreads_is_refused_before_anything_is_written(
    command: Command, root: str
) -> None:
    """Exit code 2, and no folder."""
    refused = command("sweep", "mini.toml", "--root", root)

    assert (refused.code, refused.out) == (2, "")
    assert re.fullmatch(r"error: MLflow cannot keep its store in .*; choose another --root\n", refused.err)
    assert not Path(root).exists()

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import socket
import subprocess
import time
from http.client import HTTPResponse
from pathlib import Path

import pytest

from lenet_exp.base import messages
from lenet_exp.data import download as downloading
from lenet_exp.data.download import UnavailableError, download, fetch_package, package_member
from tests.labs.mirror import Answer, Mirror

BODY = bytes(range(256)) * 1000
MOST = len(BODY)

needs_apt = pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="needs Debian's apt-get and dpkg-deb"
)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """Where a download is collected."""
    return tmp_path / "file.part"


def test_a_file_is_fetched(mirror: Mirror, part: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A download is what the server has, and one line tells of it where there is no terminal."""
    mirror.answers["file"] = [Answer(BODY)]

    download(f"{mirror.url}file", part, MOST)

    assert part.read_bytes() == BODY
    assert capsys.readouterr().err == f"downloading {mirror.url}file (256,000 bytes)\n"


def test_a_long_download_tells_how_far_it_is(
    mirror: Mirror, part: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a log and under a sweep's board too, with its size."""
    mirror.answers["file"] = [Answer(BODY * 10)]
    monkeypatch.setattr(messages, "TOLD_AFTER_S", 0.1)
    read = downloading._read

    def slowly(response: HTTPResponse) -> bytes:
        time.sleep(0.01)
        return read(response)

    monkeypatch.setattr(downloading, "_read", slowly)

    download(f"{mirror.url}file", part, MOST * 10)

    assert re.search(r"\ndownloading file: [\d.]+ of 2\.6 MB\n", capsys.readouterr().err)


def test_a_cut_download_goes_on(mirror: Mirror, part: Path) -> None:
    """A download that the server closes at half asks for the other half only."""
    mirror.answers["file"] = [Answer(BODY, cut=True), Answer(BODY)]

    download(f"{mirror.url}file", part, MOST)

    assert part.read_bytes() == BODY
    assert mirror.asked == [("file", None), ("file", "bytes=128000-")]


def test_a_server_without_ranges_starts_again(mirror: Mirror, part: Path) -> None:
    """Where the server cannot go on, the download is made anew, and nothing of it twice."""
    mirror.answers["file"] = [Answer(BODY, cut=True), Answer(BODY, ranges=False)]

    download(f"{mirror.url}file", part, MOST)

    assert part.read_bytes() == BODY


def test_what_an_earlier_process_left_is_used(mirror: Mirror, part: Path) -> None:
    """A download goes on where a killed process left it."""
    part.write_bytes(BODY[:1000])
    mirror.answers["file"] = [Answer(BODY)]

    download(f"{mirror.url}file", part, MOST)

    assert part.read_bytes() == BODY
    assert mirror.asked == [("file", "bytes=1000-")]


def test_a_beginning_longer_than_the_file_is_dropped(mirror: Mirror, part: Path) -> None:
    """What is no beginning of the server's file is thrown away."""
    part.write_bytes(bytes(MOST + 5))
    mirror.answers["file"] = [Answer(status=416), Answer(BODY)]

    download(f"{mirror.url}file", part, MOST)

    assert part.read_bytes() == BODY


def test_a_server_that_always_cuts_is_given_up(mirror: Mirror, part: Path) -> None:
    """After three attempts the server is given up; what came is kept for another time."""
    mirror.answers["file"] = [Answer(BODY, cut=True)]

    with pytest.raises(
        UnavailableError, match=r"file: cannot be downloaded: the server sent only 224,000 of 256,000 bytes"
    ):
        download(f"{mirror.url}file", part, MOST)

    assert len(mirror.asked) == 3
    assert part.read_bytes() == BODY[:224_000]


def test_a_missing_file_is_told(mirror: Mirror, part: Path) -> None:
    """A file that the server has not got is told with the server's answer, without another try."""
    with pytest.raises(UnavailableError, match=r"file: cannot be downloaded: HTTP 404$"):
        download(f"{mirror.url}file", part, MOST)

    assert len(mirror.asked) == 1


def test_a_closed_port_is_told(part: Path) -> None:
    """Where nobody answers, the reason is told."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening

        with pytest.raises(UnavailableError, match="Connection refused"):
            download(f"http://127.0.0.1:{taken.getsockname()[1]}/file", part, MOST)


def test_a_silent_server_is_given_up(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and says nothing does not hold us up for ever."""
    monkeypatch.setattr(downloading, "TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"

        with pytest.raises(UnavailableError, match="timed out"):
            download(url, part, MOST)


def test_an_endless_file_cannot_fill_the_disk(mirror: Mirror, part: Path) -> None:
    """A file larger than any copy can be is given up and not kept."""
    mirror.answers["file"] = [Answer(BODY)]

    with pytest.raises(UnavailableError, match=r"file: cannot be downloaded: longer than 1,000 bytes$"):
        download(f"{mirror.url}file", part, 1000)

    assert not part.exists()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A Debian package with two gzipped files, the unwanted first."""
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/share").mkdir(parents=True)
    control = "Package: dataset-toy\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.example>\n"
    control += "Description: toy\n"
    (tree / "DEBIAN/control").write_text(control)
    (tree / "usr/share/a.gz").write_bytes(gzip.compress(b"unwanted"))
    (tree / "usr/share/b.gz").write_bytes(gzip.compress(BODY))
    built = tmp_path / "repository" / "dataset-toy_1_all.deb"
    built.parent.mkdir()
    subprocess.run(["dpkg-deb", "--build", str(tree), str(built)], check=True, capture_output=True)
    packages = f"{control}Filename: ./{built.name}\nSize: {built.stat().st_size}\n"
    packages += f"SHA256: {hashlib.sha256(built.read_bytes()).hexdigest()}\n"
    (built.parent / "Packages").write_text(packages)
    return built


@pytest.fixture
def apt_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only list of sources that apt knows; no repository is in it yet."""
    sources = tmp_path / "sources.list"
    sources.write_text("")
    config = tmp_path / "apt-sources.conf"
    config.write_text(f'Dir::Etc::sourcelist "{sources}";\nDir::Etc::sourceparts "/dev/null";\n')
    monkeypatch.setenv("APT_CONFIG", str(config))
    return sources


@needs_apt
def test_a_package_comes_from_the_systems_sources(package: Path, apt_source: Path, tmp_path: Path) -> None:
    """A package of the system's sources is fetched with apt, which leaves nothing else behind."""
    apt_source.write_text(f"deb [trusted=yes] file:{package.parent} ./\n")
    kept = tmp_path / "cache" / "dataset-toy.deb"
    kept.parent.mkdir()

    fetch_package("dataset-toy", kept)

    assert kept.read_bytes() == package.read_bytes()
    assert list(kept.parent.iterdir()) == [kept]


@needs_apt
def test_a_package_that_no_source_has_is_told(apt_source: Path, tmp_path: Path) -> None:
    """A package that apt does not know is told in apt's words."""
    with pytest.raises(UnavailableError, match=r"dataset-toy: apt-get download failed: E: Unable to locate"):
        fetch_package("dataset-toy", tmp_path / "dataset-toy.deb")


def test_a_system_without_apt_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no apt, no package is to be had."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(UnavailableError, match="cannot be downloaded: this system has no apt-get"):
        fetch_package("dataset-toy", tmp_path / "dataset-toy.deb")


@needs_apt
def test_one_file_of_a_package_is_read(package: Path) -> None:
    """A file is read out of a package by its name."""
    with package_member(package, "b.gz") as member:
        content = gzip.decompress(member.read())

    assert content == BODY


@needs_apt
@pytest.mark.parametrize(("size", "message"), [(None, "holds no c.gz$"), (200, "is damaged: ")])
def test_a_package_that_cannot_be_read_is_told(package: Path, size: int | None, message: str) -> None:
    """A package without the file, or with its end cut off, is told with its path."""
    package.write_bytes(package.read_bytes()[:size])

    with (
        pytest.raises(UnavailableError, match=f"dataset-toy_1_all.deb: {message}"),
        package_member(package, "c.gz") as member,
    ):
        member.read()

"""Downloads of a data set's files, from a mirror or in a Debian package.

Downloaded files are not verified here; callers verify them before use.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, cast
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from lenet_exp.base.messages import say, step

#: Seconds to wait for a connection, and then for each chunk of a response.
TIMEOUT_S = 10

_ATTEMPTS = 3
_CHUNK_BYTES = 1 << 16
_APT_TIMEOUT_S = 900

#: apt works in a folder of ours, so that it needs no root and does not change the system's package lists. The
#: system's own hooks for an update would change the system's folders, so they are cleared.
_APT_CONFIG = """\
Dir::State "{folder}";
Dir::State::Lists "{folder}/lists";
Dir::Cache "{folder}";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "{timeout}";
Acquire::https::Timeout "{timeout}";
#clear APT::Update;
"""


class UnavailableError(Exception):
    """A source cannot supply a file; the message says why, and the caller tries the next source."""


class _CutError(Exception):
    """A download was cut off; the bytes received so far stay in the file."""


def download(url: str, part: Path, max_bytes: int) -> None:
    """Download a file, starting from the byte where an earlier download was cut off.

    Args:
        url: Address of the file.
        part: File to write to. If the download is cut off, it keeps the bytes received for the next call.
        max_bytes: Largest size that the file can have; a longer download is given up.

    Raises:
        UnavailableError: If the server does not have the file, or does not send all of it.
        OSError: If ``part`` cannot be written.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _stream(url, part, max_bytes)
            break
        except _CutError as cut:
            if attempt == _ATTEMPTS:
                raise UnavailableError(f"{url}: cannot be downloaded: {cut}") from None


def _stream(url: str, part: Path, max_bytes: int) -> None:
    have = part.stat().st_size if part.exists() else 0
    with _answer(url, part, have) as response:
        resumed = response.status == 206
        have = have if resumed else 0
        total = None if response.length is None else have + response.length
        with part.open("ab" if resumed else "wb") as sink, _progress(url, have, total) as report:
            while chunk := _read(response):
                have += sink.write(chunk)
                report(have)
                if have > max_bytes:
                    part.unlink()
                    raise UnavailableError(f"{url}: cannot be downloaded: longer than {max_bytes:,} bytes")
    if total is not None and have < total:
        raise _CutError(f"the server sent only {have:,} of {total:,} bytes")


def _answer(url: str, part: Path, have: int) -> HTTPResponse:
    """Request all but the first ``have`` bytes of a file, and return the server's response."""
    headers = {"User-Agent": "lenet_exp"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        return cast(HTTPResponse, urlopen(Request(url, headers=headers), timeout=TIMEOUT_S))
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:
            # The file is not longer than what we have, so our bytes are not its beginning.
            part.unlink()
            raise _CutError("HTTP 416") from None
        raise UnavailableError(f"{url}: cannot be downloaded: HTTP {error.code}") from None
    except URLError as error:
        raise UnavailableError(f"{url}: cannot be downloaded: {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise UnavailableError(f"{url}: cannot be downloaded: {error}") from None


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except (OSError, HTTPException) as error:
        raise _CutError(str(error)) from None


@contextmanager
def _progress(url: str, have: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Context manager: tell how far a download is; yield a function to call with the bytes so far."""
    say(f"downloading {url}{f' ({total:,} bytes)' if total else ''}")
    with step(f"downloading {url.rpartition('/')[2]}") as count:

        def report(so_far: int) -> None:
            count.text = f"{so_far / 1e6:.1f}{f' of {total / 1e6:.1f}' if total else ''} MB"

        report(have)
        yield report


def fetch_package(package: str, kept: Path) -> None:
    """Download a Debian package with apt, without root; apt verifies it with the system's signing keys.

    Args:
        package: Name of the package; its newest version is downloaded.
        kept: File to write the package to.

    Raises:
        UnavailableError: If the system has no apt, or apt cannot download the package.
        OSError: If a file cannot be written.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UnavailableError(
            f"Debian package {package}: cannot be downloaded: this system has no apt-get and dpkg-deb"
        )
    say(f"downloading the Debian package {package}")
    # The name is fixed so that the next call removes what a killed process left; the caller locks the cache.
    folder = kept.with_name("apt.part")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / "lists" / "partial").mkdir(parents=True)
        (folder / "archives" / "partial").mkdir(parents=True)
        config = folder / "apt.conf"
        config.write_text(_APT_CONFIG.format(folder=folder, timeout=TIMEOUT_S), encoding="utf-8")
        # Other sources of the system may fail while the one with the package works.
        _apt(package, config, "update", may_fail=True)
        _apt(package, config, "download", package)
        archive = next(folder.glob(f"{package}_*.deb"))
        archive.replace(kept)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _apt(package: str, config: Path, *command: str, may_fail: bool = False) -> None:
    try:
        with step(f"waiting for apt-get {command[0]}"):
            completed = subprocess.run(
                ["apt-get", "-q", "-c", str(config), *command],
                cwd=config.parent,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=os.environ | {"LC_ALL": "C.UTF-8"},
                timeout=_APT_TIMEOUT_S,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise UnavailableError(
            f"Debian package {package}: apt-get {command[0]} took longer than {_APT_TIMEOUT_S} s"
        ) from None
    if completed.returncode and not may_fail:
        lines = completed.stderr.strip().splitlines() or [f"exit code {completed.returncode}"]
        raise UnavailableError(f"Debian package {package}: apt-get {command[0]} failed: {lines[-1]}")


@contextmanager
def package_member(package: Path, name: str) -> Iterator[IO[bytes]]:
    """Context manager: open one file of a Debian package for reading, without unpacking the others.

    Args:
        package: Path of the ``.deb`` file.
        name: Name of the file in the package, without its folder.

    Raises:
        UnavailableError: If the package cannot be read, or has no such file.
    """
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    # A caller that does not read to the end breaks the pipe; dpkg-deb would complain of that on stderr.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                content = next(
                    (tar.extractfile(member) for member in tar if Path(member.name).name == name), None
                )
                if content is None:
                    raise UnavailableError(f"{package}: holds no {name}")
                yield content
        except tarfile.TarError as error:
            raise UnavailableError(f"{package}: is damaged: {error}") from None

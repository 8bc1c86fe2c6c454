"""Fetching a data set's files over the network: from a mirror, or as a Debian package.

Nothing here is trusted: what comes is verified before it is used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, cast
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from lenet_exp.base.messages import say

#: Seconds to wait for a connection, and then for each next part of an answer.
TIMEOUT_S = 10

_ATTEMPTS = 3
_CHUNK_BYTES = 1 << 16
_APT_TIMEOUT_S = 900

#: Folders of our own, so that neither root's rights nor the system's lists are needed or touched. The
#: hooks that a system hangs on an update would work on the system's folders, so they are left out.
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
    """A source has not got what it was asked for; the message says which and why. No user sees it."""


class _CutError(Exception):
    """A download ended early; what came so far is kept."""


def download(url: str, part: Path, most_bytes: int) -> None:
    """Fetch ``url`` into ``part``, going on from what an earlier download left there.

    Args:
        url: The address of the file.
        part: The file to collect it in. What a cut download leaves there stays, for another time.
        most_bytes: The most that any copy can have; a longer answer is given up.

    Raises:
        UnavailableError: If the file is not to be had there, or does not come whole.
        OSError: If ``part`` cannot be written.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _stream(url, part, most_bytes)
            break
        except _CutError as cut:
            if attempt == _ATTEMPTS:
                raise UnavailableError(f"{url}: {cut}") from None


def _stream(url: str, part: Path, most_bytes: int) -> None:
    have = part.stat().st_size if part.exists() else 0
    with _answer(url, part, have) as response:
        resumed = response.status == 206
        have = have if resumed else 0
        whole = None if response.length is None else have + response.length
        with part.open("ab" if resumed else "wb") as sink, _progress(url, have, whole) as tell:
            while chunk := _read(response):
                have += sink.write(chunk)
                tell(have)
                if have > most_bytes:
                    part.unlink()
                    raise UnavailableError(f"{url}: longer than the {most_bytes:,} bytes that any copy has")
    if whole is not None and have < whole:
        raise _CutError(f"closed after {have:,} of {whole:,} bytes")


def _answer(url: str, part: Path, have: int) -> HTTPResponse:
    """Return the server's answer to a request for all but the first ``have`` bytes."""
    headers = {"User-Agent": "lenet_exp"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        return cast(HTTPResponse, urlopen(Request(url, headers=headers), timeout=TIMEOUT_S))
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing lies beyond what we have, so that is not a beginning of it
            part.unlink()
            raise _CutError("HTTP 416") from None
        raise UnavailableError(f"{url}: HTTP {error.code}") from None
    except URLError as error:
        raise UnavailableError(f"{url}: {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise UnavailableError(f"{url}: {error}") from None


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except (OSError, HTTPException) as error:
        raise _CutError(str(error)) from None


@contextmanager
def _progress(url: str, have: int, whole: int | None) -> Iterator[Callable[[int], None]]:
    """Show a download, by a bar on a terminal or else a line; give a function that takes the bytes so far."""
    if not sys.stderr.isatty():
        size = f" ({whole:,} bytes)" if whole else ""
        say(f"downloading {url}{size}")
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"downloading {url.rpartition('/')[2]}", total=whole, completed=have)
        yield lambda so_far: progress.update(task, completed=so_far)


def fetch_package(package: str, kept: Path) -> None:
    """Fetch a Debian package without root; apt verifies it by the signatures of the system's sources.

    Args:
        package: The name of the package, of which the newest version is taken.
        kept: The file to keep it in.

    Raises:
        UnavailableError: If there is no apt here, or it has no such package.
        OSError: If a file cannot be written.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UnavailableError(f"Debian package {package}: no apt-get and dpkg-deb here")
    say(f"fetching the Debian package {package}")
    # One folder of a fixed name, under the cache's lock: what a killed process left is cleared away here.
    folder = kept.with_name("apt.part")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / "lists" / "partial").mkdir(parents=True)
        (folder / "archives" / "partial").mkdir(parents=True)
        config = folder / "apt.conf"
        config.write_text(_APT_CONFIG.format(folder=folder, timeout=TIMEOUT_S), encoding="utf-8")
        # A source of the system's that fails says nothing yet about the one that has the package.
        _apt(package, config, "update", may_fail=True)
        _apt(package, config, "download", package)
        found = next(folder.glob(f"{package}_*.deb"))
        found.replace(kept)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _apt(package: str, config: Path, *command: str, may_fail: bool = False) -> None:
    try:
        done = subprocess.run(
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
        raise UnavailableError(f"Debian package {package}: apt-get {command[0]} took too long") from None
    if done.returncode and not may_fail:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UnavailableError(f"Debian package {package}: apt-get {command[0]}: {said[-1]}")


@contextmanager
def package_member(package: Path, name: str) -> Iterator[IO[bytes]]:
    """Open a file in a Debian package; nothing else of the package is unpacked.

    Args:
        package: The package, a ``.deb`` file.
        name: The file's name, without its folder.

    Raises:
        UnavailableError: If the package cannot be read, or has no such file.
    """
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    # Who leaves early ends dpkg-deb by a broken pipe, which it would complain of.
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

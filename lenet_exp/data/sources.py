"""The sources that a data set's files are obtained from: the cache, folders, mirrors, a Debian package."""

from __future__ import annotations

import gzip
import hashlib
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lenet_exp.base.errors import DataError
from lenet_exp.base.messages import say, step
from lenet_exp.data import idx
from lenet_exp.data.cache import Cache
from lenet_exp.data.download import UnavailableError, download, fetch_package, package_member
from lenet_exp.data.idx import Content, IdxFile

#: Folder where Debian packages install data sets, each in a subfolder of its name.
SYSTEM_FOLDER = Path("/usr/share/datasets")


@dataclass(frozen=True)
class Part:
    """The training or the test part of a data set: a file of images and a file of their labels.

    Attributes:
        images: Properties of the file of images.
        labels: Properties of the file of labels.
    """

    images: IdxFile
    labels: IdxFile

    def __iter__(self) -> Iterator[IdxFile]:
        return iter((self.images, self.labels))


@dataclass(frozen=True)
class Dataset:
    """A data set: the properties of its files, and the sources to obtain them from.

    Attributes:
        name: Name of the data set in experiment files, and of its folders.
        train: Files of the training part.
        test: Files of the test part.
        classes: Names of the classes, in the order of the labels 0, 1, ...
        mirrors: Function that returns the base URLs of mirrors, which have the files as ``<name>.gz``.
        md5s: Function that returns the MD5 of each ``<name>.gz`` by its name; None if the MD5 is unknown or
            not needed.
        subfolder: Folder where torchvision stores the files below its root; None for the user's own data.
        debian_package: Name of the Debian package with the gzipped files; None if there is none.
    """

    name: str
    train: Part
    test: Part
    classes: tuple[str, ...]
    mirrors: Callable[[], Sequence[str]] = tuple
    md5s: Callable[[], Mapping[str, str]] | None = None
    subfolder: str | None = None
    debian_package: str | None = None

    @property
    def built_in(self) -> bool:
        """True if this package knows the SHA-256 of the files."""
        return self.train.images.sha256 is not None

    @property
    def user_supplied(self) -> bool:
        """True if only the user has the files: there is no mirror or package."""
        return not self.built_in and self.md5s is None


@dataclass(frozen=True)
class CachedFile:
    """A verified file in the cache.

    Attributes:
        path: Path of the file in the cache.
        shape: Shape that the file's header gives.
        sha256: SHA-256 of the file, in hexadecimal digits.
    """

    path: Path
    shape: tuple[int, ...]
    sha256: str


def obtain(dataset: Dataset, part: Part, folder: Path | None) -> tuple[CachedFile, CachedFile]:
    """Copy a part's images and labels into the cache, from the first source that has them, and verify them.

    Files that are in the cache or in ``folder`` are verified in each call. If their SHA-256 is unknown, it is
    pinned (recorded in the cache) at first use, and the files must have it from then on.

    Args:
        dataset: Data set to obtain.
        part: Part of ``dataset`` to obtain; files of the other part are not opened.
        folder: Folder that the user names; None to search only the other sources. It may have the files,
            plain or gzipped, directly, in a subfolder of the data set's name, or where torchvision stores
            them.

    Returns:
        The cached file of images, and that of labels.

    Raises:
        DataError: If a file is damaged, or no source has it.
        DiskError: If the cache cannot be written.
    """
    cache = Cache(dataset.name)
    files = _with_pins(dataset, part, cache)
    with step(f"verifying the files of {dataset.name}"):
        if folder is not None:
            _verify_named(dataset, files, folder, cache)
        contents = _cached(files, cache)
    if contents is None:
        with cache.lock():
            files = _with_pins(dataset, part, cache)
            contents = [_obtain_file(dataset, expected, folder, cache) for expected in files]
            _check_counts(dataset, contents)
            if not dataset.built_in:
                cache.pin(
                    {expected.name: content.sha256 for expected, content in zip(files, contents, strict=True)}
                )
    images, labels = (
        CachedFile(cache.folder / expected.name, content.shape, content.sha256)
        for expected, content in zip(files, contents, strict=True)
    )
    return images, labels


def within_reach(dataset: Dataset, part: Part, folder: Path | None) -> bool:
    """Return True if the files of a part can be obtained without a network; the files are not opened.

    Args:
        dataset: Data set to look for.
        part: Part of ``dataset`` to look for.
        folder: Folder that the user names; None to search only the other sources.
    """
    cache = Cache(dataset.name)
    return all(
        (expected.sha256 is not None and (cache.folder / expected.name).exists())
        or _in_folder(dataset, expected, folder)
        or _in_system(dataset, expected)
        or _kept_package(dataset, cache)
        for expected in _with_pins(dataset, part, cache)
    )


def _with_pins(dataset: Dataset, part: Part, cache: Cache) -> list[IdxFile]:
    """Return the files of ``part``; a SHA-256 that is unknown is filled in if the cache has pinned it."""
    if dataset.built_in:
        return list(part)
    pins = cache.pinned()
    return [replace(expected, sha256=pins.get(expected.name)) for expected in part]


def _verify_named(dataset: Dataset, files: Sequence[IdxFile], folder: Path, cache: Cache) -> None:
    """Raise if a file in the folder that the user names is damaged, even if the cache has a good copy."""
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; data.folder must be the folder with the files of {dataset.name}"
        )
    for expected in files:
        path = _in_folder(dataset, expected, folder)
        if path is None:
            if dataset.user_supplied:
                raise DataError(
                    f"{folder}: holds no {expected.name}, plain or .gz, which a data set of your own needs"
                )
            continue
        try:
            with idx.opened(path) as stream:
                idx.verify(stream, expected, _shown(path))
        except DataError as error:
            pinned = not dataset.built_in and expected.sha256
            advice = (
                f"; if the data set has changed, give it a new name, or delete {cache.pins}" if pinned else ""
            )
            raise DataError(f"{error}; replace the file{advice}") from None


def _cached(files: Sequence[IdxFile], cache: Cache) -> list[Content] | None:
    """Return the contents of the cached files; None if any of them is missing or damaged."""
    try:
        contents = [cache.verified(expected) for expected in files]
    except DataError:
        return None  # `_obtain_file` reports the damage, unless another process repairs it first
    return [content for content in contents if content] if all(contents) else None


def _obtain_file(dataset: Dataset, expected: IdxFile, folder: Path | None, cache: Cache) -> Content:
    """Return the content of a cached file, copied from the first source with a good copy if necessary."""
    try:
        if content := cache.verified(expected):
            return content
    except DataError as error:
        aside = cache.set_aside(expected.name)
        say(f"warning: {error}; renamed to {aside}; looking for another copy")
    if path := _in_folder(dataset, expected, folder):
        return _from_file(path, expected, cache)
    tried = [str(place) for place in (cache.folder, folder) if place]
    for source in _sources(dataset, cache):
        try:
            return source(dataset, expected, cache)
        except UnavailableError as reason:
            tried.append(str(reason))
        except DataError as error:
            say(f"warning: {error}; looking for another copy")
            tried.append(str(error))
    install = f"install the Debian package {dataset.debian_package}, or " if dataset.debian_package else ""
    raise DataError(
        f"no good copy of {expected.name} of {dataset.name} found; {install}name a folder that has it with"
        f" --set data.folder=...; tried: {'; '.join(tried)}"
    )


def _sources(dataset: Dataset, cache: Cache) -> Iterator[Callable[[Dataset, IdxFile, Cache], Content]]:
    """Yield the sources to try after the cache and the user's folder; those on the network come last."""
    if dataset.built_in:
        yield _from_system
        if _kept_package(dataset, cache):
            yield _from_kept_package
    if not dataset.user_supplied:
        yield _from_mirrors
    if dataset.debian_package:
        yield _from_debian


def _check_counts(dataset: Dataset, contents: Sequence[Content]) -> None:
    images, labels = (content.shape[0] for content in contents)
    if images != labels:
        raise DataError(
            f"{dataset.name}: there are {images:,} images and {labels:,} labels; each image needs a label"
        )


def _from_file(path: Path, expected: IdxFile, cache: Cache) -> Content:
    with step(f"copying {path} into the cache"), idx.opened(path) as stream:
        return cache.store(stream, expected, _shown(path))


def _from_system(dataset: Dataset, expected: IdxFile, cache: Cache) -> Content:
    path = _in_system(dataset, expected)
    if path is None:
        raise UnavailableError(str(SYSTEM_FOLDER / dataset.name))
    return _from_file(path, expected, cache)


def _from_kept_package(dataset: Dataset, expected: IdxFile, cache: Cache) -> Content:
    kept = _package(dataset, cache)
    try:
        with (
            step(f"unpacking {expected.name} from {kept}"),
            package_member(kept, f"{expected.name}.gz") as member,
            gzip.open(member) as stream,
        ):
            return cache.store(stream, expected, f"{expected.name}.gz of {kept}")
    except (DataError, UnavailableError):
        cache.set_aside(kept.name)
        raise


def _from_debian(dataset: Dataset, expected: IdxFile, cache: Cache) -> Content:
    # The package stays in the cache, so that the other files can be obtained from it without a network.
    with cache.writing():
        fetch_package(str(dataset.debian_package), _package(dataset, cache))
    return _from_kept_package(dataset, expected, cache)


def _from_mirrors(dataset: Dataset, expected: IdxFile, cache: Cache) -> Content:
    failures = []
    for mirror in dataset.mirrors():
        url = f"{mirror.rstrip('/')}/{expected.name}.gz"
        try:
            return _from_mirror(dataset, url, expected, cache)
        except UnavailableError as reason:
            failures.append(str(reason))
        except DataError as error:
            aside = cache.set_aside(f"{expected.name}.gz.part")
            say(f"warning: {error}; renamed to {aside}; looking for another copy")
            failures.append(str(error))
    raise UnavailableError("; ".join(failures))


def _from_mirror(dataset: Dataset, url: str, expected: IdxFile, cache: Cache) -> Content:
    part = cache.folder / f"{expected.name}.gz.part"
    resumed = part.exists()
    # Gzipped files are hardly longer than plain ones, even if their bytes cannot be compressed.
    max_bytes = 2 * math.prod(expected.shape or ()) + 1024
    with cache.writing():
        download(url, part, max_bytes)
    try:
        if dataset.md5s:
            _check_md5(part, dataset.md5s()[f"{expected.name}.gz"], url)
        with gzip.open(part) as stream:
            content = cache.store(stream, expected, f"{url} (unpacked)")
    except DataError:
        if not resumed:
            raise
        # The first bytes may be from another mirror, whose gzipped file differs.
        part.unlink()
        return _from_mirror(dataset, url, expected, cache)
    part.unlink()
    return content


def _check_md5(path: Path, md5: str, shown: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != md5:
        raise DataError(f"{shown}: its MD5 is {digest}, expected {md5}")


def _in_folder(dataset: Dataset, expected: IdxFile, folder: Path | None) -> Path | None:
    """Return the path of the file in the folder that the user names; None if it is not there."""
    if folder is None:
        return None
    below = [dataset.name, *([dataset.subfolder] if dataset.subfolder else [])]
    return _first([folder, *(folder / name for name in below)], expected.name)


def _in_system(dataset: Dataset, expected: IdxFile) -> Path | None:
    return _first([SYSTEM_FOLDER / dataset.name], expected.name) if dataset.built_in else None


def _first(folders: Sequence[Path], name: str) -> Path | None:
    candidates = (folder / f"{name}{suffix}" for folder in folders for suffix in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _package(dataset: Dataset, cache: Cache) -> Path:
    return cache.folder / f"{dataset.debian_package}.deb"


def _kept_package(dataset: Dataset, cache: Cache) -> bool:
    """Return True if an earlier call left the Debian package in the cache and ``dpkg-deb`` can unpack it."""
    kept = dataset.debian_package is not None and _package(dataset, cache).exists()
    return kept and shutil.which("dpkg-deb") is not None


def _shown(path: Path) -> str:
    return f"{path} (unpacked)" if path.suffix == ".gz" else str(path)

"""Where the files of a data set come from: folders, mirrors, a Debian package."""

from __future__ import annotations

import gzip
import hashlib
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lenet_exp.base.errors import DataError
from lenet_exp.base.messages import say
from lenet_exp.data import idx
from lenet_exp.data.cache import Cache
from lenet_exp.data.download import UnavailableError, download, fetch_package, package_member
from lenet_exp.data.idx import Content, IdxFile

#: Where Debian's packages of data sets put them, a folder each.
SYSTEM_FOLDER = Path("/usr/share/datasets")


@dataclass(frozen=True)
class Part:
    """The two files of a split."""

    images: IdxFile
    labels: IdxFile

    def __iter__(self) -> Iterator[IdxFile]:
        return iter((self.images, self.labels))


@dataclass(frozen=True)
class Dataset:
    """A data set: what its files must be, and who has them.

    Attributes:
        name: The name in experiments, and of the data set's folders.
        train: The files of the training images and their labels.
        test: The files of the test images and their labels.
        classes: The meaning of the labels 0, 1, ...
        mirrors: Called for the addresses to which the names of the files, with ``.gz``, are added.
        md5s: Called for the MD5 of those packed files by name, where no SHA-256 is known beforehand.
        subfolder: The folder in which torchvision puts the files, below the one it is given.
        debian_package: The Debian package that holds the files, gzipped.
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
        """Whether the files' checksums are known beforehand."""
        return self.train.images.sha256 is not None

    @property
    def own(self) -> bool:
        """Whether nobody but the user has the files."""
        return not self.built_in and self.md5s is None


@dataclass(frozen=True)
class CachedFile:
    """A verified file of the cache: where it is, and what it holds."""

    path: Path
    shape: tuple[int, ...]
    sha256: str


def obtain(dataset: Dataset, part: Part, folder: Path | None) -> tuple[CachedFile, CachedFile]:
    """Return the images and the labels of ``part``, verified and in the cache, wherever they came from.

    The cache's files are verified each time, those in ``folder`` too. The files of a user's own data set
    are pinned: what they are at first use they must be ever after.

    Args:
        dataset: The data set to look for.
        part: The files to look for, one of the data set's parts; no others are touched.
        folder: The folder that the user named. Files lie there gzipped or plain, in the folder itself, in one
            of the data set's name below it, or as torchvision leaves them.

    Raises:
        DataError: If a file is damaged, or is nowhere to be had.
        DiskError: If the cache cannot be written.
    """
    cache = Cache(dataset.name)
    wanted = _with_pins(dataset, part, cache)
    if folder is not None:
        _verify_named(dataset, wanted, folder, cache)
    contents = _cached(wanted, cache)
    if contents is None:
        with cache.lock():
            wanted = _with_pins(dataset, part, cache)
            contents = [_mended(dataset, want, folder, cache) for want in wanted]
            _check_counts(dataset, contents)
            if not dataset.built_in:
                cache.pin({want.name: content.sha256 for want, content in zip(wanted, contents, strict=True)})
    images, labels = (
        CachedFile(cache.folder / want.name, content.shape, content.sha256)
        for want, content in zip(wanted, contents, strict=True)
    )
    return images, labels


def within_reach(dataset: Dataset, part: Part, folder: Path | None) -> bool:
    """Return whether files can be had without a network; none is opened to find out.

    Args:
        dataset: The data set to look for.
        part: The files to look for, one of the data set's parts.
        folder: The folder that the user named.
    """
    cache = Cache(dataset.name)
    return all(
        (want.sha256 is not None and (cache.folder / want.name).exists())
        or _in_folder(dataset, want, folder)
        or _in_system(dataset, want)
        or _kept_package(dataset, cache)
        for want in _with_pins(dataset, part, cache)
    )


def _with_pins(dataset: Dataset, part: Part, cache: Cache) -> list[IdxFile]:
    """Return the two files of ``part``; where no checksum is known beforehand, with the pinned one."""
    if dataset.built_in:
        return list(part)
    pins = cache.pinned()
    return [replace(want, sha256=pins.get(want.name)) for want in part]


def _verify_named(dataset: Dataset, wanted: Sequence[IdxFile], folder: Path, cache: Cache) -> None:
    """Refuse damaged files in the folder that the user named, whatever the cache holds."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; data.folder must be where files of {dataset.name} lie")
    for want in wanted:
        path = _in_folder(dataset, want, folder)
        if path is None:
            if dataset.own:
                raise DataError(
                    f"{folder}: holds no {want.name}, plain or .gz; a data set of your own needs it"
                )
            continue
        try:
            with idx.opened(path) as stream:
                idx.verify(stream, want, _shown(path))
        except DataError as error:
            pinned = not dataset.built_in and want.sha256
            advice = f"; for a changed data set take a new name, or delete {cache.pins}" if pinned else ""
            raise DataError(f"{error}; replace the file{advice}") from None


def _cached(wanted: Sequence[IdxFile], cache: Cache) -> list[Content] | None:
    """Return what the cached files hold; None if one is missing or damaged."""
    try:
        contents = [cache.verified(want) for want in wanted]
    except DataError:
        return None  # told by `_mended`, unless another process mends it first
    return [content for content in contents if content] if all(contents) else None


def _mended(dataset: Dataset, want: IdxFile, folder: Path | None, cache: Cache) -> Content:
    """Return what the cached file holds, once it is there and good."""
    try:
        if content := cache.verified(want):
            return content
    except DataError as error:
        aside = cache.set_aside(want.name)
        say(f"warning: {error}; kept as {aside.name}, looking for a good copy")
    if path := _in_folder(dataset, want, folder):
        return _from_file(path, want, cache)
    tried = [str(place) for place in (cache.folder, folder) if place]
    for source in _ladder(dataset, cache):
        try:
            return source(dataset, want, cache)
        except UnavailableError as reason:
            tried.append(str(reason))
        except DataError as error:
            say(f"warning: {error}; looking for another copy")
            tried.append(str(error))
    install = f"install the Debian package {dataset.debian_package}, or " if dataset.debian_package else ""
    raise DataError(
        f"no good copy of {want.name} of {dataset.name} found; {install}name a folder that has it with"
        f" --set data.folder=...; tried: {'; '.join(tried)}"
    )


def _ladder(dataset: Dataset, cache: Cache) -> Iterator[Callable[[Dataset, IdxFile, Cache], Content]]:
    """Give the sources to try after the cache and the user's folder; the network comes last."""
    if dataset.built_in:
        yield _from_system
        if _kept_package(dataset, cache):
            yield _from_kept_package
    if not dataset.own:
        yield _from_mirrors
    if dataset.debian_package:
        yield _from_debian


def _check_counts(dataset: Dataset, contents: Sequence[Content]) -> None:
    images, labels = (content.shape[0] for content in contents)
    if images != labels:
        raise DataError(
            f"{dataset.name}: there are {images:,} images and {labels:,} labels; there must be one each"
        )


def _from_file(path: Path, want: IdxFile, cache: Cache) -> Content:
    with idx.opened(path) as stream:
        return cache.store(stream, want, _shown(path))


def _from_system(dataset: Dataset, want: IdxFile, cache: Cache) -> Content:
    path = _in_system(dataset, want)
    if path is None:
        raise UnavailableError(str(SYSTEM_FOLDER / dataset.name))
    return _from_file(path, want, cache)


def _from_kept_package(dataset: Dataset, want: IdxFile, cache: Cache) -> Content:
    kept = _package(dataset, cache)
    try:
        with package_member(kept, f"{want.name}.gz") as member, gzip.open(member) as stream:
            return cache.store(stream, want, f"{want.name}.gz of {kept}")
    except (DataError, UnavailableError):
        cache.set_aside(kept.name)
        raise


def _from_debian(dataset: Dataset, want: IdxFile, cache: Cache) -> Content:
    # Kept for the files that are not wanted yet, which are then to be had without a network.
    with cache.writing():
        fetch_package(str(dataset.debian_package), _package(dataset, cache))
    return _from_kept_package(dataset, want, cache)


def _from_mirrors(dataset: Dataset, want: IdxFile, cache: Cache) -> Content:
    failures = []
    for mirror in dataset.mirrors():
        url = f"{mirror.rstrip('/')}/{want.name}.gz"
        try:
            return _from_mirror(dataset, url, want, cache)
        except UnavailableError as reason:
            failures.append(str(reason))
        except DataError as error:
            aside = cache.set_aside(f"{want.name}.gz.part")
            say(f"warning: {error}; kept as {aside}, looking for another copy")
            failures.append(str(error))
    raise UnavailableError("; ".join(failures))


def _from_mirror(dataset: Dataset, url: str, want: IdxFile, cache: Cache) -> Content:
    part = cache.folder / f"{want.name}.gz.part"
    resumed = part.exists()
    # No compression makes bytes that cannot be compressed much longer.
    most_bytes = 2 * math.prod(want.shape or ()) + 1024
    with cache.writing():
        download(url, part, most_bytes)
    try:
        if dataset.md5s:
            _check_md5(part, dataset.md5s()[f"{want.name}.gz"], url)
        with gzip.open(part) as stream:
            content = cache.store(stream, want, f"{url} (unpacked)")
    except DataError:
        if not resumed:
            raise
        # The beginning may have been another mirror's, packed otherwise.
        part.unlink()
        return _from_mirror(dataset, url, want, cache)
    part.unlink()
    return content


def _check_md5(path: Path, md5: str, shown: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != md5:
        raise DataError(f"{shown}: its MD5 is {digest}, expected {md5}")


def _in_folder(dataset: Dataset, want: IdxFile, folder: Path | None) -> Path | None:
    """Return the file in a folder that the user named, if it is there."""
    if folder is None:
        return None
    below = [dataset.name, *([dataset.subfolder] if dataset.subfolder else [])]
    return _first([folder, *(folder / name for name in below)], want.name)


def _in_system(dataset: Dataset, want: IdxFile) -> Path | None:
    return _first([SYSTEM_FOLDER / dataset.name], want.name) if dataset.built_in else None


def _first(folders: Sequence[Path], name: str) -> Path | None:
    candidates = (folder / f"{name}{suffix}" for folder in folders for suffix in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _package(dataset: Dataset, cache: Cache) -> Path:
    return cache.folder / f"{dataset.debian_package}.deb"


def _kept_package(dataset: Dataset, cache: Cache) -> bool:
    """Return whether there is a package from an earlier call, and what it takes to unpack it."""
    kept = dataset.debian_package is not None and _package(dataset, cache).exists()
    return kept and shutil.which("dpkg-deb") is not None


def _shown(path: Path) -> str:
    return f"{path} (unpacked)" if path.suffix == ".gz" else str(path)

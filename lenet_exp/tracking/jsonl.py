"""Files of JSON lines that only grow, that a crash cannot damage, and whose lines are checked when read.

A line is written by one call and is on the disk before `append` returns. A crash can leave the last line
incomplete; `read` ignores it, and `repair` cuts it off before the file grows again.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from stat import S_ISREG
from typing import Any

from lenet_exp.base.errors import LenetExpError, StoreError, shorten
from lenet_exp.base.files import disk_error, open_file, read_file, sync_file, write_atomically
from lenet_exp.base.lineage import Lineage
from lenet_exp.base.messages import repair_command
from lenet_exp.base.records import METRICS, RunKey

#: Stem of the study's own file.
STUDY = "study"
_NOT_FINITE = ("nan", "inf", "-inf")
_STATES = ("COMPLETE", "PRUNED", "FAIL")
_TEXT_OR_NONE = (str, type(None))
#: Types of the metadata in a start line; what an older version did not write may be missing.
_ATTEMPT = {
    "params": (dict,),
    "seed": (int,),
    "config": (str,),
    "label": (str,),
    "tags": (dict,),
    "study": (dict,),
}
_STUDY = {"params": (dict,), "tags": (dict,), "image_size": (int,), "fingerprint": (dict,)}


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """Append a line to the file, and return when it is on the disk.

    Args:
        path: File that gets the line. It is created if it does not exist; its folder must exist.
        entry: JSON values by name. Floats that are not finite are written as the strings ``nan``, ``inf`` and
            ``-inf``, which `float` reads back and every JSON reader accepts.

    Raises:
        DiskError: If the file cannot be written. It may then end in an incomplete line: see `repair`.
        ConfigError: If a link is in its place.
        StoreError: If something else than a file is in its place.
    """
    line = encoded(entry)
    try:
        is_new = not path.exists()
        file = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            if os.write(file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file)
        finally:
            os.close(file)
        if is_new:
            sync_file(path.parent)
    except OSError as error:
        raise disk_error(path, error) from error


def encoded(entry: Mapping[str, Any]) -> bytes:
    """Return the line that `append` writes for ``entry``."""
    return json.dumps(_finite(entry), allow_nan=False, separators=(",", ":")).encode() + b"\n"


def read(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Return the file's complete lines from ``offset`` on, parsed, and the offset after the last of them.

    Args:
        path: File to read; one that does not exist has no lines.
        offset: Number of bytes to skip: 0, or the offset that an earlier call returned.

    Raises:
        StoreError: If a line before the last one is damaged, or something else than a file is in its place.
        ConfigError: If a link is in its place.
        DiskError: If the file cannot be read.
    """
    try:
        with os.fdopen(open_file(path), "rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    except OSError as error:
        raise disk_error(path, error) from None
    lines = data.split(b"\n")[:-1]
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(lines):
        try:
            entry = parsed(line)
        except ValueError as error:
            # A power cut can leave the end of the last line on the disk without its beginning.
            if number == len(lines) - 1:
                break
            raise StoreError(f"{path} is damaged at byte {offset}: {error}") from None
        entries.append(entry)
        offset += len(line) + 1
    return entries, offset


def parsed(line: bytes) -> dict[str, Any]:
    """Return the object that a line holds.

    Raises:
        ValueError: If it is not a JSON object.
    """
    try:
        entry = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(entry, dict):
        raise ValueError(f"expected a JSON object, found {json.dumps(entry)[:40]}")
    return entry


def repair(path: Path) -> None:
    """Cut off an incomplete last line, which a crash may have left.

    A file that has a second name is replaced by a copy, as what appends to it would change the other too.

    Raises:
        StoreError: If a line before the last one is damaged, or something else than a file is in its place.
        ConfigError: If a link is in its place.
        DiskError: If the file cannot be written.
    """
    _, end = read(path)
    try:
        status = path.stat() if path.exists() else None
        if status and status.st_nlink > 1:
            write_atomically(path, read_file(path)[:end])
        elif status and status.st_size > end:
            file = open_file(path, os.O_WRONLY)
            try:
                os.truncate(file, end)
            finally:
                os.close(file)
    except OSError as error:
        raise disk_error(path, error) from error


def _finite(value: Any) -> Any:
    """Return ``value`` with NaN and infinite floats, which JSON does not have, replaced by strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Context manager: add to an error about the file at ``path`` which it is and what to do."""
    command = repair_command(path.parents[2])
    try:
        yield
    except StoreError as error:
        raise StoreError(f"{error}; '{command}' restores it from the study") from None
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}; '{command}' restores it from the study") from None


def intact_lines(path: Path, stem: str) -> list[dict[str, Any]]:
    """Return the lines of a file of the spool that are what they should be; none if it is no file.

    Args:
        path: The file; it need not exist.
        stem: Stem of the attempt that the file should be of, or `STUDY`.
    """
    try:
        content = read_file(path)
    except (OSError, LenetExpError):
        return []
    entries = []
    for line in content.split(b"\n"):
        try:
            entry = parsed(line)
            if stem == STUDY:
                check_study_line(entry)
            else:
                check_attempt_line(entry, RunKey.from_stem(stem))
        except ValueError:
            continue
        entries.append(entry)
    return entries


def lineage_of(
    files: Mapping[RunKey, Path], study: Lineage | None, known: Collection[RunKey] = ()
) -> Lineage:
    """Return what the files of a spool say about its study, to be compared with the study itself.

    Args:
        files: Files of the attempts.
        study: Lineage in the study's own file; None if there is none that can be read.
        known: Keys of the attempts that the study has. The files of others are read, and left out if they
            have no whole line, or come from another study.
    """
    in_study = study.id if study else ""
    # Most of the first attempts decide, as a single file may be another study's.
    ids = Counter(filter(None, (_study_id(files[key], key) for key in sorted(files)[:5])))
    own = ids.most_common(1)[0][0] if ids else in_study
    left_out = {key for key in files.keys() - frozenset(known) if _study_id(files[key], key) not in ("", own)}
    keys = frozenset(files.keys() - left_out)
    if study is None or in_study != own:  # lost, or another study's
        return Lineage(own, keys=keys)
    return replace(study, keys=keys)


def _study_id(path: Path, key: RunKey) -> str | None:
    """Return the study's id in an attempt's file: empty if it has none, None without a whole line."""
    entries = intact_lines(path, key.stem)
    starts = [entry for entry in entries if entry["event"] == "start"]
    metadata = starts[0].get("metadata", {}) if starts else {}
    return str(metadata.get("study_id", "")) if entries else None


def sizes(folder: Path) -> dict[str, int]:
    """Return the size of each file of an attempt or of the study, by stem, without empty files."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        status = {
            entry.name.removesuffix(".jsonl"): entry.stat(follow_symlinks=False)
            for entry in entries
            if entry.name.endswith(".jsonl") and is_stem(entry.name.removesuffix(".jsonl"))
        }
    # What is no file is not left out, so that it is noticed.
    return {s: st.st_size for s, st in status.items() if st.st_size or not S_ISREG(st.st_mode)}


def is_stem(name: str) -> bool:
    """Return True if ``name`` is the stem of an attempt, or `STUDY`."""
    try:
        return name == STUDY or bool(RunKey.from_stem(name))
    except ValueError:
        return False


def indexed(entries: Iterable[Mapping[str, Any]]) -> tuple[dict[str, str], dict[str, int]]:
    """Return what the lines of the index say: the ids of runs in MLflow, and the bytes uploaded, by stem.

    Raises:
        ValueError: If a line is not what the index has.
    """
    run_ids, uploaded = {}, {}
    for entry in entries:
        _check(entry, stem=(str,))
        if not is_stem(entry["stem"]):
            raise ValueError(f"'stem' is {shorten(entry['stem'])}")
        if "run_id" in entry:
            _check(entry, run_id=(str,))
            run_ids[entry["stem"]] = entry["run_id"]
        else:
            name = "uploaded" if "uploaded" in entry else "shipped"  # its name until November 2026
            _check(entry, **{name: (int,)})
            uploaded[entry["stem"]] = entry[name]
    return run_ids, uploaded


def check_attempt_line(entry: Mapping[str, Any], key: RunKey) -> None:
    """Check a line of an attempt's file.

    Args:
        entry: The line, parsed.
        key: Key of the attempt that the file is named after.

    Raises:
        ValueError: If the line is of another attempt, or a field is missing or of another type.
    """
    match _event(entry, "start", "epoch", "end", "test"):
        case "start":
            if entry.get("key", key.stem) != key.stem:
                raise ValueError(f"it is the file of {shorten(entry['key'])}")
            metadata = _metadata(entry)
            _check_present(metadata, **_ATTEMPT)
        case "epoch":
            _check(entry, result=(dict,))
            result = entry["result"]
            _check(result, epoch=(int,))
            numbers = {name: result[name] for name in result if name not in ("epoch", "watched")}
            unknown = numbers.keys() - {*METRICS, "evaluation_s"}
            missing = set(METRICS) - numbers.keys()
            if unknown or missing or result["epoch"] < 1:
                raise ValueError(f"an epoch's result is {shorten(result)}")
            _check_numbers(numbers)
            _check_numbers(result.get("watched", {}))
        case "end":
            _check_end(entry)
            _check(entry, weights=_TEXT_OR_NONE)
            _check_present(entry, result=(dict,), facts=(dict,))
        case _:
            _check(entry, metrics=(dict,))
            _check_numbers(entry["metrics"])


def check_study_line(entry: Mapping[str, Any]) -> None:
    """Check a line of the study's file.

    Raises:
        ValueError: If a field is missing or of another type.
    """
    match _event(entry, "start", "keep", "champion", "end"):
        case "start":
            metadata = _metadata(entry)
            _check(metadata, study=(str,), experiment=(str,), files=(list,), dataset=(dict, type(None)))
            _check_present(metadata, **_STUDY)
            if metadata["dataset"]:
                _check(metadata["dataset"], name=(str,), digest=(str,), source=(str,))
            if not all(type(name) is str for name in metadata["files"]):
                raise ValueError(f"'files' is {shorten(metadata['files'])}")
        case "keep":
            _check(entry, name=(str,))
            if "value" not in entry:
                raise ValueError("'value' is missing")
        case "champion":
            _check(entry, champion=(dict,))
            _check(entry["champion"], name=(str,), aliases=(dict,), description=(str,))
            for stem in entry["champion"]["aliases"].values():
                RunKey.from_stem(str(stem))
        case _:
            _check_end(entry)
            _check({"result": {}, **entry}, result=(dict,))


def _event(entry: Mapping[str, Any], *events: str) -> str:
    _check(entry, time_ms=(int,), event=(str,))
    if entry["event"] not in events or not 0 <= entry["time_ms"] < 2**53:
        raise ValueError(f"a line says {shorten(dict(entry))}")
    return str(entry["event"])


def _metadata(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    name = "metadata" if "metadata" in entry else "facts"  # its name until November 2026
    _check(entry, **{name: (dict,)})
    metadata: Mapping[str, Any] = entry[name]
    return metadata


def _check_end(entry: Mapping[str, Any]) -> None:
    _check(entry, state=(str,), reason=_TEXT_OR_NONE)
    if entry["state"] not in _STATES:
        raise ValueError(f"'state' is {shorten(entry['state'])}")


def _check(values: Mapping[str, Any], **kinds: tuple[type, ...]) -> None:
    """Check that values have the types that JSON gives them; a boolean is no number."""
    for name, types in kinds.items():
        if name not in values:
            raise ValueError(f"{name!r} is missing")
        if type(values[name]) not in types:
            raise ValueError(f"{name!r} is {shorten(values[name])}")


def _check_present(values: Mapping[str, Any], **kinds: tuple[type, ...]) -> None:
    _check(values, **{name: types for name, types in kinds.items() if name in values})


def _check_numbers(values: Any) -> None:
    if type(values) is not dict:
        raise ValueError(f"measurements are {shorten(values)}")
    for name, value in values.items():
        if type(value) not in (int, float) and value not in _NOT_FINITE:
            raise ValueError(f"{name!r} is {shorten(value)}")

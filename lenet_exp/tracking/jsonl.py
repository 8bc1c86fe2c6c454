"""Files of JSON lines that only grow, and that a crash cannot damage.

A line is written by one call and is on the disk before `append` returns. A crash can leave the last line
incomplete; `read` ignores it, and `repair` cuts it off before the file grows again.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lenet_exp.base.errors import StoreError
from lenet_exp.base.files import disk_error, open_file, read_file, sync_file, write_atomically


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

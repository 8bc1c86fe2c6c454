"""Files of JSON lines that are only ever appended to, and that a crash cannot spoil.

A line is written in one piece and is on the disk before `append` returns. What a crash leaves half
written is the last line; `read` does not see it, and `mend` cuts it off before the file grows again.
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
from lenet_exp.base.files import disk_error, sync_file


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """Add one line to the file, which is made if need be, and see it to the disk.

    Args:
        path: The file; its folder must exist.
        entry: JSON values. Floats that are not finite become the strings ``nan``, ``inf`` and
            ``-inf``, which `float` reads back and every JSON reader accepts.

    Raises:
        DiskError: If it cannot be written. The file may then end in half a line: see `mend`.
    """
    line = json.dumps(_finite(entry), allow_nan=False, separators=(",", ":")).encode() + b"\n"
    try:
        is_new = not path.exists()
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
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


def read(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Return the whole lines from ``offset`` on, and the offset after the last of them.

    Args:
        path: The file; one that does not exist has no lines.
        offset: In bytes, 0 or what an earlier call returned.

    Raises:
        StoreError: If a line that others follow is damaged.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    lines = data.split(b"\n")[:-1]
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(lines):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError("not an object")
        except ValueError as error:
            # A power cut can leave a last line with its end but without its beginning.
            if number == len(lines) - 1:
                break
            raise StoreError(f"{path} is damaged at byte {offset}: {error}; move it away") from error
        entries.append(entry)
        offset += len(line) + 1
    return entries, offset


def mend(path: Path) -> None:
    """Cut off the half line that a crash may have left.

    Raises:
        StoreError: If a line that others follow is damaged.
        DiskError: If the file cannot be written.
    """
    _, end = read(path)
    try:
        if path.exists() and path.stat().st_size > end:
            os.truncate(path, end)
    except OSError as error:
        raise disk_error(path, error) from error


def _finite(value: Any) -> Any:
    """Return ``value`` with the floats that JSON does not have as strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value

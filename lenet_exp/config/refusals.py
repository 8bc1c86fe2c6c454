"""Pydantic's errors in terms of the experiment file: which key is wrong, and which rule it breaks."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError


@dataclass(frozen=True)
class Refusal:
    """One thing that is wrong with what a user wrote.

    Attributes:
        key: Dotted key of the wrong value, such as ``space.lr`` or ``run[2].lr``; empty for the whole file.
        location: Pydantic's ``loc`` of the value, which has names of types between the keys.
        kind: Pydantic's ``type`` of the error, such as ``missing`` or ``extra_forbidden``.
        rule: Rule that the value breaks, such as ``must be greater than 0``.
        value: The wrong value.
    """

    key: str
    location: tuple[str | int, ...]
    kind: str
    rule: str
    value: Any


def refusal(error: ValidationError, written: Any) -> Refusal:
    """Return the most helpful of the refusals in a validation error.

    Args:
        error: Error that pydantic raised.
        written: Data that pydantic rejected, as the user wrote it.
    """
    refusals = [_refusal(detail, written) for detail in error.errors()]
    # A field that takes a number or a list has a refusal for each of the two. One with a deeper key, or for
    # another reason than the type, tells the user more.
    return min(
        refusals,
        key=lambda each: (
            -len(re.split(r"[.\[]", each.key)),
            each.kind.endswith("_type"),
            "list" in each.kind,
        ),
    )


def _refusal(detail: Mapping[str, Any], written: Any) -> Refusal:
    rule = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    rule = re.sub(r"a valid dictionary( or instance of \w+)?", "a table", rule)
    location = tuple(detail["loc"])
    return Refusal(_key(location, written), location, detail["type"], rule, detail["input"])


def _key(location: Sequence[str | int], written: Any) -> str:
    """Return a pydantic ``loc`` as a dotted key, without the names of types in it."""
    parts: list[str] = []
    for depth, part in enumerate(location):
        last = depth == len(location) - 1
        if isinstance(written, Mapping) and (part in written or (last and isinstance(part, str))):
            parts.append(str(part))
            written = written.get(part)
        elif isinstance(written, list) and isinstance(part, int) and part < len(written):
            parts[-1:] = [f"{parts[-1]}[{part}]"] if parts else [f"[{part}]"]
            written = written[part]
    return ".".join(parts)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return advice on an unknown name: the most similar known name, or all known names if none is similar.

    Args:
        name: Unknown name that the user wrote.
        known: Names that are allowed.

    Example:
        >>> nearest("dropuot", ["dropout", "lr"])
        "did you mean 'dropout'?"
        >>> nearest("x", ["dropout", "lr"])
        'known are dropout, lr'
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"

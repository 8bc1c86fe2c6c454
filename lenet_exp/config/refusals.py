"""Pydantic's errors in our words: which key is wrong, and which rule its value breaks."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError


@dataclass(frozen=True)
class Refusal:
    """The first thing wrong with what a user wrote.

    Attributes:
        key: Dotted key of the value, such as ``space.lr`` or ``run[2].lr``; empty for the whole file.
        location: Pydantic's location of the value, which has names of types between the keys.
        kind: Pydantic's name for the error, such as ``missing`` or ``extra_forbidden``.
        rule: Rule that the value breaks, such as ``must be greater than 0``.
        value: Value that was refused.
    """

    key: str
    location: tuple[str | int, ...]
    kind: str
    rule: str
    value: Any


def refusal(error: ValidationError, written: Any) -> Refusal:
    """Return the most telling of the refusals in an error of pydantic's.

    Args:
        error: Error that pydantic raised.
        written: Tables that it refused, as the user wrote them.
    """
    refusals = [_refusal(detail, written) for detail in error.errors()]
    # A field that takes a number or a list reports a refusal for each. The deeper key tells more, and so
    # does a refusal for another reason than the type.
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
    """Return the dotted key of a pydantic location, without the names of types in it."""
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
    """Return advice on an unknown name: the known name most like it, or else all known names.

    Args:
        name: Unknown name that the user wrote.
        known: Names that are allowed there.

    Example:
        >>> nearest("dropuot", ["dropout", "lr"])
        "did you mean 'dropout'?"
        >>> nearest("x", ["dropout", "lr"])
        'known are dropout, lr'
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"

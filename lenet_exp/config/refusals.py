"""What pydantic refuses, in our words: which key is wrong, and which rule its value broke."""

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
        key: Its dotted key, such as ``space.lr`` or ``run[2].lr``; empty for the whole.
        location: The same as pydantic has it, with its notes on types.
        kind: Pydantic's name for what is wrong, such as ``missing`` or ``extra_forbidden``.
        rule: What must hold, such as ``must be greater than 0``.
        found: The value that was refused.
    """

    key: str
    location: tuple[str | int, ...]
    kind: str
    rule: str
    found: Any


def refusal(error: ValidationError, written: Any) -> Refusal:
    """Return the first thing wrong.

    Args:
        error: What pydantic raised.
        written: The tables that it refused.
    """
    refusals = [_refusal(detail, written) for detail in error.errors()]
    # A field that takes a number or a list reports both refusals; the deeper one, and the one that does
    # not complain of the type, tells more.
    return min(
        refusals,
        key=lambda one: (-len(re.split(r"[.\[]", one.key)), one.kind.endswith("_type"), "list" in one.kind),
    )


def _refusal(detail: Mapping[str, Any], written: Any) -> Refusal:
    rule = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    location = tuple(detail["loc"])
    return Refusal(_key(location, written), location, detail["type"], rule, detail["input"])


def _key(location: Sequence[str | int], written: Any) -> str:
    """Return the dotted key of a pydantic location, its notes on types left out."""
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
    """Return what to say of a name that is not known: the one that was meant, or all that there are.

    Example:
        >>> nearest("dropuot", ["dropout", "lr"])
        "did you mean 'dropout'?"
        >>> nearest("x", ["dropout", "lr"])
        'known are dropout, lr'
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"

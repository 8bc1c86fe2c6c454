"""A wing's face: the names that others use of it, each loaded with its room when it is first asked for.

A face that loaded everything would have every command wait for libraries that it does not need.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def face(package: str, **rooms: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a wing's ``__init__``.

    Args:
        package: The wing's ``__name__``.
        rooms: The names that each of its rooms shows to others, with spaces between.
    """
    room_of = {name: room for room, names in rooms.items() for name in names.split()}

    def getattr_(name: str) -> Any:
        if name not in room_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{room_of[name]}"), name)

    return getattr_, lambda: sorted(room_of)

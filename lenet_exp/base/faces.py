"""A wing's face: the names that other wings use, each of which imports its room on first use.

A face that imported everything would make every command wait for libraries that it does not need.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def face(package: str, **rooms: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a wing's ``__init__``.

    Args:
        package: Dotted name of the wing, its ``__name__``.
        rooms: Names that each room shows to other wings, separated by spaces, by the room's name.
    """
    room_of = {name: room for room, names in rooms.items() for name in names.split()}

    def getattr_(name: str) -> Any:
        if name not in room_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{room_of[name]}"), name)

    return getattr_, lambda: sorted(room_of)

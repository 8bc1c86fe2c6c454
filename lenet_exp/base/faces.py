"""The face of a wing (a subpackage): its public names, each imported from its module on first use.

If a face imported everything at once, every command would wait for libraries that it does not need.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def face(package: str, **rooms: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions ``__getattr__`` and ``__dir__`` for the ``__init__`` module of a wing.

    Args:
        package: Dotted name of the wing: the ``__name__`` of its ``__init__`` module.
        rooms: Keyword for each module of the wing, whose value is its public names, separated by spaces.
    """
    room_of = {name: room for room, names in rooms.items() for name in names.split()}

    def getattr_(name: str) -> Any:
        if name not in room_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{room_of[name]}"), name)

    return getattr_, lambda: sorted(room_of)

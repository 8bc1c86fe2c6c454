"""What Python and the C library do with memory that is no longer used."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Have Python not look for cycles of garbage meanwhile.

    For what loads libraries, builds thousands of objects and is soon over: that search is a fourth of its
    time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

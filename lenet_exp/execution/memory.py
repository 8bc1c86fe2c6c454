"""What Python and the C library do with memory that is no longer used."""

from __future__ import annotations

import ctypes
import gc
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # <malloc.h>


def keep_freed_memory() -> bool:
    """Keep memory that is freed in this process, and return whether the C library could be told so.

    glibc hands large buffers back to the system and gets them again, zeroed, a page fault every 4 KiB; a
    training step frees and allocates the same tens of megabytes. Call it once, before training.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 1 << 30), (_M_TOP_PAD, 64 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)


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

"""Imported first by the fork server, so that it ends without a traceback when its driver is killed.

A driver that is killed while it asks for a process leaves half a request. The fork server, or the process
that it has just started, then ends, as it should; a traceback of its own would only hide what happened.
"""

from __future__ import annotations

import gc
import pickle
import sys
from types import TracebackType

_DRIVER_IS_GONE = (EOFError, ConnectionError, pickle.UnpicklingError)


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, _DRIVER_IS_GONE):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _report
# Only by its command line can the fork server be told from another process that imports this module.
if any("multiprocessing.forkserver" in word for word in sys.orig_argv):
    # Imported modules are never garbage, and looking for it takes 8 % of torch's import (experiments/LOG.md,
    # Speed: what a sweep costs beside its arithmetic). The children collect garbage again: see `settle_in`.
    gc.disable()

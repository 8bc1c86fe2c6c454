"""Loaded by the fork server, for it to end without a word when its driver is killed in mid-sentence.

A driver that dies while it asks for a process leaves half a request. The fork server, or the process it has
just begun, then ends, as it should; a traceback about it would only hide what happened.
"""

from __future__ import annotations

import gc
import pickle
import sys
from types import TracebackType

_DRIVER_IS_GONE = (EOFError, ConnectionError, pickle.UnpicklingError)


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, _DRIVER_IS_GONE):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _tell
# Python has no other sign of it; who else imports this module goes on as before.
if any("multiprocessing.forkserver" in word for word in sys.orig_argv):
    # What is loaded from here on is never garbage, and looking for some takes a tenth of the time. Processes
    # made of this one look again (see `lenet_exp.execution.processes`).
    gc.disable()

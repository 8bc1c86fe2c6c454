"""Bugs: attempts that raised, and when to stop because the next one will raise too."""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path

from lenet_exp.base.errors import NoResultError
from lenet_exp.base.files import write_atomically

#: A bug that ends this many attempts in a row will end the next one too.
MAX_SAME_FAILURES = 5


class Bugs:
    """The tracebacks of the attempts that failed in a row."""

    def __init__(self, path: Path) -> None:
        """Keep the newest traceback at ``path``."""
        self._path = path
        self._in_a_row: deque[str] = deque(maxlen=MAX_SAME_FAILURES)

    def note(self, reason: str, traceback: str) -> None:
        """Note that an attempt raised.

        Args:
            reason: What it raised, in one line.
            traceback: Whole; written to the file once for each kind.

        Raises:
            NoResultError: If this many in a row were alike.
            DiskError: If the file cannot be written.
        """
        # Numbers in it, such as a trial's, do not make it another bug.
        bug = re.sub(r"\d+", "#", traceback)
        if bug not in self._in_a_row:
            write_atomically(self._path, traceback.encode())
        self._in_a_row.append(bug)
        if self._in_a_row.count(bug) == MAX_SAME_FAILURES:
            raise NoResultError(
                f"{MAX_SAME_FAILURES} attempts in a row failed alike: {reason}; "
                f"the traceback is in {self._path}"
            )

    def forget(self) -> None:
        """Note that an attempt did not raise."""
        self._in_a_row.clear()

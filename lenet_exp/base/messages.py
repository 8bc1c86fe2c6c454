"""Messages for people, which go to standard error; a command's result goes to standard output."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lenet_exp.base.errors import mask_url, printable

#: Seconds after which a step is told, and then those between two messages on how far it is.
TOLD_AFTER_S, TOLD_EVERY_S = 1.0, 5.0


def counted(n: int, noun: str) -> str:
    """Return a number with its noun.

    Args:
        n: Number of things.
        noun: The noun in the singular, which takes an s in the plural.

    Example:
        >>> counted(1, "epoch"), counted(2_000, "trial")
        ('1 epoch', '2,000 trials')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


class _Listener:
    """The function that gets the lines of `say` while a sweep shows how it stands."""

    hear: Callable[[str], bool] | None = None


def listen(hear: Callable[[str], bool] | None) -> None:
    """Give the lines of `say` to ``hear``, and to standard error if it returns False; None ends that."""
    _Listener.hear = hear


def say(line: str) -> None:
    """Print a line on standard error, with control characters escaped.

    If standard error is closed, or nobody reads it any more, the line is lost and no error is raised.
    """
    hear = _Listener.hear  # another thread may end it between two looks
    if hear is not None and hear(line):
        return
    # A closed stream raises ValueError; sys.stderr is None if the process started without one. In a signal
    # handler, a stream that is being written to raises RuntimeError.
    with suppress(OSError, ValueError, RuntimeError):
        if sys.stderr is not None:
            sys.stderr.write(f"{printable(line)}\n")


class Count:
    """How far a step is.

    Attributes:
        text: Phrase such as ``312 of 900 runs``; empty if the step does not count.
    """

    text = ""

    def at(self, done: int, total: int, noun: str) -> None:
        """Count what is done.

        Args:
            done: Number of things that are done.
            total: Number of all of them.
            noun: Noun for them in the singular, as for `counted`.
        """
        self.text = f"{done:,} of {counted(total, noun)}"


@contextmanager
def step(what: str) -> Iterator[Count]:
    """Context manager: tell the user what is being done, if it takes longer than a second.

    Every few seconds it tells how far the step is, or how long it takes by now if nothing was counted since.

    Args:
        what: Phrase such as ``writing the page``.
    """
    count, is_over = Count(), threading.Event()

    def tell() -> None:
        told = None
        began, wait_s = time.monotonic(), TOLD_AFTER_S
        while not is_over.wait(wait_s):
            line = f"{what}: {count.text}" if count.text else what
            if line != told:
                wait_s = TOLD_EVERY_S
                say(line)
            else:
                wait_s *= 2  # a step of ten minutes is worth six lines, not a hundred
                say(f"{line}, {time.monotonic() - began:.0f} s so far")
            told = line

    telling = threading.Thread(target=tell, name="step", daemon=True)
    telling.start()
    try:
        yield count
    finally:
        is_over.set()
        # Nothing is told of a step that is over.
        telling.join()


def repair_command(root: Path, url: str | None = None, tracking_uri: str | None = None) -> str:
    """Return the command, for a user to paste, that repairs what is stored below a root.

    Args:
        root: Folder that holds all results.
        url: URL of the studies' storage in PostgreSQL; None for the file below ``root``.
        tracking_uri: URI of the MLflow store that the user named; None for the file below ``root``.
    """
    place = [] if root == Path("mlruns") else ["--root", str(root)]
    return shlex.join(["lenet-exp", "doctor", "--repair", *place]) + store_flags(url, tracking_uri)


def store_flags(url: str | None = None, tracking_uri: str | None = None) -> str:
    """Return the flags, each after a space, that name the stores; one that the environment names needs none.

    Args:
        url: URL of the studies' storage in PostgreSQL; None for the file below the root.
        tracking_uri: URI of the MLflow store that the user named; None for the file below the root.
    """
    given = (("--storage", url, "LENET_EXP_STORAGE"), ("--tracking-uri", tracking_uri, "MLFLOW_TRACKING_URI"))
    words = [
        [flag, mask_url(value)] for flag, value, name in given if value and value != os.environ.get(name)
    ]
    return "".join(f" {shlex.join(pair)}" for pair in words)

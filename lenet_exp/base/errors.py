"""The exceptions that a user can meet, each with the exit code of a command that it ends.

A message is one line: what is wrong, what was found, what to do. Before it is shown, it goes through
`printable` and `mask_url`.
"""

from __future__ import annotations

import re

# The password of a URL may contain a slash that should have been written %2F.
_USER_INFO = re.compile(r"(?<=://)\S*@")
_SECRET = re.compile(
    r"(?i)\b([\w-]*(?:password|passwd|pwd|token|secret|api_?key|access_?key)[\w-]*=)[^&\s'\"]+"
)


class LenetExpError(Exception):
    """Base class of all errors that a user can fix; a command prints them as one line, without traceback."""

    exit_code = 1


class ConfigError(LenetExpError):
    """A flag or an experiment file is invalid."""

    exit_code = 2


class NoResultError(LenetExpError):
    """The command ended without a result."""

    exit_code = 3


class DataError(LenetExpError):
    """A data set is missing, damaged or not what its name promises."""

    exit_code = 4


class DiskError(LenetExpError):
    """The disk is full, or a folder cannot be written."""

    exit_code = 5


class PortError(LenetExpError):
    """The port to listen on is in use by another process."""

    exit_code = 6


class UnreachableError(LenetExpError):
    """A tracking server or a study's storage does not answer."""

    exit_code = 7


class LockedError(LenetExpError):
    """Another process is working on the experiment."""

    exit_code = 8


class StoreError(LenetExpError):
    """A store is corrupt, or was written by another version."""

    exit_code = 9


class DeviceError(LenetExpError):
    """The device asked for is missing, or fails to compute."""

    exit_code = 10


class SweepInterruptedError(LenetExpError):
    """The sweep was asked to stop; nothing is lost, and the same command continues it."""

    def __init__(self, message: str, exit_code: int = 130, deadline: float | None = None) -> None:
        """Create the error, with the exit code and the deadline of the command that it ends.

        Args:
            message: One line for the user: why the command ends, and what to do.
            exit_code: Exit code of the command: 130 for SIGINT, 143 for SIGTERM.
            deadline: Time by which the process must end, in seconds of `time.monotonic`; None for no limit.
        """
        super().__init__(message)
        self.exit_code = exit_code
        self.deadline = deadline


class DivergedError(ArithmeticError):
    """A loss became NaN or infinite, so the training cannot continue."""


def printable(text: str) -> str:
    r"""Return ``text`` with line breaks and control characters escaped: one line that is safe to print.

    Example:
        >>> printable("name \x1b]0;x")
        'name \\x1b]0;x'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def mask_url(text: str) -> str:
    """Return ``text`` with passwords and tokens, in URLs or as ``token=...``, replaced by ``***``.

    Example:
        >>> mask_url("cannot reach https://ann:s3cret@mlflow.example/?token=abc")
        'cannot reach https://***@mlflow.example/?token=***'
    """
    return _SECRET.sub(r"\1***", _USER_INFO.sub("***@", text))


def shorten(value: object) -> str:
    """Return the ``repr`` of a value for use in a message, cut to 60 characters.

    Example:
        >>> shorten("avg"), shorten(16 ** 5000)
        ("'avg'", 'a number of thousands of digits')
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError) as error:
        is_number = isinstance(error, ValueError)
        return "a number of thousands of digits" if is_number else "something nested too deeply"
    return text if len(text) <= 60 else f"{text[:57]}..."

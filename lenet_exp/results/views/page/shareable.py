"""Texts of a page that may be shared: without paths, names of this machine and its user, or secrets."""

from __future__ import annotations

import getpass
import platform
import re
import shlex
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from functools import cache
from html import escape
from pathlib import Path
from typing import TypeVar, cast

from lenet_exp.base.errors import mask_url, printable
from lenet_exp.config.experiment import Experiment

T = TypeVar("T")

#: A folder at the start of an absolute path, also as a URL; what it is called within is kept.
_FOLDER = re.compile(
    r"(?<![\w.:/<])(?:file://)?~?/(?:[^\s/'\"<>|;,:()]+/)+"
    # On Windows a path begins with a drive, or with the name of a server.
    r"|(?:\b[A-Za-z]:|\\\\[^\s\\'\"<>|]+)\\(?:[^\s\\'\"<>|]+\\)*"
)
#: Fewest characters of a name that is taken out wherever it stands: a shorter one may be a word.
_MIN_CHARACTERS = 4
#: Names of accounts that are words, and say nothing about a person.
_ANYBODY = {
    "root",
    "user",
    "users",
    "test",
    "admin",
    "runner",
    "ubuntu",
    "debian",
    "build",
    "nobody",
    "localhost",
}


def shareable(text: str) -> str:
    """Return a text with each absolute path cut down to its last part, and names and secrets left out.

    Example:
        >>> shareable("no images in /home/ann/data/mnist, nor at https://ann:pw@example.org/mnist")
        'no images in mnist, nor at https://***@example.org/mnist'
    """
    text = mask_url(text)
    if home := _home():
        # The folder that is a user's own would leave the user's name as its last part.
        text = re.sub(rf"{re.escape(home)}(?![\w-])", "~", text)
    text = _FOLDER.sub("", text)
    names = _names()
    return names.sub("…", text) if names else text


def html(text: object) -> str:
    """Return a text for the page: `shareable`, escaped, and with control characters visible."""
    return escape(printable(shareable(str(text))))


def shared_texts(part: T) -> T:
    """Return a chart, or a part of it, with all its texts made `shareable`."""
    if isinstance(part, str):
        return cast("T", shareable(part))
    if isinstance(part, list | tuple):
        return cast("T", type(part)(map(shared_texts, part)))
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{each.name: shared_texts(getattr(part, each.name)) for each in fields(part)})
    return part


def shared_file(experiment: Experiment) -> str:
    """Return the experiment's file as a command names it, quoted and without its folder."""
    return shlex.quote(shareable(Path(experiment.file).name))


def without_place(steps: Iterable[str], experiment: Experiment, root: Path) -> tuple[str, ...]:
    """Return advice whose commands name neither the root nor the experiment file's folder.

    Args:
        steps: Advice in plain words, with commands as `Experiment.command` gives them.
        experiment: The experiment that the commands are about.
        root: Root folder as it was given to these commands.
    """
    place, file = f" --root {shlex.quote(str(root))}", shlex.quote(experiment.file)
    return tuple(step.replace(place, "").replace(f" {file}", f" {shared_file(experiment)}") for step in steps)


@cache
def _home() -> str:
    """Return the user's own folder; empty if there is none, or if all folders are in it."""
    try:
        home = str(Path.home())
    except RuntimeError:  # a user without an account, as in some containers
        return ""
    return home if home != "/" else ""


@cache
def _names() -> re.Pattern[str] | None:
    """Return what matches the names of this machine and its user as words, or None if they say nothing."""
    host = platform.node()
    try:
        account = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        account = ""
    names = {host, host.partition(".")[0], account, Path(_home()).name}
    telling = [n for n in names if len(n) >= _MIN_CHARACTERS and n.lower() not in _ANYBODY]
    longest_first = sorted(map(re.escape, telling), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(longest_first)})(?!\w)") if telling else None

"""A command line in an empty folder, and how it ended; the fixtures are in ``conftest``."""

from collections.abc import Callable
from dataclasses import dataclass

EXPERIMENT = """\
name = "mini"

[data]
dataset = "fashion-mnist-mini"
folder = "{folder}"
validation = 200

[space]
lr = [0.001, 0.01, 0.1]

[search]
trials = 3
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]

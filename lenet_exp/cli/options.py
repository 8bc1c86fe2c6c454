"""The flags that several commands share, and what their texts mean."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lenet_exp.base.errors import ConfigError


class TableFormat(StrEnum):
    """How a leaderboard is printed."""

    csv = "csv"
    markdown = "markdown"
    json = "json"


ExperimentArgument = Annotated[
    Path | None,
    typer.Argument(help="experiment file (default: experiments/fashion_mnist.toml)", show_default=False),
]
ExperimentOption = Annotated[
    Path | None,
    typer.Option(
        "--experiment", help="experiment file (default: experiments/fashion_mnist.toml)", show_default=False
    ),
]
RootOption = Annotated[
    Path, typer.Option("--root", envvar="LENET_EXP_ROOT", help="folder of everything that runs write")
]
WorkersOption = Annotated[
    str, typer.Option("--workers", help="trainings at once: a number, or auto for what the machine can take")
]
TimeoutOption = Annotated[
    str | None,
    typer.Option("--timeout", metavar="TIME", help="begin no training after this long: 90s, 30m, 2h"),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps")]
TrackingOption = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow store (default: one in --root)"
    ),
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        envvar="LENET_EXP_STORAGE",
        help="PostgreSQL that holds the study (default: a file in --root)",
        show_default=False,
    ),
]
DatasetOption = Annotated[
    str | None,
    typer.Option("--dataset", metavar="NAME", help="the champions of the experiment on this data set"),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="override a key of the file, as in search.sampler=random"
    ),
]


def seconds(text: str, flag: str = "--timeout") -> float:
    """Return a duration in seconds.

    Args:
        text: A number with s, m or h; s if it has none.
        flag: What the user gave it to, for the message.

    Raises:
        ConfigError: If it is none, or not above zero.

    Example:
        >>> seconds("30m"), seconds("90")
        (1800.0, 90.0)
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smh]?)", text)
    if not found or float(found[1]) <= 0:
        raise ConfigError(f"{flag} must be a time above zero such as 90s, 30m or 2h, found {text!r}")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def experiment_path(given: Path | None) -> Path:
    """Return the experiment file to use.

    Args:
        given: As the user named it; None for the default. A name such as ``quick`` is looked up among the
            experiments that come with the project.

    Raises:
        ConfigError: If there is none.
    """
    home = Path(__file__).parent.parent
    shelves = [Path("experiments"), home / "experiments", home.parent / "experiments"]
    if given is not None and (given.exists() or given.suffix or len(given.parts) > 1):
        return given
    name = f"{given or 'fashion_mnist'}.toml"
    for shelf in shelves:
        if (shelf / name).exists():
            return shelf / name
    known = sorted({path.stem for shelf in shelves for path in shelf.glob("*.toml")})
    raise ConfigError(f"no experiment called {str(given)!r}; name a file, or one of {', '.join(known)}")


def workers_count(text: str) -> int | None:
    """Return how many workers ``text`` asks for; None for ``auto``.

    Raises:
        ConfigError: If it is neither ``auto`` nor a whole number above zero.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or int(text[:9]) < 1:
        raise ConfigError(f"--workers must be a whole number above zero or auto, found {text!r}")
    return int(text[:9])

"""The flags that several commands share or that need many words, and what their texts mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lenet_exp.base.errors import ConfigError
from lenet_exp.execution.resources import size_bytes

if TYPE_CHECKING:
    from lenet_exp.config.experiment import Experiment


class TableFormat(StrEnum):
    """How a leaderboard is printed."""

    csv = "csv"
    markdown = "markdown"
    json = "json"


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


def _time(flag: str, text: str) -> Any:
    return typer.Option(flag, metavar="TIME", parser=lambda given: seconds(given, flag), help=text)


_EXPERIMENT = "experiment file (default: experiments/fashion_mnist.toml)"
ExperimentArgument = Annotated[Path | None, typer.Argument(help=_EXPERIMENT, show_default=False)]
ExperimentOption = Annotated[Path | None, typer.Option("--experiment", help=_EXPERIMENT, show_default=False)]
Root = Annotated[
    Path, typer.Option("--root", envvar="LENET_EXP_ROOT", help="folder of everything that runs write")
]
Workers = Annotated[
    str, typer.Option("--workers", help="trainings at once: a number, or auto for what the machine can take")
]
Timeout = Annotated[float | None, _time("--timeout", "begin no training after this long: 90s, 30m, 2h")]
TrialTimeout = Annotated[float | None, _time("--trial-timeout", "end a trial after this long: 90s, 30m, 2h")]
TrialMemory = Annotated[
    int | None,
    typer.Option(
        "--trial-memory",
        metavar="SIZE",
        parser=lambda given: size_bytes(given, "--trial-memory"),
        help="what a trial may allocate: 500M, 2G",
    ),
]
MinFree = Annotated[
    str,
    typer.Option(
        "--min-free",
        metavar="SIZE",
        envvar="LENET_EXP_MIN_FREE",
        help="begin no trial with less free disk than this",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps")]
# An empty store is none, as an empty variable is.
Tracking = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        envvar="MLFLOW_TRACKING_URI",
        callback=lambda given: given or None,
        help="MLflow store (default: one in --root)",
    ),
]
RequireTracking = Annotated[
    bool,
    typer.Option("--require-tracking", help="stop, with exit code 7, if the MLflow store does not answer"),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        envvar="LENET_EXP_STORAGE",
        callback=lambda given: given or None,
        help="PostgreSQL that holds the study (default: a file in --root)",
        show_default=False,
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option("--dataset", metavar="NAME", help="the champions of the experiment on this data set"),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="override a key of the file, as in search.sampler=random"
    ),
]


def load_experiment(
    given: Path | None, overrides: Sequence[str] | None = None, flags: Mapping[str, Any] | None = None
) -> Experiment:
    """Return the experiment that a command is about.

    Args:
        given: The experiment file as the user named it; see `lenet_exp.config.loader.experiment_path`.
        overrides: What ``--set`` was given.
        flags: Values of other flags by the key they set, stronger than the overrides; None sets nothing.

    Raises:
        ConfigError: If there is no such file, or it or an override is wrong.
    """
    # pydantic takes a fifth of a second, and --help none of it.
    from lenet_exp.config.loader import experiment_path, load

    return load(experiment_path(given), overrides or (), flags)


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

"""The arguments and options of the commands, with their help texts; and functions that parse their values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lenet_exp.base.errors import ConfigError
from lenet_exp.execution.resources import trial_memory

if TYPE_CHECKING:
    from lenet_exp.config.experiment import Experiment


#: Hours of the longest time limit, a year; a longer one is a mistake.
_LONGEST_H = 8760


class TableFormat(StrEnum):
    """Formats to print a leaderboard in, for other programs to read."""

    csv = "csv"
    markdown = "markdown"
    json = "json"


def seconds(text: str, flag: str = "--timeout") -> float:
    """Return the number of seconds that a user's text such as ``30m`` stands for.

    Args:
        text: Number followed by s, m or h; a number without a unit is in seconds.
        flag: Flag that the user gave the text to, for the error message.

    Raises:
        ConfigError: If ``text`` is not a duration, not above zero, or longer than a year.

    Example:
        >>> seconds("30m"), seconds("90")
        (1800.0, 90.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"{flag} must be a time above zero such as 90s, 30m or 2h, found {text!r}")
    duration_s = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
    if duration_s > _LONGEST_H * 3600:
        raise ConfigError(f"{flag} must be above zero and at most {_LONGEST_H}h, a year, found {text!r}")
    return duration_s


def switch(flag: str, text: str) -> Any:
    """Return a typer option for a flag without a value, without the ``<bool>`` of typer's own help.

    Args:
        flag: Flag as the user types it, such as ``--again``.
        text: Help text of the flag.
    """
    return typer.Option(flag, metavar="", help=text)


def _time(flag: str, text: str) -> Any:
    """Return a typer option that takes a time such as ``30m``, and gives the command its seconds."""
    return typer.Option(flag, metavar="TIME", parser=lambda given: seconds(given, flag), help=text)


_EXPERIMENT = "experiment file, or its name in experiments/ (default: experiments/fashion_mnist.toml)"
_NAMES = "trial number, label, MLflow run id, champion or baseline"
_DEVICES = "cpu, cuda, cuda:1, mps, or auto for an accelerator if there is one, else the CPU"

ExperimentArgument = Annotated[
    Path | None, typer.Argument(metavar="EXPERIMENT", help=_EXPERIMENT, show_default=False)
]
WatchedArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="EXPERIMENT",
        help="experiment file, its name in experiments/, or its folder in --root (default: the one whose"
        " sweep runs)",
        show_default=False,
    ),
]
ExperimentOption = Annotated[
    Path | None, typer.Option("--experiment", metavar="PATH", help=_EXPERIMENT, show_default=False)
]
Root = Annotated[
    Path,
    typer.Option(
        "--root",
        metavar="PATH",
        envvar="LENET_EXP_ROOT",
        help="folder that holds all results: studies, MLflow's store, leaderboards, reports",
    ),
]
Workers = Annotated[
    str,
    typer.Option(
        "--workers",
        metavar="N",
        help="number of trainings to run at once, or auto for as many as cores and memory allow",
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(
        "--trials",
        metavar="N",
        help="finished trials to have at the end, those of earlier calls included (default: search.trials)",
    ),
]
Timeout = Annotated[
    float | None,
    _time("--timeout", "start no training after this time, such as 90s, 30m or 2h (default: no limit)"),
]
TrialTimeout = Annotated[
    float | None,
    _time("--trial-timeout", "end a training as pruned after this time, such as 30m (default: no limit)"),
]
TrialMemory = Annotated[
    int | None,
    typer.Option(
        "--trial-memory",
        metavar="SIZE",
        parser=trial_memory,
        help="memory that a training may allocate, such as 500M or 2G (default: no limit)",
    ),
]
MinFree = Annotated[
    str,
    typer.Option(
        "--min-free",
        metavar="SIZE",
        envvar="LENET_EXP_MIN_FREE",
        help="free disk space below which no training is started, such as 200M or 2G",
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help=f"device to train on: {_DEVICES}")]


def _store(given: str | None, param: typer.CallbackParam) -> str | None:
    # Messages mask user and password, so a command that was copied from one lacks them.
    if given and "//***@" in given:
        variable = param.envvar if isinstance(param.envvar, str) else ""
        raise ConfigError(
            f"{param.opts[0]}: the *** stands for user and password, which messages do not show;"
            f" give them in its place, or the whole in {variable}, which no message repeats"
        )
    return given or None  # an empty text, as an empty environment variable gives, means the default


Tracking = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        metavar="URI",
        envvar="MLFLOW_TRACKING_URI",
        callback=_store,
        help="MLflow store, such as http://host:5000 (default: mlflow.db in --root)",
    ),
]
RequireTracking = Annotated[
    bool,
    switch(
        "--require-tracking",
        "stop with exit code 7 if the MLflow store does not answer; without this flag the sweep goes on",
    ),
]
Plain = Annotated[
    bool,
    switch("--plain", "write a line for each training instead of a live board (default in a file or pipe)"),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        envvar="LENET_EXP_STORAGE",
        callback=_store,
        help="URL of the PostgreSQL database that holds the study (default: study.db in --root)",
        show_default=False,
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="data set on which the finalists are confirmed (default: the experiment's own)",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="override a key of the experiment file, such as search.sampler=random; may be repeated",
    ),
]
Csv = Annotated[
    Path | None,
    typer.Option("--csv", metavar="PATH", help="write the table to this CSV file instead of printing it"),
]
Style = Annotated[
    TableFormat | None,
    typer.Option("--format", help="print the table in this format (default: laid out for a terminal)"),
]
Top = Annotated[
    int | None, typer.Option("--top", metavar="N", min=1, help="rows to show, the best first (default: all)")
]
Classes = Annotated[
    str,
    typer.Option("--classes", metavar="NAMES", help="classes to show: names or numbers, separated by commas"),
]
Inputs = Annotated[
    int, typer.Option("--inputs", metavar="N", min=1, max=20, help="validation images to show of each class")
]
DrawnRun = Annotated[str, typer.Argument(metavar="RUN", help=f"network to show: {_NAMES}")]
ReplayedTrial = Annotated[str, typer.Argument(metavar="RUN", help=f"training to repeat: {_NAMES}")]
ReplayThreads = Annotated[
    int | None,
    typer.Option(
        "--threads", metavar="N", min=1, max=1024, help="CPU threads to train with (default: as recorded)"
    ),
]
ReplayDevice = Annotated[
    str | None,
    typer.Option("--device", metavar="DEVICE", help=f"device to train on: {_DEVICES} (default: as recorded)"),
]
Seconds = Annotated[
    float,
    typer.Option(
        "--seconds", metavar="SECONDS", min=0.05, max=3600, help="length of each measurement, in seconds"
    ),
]
Rounds = Annotated[
    int,
    typer.Option("--rounds", metavar="N", min=1, help="repetitions of each measurement; the median counts"),
]
Port = Annotated[
    int, typer.Option("--port", metavar="N", min=1, max=65_535, help="port on 127.0.0.1 to serve on")
]
NoOpen = Annotated[bool, typer.Option("--no-open", help="only print the address, open no browser")]


def load_experiment(
    given: Path | None, overrides: Sequence[str] | None = None, flags: Mapping[str, Any] | None = None
) -> Experiment:
    """Return the experiment that the user named, with overrides and flags applied.

    Args:
        given: Experiment file as the user named it, or None for the default; see
            `lenet_exp.config.loader.experiment_path`.
        overrides: Texts ``section.key=value`` of ``--set``, which replace values of the file.
        flags: Values of other flags by the key that they set, which replace the overrides; a value of None
            sets nothing.

    Raises:
        ConfigError: If there is no such file, or it or an override is invalid.
    """
    # Loading pydantic takes a fifth of a second, which --help need not wait for.
    from lenet_exp.config.loader import experiment_path, load

    return load(experiment_path(given), overrides or (), flags)


def workers_count(text: str) -> int | None:
    """Return the number of workers that ``text`` asks for, or None if it is ``auto``.

    Raises:
        ConfigError: If ``text`` is neither ``auto`` nor a whole number above zero.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or int(text[:9]) < 1:
        raise ConfigError(f"--workers must be a whole number above zero or auto, found {text!r}")
    return int(text[:9])

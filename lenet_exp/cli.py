"""``lenet-exp`` and its commands. Heavy imports are inside the commands, so that ``--help`` is quick."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lenet_exp import __version__
from lenet_exp.errors import ConfigError, LenetExpError, printable

app = typer.Typer(
    name="lenet-exp",
    help="Which LeNet is better than the baseline, by how much, and how sure are we?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class TableFormat(StrEnum):
    """How a leaderboard is printed."""

    csv = "csv"
    markdown = "markdown"
    json = "json"


ExperimentArgument = Annotated[
    Path | None,
    typer.Argument(help="experiment file (default: experiments/fashion_mnist.toml)", show_default=False),
]
RootOption = Annotated[
    Path, typer.Option("--root", envvar="LENET_EXP_ROOT", help="folder of everything that runs write")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="override a key of the file, as in search.sampler=random"
    ),
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; a user's mistake is one line and its exit code."""
    try:
        try:
            app(arguments, prog_name="lenet-exp", standalone_mode=True)
        finally:
            sys.stdout.flush()
    except LenetExpError as error:
        sys.stderr.write(f"error: {printable(str(error))}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has seen enough, as `| head` does. Python flushes once more when it
        # ends, and would complain. The exit code is what typer gives when it is the first to notice.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


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
    home = Path(__file__).parent
    shelves = [Path("experiments"), home / "experiments", home.parent / "experiments"]
    if given is not None and (given.exists() or given.suffix or len(given.parts) > 1):
        return given
    name = f"{given or 'fashion_mnist'}.toml"
    for shelf in shelves:
        if (shelf / name).exists():
            return shelf / name
    known = sorted({path.stem for shelf in shelves for path in shelf.glob("*.toml")})
    raise ConfigError(f"no experiment called {str(given)!r}; name a file, or one of {', '.join(known)}")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="print the version", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"lenet-exp {__version__}")
        raise typer.Exit


@app.command()
def sweep(
    experiment: ExperimentArgument = None,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials", min=0, help="finished trials to have at the end, those of earlier calls included"
        ),
    ] = None,
    workers: Annotated[
        str, typer.Option("--workers", help="trials at once: a number, or auto for what the machine can take")
    ] = "auto",
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="TIME", help="begin no trial after this long: 90s, 30m, 2h"),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps")] = "auto",
    root: RootOption = Path("mlruns"),
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            "--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow store (default: one in --root)"
        ),
    ] = None,
    trial_timeout: Annotated[
        str | None,
        typer.Option("--trial-timeout", metavar="TIME", help="end a trial after this long: 90s, 30m, 2h"),
    ] = None,
    trial_memory: Annotated[
        str | None,
        typer.Option("--trial-memory", metavar="SIZE", help="what a trial may allocate: 500M, 2G"),
    ] = None,
    min_free: Annotated[
        str,
        typer.Option(
            "--min-free",
            metavar="SIZE",
            envvar="LENET_EXP_MIN_FREE",
            help="begin no trial with less free disk than this",
        ),
    ] = "200M",
    overrides: SetOption = None,
) -> None:
    """Run the main job: the baseline and a search for something better, all of it in MLflow.

    Example: lenet-exp sweep experiments/quick.toml --trials 8 --set search.sampler=random
    """
    from lenet_exp import experiment as experiments
    from lenet_exp.executor import TRAINER
    from lenet_exp.limits import Limits, size_bytes
    from lenet_exp.pipeline import Request, run_sweep

    path = experiment_path(experiment)
    run_sweep(
        Request(
            path=path,
            experiment=experiments.load(path, overrides or (), {"search.trials": trials}),
            root=root,
            workers=_workers(workers),
            timeout_s=seconds(timeout) if timeout is not None else None,
            limits=Limits(
                trial_timeout_s=(
                    seconds(trial_timeout, "--trial-timeout") if trial_timeout is not None else None
                ),
                trial_memory_bytes=(
                    size_bytes(trial_memory, "--trial-memory") if trial_memory is not None else None
                ),
                min_free_bytes=size_bytes(min_free, "--min-free"),
            ),
            # A test of everything around the training has another one.
            trainer=os.environ.get("LENET_EXP_TRAINER", TRAINER),
            device=device,
            tracking_uri=tracking_uri or None,
        )
    )


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text[:9]) < 1:
        raise ConfigError(f"--workers must be a whole number above zero or auto, found {text!r}")
    return int(text[:9])


@app.command()
def leaderboard(
    experiment: ExperimentArgument = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="PATH", help="write the table to this CSV file"),
    ] = None,
    style: Annotated[
        TableFormat | None,
        typer.Option("--format", help="print as text for machines instead of a table"),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="only the first rows"),
    ] = None,
    root: RootOption = Path("mlruns"),
) -> None:
    """Show or export the leaderboard of an experiment, from the study alone.

    Example: lenet-exp leaderboard quick --format markdown --top 5
    """
    from lenet_exp import experiment as experiments
    from lenet_exp.pipeline import show_leaderboard

    show_leaderboard(
        experiments.load(experiment_path(experiment)), root, csv=csv, style=style and style.value, top=top
    )


@app.command()
def shapes(experiment: ExperimentArgument = None) -> None:
    """Print the layers of an experiment's networks: output shapes, parameters and MACs of an image.

    Example: lenet-exp shapes experiments/baseline.toml
    """
    from lenet_exp import experiment as experiments
    from lenet_exp.tables import print_shapes

    print_shapes(experiments.load(experiment_path(experiment)))


@app.command()
def ui(
    root: RootOption = Path("mlruns"),
    port: Annotated[int, typer.Option("--port", min=1, max=65_535, help="port on 127.0.0.1")] = 5000,
) -> None:
    """Open MLflow's UI on the recorded runs; Ctrl-C ends it.

    Example: lenet-exp ui --port 5001
    """
    from lenet_exp.ui import open_ui

    open_ui(
        root, port=port, on_ready=lambda address: typer.echo(f"MLflow's UI is at {address} (Ctrl-C ends it)")
    )


def commands() -> list[str]:
    """Return the names of all commands."""
    return sorted(
        str(info.name or (info.callback and info.callback.__name__)) for info in app.registered_commands
    )

"""``lenet-exp`` and its commands. Heavy imports are inside the commands, so that ``--help`` is quick."""

from __future__ import annotations

import atexit
import gc
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from lenet_exp import __version__
from lenet_exp.base.errors import DeviceError, LenetExpError, mask_url, printable
from lenet_exp.cli import options
from lenet_exp.cli.options import load_experiment, workers_count

app = typer.Typer(
    name="lenet-exp",
    help="Which LeNet is better than the baseline, by how much, and how sure are we?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; a user's mistake is one line and its exit code."""
    # Nearly all that torch and MLflow make as they are loaded stays. Looking through it for garbage ten times
    # less often, and not once more at the end, makes a command a third quicker.
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)
    try:
        try:
            _check_system()
            code = app(arguments, prog_name="lenet-exp", standalone_mode=False)
        finally:
            sys.stdout.flush()
    except LenetExpError as error:
        _tell(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has seen enough, as `| head` does. Python flushes once more when it
        # ends, and would complain. The exit code is what typer gives when it is the first to notice.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except typer.Abort:  # Ctrl-C
        sys.exit(130)
    except Exception as error:
        # typer's refusals, whose class has moved from one package to another; a bug is none.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        if said := message().rstrip("."):  # without a command the help has been shown
            _tell(f"{said}; see lenet-exp --help")
        sys.exit(2)
    sys.exit(code or 0)


def _check_system() -> None:
    """Raise on a system without the calls that every command needs."""
    if find_spec("fcntl") is None:
        found = platform.system()
        raise DeviceError(f"lenet_exp needs Linux or macOS (it uses fcntl and fork), found {found}; use WSL")


def _tell(message: str) -> None:
    """Say on standard error what is wrong, in one line."""
    message = printable(mask_url(message))
    # What a user has written, and a message shows, can be of any length.
    sys.stderr.write(f"error: {message if len(message) <= 1000 else message[:999] + '…'}\n")


def _say(line: str) -> None:
    typer.echo(printable(line), err=True)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="print the version", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"lenet-exp {__version__}")
        raise typer.Exit


@app.command()
def sweep(
    experiment: options.ExperimentArgument = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", help="finished trials to have at the end, those of earlier calls included"),
    ] = None,
    workers: options.Workers = "auto",
    timeout: options.Timeout = None,
    device: options.Device = "auto",
    confirm: Annotated[
        bool, typer.Option(" /--no-confirm", help="stop after the search; the test split is not read")
    ] = True,
    root: options.Root = Path("mlruns"),
    tracking_uri: options.Tracking = None,
    require_tracking: options.RequireTracking = False,
    storage: options.Storage = None,
    trial_timeout: options.TrialTimeout = None,
    trial_memory: options.TrialMemory = None,
    min_free: options.MinFree = "200M",
    overrides: options.Overrides = None,
) -> None:
    """Run the main job: the baseline, a search for something better, and the confirmation of what it found.

    Example: lenet-exp sweep experiments/quick.toml --trials 8 --set search.sampler=random
    """
    from lenet_exp.execution.processes import TRAINER, start_fork_server
    from lenet_exp.execution.resources import Limits, size_bytes

    asked = load_experiment(experiment, overrides, {"search.trials": trials})
    n_workers = workers_count(workers)
    limits = Limits(trial_timeout, trial_memory, size_bytes(min_free, "--min-free"))
    # A test of everything around the training has another one.
    trainer = os.environ.get("LENET_EXP_TRAINER", TRAINER)
    # It loads torch, which takes longest of all, while this process loads the rest.
    start_fork_server(trainer)
    from lenet_exp.sweep.run import Request, run_sweep

    run_sweep(
        Request(
            experiment=asked,
            root=root,
            workers=n_workers,
            timeout_s=timeout,
            limits=limits,
            trainer=trainer,
            device=device,
            tracking_uri=tracking_uri,
            require_tracking=require_tracking,
            storage=storage,
            confirm=confirm,
        )
    )


@app.command("confirm")
def confirm_command(
    experiment: options.ExperimentArgument = None,
    again: Annotated[
        bool, typer.Option("--again", help="choose anew and read the test split once more, on record")
    ] = False,
    dataset: options.Dataset = None,
    workers: options.Workers = "auto",
    timeout: options.Timeout = None,
    device: options.Device = "auto",
    root: options.Root = Path("mlruns"),
    tracking_uri: options.Tracking = None,
    storage: options.Storage = None,
    overrides: options.Overrides = None,
) -> None:
    """Train the best and the baseline on fresh seeds, then read the test split once for all of them.

    Example: lenet-exp confirm fashion_mnist --dataset mnist
    """
    from lenet_exp.execution.processes import start_fork_server

    asked, n_workers = load_experiment(experiment, overrides), workers_count(workers)
    start_fork_server()
    from lenet_exp.sweep.run import Request, run_sweep

    is_folder_given = any(override.partition("=")[0].strip() == "data.folder" for override in overrides or ())
    run_sweep(
        Request(
            experiment=asked,
            root=root,
            workers=n_workers,
            timeout_s=timeout,
            device=device,
            tracking_uri=tracking_uri,
            storage=storage,
            search=False,
            again=again,
            dataset=dataset,
            dataset_folder=asked.data.folder if is_folder_given else None,
        )
    )


@app.command()
def leaderboard(
    experiment: options.ExperimentArgument = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="PATH", help="write the table to this CSV file")
    ] = None,
    style: Annotated[
        options.TableFormat | None,
        typer.Option("--format", help="print as text for machines instead of a table"),
    ] = None,
    top: Annotated[int | None, typer.Option("--top", min=1, help="only the first rows")] = None,
    dataset: options.Dataset = None,
    root: options.Root = Path("mlruns"),
    storage: options.Storage = None,
) -> None:
    """Show or export the leaderboard of an experiment, from the study alone.

    Example: lenet-exp leaderboard quick --format markdown --top 5
    """
    from lenet_exp.results.read import show_leaderboard
    from lenet_exp.sweep.finalists import on_dataset

    shown = on_dataset(load_experiment(experiment), dataset)
    show_leaderboard(shown, root, csv=csv, style=style and style.value, top=top, storage=storage)


@app.command()
def sync(
    experiment: options.ExperimentArgument = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="look at every run: make missing ones anew, delete unknown ones")
    ] = False,
    root: options.Root = Path("mlruns"),
    tracking_uri: options.Tracking = None,
    storage: options.Storage = None,
) -> None:
    """Carry to MLflow what it has missed, such as what was recorded while its server was down.

    Example: lenet-exp sync quick --rebuild
    """
    from lenet_exp.sweep.sync import sync_experiment

    chosen = load_experiment(experiment)
    report = sync_experiment(chosen, root, rebuild=rebuild, tracking_uri=tracking_uri, storage=storage)
    for problem in report.problems:
        _say(f"warning: {mask_url(problem)}")
    typer.echo(f"carried {report.n_uploaded} runs to MLflow, deleted {report.n_deleted}")


@app.command()
def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="mend what can be mended; deletes nothing")
    ] = False,
    root: options.Root = Path("mlruns"),
    tracking_uri: options.Tracking = None,
    storage: options.Storage = None,
) -> None:
    """Say what is wrong with this machine and with what was recorded, and what to do about it.

    Example: lenet-exp doctor --repair
    """
    from lenet_exp.cli.doctor import examine, worst

    checks = []
    for check in examine(root, tracking_uri=tracking_uri, url=storage, repair=repair):
        checks.append(check)
        state = "mended" if check.repaired else "wrong" if check.exit_code else "ok"
        typer.echo(f"{state:7} {check.what}: {printable(mask_url(check.text))}")
    raise typer.Exit(worst(checks))


@app.command()
def shapes(experiment: options.ExperimentArgument = None) -> None:
    """Print the layers of an experiment's networks: output shapes, parameters and MACs of an image.

    Example: lenet-exp shapes experiments/baseline.toml
    """
    from lenet_exp.results.views.console import print_shapes

    print_shapes(load_experiment(experiment))


@app.command()
def activations(
    classes: Annotated[
        str, typer.Option("--classes", help="names or numbers of classes, with commas between")
    ],
    run: Annotated[
        str, typer.Argument(help="trial number, label, MLflow run id, champion or baseline")
    ] = "champion",
    experiment: options.ExperimentOption = None,
    inputs: Annotated[int, typer.Option("--inputs", min=1, max=20, help="images of each class")] = 3,
    root: options.Root = Path("mlruns"),
    tracking_uri: options.Tracking = None,
    storage: options.Storage = None,
    overrides: options.Overrides = None,
) -> None:
    """Draw what the first two convolution layers make of validation images, channel by channel.

    Example: lenet-exp activations champion --experiment quick --classes pullover,coat
    """
    from lenet_exp.results.views.activations import draw_activations

    chosen = load_experiment(experiment, overrides)
    picture = draw_activations(
        chosen, root, run, classes, inputs=inputs, tracking_uri=tracking_uri, storage=storage
    )
    typer.echo(picture)


@app.command()
def replay(
    trial: Annotated[str, typer.Argument(help="trial number, label, MLflow run id, champion or baseline")],
    experiment: options.ExperimentOption = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, max=1024, help="of the training (default: as recorded)")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps (default: as recorded)")
    ] = None,
    root: options.Root = Path("mlruns"),
    storage: options.Storage = None,
    overrides: options.Overrides = None,
) -> None:
    """Train a recorded trial again, and compare its metrics epoch by epoch; exit code 3 if they differ.

    Example: lenet-exp replay 3 --experiment quick
    """
    from lenet_exp.cli import replay as replays

    chosen = load_experiment(experiment, overrides)
    replays.show(replays.replay(chosen, root, trial, threads=threads, device=device, storage=storage))


@app.command()
def report(
    experiment: options.ExperimentArgument = None,
    root: options.Root = Path("mlruns"),
    tracking_uri: options.Tracking = None,
    storage: options.Storage = None,
) -> None:
    """Write an experiment's page: plots, learning curves, and the leaderboard, in one HTML file.

    Example: lenet-exp report quick
    """
    from lenet_exp.results.views.page import write_report

    chosen = load_experiment(experiment)
    typer.echo(write_report(chosen, root, tracking_uri=tracking_uri, storage=storage, say=_say))


@app.command()
def bench(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
    for_s: Annotated[
        float, typer.Option("--seconds", min=0.05, max=3600, help="seconds of each measurement")
    ] = 4.0,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="times each is measured, in turn")] = 3,
    device: options.Device = "auto",
    overrides: options.Overrides = None,
) -> None:
    """Measure this machine: the usual training loop and ours in turn, and what a sweep costs beside training.

    Takes about a minute and a half. What is trained is the baseline of experiments/bench.toml.

    Example: lenet-exp bench --json > bench.json
    """
    from lenet_exp.cli.bench import Question, run_bench
    from lenet_exp.config.loader import experiment_path
    from lenet_exp.results.views.console import print_bench

    path, given = experiment_path("bench"), tuple(overrides or ())
    experiment = load_experiment(path, given)
    question = Question(path, experiment, given, for_s=for_s, rounds=rounds, device=device)
    answer = run_bench(question, _say)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    else:
        print_bench(answer)


@app.command()
def ui(
    root: options.Root = Path("mlruns"),
    port: Annotated[int, typer.Option("--port", min=1, max=65_535, help="port on 127.0.0.1")] = 5000,
) -> None:
    """Open MLflow's UI on the recorded runs; Ctrl-C ends it.

    Example: lenet-exp ui --port 5001
    """
    from lenet_exp.tracking.ui import open_ui

    open_ui(
        root, port=port, on_ready=lambda address: typer.echo(f"MLflow's UI is at {address} (Ctrl-C ends it)")
    )


def commands() -> list[str]:
    """Return the names of all commands."""
    return sorted(
        str(info.name or (info.callback and info.callback.__name__)) for info in app.registered_commands
    )

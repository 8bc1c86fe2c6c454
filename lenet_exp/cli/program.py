"""``lenet-exp`` and its commands. Heavy imports are inside the commands, so that ``--help`` is quick."""

from __future__ import annotations

import atexit
import gc
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lenet_exp import __version__
from lenet_exp.base.errors import LenetExpError, mask_url, printable
from lenet_exp.cli.options import (
    DatasetOption,
    DeviceOption,
    ExperimentArgument,
    ExperimentOption,
    RootOption,
    SetOption,
    StorageOption,
    TableFormat,
    TimeoutOption,
    TrackingOption,
    WorkersOption,
    experiment_path,
    seconds,
    workers_count,
)

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


def _tell(message: str) -> None:
    """Say on standard error what is wrong, in one line."""
    message = printable(mask_url(message))
    # What a user has written, and a message shows, can be of any length.
    sys.stderr.write(f"error: {message if len(message) <= 1000 else message[:999] + '…'}\n")


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
        typer.Option("--trials", help="finished trials to have at the end, those of earlier calls included"),
    ] = None,
    workers: WorkersOption = "auto",
    timeout: TimeoutOption = None,
    device: DeviceOption = "auto",
    confirm: Annotated[
        bool, typer.Option(" /--no-confirm", help="stop after the search; the test split is not read")
    ] = True,
    root: RootOption = Path("mlruns"),
    tracking_uri: TrackingOption = None,
    require_tracking: Annotated[
        bool,
        typer.Option(
            "--require-tracking", help="stop, with exit code 7, if the MLflow store does not answer"
        ),
    ] = False,
    storage: StorageOption = None,
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
    """Run the main job: the baseline, a search for something better, and the confirmation of what it found.

    Example: lenet-exp sweep experiments/quick.toml --trials 8 --set search.sampler=random
    """
    from lenet_exp.config import experiment as experiments
    from lenet_exp.execution.limits import Limits, size_bytes
    from lenet_exp.execution.processes import TRAINER, start_fork_server

    path = experiment_path(experiment)
    asked = experiments.load(path, overrides or (), {"search.trials": trials})
    n_workers, timeout_s = workers_count(workers), seconds(timeout) if timeout is not None else None
    limits = Limits(
        trial_timeout_s=(seconds(trial_timeout, "--trial-timeout") if trial_timeout is not None else None),
        trial_memory_bytes=size_bytes(trial_memory, "--trial-memory") if trial_memory is not None else None,
        min_free_bytes=size_bytes(min_free, "--min-free"),
    )
    # A test of everything around the training has another one.
    trainer = os.environ.get("LENET_EXP_TRAINER", TRAINER)
    # It loads torch, which takes longest of all, while this process loads the rest.
    start_fork_server(trainer)
    from lenet_exp.sweep.run import Request, run_sweep

    run_sweep(
        Request(
            path=path,
            experiment=asked,
            root=root,
            workers=n_workers,
            timeout_s=timeout_s,
            limits=limits,
            trainer=trainer,
            device=device,
            tracking_uri=tracking_uri or None,
            require_tracking=require_tracking,
            storage=storage or None,
            confirm=confirm,
        )
    )


@app.command("confirm")
def confirm_command(
    experiment: ExperimentArgument = None,
    again: Annotated[
        bool, typer.Option("--again", help="choose anew and read the test split once more, on record")
    ] = False,
    dataset: DatasetOption = None,
    workers: WorkersOption = "auto",
    timeout: TimeoutOption = None,
    device: DeviceOption = "auto",
    root: RootOption = Path("mlruns"),
    tracking_uri: TrackingOption = None,
    storage: StorageOption = None,
    overrides: SetOption = None,
) -> None:
    """Train the best and the baseline on fresh seeds, then read the test split once for all of them.

    Example: lenet-exp confirm fashion_mnist --dataset mnist
    """
    from lenet_exp.config import experiment as experiments
    from lenet_exp.execution.processes import start_fork_server

    path = experiment_path(experiment)
    asked = experiments.load(path, overrides or ())
    n_workers, timeout_s = workers_count(workers), seconds(timeout) if timeout is not None else None
    start_fork_server()
    from lenet_exp.sweep.run import Request, run_sweep

    is_folder_given = any(override.partition("=")[0].strip() == "data.folder" for override in overrides or ())
    run_sweep(
        Request(
            path=path,
            experiment=asked,
            root=root,
            workers=n_workers,
            timeout_s=timeout_s,
            device=device,
            tracking_uri=tracking_uri or None,
            storage=storage or None,
            search=False,
            again=again,
            dataset=dataset,
            dataset_folder=asked.data.folder if is_folder_given else None,
        )
    )


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
    dataset: DatasetOption = None,
    root: RootOption = Path("mlruns"),
    storage: StorageOption = None,
) -> None:
    """Show or export the leaderboard of an experiment, from the study alone.

    Example: lenet-exp leaderboard quick --format markdown --top 5
    """
    from lenet_exp.config import experiment as experiments
    from lenet_exp.results.read import show_leaderboard
    from lenet_exp.sweep.finalists import on_dataset

    shown = on_dataset(experiments.load(experiment_path(experiment)), dataset)
    show_leaderboard(shown, root, csv=csv, style=style and style.value, top=top, storage=storage or None)


@app.command()
def sync(
    experiment: ExperimentArgument = None,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="look at every run: make missing ones anew, delete unknown ones"),
    ] = False,
    root: RootOption = Path("mlruns"),
    tracking_uri: TrackingOption = None,
    storage: StorageOption = None,
) -> None:
    """Carry to MLflow what it has missed, such as what was recorded while its server was down.

    Example: lenet-exp sync quick --rebuild
    """
    from lenet_exp.config import experiment as experiments
    from lenet_exp.sweep.sync import sync_experiment

    report = sync_experiment(
        experiments.load(experiment_path(experiment)),
        root,
        rebuild=rebuild,
        tracking_uri=tracking_uri or None,
        storage=storage or None,
    )
    for problem in report.problems:
        typer.echo(f"warning: {printable(mask_url(problem))}", err=True)
    typer.echo(f"carried {report.n_shipped} runs to MLflow, deleted {report.n_deleted}")


@app.command()
def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="mend what can be mended; deletes nothing")
    ] = False,
    root: RootOption = Path("mlruns"),
    tracking_uri: TrackingOption = None,
    storage: StorageOption = None,
) -> None:
    """Say what is wrong with this machine and with what was recorded, and what to do about it.

    Example: lenet-exp doctor --repair
    """
    from lenet_exp.cli.doctor import examine, worst

    findings = []
    for finding in examine(root, tracking_uri=tracking_uri or None, url=storage or None, repair=repair):
        findings.append(finding)
        state = "mended" if finding.repaired else "wrong" if finding.exit_code else "ok"
        typer.echo(f"{state:7} {finding.what}: {printable(mask_url(finding.text))}")
    raise typer.Exit(worst(findings))


@app.command()
def shapes(experiment: ExperimentArgument = None) -> None:
    """Print the layers of an experiment's networks: output shapes, parameters and MACs of an image.

    Example: lenet-exp shapes experiments/baseline.toml
    """
    from lenet_exp.config import experiment as experiments
    from lenet_exp.results.views.console import print_shapes

    print_shapes(experiments.load(experiment_path(experiment)))


@app.command()
def activations(
    classes: Annotated[
        str, typer.Option("--classes", help="names or numbers of classes, with commas between")
    ],
    run: Annotated[
        str, typer.Argument(help="trial number, label, MLflow run id, champion or baseline")
    ] = "champion",
    experiment: ExperimentOption = None,
    inputs: Annotated[int, typer.Option("--inputs", min=1, max=20, help="images of each class")] = 3,
    root: RootOption = Path("mlruns"),
    tracking_uri: TrackingOption = None,
    storage: StorageOption = None,
    overrides: SetOption = None,
) -> None:
    """Draw what the first two convolution layers make of validation images, channel by channel.

    Example: lenet-exp activations champion --experiment quick --classes pullover,coat
    """
    from lenet_exp.config import experiment as experiments
    from lenet_exp.results.views.activations import draw_activations

    chosen = experiments.load(experiment_path(experiment), overrides or ())
    picture = draw_activations(
        chosen, root, run, classes, inputs=inputs, tracking_uri=tracking_uri or None, storage=storage
    )
    typer.echo(picture)


@app.command()
def replay(
    trial: Annotated[str, typer.Argument(help="trial number, label, MLflow run id, champion or baseline")],
    experiment: ExperimentOption = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, max=1024, help="of the training (default: as recorded)"),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps (default: as recorded)")
    ] = None,
    root: RootOption = Path("mlruns"),
    storage: StorageOption = None,
    overrides: SetOption = None,
) -> None:
    """Train a recorded trial again, and compare its metrics epoch by epoch; exit code 3 if they differ.

    Example: lenet-exp replay 3 --experiment quick
    """
    from lenet_exp.cli import replay as replays
    from lenet_exp.config import experiment as experiments

    chosen = experiments.load(experiment_path(experiment), overrides or ())
    replays.show(replays.replay(chosen, root, trial, threads=threads, device=device, storage=storage))


@app.command()
def report(
    experiment: ExperimentArgument = None,
    root: RootOption = Path("mlruns"),
    tracking_uri: TrackingOption = None,
    storage: StorageOption = None,
) -> None:
    """Write an experiment's page: plots, learning curves, and the leaderboard, in one HTML file.

    Example: lenet-exp report quick
    """
    from lenet_exp.config import experiment as experiments
    from lenet_exp.results.views.page import show_report

    show_report(experiments.load(experiment_path(experiment)), root, tracking_uri or None, storage)


@app.command()
def bench(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
    for_s: Annotated[
        float, typer.Option("--seconds", min=0.05, max=3600, help="seconds of each measurement")
    ] = 4.0,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="times each is measured, in turn")] = 3,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps")] = "auto",
    overrides: SetOption = None,
) -> None:
    """Measure this machine: the usual training loop and ours in turn, and what a sweep costs beside training.

    Takes about a minute and a half. What is trained is the baseline of experiments/bench.toml.

    Example: lenet-exp bench --json > bench.json
    """
    from lenet_exp.cli.bench import Question, run_bench
    from lenet_exp.config import experiment as experiments
    from lenet_exp.results.views.console import print_bench

    path = experiment_path(Path("bench"))
    given = tuple(overrides or ())
    experiment = experiments.load(path, given)
    question = Question(path, experiment, given, for_s=for_s, rounds=rounds, device=device)
    answer = run_bench(question, lambda line: typer.echo(printable(line), err=True)).to_dict()
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    else:
        print_bench(answer)


@app.command()
def ui(
    root: RootOption = Path("mlruns"),
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

"""``lenet-exp`` and its commands. Heavy imports are inside the commands, so that ``--help`` is quick.

The docstring of a command is its help; its parameters are described by the help texts of their options.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, cast

import typer

from lenet_exp import __version__
from lenet_exp.base.environment import check_system
from lenet_exp.base.errors import UnreachableError, mask_url, printable
from lenet_exp.base.messages import counted, say, step
from lenet_exp.cli import options
from lenet_exp.cli.exits import exit_after
from lenet_exp.cli.options import load_experiment, switch, workers_count
from lenet_exp.execution.processes import TRAINER, start_fork_server
from lenet_exp.execution.resources import Limits, size_bytes
from lenet_exp.execution.signals import own_process
from lenet_exp.progress.display import shown

app = typer.Typer(
    name="lenet-exp",
    help="Which LeNet is better than the baseline, by how much, and how sure are we?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit the process; an error is one line on standard error, and the exit code.

    Args:
        arguments: Words after ``lenet-exp``; None for those of the process's own command line.
    """
    if arguments is None:
        own_process()
    # Nearly all objects that torch and MLflow create while loading stay alive, so looking for garbage finds
    # little: it is done ten times less often (experiments/LOG.md, What was weighed when the house was
    # divided).
    gc.set_threshold(10_000)
    exit_after(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int | None:
    check_system()
    return cast("int | None", app(arguments, prog_name="lenet-exp", standalone_mode=False))


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="print the version", is_eager=True)
    ] = False,
) -> None:
    if version:
        typer.echo(f"lenet-exp {__version__}")
        raise typer.Exit


@app.command("sweep")
def _sweep(
    experiment: options.ExperimentArgument = None,
    trials: options.Trials = None,
    workers: options.Workers = "auto",
    timeout: options.Timeout = None,
    device: options.Device = "auto",
    no_confirm: Annotated[
        bool, switch("--no-confirm", "stop after the search: no confirmation, and the test split is not read")
    ] = False,
    root: options.Root = Path("mlruns"),
    tracking_uri: options.Tracking = None,
    require_tracking: options.RequireTracking = False,
    storage: options.Storage = None,
    trial_timeout: options.TrialTimeout = None,
    trial_memory: options.TrialMemory = None,
    min_free: options.MinFree = "200M",
    overrides: options.Overrides = None,
    plain: options.Plain = False,
) -> None:
    """Run the main job: train the baseline, search for better networks, and confirm the best on fresh seeds.

    What is done already is not done again, so the same command goes on after an interruption.

    Example: lenet-exp sweep experiments/quick.toml --trials 8 --set search.sampler=random
    """
    with shown(plain=plain) as reporter:  # before anything is loaded that takes time
        asked = load_experiment(experiment, overrides, {"search.trials": trials})
        n_workers = workers_count(workers)
        limits = Limits(trial_timeout, trial_memory, size_bytes(min_free, "--min-free"))
        # Tests of everything but the training name a trainer of their own here.
        trainer = os.environ.get("LENET_EXP_TRAINER", TRAINER)
        # The fork server loads torch, which takes longest, while this process loads everything else.
        start_fork_server(trainer)
        from lenet_exp.sweep.run import Request, run_main_job

        run_main_job(
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
                confirm=not no_confirm,
            ),
            reporter,
        )


@app.command("confirm")
def _confirm(
    experiment: options.ExperimentArgument = None,
    again: Annotated[
        bool, switch("--again", "choose finalists anew and read the test split again, which is recorded")
    ] = False,
    dataset: options.Dataset = None,
    workers: options.Workers = "auto",
    timeout: options.Timeout = None,
    device: options.Device = "auto",
    root: options.Root = Path("mlruns"),
    tracking_uri: options.Tracking = None,
    storage: options.Storage = None,
    overrides: options.Overrides = None,
    plain: options.Plain = False,
) -> None:
    """Train the best configurations and the baseline on fresh seeds, then read the test split once for all.

    Example: lenet-exp confirm fashion_mnist --dataset mnist
    """
    with shown(plain=plain) as reporter:
        asked, n_workers = load_experiment(experiment, overrides), workers_count(workers)
        start_fork_server()
        from lenet_exp.sweep.run import Request, run_main_job

        names = [override.partition("=")[0].strip() for override in overrides or ()]
        run_main_job(
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
                dataset_folder=asked.data.folder if "data.folder" in names else None,
            ),
            reporter,
        )


@app.command("leaderboard")
def _leaderboard(
    experiment: options.ExperimentArgument = None,
    csv: options.Csv = None,
    style: options.Style = None,
    top: options.Top = None,
    dataset: options.Dataset = None,
    root: options.Root = Path("mlruns"),
    storage: options.Storage = None,
    overrides: options.Overrides = None,
) -> None:
    """Print the leaderboard of an experiment, or write it to a file. Reads the study; MLflow is not needed.

    Example: lenet-exp leaderboard quick --format markdown --top 5
    """
    from lenet_exp.results.read import show_leaderboard
    from lenet_exp.sweep.finalists import on_dataset

    chosen = on_dataset(load_experiment(experiment, overrides), dataset)
    show_leaderboard(chosen, root, csv=csv, style=style and style.value, top=top, storage=storage)


@app.command("sync")
def _sync(
    experiment: options.ExperimentArgument = None,
    rebuild: Annotated[
        bool,
        switch(
            "--rebuild",
            "check every run in MLflow: create missing ones, delete those that are not recorded in --root",
        ),
    ] = False,
    root: options.Root = Path("mlruns"),
    tracking_uri: options.Tracking = None,
    storage: options.Storage = None,
) -> None:
    """Upload to MLflow what it lacks, such as the runs of a sweep during which its server was down.

    Example: lenet-exp sync quick --rebuild
    """
    with step("loading MLflow"):
        from lenet_exp.sweep.recovery import sync_experiment

    chosen = load_experiment(experiment)
    report = sync_experiment(chosen, root, rebuild=rebuild, tracking_uri=tracking_uri, storage=storage)
    for problem in report.problems:
        say(f"warning: {mask_url(problem)}")
    runs = counted(report.n_uploaded, "run")
    # A rebuild looks at every run again, also at those that were complete in MLflow.
    done = f"checked {runs} in MLflow" if rebuild else f"uploaded {runs} to MLflow"
    typer.echo(f"{done}, deleted {report.n_deleted}")
    if report.lacking:
        raise UnreachableError(report.what_is_lacking)


@app.command("watch")
def _watch(
    experiment: options.WatchedArgument = None,
    root: options.Root = Path("mlruns"),
    plain: options.Plain = False,
) -> None:
    """Show how a sweep stands that runs elsewhere on --root, until it ends; Ctrl-C ends only the watching.

    Example: lenet-exp watch quick
    """
    from lenet_exp.base.layout import Layout
    from lenet_exp.progress.watch import watch_sweep

    name = str(experiment) if experiment else None
    # Its folder in --root will do, which is how the errors of this command call it.
    if name and not Layout.of(root, name).home.is_dir():
        name = load_experiment(experiment).name
    watch_sweep(name, root, plain=plain)


@app.command("doctor")
def _doctor(
    repair: Annotated[bool, switch("--repair", "repair what can be repaired; deletes nothing")] = False,
    root: options.Root = Path("mlruns"),
    tracking_uri: options.Tracking = None,
    storage: options.Storage = None,
) -> None:
    """Check this machine and all results in --root; say what is wrong and what to do about it.

    Example: lenet-exp doctor --repair
    """
    from lenet_exp.cli.doctor import examine, worst

    checks = []
    for check in examine(root, tracking_uri=tracking_uri, url=storage, repair=repair):
        checks.append(check)
        state = "repaired" if check.repaired else "wrong" if check.exit_code else "ok"
        typer.echo(f"{state:8} {check.name}: {printable(mask_url(check.text))}")
    raise typer.Exit(worst(checks))


@app.command("shapes")
def _shapes(experiment: options.ExperimentArgument = None) -> None:
    """Print the layers of an experiment's networks: shapes, parameters, and multiply-adds (MACs) per image.

    Example: lenet-exp shapes experiments/baseline.toml
    """
    from lenet_exp.results.views.console import print_shapes

    print_shapes(load_experiment(experiment))


@app.command("activations")
def _activations(
    classes: options.Classes,
    run: options.DrawnRun = "champion",
    experiment: options.ExperimentOption = None,
    inputs: options.Inputs = 3,
    root: options.Root = Path("mlruns"),
    tracking_uri: options.Tracking = None,
    storage: options.Storage = None,
    overrides: options.Overrides = None,
) -> None:
    """Draw the channels of the first two convolution layers for some validation images, as a PNG file.

    Example: lenet-exp activations champion --experiment quick --classes pullover,coat
    """
    chosen = load_experiment(experiment, overrides)
    with step("drawing the activations"):
        from lenet_exp.results.views.activations import draw_activations

        picture = draw_activations(
            chosen, root, run, classes, inputs=inputs, tracking_uri=tracking_uri, storage=storage
        )
    typer.echo(picture)


@app.command("replay")
def _replay(
    trial: options.ReplayedTrial,
    experiment: options.ExperimentOption = None,
    threads: options.ReplayThreads = None,
    device: options.ReplayDevice = None,
    root: options.Root = Path("mlruns"),
    storage: options.Storage = None,
    overrides: options.Overrides = None,
) -> None:
    """Train a recorded network again, and compare its metrics with the record; exit code 3 if they differ.

    Example: lenet-exp replay 3 --experiment quick
    """
    with step("loading libraries"):
        from lenet_exp.cli.replay import replay, show

    chosen = load_experiment(experiment, overrides)
    show(replay(chosen, root, trial, threads=threads, device=device, storage=storage))


@app.command("report")
def _report(
    experiment: options.ExperimentArgument = None,
    root: options.Root = Path("mlruns"),
    tracking_uri: options.Tracking = None,
    storage: options.Storage = None,
    overrides: options.Overrides = None,
) -> None:
    """Write the page of an experiment: plots, learning curves and the leaderboard in one HTML file.

    Example: lenet-exp report quick
    """
    chosen = load_experiment(experiment, overrides)
    start_fork_server()  # imports torch, which looks into networks, while this process reads the records
    with step("writing the page"):
        from lenet_exp.results.lookup import read_results
        from lenet_exp.results.views.page.report import write_report

        page = write_report(read_results(chosen, root, storage), root, tracking_uri=tracking_uri, say=say)
    typer.echo(page)


@app.command("bench")
def _bench(
    as_json: Annotated[bool, switch("--json", "print JSON instead of a table")] = False,
    for_s: options.Seconds = 4.0,
    rounds: options.Rounds = 3,
    device: options.Device = "auto",
    overrides: options.Overrides = None,
) -> None:
    """Measure how fast this machine trains, in the usual loop and in ours, and what a sweep adds to training.

    Trains the baseline of experiments/bench.toml, takes about a minute and a half, and records nothing.

    Example: lenet-exp bench --json > bench.json
    """
    with step("loading torch"):
        from lenet_exp.cli.bench import Question, print_bench, run_bench
    from lenet_exp.config.loader import experiment_path

    path, given = experiment_path("bench"), tuple(overrides or ())
    experiment = load_experiment(path, given)
    question = Question(path, experiment, given, for_s=for_s, rounds=rounds, device=device)
    answer = run_bench(question, say)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    else:
        print_bench(answer)


@app.command("ui")
def _ui(
    root: options.Root = Path("mlruns"), port: options.Port = 5000, no_open: options.NoOpen = False
) -> None:
    """Serve MLflow's UI for the runs in --root, on this machine only, until Ctrl-C, and open it in a browser.

    No browser is opened over ssh, in CI, without a display, or if the output is not a terminal.

    Example: lenet-exp ui --port 5001
    """
    import webbrowser

    from lenet_exp.tracking.ui import open_ui, shows_windows

    with ExitStack() as starting:
        starting.enter_context(step("starting MLflow's server"))

        def tell(address: str) -> None:
            starting.close()
            typer.echo(f"MLflow's UI is at {address} (Ctrl-C ends it)")
            if not no_open and shows_windows():
                webbrowser.open(address)

        open_ui(root, port=port, on_ready=tell)


def commands() -> list[str]:
    """Return the names of all commands, sorted."""
    return sorted(str(info.name) for info in app.registered_commands)

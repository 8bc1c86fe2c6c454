"""Ours against Optuna's and Ray Tune's usual loops, in turn, on the same networks, as Markdown tables.

Each contender is a command with an empty folder and an MLflow store of its own. Its clock runs from the start
of the command to its end; when the first trial began and the last one ended is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median
from typing import Any

from lenet_exp.base.layout import Layout
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.loader import load
from lenet_exp.tracking.spool import Spool
from tests.labs.places import PROJECT

EXPERIMENT = PROJECT / "experiments" / "eight.toml"

#: Trials at once, of those who can.
WORKERS = 2

#: Of `lenet-exp bench`, as it is asked for.
_BENCH = ["-c", "from lenet_exp.cli.program import main; main()", "bench", "--json"]


@dataclass(frozen=True)
class Outcome:
    """What a contender did.

    Attributes:
        command_s: Seconds from the start of its command to the end.
        trials_s: Seconds from the beginning of its first trial to the end of its last.
        val_accuracy: By network.
    """

    command_s: float
    trials_s: float
    val_accuracy: Mapping[str, float]


def ours(experiment: Experiment, root: Path, overrides: Sequence[str]) -> Outcome:
    """Run `lenet_exp.sweep`."""
    arguments = [
        "-m",
        "lenet_exp.sweep",
        str(EXPERIMENT),
        "--no-confirm",
        "--root",
        str(root),
        "--workers",
        str(WORKERS),
    ]
    command_s, _ = run(arguments, root, overrides)
    records = list(Spool(Layout.of(root, experiment.name).spool).run_logs())
    ends = [record.end.time_ms for record in records if record.end and record.end.state == "COMPLETE"]
    began = min(record.start_ms for record in records)
    scores = {str(record.metadata["label"]): record.epochs[-1].val_accuracy for record in records}
    return Outcome(command_s, (max(ends) - began) / 1000, scores)


def script(name: str) -> Callable[[Experiment, Path, Sequence[str]], Outcome]:
    """Return what runs one of the scripts beside this one."""

    def contender(_: Experiment, root: Path, overrides: Sequence[str]) -> Outcome:
        arguments = ["-m", f"tests.benchmarks.{name}", str(EXPERIMENT), "--root", str(root)]
        command_s, printed = run(arguments, root, overrides)
        told = json.loads(printed.splitlines()[-1])
        return Outcome(command_s, told["ended"] - told["began"], told["val_accuracy"])

    return contender


CONTENDERS: dict[str, Callable[[Experiment, Path, Sequence[str]], Outcome]] = {
    f"lenet_exp, {WORKERS} workers": ours,
    "Optuna, its MLflow callback, the usual loop": script("optuna_loop"),
    f"Ray Tune, its MLflow logger, the usual loop, {WORKERS} trials at once": script("ray_loop"),
}


def run(arguments: Sequence[str], folder: Path, overrides: Sequence[str] = ()) -> tuple[float, str]:
    """Run Python with ``arguments`` in ``folder``; return its seconds and what it printed."""
    settings = [word for override in overrides for word in ("--set", override)]
    # Neither a user's own store, nor a usage report, nor a number of threads other than torch's own.
    left_out = ("MLFLOW_TRACKING_URI", "LENET_EXP_STORAGE", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, *arguments, *settings]
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    seconds = time.monotonic() - began
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} ended with {done.returncode}")
    return seconds, done.stdout


def markdown(
    outcomes: Mapping[str, Sequence[Outcome]],
    bench: Mapping[str, Any],
    driver: Mapping[str, Any],
    notes: Sequence[str],
) -> str:
    """Return the tables: the contenders, the first being ours; then the machine, then the driver.

    Args:
        outcomes: By contender, one for each round; medians are shown.
        bench: What ``lenet-exp bench --json`` printed.
        driver: What `tests.benchmarks.driver_cost` printed.
        notes: Lines on how this was measured.
    """
    reference = median(outcome.command_s for outcome in next(iter(outcomes.values())))
    columns = ("eight networks, one epoch each", "command, s", "over ours", "first to last trial, s")
    lines = [f"| {' | '.join(columns)} | mean val_accuracy |", "|---|---:|---:|---:|---:|"]
    for name, found in outcomes.items():
        command_s = median(outcome.command_s for outcome in found)
        trials_s = median(outcome.trials_s for outcome in found)
        accuracy = fmean(value for outcome in found for value in outcome.val_accuracy.values())
        lines.append(
            f"| {name} | {command_s:.1f} | {command_s / reference:.2f} | {trials_s:.1f} | {accuracy:.4f} |"
        )
    lines += ["", "| `lenet-exp bench` | |", "|---|---:|"]
    for name, value in list(bench.items())[:10]:
        lines.append(f"| `{name}` | {_shown(value)} |")
    lines += ["", "| the driver, with a trainer that takes no time | |", "|---|---:|"]
    lines += [f"| `{name}` | {_shown(value)} |" for name, value in driver.items()]
    return "\n".join([*lines, "", *notes, ""])


def _shown(value: Any) -> str:
    """Return a number with three digits, or as many as it has before the point.

    Example:
        >>> _shown(46770.4), _shown(0.26412), _shown(2)
        ('46,770', '0.264', '2')
    """
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def notes(bench: Mapping[str, Any], overrides: Sequence[str], rounds: int) -> list[str]:
    """Return where, with what and how the numbers were measured."""
    libraries = ("torch", "optuna", "optuna-integration", "ray", "mlflow")
    versions = ", ".join(f"{library} {version(library)}" for library in libraries)
    git = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    changed = f", with {' '.join(overrides)}" if overrides else ""
    return [
        f"{bench['machine']}, {bench['cores']} cores, load before {bench['load']:.1f}; {versions};"
        f" commit {commit}; `nox -s bench`, {rounds} round{'s' if rounds > 1 else ''}{changed}."
    ]


def main() -> None:
    """Measure, and print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="times each contender runs, in turn")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement of lenet-exp bench")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in a sweep")
    parser.add_argument("--output", type=Path, help="file to write as well")
    given = parser.parse_args()
    experiment = load(EXPERIMENT, given.set)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as home:
        _, printed = run([*_BENCH, "--seconds", str(given.seconds)], Path(home))
        bench = json.loads(printed)
        measured = notes(bench, given.set, given.rounds)
        _, printed = run(["-m", "tests.benchmarks.driver_cost"], Path(home))
        driver = json.loads(printed)
        for number in range(given.rounds):
            for name, contender in CONTENDERS.items():
                folder = Path(home) / f"{number}-{len(outcomes[name])}-{list(CONTENDERS).index(name)}"
                folder.mkdir()
                outcomes[name].append(contender(experiment, folder, given.set))
    text = markdown(outcomes, bench, driver, measured)
    sys.stdout.write(text)
    if given.output:
        given.output.write_text(text)


if __name__ == "__main__":
    main()

"""The driver's own CPU time for a trial, in studies of three sizes, as JSON: its trainer takes no time.

The finished trials have drawn parameters and invented accuracies; the driver then goes on with the default
experiment's search. The study grows from one size to the next. How long `lenet-exp leaderboard` takes for the
last of them is told too.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean

from lenet_exp.base.layout import Layout
from lenet_exp.base.records import EpochResult
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.loader import load
from lenet_exp.data.images import ImageSet, training_images
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.execution.protocol import Conditions
from lenet_exp.execution.resources import WorkerPlan
from lenet_exp.study.study import open_study
from lenet_exp.sweep.driver import Driver
from lenet_exp.sweep.writer import Writer
from lenet_exp.tracking.spool import Spool
from tests.labs.places import PROJECT

#: Finished trials in the study.
SIZES = (10, 1000, 5000)
#: Trials before the measurement begins, which load what is loaded once.
WARM_UP = 5


def fill(experiment: Experiment, root: Path, count: int) -> None:
    """Ask for and tell trials at random: a third of them completed, the others pruned after 1 or 3 epochs."""
    study = open_study(experiment, root)
    accuracies = random.Random(count)
    while study.n_finished < count:
        attempt = study.ask()
        assert attempt is not None
        last = accuracies.choice([1, 3, attempt.configuration.epochs])
        value = 0.0
        for epoch in range(1, last + 1):
            value = accuracies.uniform(0.5, 0.9)
            study.report(attempt.key, EpochResult(epoch, 1.0, value, 1.0, value, 1000.0, float(epoch)))
        metadata = {"examples_per_s": 1000.0, "n_parameters": accuracies.randrange(10_000, 100_000)}
        complete = last == attempt.configuration.epochs
        study.tell(attempt.key, "COMPLETE" if complete else "PRUNED", value if complete else None, metadata)


def cost_ms(experiment: Experiment, root: Path, images: ImageSet) -> float:
    """Return the mean CPU time of this process for a trial, in milliseconds, until the search is over."""
    study = open_study(experiment, root)
    executor = LocalExecutor("tests.labs.fake_trainer")
    layout = Layout.of(root, experiment.name)
    layout.home.mkdir(exist_ok=True)
    ends: list[float] = []
    plan = WorkerPlan(2, 1, "as asked")
    driver = Driver(
        Conditions(experiment, images, executor.probe("cpu"), layout, plan),
        study,
        executor,
        Writer(study, Spool(layout.spool), layout),
        announce=lambda _: ends.append(time.process_time()),
    )
    try:
        driver.run()
    finally:
        executor.close()
    return 1000 * fmean(
        after - before for before, after in zip(ends[WARM_UP:], ends[WARM_UP + 1 :], strict=False)
    )


def leaderboard_s(root: Path) -> float:
    """Return the seconds of `lenet-exp leaderboard` as a command."""
    code = "from lenet_exp.cli.program import main; main()"
    began = time.monotonic()
    command = [sys.executable, "-c", code, "leaderboard", "fashion_mnist", "--top", "5", "--root", str(root)]
    subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, check=True)
    return time.monotonic() - began


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40, help="to measure at each size")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="finished trials before them")
    given = parser.parse_args()
    path = PROJECT / "experiments" / "fashion_mnist.toml"
    filling = load(path, ["search.sampler=random", "search.pruner=none"])
    told: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for size in sorted(given.sizes):
            fill(filling, root, size)
            experiment = load(path, [f"search.trials={size + WARM_UP + given.trials}"])
            images = training_images(experiment.data)
            told[f"driver_ms_at_{size}"] = round(cost_ms(experiment, root, images), 1)
        told[f"leaderboard_s_at_{size}"] = round(leaderboard_s(root), 2)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()

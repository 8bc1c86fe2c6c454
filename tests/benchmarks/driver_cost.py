"""The driver's own CPU time for a trial, in studies of three sizes, as JSON: its trainer takes no time.

The finished trials are put into an empty study as the driver would have left them, with drawn parameters and
invented accuracies; the driver then goes on with the default experiment's search. How long `lenet-exp
leaderboard` takes for the largest of them is told too.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from statistics import fmean

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from lenet_exp.data import ImageSet
from lenet_exp.driver import Driver, Options
from lenet_exp.executor import LocalExecutor
from lenet_exp.experiment import Experiment, load
from lenet_exp.pipeline import prepare_images
from lenet_exp.record import RunKey
from lenet_exp.recorder import Recorder
from lenet_exp.spool import Spool
from lenet_exp.storage import open_storage
from lenet_exp.study import open_study
from lenet_exp.trials import RECORD, RESULT

PROJECT = Path(__file__).parent.parent.parent
#: Finished trials in the study.
SIZES = (10, 1000, 5000)
#: Trials before the measurement begins, which load what is loaded once.
WARM_UP = 5


def finished(experiment: Experiment, count: int) -> list[FrozenTrial]:
    """Return trials as a driver leaves them: a third completed, the others pruned after 1 or 3 epochs."""
    drawing = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    accuracies = random.Random(0)
    trials = []
    for number in range(count):
        drawn = drawing.ask()
        configuration = experiment.search_space.suggest(drawn)
        epochs = accuracies.choice([1, 3, configuration.epochs])
        history = {epoch: accuracies.uniform(0.5, 0.9) for epoch in range(1, epochs + 1)}
        key = RunKey("trial", number, 1)
        record = {
            "role": "trial",
            "attempt": 1,
            "label": f"trial {number}",
            "values": configuration.hyperparameters(),
            "epochs": configuration.epochs,
            "identity": configuration.identity,
            "seed": number,
            "origin": key.stem,
            "alone": False,
            "root": number,
            "crashes": 0,
        }
        trial = create_trial(
            state=TrialState.COMPLETE if epochs == configuration.epochs else TrialState.PRUNED,
            value=history[epochs],
            params=drawn.params,
            distributions=drawn.distributions,
            user_attrs={RECORD: record, RESULT: {"examples_per_s": 1000.0, "n_parameters": 50_000 + number}},
            intermediate_values=history,
        )
        trial.datetime_start = trial.datetime_complete = datetime.now()
        trials.append(trial)
    return trials


def fill(experiment: Experiment, root: Path, count: int) -> None:
    """Put finished trials into the experiment's study below ``root``."""
    for name in (experiment.name, f"{experiment.name}/fixed"):
        study = optuna.create_study(study_name=name, storage=open_storage(root), direction="maximize")
        study.add_trials(finished(experiment, count if name == experiment.name else 0))


def cost_ms(experiment: Experiment, root: Path, images: ImageSet) -> float:
    """Return the mean CPU time of this process for a trial, in milliseconds, until the search is over."""
    study = open_study(experiment, root)
    executor = LocalExecutor("fake_trainer")
    folder = root / experiment.folder_name
    folder.mkdir()
    ends: list[float] = []
    driver = Driver(
        experiment,
        study=study,
        executor=executor,
        recorder=Recorder(study, Spool(folder / "spool"), folder),
        images=images,
        machine=executor.probe("cpu"),
        folder=folder,
        options=Options(workers=2),
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
    code = "from lenet_exp.cli import main; main()"
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
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    told: dict[str, float] = {}
    for size in given.sizes:
        wanted = size + given.trials + WARM_UP
        experiment = load(PROJECT / "experiments" / "fashion_mnist.toml", [f"search.trials={wanted}"])
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            fill(experiment, root, size)
            told[f"driver_ms_at_{size}"] = round(cost_ms(experiment, root, prepare_images(experiment)), 1)
            if size == max(given.sizes):
                told[f"leaderboard_s_at_{size}"] = round(leaderboard_s(root), 2)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()

"""The main job as a user runs it, judged by what pandas, Optuna and MLflow themselves read."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pandas as pd
import pytest
from numpy.typing import NDArray

from lenet_exp.base.records import METRICS
from lenet_exp.cli import program
from lenet_exp.config.hyperparameters import HYPERPARAMETERS
from lenet_exp.data.images import ImageSet
from lenet_exp.data.split import validation_split
from lenet_exp.study.records import TrialRecord
from lenet_exp.tracking.store import connect
from tests.labs.places import MINI_FOLDER, PROJECT
from tests.labs.studies import read_records

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

#: A command that has not ended by then never will.
PATIENCE_S = 120

DATA = f"""
[data]
dataset = "fashion-mnist-mini"
folder = "{MINI_FOLDER}"
validation = 200
"""

FINISHED = f"""\
name = "finished"
question = "Does it work?"
{DATA}
[training]
epochs = 2
batch_size = 64

[space]
pooling = ["avg", "max"]
channels = {{ low = 4, high = 8 }}
lr = {{ low = 1e-3, high = 3e-2, log = true }}

[search]
trials = 3
pruner = "none"
"""

#: The baseline takes no time, and trials long enough to be caught in the middle.
CUT = f"""\
name = "cut"
{DATA}
limit = 400

[baseline]
channels = 4
fc_layers = 1
batch_size = 400

[training]
epochs = 10

[space]
batch_size = [400]
lr = {{ low = 1e-4, high = 1e-3, log = true }}

[search]
trials = 2
pruner = "none"
"""


@dataclass(frozen=True)
class Sweep:
    """A folder in which a sweep is run."""

    folder: Path
    name: str
    flags: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        """Where it writes."""
        return self.folder / "runs"

    @property
    def home(self) -> Path:
        """Where the experiment's own files lie."""
        return self.root / self.name

    @property
    def arguments(self) -> list[str]:
        """What follows the command."""
        return ["experiment.toml", "--root", "runs", "--device", "cpu", "--no-confirm", *self.flags]

    def start(self) -> subprocess.Popen[str]:
        """Run the command that a user runs, in a process group of its own as a terminal does."""
        return subprocess.Popen(
            [sys.executable, "-m", "lenet_exp.sweep", *self.arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run_here(self, monkeypatch: pytest.MonkeyPatch) -> int:
        """Run the same command in this process, which has loaded everything already; return the exit code."""
        monkeypatch.chdir(self.folder)
        with pytest.raises(SystemExit, match=r"^\d+$") as end:
            program.main(["sweep", *self.arguments])
        return int(str(end.value))

    def table(self) -> pd.DataFrame:
        """Return what anyone reads in ``leaderboard.csv``."""
        return pd.read_csv(self.home / "leaderboard.csv")

    def records(self) -> list[TrialRecord]:
        """Return what the study has of every attempt that ended."""
        return read_records(self.name, self.root) or []

    def client(self) -> MlflowClient:
        """Return MLflow's own client of the store, its warnings about itself silenced."""
        return connect(self.tracking_uri)

    def runs(self) -> list[Run]:
        """Return all runs that MLflow has, the study's first."""
        client = self.client()
        experiment = client.get_experiment_by_name(self.name)
        assert experiment is not None
        found: list[Run] = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
        return sorted(found, key=lambda run: run.data.tags["lenet_exp.role"] != "study")

    @property
    def tracking_uri(self) -> str:
        """MLflow's store."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    def trained_epochs(self) -> int:
        """Return how many epochs of trials were trained so far, by any attempt."""
        spooled = (self.home / "spool").glob("trial-*.jsonl")
        return sum(path.read_text().count('"event":"epoch"') for path in spooled)

    def has_baseline(self) -> bool:
        """Return whether the baseline is trained."""
        return any(
            '"COMPLETE"' in path.read_text() for path in (self.home / "spool").glob("baseline-*.jsonl")
        )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the end of the command and of every process it started, all of which hold its output open."""
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def make(folder: Path, name: str, text: str) -> Sweep:
    """Write the experiment file."""
    (folder / "experiment.toml").write_text(text)
    return Sweep(folder, name)


@dataclass(frozen=True)
class Done:
    """A sweep that ran to its end, and how."""

    sweep: Sweep
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The sweep that most tests look at."""
    sweep = make(tmp_path_factory.mktemp("finished"), "finished", FINISHED)
    return Done(sweep, *ended(sweep.start()))


def test_a_sweep_ends_with_its_leaderboard(done: Done) -> None:
    """Exit code 0, the table on standard output, a line for each training and phase on standard error.

    Each training's line says how far the sweep is, and how long it still takes.
    """
    assert done.code == 0, done.err
    # A machine that is busy takes longer than a second to load everything, and says so.
    begin, *lines = (line for line in done.err.splitlines() if not line.startswith("loading libraries"))
    assert re.fullmatch(r"finished: 3 trials, \d+ at once \(.+\), on .+", begin)
    position = r"[0-3] of 3 trials, about \d+ s( \(\d+ to \d+\))? left"
    ended = re.compile(rf"(.+): val_accuracy 0\.\d{{4}}, [\d,]+ examples/s; {position}")
    shown = [match[1] for line in lines if (match := ended.fullmatch(line))]
    assert sorted(shown) == ["baseline", "trial 0", "trial 1", "trial 2"]
    others = [line for line in lines if not ended.fullmatch(line) and not line.endswith(" left")]
    assert others == ["uploading to MLflow", "writing tables and page"]
    assert "differs from the baseline" in done.out
    assert f"leaderboard: {done.sweep.home / 'leaderboard.csv'}\n" in done.out


def test_leaderboard_study_and_mlflow_say_the_same(done: Done) -> None:
    """Row by row: accuracies by epoch, hyper-parameters, configuration and run."""
    table = done.sweep.table()
    storage = f"sqlite:///{done.sweep.root / 'study.db'}"
    study = optuna.load_study(study_name="finished", storage=storage)
    fixed = optuna.load_study(study_name="finished/fixed", storage=storage)
    client = done.sweep.client()

    assert (len(table), len(study.trials), len(fixed.trials)) == (4, 3, 1)
    assert table["val_accuracy"].is_monotonic_decreasing
    assert study.best_value == table.loc[table["role"] == "trial", "val_accuracy"].max()
    for _, row in table.iterrows():
        trial = fixed.trials[0] if row["role"] == "baseline" else study.trials[int(row["trial"])]
        run = client.get_run(row["mlflow_run_id"])
        points = client.get_metric_history(row["mlflow_run_id"], "val_accuracy")
        assert trial.state.name == row["state"] == run.data.tags["lenet_exp.state"] == "COMPLETE"
        assert trial.value == row["val_accuracy"] == run.data.metrics["val_accuracy"]
        assert {point.step: point.value for point in points} == trial.intermediate_values
        assert (run.data.metrics["train_s"], run.data.metrics["examples_per_s"]) == (
            row["train_s"],
            row["examples_per_s"],
        )
        assert run.data.tags["lenet_exp.config"] == row["config"]
        for name, drawn in trial.params.items():
            assert row[name] == drawn
        for name in HYPERPARAMETERS:
            assert same(run.data.params[name], row[name])
    baseline = table[table["role"] == "baseline"].iloc[0]
    assert (baseline["n_parameters"], baseline["macs"]) == (61_706, 416_520)


def same(logged: str, cell: Any) -> bool:
    """Return whether MLflow's text and the table's cell are the same value."""
    if logged == "" or pd.isna(cell):
        return logged == "" and bool(pd.isna(cell))
    return logged == cell if isinstance(cell, str) else float(logged) == float(cell)


def test_the_study_s_run_is_the_parent_of_all_others(done: Done) -> None:
    """It is finished, has the experiment file and the complete leaderboard, and says what came of it."""
    study, *children = done.sweep.runs()
    client = done.sweep.client()
    kept = {
        name: Path(client.download_artifacts(study.info.run_id, name)).read_text()
        for name in ("experiment.toml", "leaderboard.csv")
    }

    assert study.info.status == "FINISHED"
    assert study.data.tags["mlflow.note.content"].startswith("**Does it work?**\n\nThe best so far is ")
    assert (study.data.params["trials"], study.data.params["sampler"]) == ("3", "tpe")
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {study.info.run_id}
    assert kept["experiment.toml"] == FINISHED
    assert kept["leaderboard.csv"] == (done.sweep.home / "leaderboard.csv").read_text()
    assert sorted(done.sweep.table()["mlflow_run_id"]) == sorted(run.info.run_id for run in children)


def test_every_training_is_a_finished_run_with_a_point_for_each_epoch(done: Done) -> None:
    """Six metrics at steps 1 and 2, the same parameters for all, tags, seed and the data set."""
    _, *children = done.sweep.runs()
    client = done.sweep.client()

    roles = sorted(
        (run.data.tags["lenet_exp.role"], run.data.tags.get("lenet_exp.trial")) for run in children
    )
    assert roles == [("baseline", None), ("trial", "0"), ("trial", "1"), ("trial", "2")]
    for run in children:
        assert (run.info.status, run.data.tags["lenet_exp.attempt"]) == ("FINISHED", "1")
        assert set(run.data.params) == {*HYPERPARAMETERS, "epochs", "seed"}
        assert set(run.data.metrics) == {*METRICS, "val_delta"}
        for name in METRICS:
            assert [point.step for point in client.get_metric_history(run.info.run_id, name)] == [1, 2]
        assert run.inputs is not None
        (used,) = run.inputs.dataset_inputs
        assert used.dataset.name == "fashion-mnist-mini"
        assert re.fullmatch(r"[0-9a-f]{32}", used.dataset.digest)
        assert [tag.value for tag in used.tags] == ["training"]


@pytest.fixture
def validation_images(mini: ImageSet) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The validation images as a model takes them, ``(200, 1, 28, 28)`` in [0, 1], and their labels."""
    pixels, labels = mini.open()
    index = validation_split(labels, 200, seed=0).validation
    images: NDArray[np.float32] = (pixels[index, None] / 255).astype(np.float32)
    return images, labels[index]


def test_every_model_gives_the_accuracy_that_was_logged(
    done: Done,
    validation_images: tuple[NDArray[np.float32], NDArray[np.uint8]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the validation images it is as good as its run says; a batch may be of any size."""
    _, *children = done.sweep.runs()
    import mlflow
    from safetensors.numpy import load_file

    images, labels = validation_images
    # MLflow keeps it in this variable too, which is then as before: the sweeps to come have their own.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    mlflow.set_tracking_uri(done.sweep.tracking_uri)
    for run in children:
        model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
        hits = model.predict(images).argmax(axis=1) == labels
        assert hits.mean() == pytest.approx(run.data.metrics["val_accuracy"], abs=1e-9)
        assert model.predict(images[:5]).shape == (5, 10)
        weights = load_file(
            mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/weights.safetensors")
        )
        in_table = done.sweep.table().set_index("mlflow_run_id").loc[run.info.run_id]
        assert sum(weight.size for weight in weights.values()) == in_table["n_parameters"]


def test_a_finished_sweep_run_again_does_nothing(
    done: Done, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0, the same table, and study, CSV and runs as they were."""
    sweep = done.sweep

    def state() -> tuple[Any, ...]:
        runs = [run.to_dictionary() for run in sweep.runs()]
        # Only the study's run was at work again.
        runs[0]["info"]["end_time"] = runs[0]["data"]["tags"]["lenet_exp.sweep"] = None
        return sweep.records(), (sweep.home / "leaderboard.csv").read_bytes(), runs

    before = state()

    code = sweep.run_here(monkeypatch)

    printed = capsys.readouterr()
    assert (code, printed.out) == (0, done.out)
    phases = "uploading to MLflow\nwriting tables and page\n"
    begin = next(line for line in done.err.splitlines() if line.startswith("finished: "))
    assert printed.err == f"{begin}\nalready 3 of 3 trials done\n{phases}"
    assert state() == before


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until ``condition`` holds, which a running process brings about."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def in_training(sweep: Sweep) -> subprocess.Popen[str]:
    """Start the sweep and return its process once the baseline is done and a trial has trained an epoch."""
    before = sweep.trained_epochs()
    process = sweep.start()
    until(lambda: sweep.trained_epochs() > before and sweep.has_baseline(), process)
    return process


@pytest.mark.slow
def test_a_sweep_that_is_cut_off_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C, and after the driver was killed, the same command repairs and meets the budget."""
    sweep = replace(make(tmp_path, "cut", CUT), flags=("--workers", "1"))
    monkeypatch.setenv("LENET_EXP_TRAINER", "tests.labs.paced_trainer")

    process = in_training(sweep)
    os.killpg(process.pid, signal.SIGINT)
    code, out, err = ended(process)

    assert (code, out) == (130, "")
    assert err.endswith("error: interrupted; run the same command again to go on\n")
    interrupted = [record for record in sweep.records() if record.key.role == "trial"]
    assert {(record.state, record.reason) for record in interrupted} == {("FAIL", "interrupted")}
    if "not in MLflow yet" not in err:  # which a busy machine may have to say
        study, *children = sweep.runs()
        assert study.info.status == "KILLED"
        assert {run.info.status for run in children} == {"FINISHED", "FAILED"}

    process = in_training(sweep)
    process.kill()
    code, _, _ = ended(process)

    assert code == -signal.SIGKILL
    assert [record.key.role for record in sweep.records() if record.state == "COMPLETE"] == ["baseline"]

    assert sweep.run_here(monkeypatch) == 0

    records = sweep.records()
    complete = [record for record in records if record.state == "COMPLETE"]
    assert sorted(record.key.role for record in complete) == ["baseline", "trial", "trial"]
    assert {record.epochs for record in complete} == {10}
    assert all(record.superseded for record in records if record.state != "COMPLETE")
    study, *children = sweep.runs()
    assert study.info.status == "FINISHED"
    states = {"COMPLETE": "FINISHED", "FAIL": "FAILED"}
    assert sorted(run.info.status for run in children) == sorted(states[record.state] for record in records)
    assert sorted(sweep.table()["state"]) == ["COMPLETE"] * 3

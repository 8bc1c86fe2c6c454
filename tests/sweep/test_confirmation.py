"""The confirmation as a user runs it: what it reads and when, and that all who tell of it agree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lenet_exp.base.layout import Layout
from lenet_exp.base.records import RunKey
from lenet_exp.config import loader
from lenet_exp.data import testset
from lenet_exp.results.evaluation import READINGS, Evaluation, read_evaluations
from lenet_exp.sweep.run import Request, run_main_job
from lenet_exp.tracking.spool import Spool
from lenet_exp.tracking.store import connect
from tests.labs.places import MINI_FOLDER, PROJECT
from tests.labs.plans import CONFIRMED
from tests.labs.sections import section
from tests.labs.studies import read_kept, read_records

#: Runs the command, and notes each opening of a test file with what was on disk by then. Until the first one
#: by the driver there is nothing in these files, so that nobody else can have read them before.
WATCHED = """
import json, shutil, sys
from pathlib import Path
home, seen, busy = Path("runs/confirmed"), [], []

def hook(event, arguments):
    if event != "open" or "t10k" not in str(arguments[0]) or busy:
        return
    busy.append(True)
    trained = [path.name for path in home.glob("spool/confirm-*") if '"event":"end"' in path.read_text()]
    noted = home / "confirm" / "readings.json"
    seen.append([str(arguments[0]), len(trained), noted.exists() and json.loads(noted.read_text())[-1]])
    for path in Path("aside").glob("*"):
        shutil.copy(path, Path("images") / path.name)
    busy.clear()

if __name__ == "__main__":
    sys.addaudithook(hook)
    from lenet_exp.cli import program as cli
    try:
        cli.main(sys.argv[1:])
    finally:
        Path("seen.json").write_text(json.dumps(seen))
"""


@dataclass(frozen=True)
class Place:
    """A folder in which commands are run."""

    folder: Path

    @property
    def root(self) -> Path:
        """Where they write."""
        return self.folder / "runs"

    def run(self, *arguments: str) -> tuple[str, str, list[Any]]:
        """Run a command in which every opening of a test file is noted; return what it said and those."""
        for path in self.folder.glob("images/t10k*"):
            path.write_bytes(b"nobody reads this")
        command = [sys.executable, "watched.py", *arguments, "--root", "runs"]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(PROJECT), "LENET_EXP_DATA": "cache"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr, json.loads((self.folder / "seen.json").read_text())

    def readings(self) -> list[Evaluation]:
        """Return the readings that the study has on record."""
        return read_evaluations(read_kept("confirmed", self.root).get(READINGS))

    def table(self) -> pd.DataFrame:
        """Return what anyone reads in ``leaderboard.csv``."""
        return pd.read_csv(self.root / "confirmed" / "leaderboard.csv")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An experiment whose test files are put aside until they may be read."""
    folder = tmp_path_factory.mktemp("confirmed")
    for path in MINI_FOLDER.glob("*.gz"):
        (folder / "images").mkdir(exist_ok=True)
        shutil.copy(path, folder / "images")
    (folder / "aside").mkdir()
    for path in MINI_FOLDER.glob("t10k*"):
        shutil.copy(path, folder / "aside")
    (folder / "e.toml").write_text(CONFIRMED)
    (folder / "watched.py").write_text(WATCHED)
    return Place(folder)


@pytest.fixture(scope="module")
def swept(place: Place) -> tuple[str, str, list[Any]]:
    """What the main job said, and its openings of test files."""
    return place.run("sweep", "e.toml", "--device", "cpu")


def test_the_test_split_is_read_once_and_only_when_all_is_trained(
    place: Place, swept: tuple[str, str, list[Any]]
) -> None:
    """No file of it is opened before six trainings have ended and the reading is on record."""
    _, err, seen = swept

    assert err.count("reading the test split") == 1
    assert {Path(path).name.partition("-idx")[0] for path, *_ in seen} == {"t10k-images", "t10k-labels"}
    for _, n_trained, noted in seen:
        assert n_trained == 6
        assert (noted["number"], noted["completed"], noted["scores"]) == (1, None, [])
        assert len(noted["plan"]["finalists"]) == 2
    (reading,) = place.readings()
    assert (len(reading.begun), reading.again, reading.n_images) == (1, False, 200)
    assert len(reading.scores) == 6
    assert len(reading.digest) == 32


def test_run_again_nothing_is_read_and_nothing_changes(
    place: Place,
    swept: tuple[str, str, list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same table, the same record, no training, no test file opened."""
    before = place.readings(), place.table()
    monkeypatch.chdir(place.folder)
    monkeypatch.setattr(testset, "read_test_split", None)

    for search in (True, False):
        run_main_job(Request(loader.load(Path("e.toml")), Path("runs"), search=search))
        assert capsys.readouterr().out == swept[0]

    assert place.readings() == before[0]
    # A run's id may come after the table, where MLflow is slow.
    then, now = (table.drop(columns="mlflow_run_id") for table in (before[1], place.table()))
    pd.testing.assert_frame_equal(now, then)


def test_leaderboard_study_and_mlflow_say_the_same(
    place: Place, swept: tuple[str, str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accuracies by configuration and seed, the verdicts, and which model is champion."""
    import mlflow

    (reading,) = place.readings()
    table = place.table().set_index("config")
    client = connect(f"sqlite:///{place.root / 'mlflow.db'}")
    found = client.get_experiment_by_name("confirmed")
    assert found is not None
    run_ids = Spool(place.root / "confirmed" / "spool").run_ids()
    runs = [client.get_run(run_ids[RunKey.from_stem(score.run)]) for score in reading.scores]
    for score, run in zip(reading.scores, runs, strict=True):
        assert run.data.metrics["test_accuracy"] == score.test_accuracy
        assert run.data.metrics["test_loss"] == score.test_loss
        assert run.data.params["seed"] == str(score.seed)
        assert (run.data.tags["lenet_exp.config"], run.info.status) == (score.config, "FINISHED")
        assert run.data.tags["lenet_exp.of"] == reading.label(score.config)
        assert "lenet_exp.trial" not in run.data.tags
    for config, row in table.iterrows():
        mine = pd.Series([score.test_accuracy for score in reading.scores if score.config == config])
        assert (row["n_seeds"], row["test_accuracy"]) == (2, pytest.approx(mine.mean()))
        assert row["test_accuracy_sem"] == pytest.approx(mine.sem())
        fresh = [r.data.metrics["val_accuracy"] for r in runs if r.data.tags["lenet_exp.config"] == config]
        assert row["fresh_val_accuracy"] == pytest.approx(sum(fresh) / 2)
    for verdict in reading.verdicts:
        row = table.loc[verdict["config"]]
        assert (row["verdict"], row["delta"]) == (verdict["verdict"], pytest.approx(verdict["delta"]))
        assert verdict["sentence"] in swept[0]
    assert table["rank"].tolist() == table["test_accuracy"].rank(ascending=False, method="min").tolist()
    assert table["pareto_speed"].notna().all()

    registered = client.get_registered_model("confirmed")
    champion = client.get_model_version_by_alias("confirmed", "champion")
    first = {
        score.config: run.info.run_id for score, run in reversed(list(zip(reading.scores, runs, strict=True)))
    }
    assert champion.run_id == first[reading.champion]
    baseline = reading.plan.baseline.config
    assert champion.run_id is not None
    assert client.get_model_version_by_alias("confirmed", "baseline").run_id == first[baseline]
    assert all(verdict["sentence"] in registered.description for verdict in reading.verdicts)
    # MLflow keeps it in this variable too, which is then as before.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    mlflow.set_tracking_uri(f"sqlite:///{place.root / 'mlflow.db'}")
    pixels, labels = testset.read_test_split(section("mini", MINI_FOLDER)).open()
    logits = mlflow.pyfunc.load_model("models:/confirmed@champion").predict(
        pixels[:, None].astype("float32") / 255
    )
    accuracy = (logits.argmax(axis=1) == labels).mean()
    assert accuracy == client.get_run(champion.run_id).data.metrics["test_accuracy"]


def test_another_reading_is_asked_for_and_on_record_as_such(
    place: Place,
    swept: tuple[str, str, list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With more seeds only what is missing is trained, and study, file and MLflow know of two readings.

    Networks that were damaged or exchanged in between are trained again, and are what they were. The same
    command spends nothing more, as after an interruption one cannot tell how far it came.
    """
    n_before = len(read_records("confirmed", place.root) or [])
    garbled, *exchanged = sorted(place.root.glob("confirmed/checkpoints/confirm-*/weights.safetensors"))[:3]
    garbled.write_bytes(garbled.read_bytes()[:-1] + b"x")
    contents = [path.read_bytes() for path in reversed(exchanged)]
    for path, content in zip(exchanged, contents, strict=True):
        path.write_bytes(content)

    monkeypatch.chdir(place.folder)
    experiment = loader.load(Path("e.toml"), ["confirm.seeds=3"])

    run_main_job(Request(experiment, Path("runs"), search=False, again=True))

    first, second = place.readings()
    told = capsys.readouterr().err
    assert told.count("reading the test split") == 1
    assert told.count("trained again, with the same weights") == 3
    assert set(first.scores) <= set(second.scores)
    assert (first.again, second.again, second.number) == (False, True, 2)
    assert [(one.level, one.spent_before) for one in (first, second)] == [(0.04, 0), (0.005, 0.04)]
    assert "read 1 time, at a level of 0.04 of 0.05; another reading gets 0.005" in told
    assert second.plan.seeds[:2] == first.plan.seeds
    assert len(read_records("confirmed", place.root) or []) == n_before + 3
    assert [one["number"] for one in json.loads(Layout.of(place.root, "confirmed").readings.read_text())] == [
        1,
        2,
    ]
    client = connect(f"sqlite:///{place.root / 'mlflow.db'}")
    run_id = Spool(place.root / "confirmed" / "spool").run_id("study")
    assert run_id is not None
    assert "2 (again)" in client.get_run(run_id).data.tags["lenet_exp.test_readings"]
    assert place.table()["n_seeds"].tolist() == [3, 3, 3]

    run_main_job(Request(experiment, Path("runs"), search=False, again=True))
    run_main_job(Request(experiment, Path("runs"), search=False))

    assert place.readings() == [first, second]
    assert capsys.readouterr().err.count("not read again: reading 2 was of these networks already") == 1

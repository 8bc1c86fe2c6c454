"""The confirmation as a user runs it: what it reads and when, and that all who tell of it agree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lenet_exp.base.errors import ConfigError, DataError, NoResultError, SweepInterruptedError
from lenet_exp.base.layout import Layout
from lenet_exp.base.records import RunKey
from lenet_exp.base.seeding import derive_seed
from lenet_exp.cli.replay import replay
from lenet_exp.config import loader
from lenet_exp.config.trainings import FixedTraining
from lenet_exp.data import testset
from lenet_exp.data.images import ImageSet
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.execution.protocol import Conditions, Machine
from lenet_exp.execution.resources import WorkerPlan
from lenet_exp.results.evaluation import PLAN, READINGS, ConfirmationPlan, Evaluation, read_evaluations
from lenet_exp.study.study import open_study
from lenet_exp.sweep import confirmation
from lenet_exp.sweep.confirmation import Confirmation
from lenet_exp.sweep.finalists import ensure_there_are_some
from lenet_exp.sweep.recovery import sync_experiment
from lenet_exp.sweep.run import Request, run_main_job
from lenet_exp.tracking.spool import Spool
from lenet_exp.tracking.store import connect
from tests.labs.places import MINI_FOLDER, PROJECT
from tests.labs.plans import EXPERIMENT_MADE, plan
from tests.labs.sections import section
from tests.labs.studies import read_kept, read_records

EXPERIMENT = """\
name = "confirmed"
question = "Does it hold?"

[data]
dataset = "mini"
folder = "images"
validation = 200
limit = 200

[baseline]
channels = 4
fc_layers = 1
lr = 0.0001

[training]
epochs = 1
batch_size = 20

[space]
lr = [0.003, 0.01, 0.02]

[search]
trials = 2
sampler = "grid"
pruner = "none"

[confirm]
top = 2
seeds = 2
"""

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


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of data sets for this module, and nothing of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENET_EXP_DATA", str(tmp_path_factory.mktemp("data")))
        for name in ("LENET_EXP_ROOT", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        yield


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
    (folder / "e.toml").write_text(EXPERIMENT)
    (folder / "watched.py").write_text(WATCHED)
    return Place(folder)


@pytest.fixture(scope="module")
def swept(place: Place) -> tuple[str, str, list[Any]]:
    """What the main job said, and its openings of test files."""
    return place.run("sweep", "e.toml", "--device", "cpu")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The same experiment, its images where they always are."""
    path = tmp_path / "e.toml"
    path.write_text(EXPERIMENT.replace('"images"', json.dumps(str(MINI_FOLDER))))
    return path


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


def request(path: Path, root: Path, **settings: Any) -> Request:
    overrides = settings.pop("overrides", ["confirm.top=1", "confirm.seeds=2"])
    return Request(loader.load(path, overrides), root, device="cpu", **settings)


def test_a_crash_between_training_and_reading_goes_on_where_it_was(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same finalists, nothing trained twice, and the record says that the files were opened twice."""

    def cut_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(testset, "read_test_split", cut_off)
        with pytest.raises(SweepInterruptedError, match="run the same command again"):
            run_main_job(request(path, tmp_path))
    frozen = read_kept("confirmed", tmp_path).get(PLAN)
    trained = [r for r in read_records("confirmed", tmp_path) or [] if r.key.role == "confirm"]
    (noted,) = read_evaluations(read_kept("confirmed", tmp_path).get(READINGS))
    assert (noted.completed, len(noted.begun), len(trained)) == (None, 1, 4)

    # Another budget changes what would be best, and not what was frozen.
    run_main_job(request(path, tmp_path, overrides=["confirm.top=3", "confirm.seeds=9", "search.trials=3"]))

    (reading,) = read_evaluations(read_kept("confirmed", tmp_path).get(READINGS))
    assert reading.completed
    assert (len(reading.begun), reading.again) == (2, False)
    assert read_kept("confirmed", tmp_path).get(PLAN) == frozen
    assert [r for r in read_records("confirmed", tmp_path) or [] if r.key.role == "confirm"] == trained
    assert "champion: " in capsys.readouterr().out

    other = tmp_path / "other"
    shutil.copytree(MINI_FOLDER, other)
    run_main_job(
        request(
            path,
            tmp_path,
            search=False,
            dataset="other",
            overrides=["confirm.seeds=2", "confirm.resample=true", f"data.folder={other}"],
        )
    )
    (carried,) = read_evaluations(read_kept("confirmed@other", tmp_path).get(READINGS))
    table = pd.read_csv(tmp_path / "confirmed@other" / "leaderboard.csv")
    assert [one.config for one in carried.plan.finalists] == [one.config for one in reading.plan.finalists]
    assert set(table["config"]) == {one.config for one in carried.plan.everyone}
    assert sorted(table["role"]) == ["baseline", "run"]
    assert table["n_seeds"].tolist() == [2, 2]
    assert table["verdict"].dropna().tolist() == [carried.verdicts[0]["verdict"]]
    assert reading.curse.startswith("val_accuracy ")
    assert carried.curse == ""  # its val_accuracy in the search was of other images
    assert carried.plan.train_on == "train, resampled"
    spool = Spool(tmp_path / "confirmed@other" / "spool")
    logs = [log for score in carried.scores if (log := spool.read(RunKey.from_stem(score.run)))]
    tags = {(log.metadata["seed"], log.metadata["tags"]["lenet_exp.division_seed"]) for log in logs}
    assert sorted(tags) == sorted((seed, str(derive_seed(seed, "division"))) for seed in carried.plan.seeds)
    # The study alone says on which images it was trained.
    spool.path(carried.scores[0].run).unlink()
    there = loader.load(path).with_dataset("other", str(other))
    sync_experiment(there, tmp_path)
    restored = spool.read(RunKey.from_stem(carried.scores[0].run))
    assert restored is not None
    assert restored.metadata["tags"]["lenet_exp.train_on"] == "train, resampled"
    assert replay(there, tmp_path, carried.scores[0].run, say=lambda _: None).identical


def test_nothing_is_confirmed_before_the_search_has_ended(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep whose time is over leaves no plan behind; a confirmation of nothing is refused."""
    run_main_job(request(path, tmp_path, timeout_s=0.001))

    assert "not confirmed, as the search has not finished" in capsys.readouterr().err
    assert read_kept("confirmed", tmp_path).get(PLAN) is None
    with pytest.raises(NoResultError, match="no finished trial to confirm"):
        run_main_job(request(path, tmp_path, search=False))
    with pytest.raises(NoResultError, match="was never run under"):
        run_main_job(request(path, tmp_path / "elsewhere", search=False))
    ablation = loader.parse({"name": "ablated", "ablate": {"pooling": ["avg"]}})
    with pytest.raises(ConfigError, match=r"'ablated' is an ablation, which .* has no finalists"):
        ensure_there_are_some(ablation, tmp_path)


@pytest.mark.parametrize(
    ("lacking", "reason", "to_do"),
    [
        ("baseline", "timeout: not done after 5 s", "raise --trial-timeout"),
        ("baseline", "diverged: loss is nan", r"change the \[baseline\]"),
        ("trial 1", "timeout: not done after 5 s", "raise --trial-timeout"),
    ],
)
def test_no_reading_is_spent_while_a_network_lacks_that_the_verdict_needs(
    mini: ImageSet, tmp_path: Path, lacking: str, reason: str, to_do: str
) -> None:
    """One seed of the baseline is enough, and the study has no reading on record after it."""
    study = open_study(EXPERIMENT_MADE, tmp_path)

    def train(trainings: Sequence[FixedTraining]) -> bool:
        for training in trainings:
            attempt = study.ask_fixed(training)
            assert attempt is not None
            if training.label == f"{lacking}, seed 2":
                study.tell(attempt.key, "PRUNED", result={"reason": reason, "trial_timeout_s": 5.0})
            else:
                study.tell(attempt.key, "COMPLETE", 0.5)
        return True

    conditions = Conditions(
        EXPERIMENT_MADE,
        mini,
        Machine(("cpu",), "test", "float32", "2"),
        Layout.of(tmp_path, "e"),
        WorkerPlan(1, 1, "as asked"),
    )
    spool, executor = Spool(tmp_path / "spool"), LocalExecutor()
    confirmed = Confirmation(conditions, study, spool, executor, train, lambda: None, lambda _: None)

    with pytest.raises(NoResultError, match=rf"the test split is not read, as 1 of 9 trainings.*; {to_do}"):
        confirmed.run(lambda: plan().finalists)

    assert study.kept(PLAN) is not None
    assert study.kept(READINGS) is None


def test_missing_test_files_are_told_before_the_search(path: Path, tmp_path: Path) -> None:
    """Exit code 4, no study, and what to do; without a confirmation nobody needs them."""
    images = tmp_path / "images"
    images.mkdir()
    for file in MINI_FOLDER.glob("train*"):
        shutil.copy(file, images)
    overrides = [f"data.folder={images}", "data.dataset=own", "search.trials=0"]

    with pytest.raises(
        DataError, match=r"holds no t10k-images.*leave the confirmation out with --no-confirm"
    ):
        run_main_job(request(path, tmp_path, overrides=overrides))

    assert read_records("confirmed", tmp_path) is None


@pytest.mark.slow
def test_with_auto_seeds_one_reading_is_made_of_the_second_stage(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut off between the stages, it goes on with the seeds it had, and reads on none of the first stage."""
    overrides = ["confirm.top=1", "confirm.seeds=auto", "confirm.precision=0.5", "data.limit=40"]

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(confirmation, "second_stage", cut_off)
        with pytest.raises(SweepInterruptedError, match="run the same command again"):
            run_main_job(request(path, tmp_path, overrides=overrides))
    begun = ConfirmationPlan.from_dict(read_kept("confirmed", tmp_path)[PLAN])
    assert capsys.readouterr().err.count("8 fresh seeds each to see how they vary") == 1

    run_main_job(request(path, tmp_path, overrides=overrides))

    (reading,) = read_evaluations(read_kept("confirmed", tmp_path).get(READINGS))
    trained = {r.seed for r in read_records("confirmed", tmp_path) or [] if r.key.role == "confirm"}
    assert len(reading.plan.seeds) == 5
    assert not {score.seed for score in reading.scores} & set(begun.seeds)
    assert trained == {*begun.seeds, *reading.plan.seeds}
    assert reading.plan.first_stage is not None
    assert "an interval of ±0.5 needs 5 seeds" in capsys.readouterr().err

    overrides[1] = "confirm.seeds=6"
    run_main_job(request(path, tmp_path, overrides=overrides, search=False, again=True))

    _, later = read_evaluations(read_kept("confirmed", tmp_path).get(READINGS))
    assert later.plan.seeds[:5] == reading.plan.seeds
    assert len(set(later.plan.seeds) - set(begun.seeds)) == 6
    run_main_job(request(path, tmp_path, overrides=overrides))
    assert "settings are new since then" not in capsys.readouterr().err

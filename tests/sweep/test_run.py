import contextlib
import io
import os
import re
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lenet_exp.base.errors import ConfigError, NoResultError
from lenet_exp.config import loader
from lenet_exp.config.experiment import Experiment
from lenet_exp.data.images import training_images
from lenet_exp.execution.resources import Limits
from lenet_exp.study.study import open_study
from lenet_exp.sweep.fingerprint import fingerprint
from lenet_exp.sweep.run import Request, run_main_job
from lenet_exp.tracking import uploader
from lenet_exp.tracking.spool import Spool
from tests.labs.places import MINI_FOLDER
from tests.labs.studies import read_records

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

EXPERIMENT = """\
name = "mini"
question = "Does it work?"

[data]
dataset = "fashion-mnist-mini"
folder = "{folder}"
validation = 200
limit = 100

[baseline]
channels = 4
fc_layers = 1

[training]
epochs = 1

[space]
lr = [0.001, 0.01]

[search]
trials = 0
sampler = "random"
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment file that trains nothing but a small baseline."""
    path = tmp_path_factory.mktemp("experiment") / "mini.toml"
    folder = MINI_FOLDER
    path.write_text(EXPERIMENT.format(folder=folder))
    return path


@dataclass(frozen=True)
class Finished:
    """A sweep that ran to its end, and what it said."""

    root: Path
    out: str
    err: str


@pytest.fixture(scope="module")
def finished(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished sweep of no trials, for which too many workers were asked."""
    root = tmp_path_factory.mktemp("root")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        run_main_job(Request(loader.load(path), root, workers=10_000, device="cpu"))
    return Finished(root, out.getvalue(), err.getvalue())


def fingerprint_of(experiment: Experiment) -> dict[str, Any]:
    """Return what makes the experiment's study this study."""
    return fingerprint(experiment, training_images(experiment.data))


def begin_study(experiment: Experiment, root: Path) -> None:
    """Leave in ``root`` the study that a sweep would begin."""
    open_study(experiment, root).check_fingerprint(fingerprint(experiment, training_images(experiment.data)))


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("data.validation=300", "data.validation was 200, is now 300"),
        ("search.sampler=tpe", 'search.sampler was "random", is now "tpe"'),
    ],
)
def test_a_study_is_not_continued_with_other_settings(
    path: Path, tmp_path: Path, override: str, difference: str
) -> None:
    """Exit code 2, what was and what is, and nothing written."""
    precision = "training.precision=float32"
    begin_study(loader.load(path, [precision]), tmp_path)
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = (tmp_path / "study.db").read_bytes()
    changed = loader.load(path, [precision, override])

    with pytest.raises(
        ConfigError, match=rf"study 'mini' was started with .*{difference}.*; rename"
    ) as error:
        run_main_job(Request(changed, tmp_path, device="cpu"))

    assert error.value.exit_code == 2
    assert (tmp_path / "study.db").read_bytes() == before
    assert (tmp_path / "study.db-wal").read_bytes() == b""
    assert read_records("mini", tmp_path) == []
    assert not (tmp_path / "mlflow.db").exists()
    assert [file.name for file in (tmp_path / "mini").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "override",
    [
        "data.validation=300",
        "data.limit=200",
        "data.seed=1",
        "data.resize=32",
        "baseline.lr=0.1",
        "training.epochs=2",
        "training.batch_size=64",
        "training.precision=bfloat16",
        "training.loss=mse",
        "space.lr=[0.001, 0.02]",
        "space.pooling=['avg', 'max']",
        "search.sampler=tpe",
        "search.pruner=none",
        "search.seed=1",
        "search.startup_trials=3",
        "search.min_epochs=2",
        "search.reduction_factor=2",
        "training.kernels=torch",
    ],
)
def test_whatever_makes_trials_incomparable_makes_another_study(path: Path, override: str) -> None:
    """Data, division, baseline, training, space and search are what a study is."""
    original, changed = (loader.load(path, ["training.epochs=3", *more]) for more in ([], [override]))

    assert fingerprint_of(original) != fingerprint_of(changed)


@pytest.mark.parametrize("override", ["search.trials=9", "question=Why?", "confirm.seeds=9", "confirm.top=1"])
def test_whatever_leaves_trials_as_they_are_leaves_the_study(path: Path, override: str) -> None:
    """A larger budget, another question or confirmation go on with the same study."""
    original, changed = (loader.load(path, ["training.epochs=3", *more]) for more in ([], [override]))

    assert fingerprint_of(original) == fingerprint_of(changed)


def test_a_sweep_of_no_trials_is_its_baseline(finished: Finished) -> None:
    """The CSV has one row, with its run in MLflow, and the terminal shows it and where the rest is."""
    folder = finished.root / "mini"
    table = pd.read_csv(folder / "leaderboard.csv")

    assert table[["rank", "role", "state", "epochs"]].values.tolist() == [[1, "baseline", "COMPLETE", 1]]
    assert table["mlflow_run_id"].tolist() == list(Spool(folder / "spool").run_ids().values())
    assert f"leaderboard: {folder / 'leaderboard.csv'}\n" in finished.out
    assert f"lenet-exp ui --root {finished.root}\n" in finished.out
    assert re.search(r"^baseline: val_accuracy 0\.\d{4}, [\d,]+ examples/s$", finished.err, re.MULTILINE)


def test_no_more_trials_run_at_once_than_there_are_cores(finished: Finished) -> None:
    """The cap is said, and so is what is used."""
    begin = finished.err.splitlines()[0]

    assert begin.startswith(
        f"mini: 0 trials, {CORES} at once (10000 requested, but there are {CORES} cores), on "
    )


def test_the_experiment_file_is_kept_beside_its_results(finished: Finished, path: Path) -> None:
    """Byte for byte."""
    assert (finished.root / "mini" / "experiment.toml").read_bytes() == path.read_bytes()


def test_precision_is_fixed_by_the_device_before_anything_is_named(finished: Finished) -> None:
    """``auto`` appears nowhere: study and leaderboard say what was computed in."""
    (record,) = read_records("mini", finished.root) or []

    assert record.values["precision"] in ("float32", "bfloat16")
    assert record.config == pd.read_csv(finished.root / "mini" / "leaderboard.csv")["config"].item()


def test_the_study_s_run_says_what_was_searched_and_on_what(finished: Finished, path: Path) -> None:
    """Its parameters are the search's and the data's, its files the experiment and all results."""
    study = Spool(finished.root / "mini" / "spool").study()

    assert study is not None
    assert study.end is not None
    assert study.end.state == "COMPLETE"
    metadata = study.metadata
    assert (metadata.experiment, metadata.files) == (
        "mini",
        ("experiment.toml", "leaderboard.csv", "confirm/readings.json", "figures", "report.html"),
    )
    assert metadata.study.startswith("mini-")
    expected = {"trials": 0, "sampler": "random", "seed": 0, "validation": 200, "epochs": 1}
    assert metadata.params.items() >= (expected | {"dataset": "fashion-mnist-mini"}).items()
    assert metadata.dataset is not None
    assert metadata.dataset.digest == training_images(loader.load(path).data).digest


def test_a_sweep_needs_nobody_to_listen(
    finished: Finished, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its standard error closed at the other end it goes on, and changes nothing that is done."""
    reader, writer = os.pipe()
    os.close(reader)
    before = read_records("mini", finished.root)

    with open(writer, "wb", buffering=0) as raw:  # noqa: PTH123 - a descriptor, not a path
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, write_through=True))
        run_main_job(Request(loader.load(path), finished.root, device="cpu"))

    assert read_records("mini", finished.root) == before
    assert "leaderboard" in capsys.readouterr().out


def test_a_tracking_server_that_is_gone_costs_nothing_but_a_warning(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep ends with its result, and says once what is missing and how it gets there."""
    monkeypatch.setattr(uploader, "BACKOFF_S", (0.05, 0.1))
    nobody = "http://ann:s3cret@127.0.0.1:9"

    run_main_job(Request(loader.load(path), tmp_path, device="cpu", tracking_uri=nobody))

    said = capsys.readouterr().err
    assert (
        len(re.findall(r"^warning: the tracking store http://\*\*\*@127.0.0.1:9 does not answer", said, re.M))
        == 1
    )
    command = f"lenet-exp sync {path} --root {tmp_path} --tracking-uri 'http://***@127.0.0.1:9'"
    assert said.endswith(f"nothing is lost: '{command}' uploads the rest\n")
    assert "s3cret" not in said
    assert len(pd.read_csv(tmp_path / "mini" / "leaderboard.csv")) == 1
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_a_limit_that_ends_everything_ends_with_an_error_and_without_it_all_is_trained(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3 with what ended them and what to do; the next call meets the budget exactly."""
    experiment = loader.load(path, ["search.trials=2", "search.pruner=none"])
    request = Request(
        experiment, tmp_path, device="cpu", confirm=False, prints=False, trainer="tests.labs.fake_trainer"
    )
    with pytest.raises(NoResultError, match=r"^nothing completed: 3 timeout \(.*; raise --trial-timeout or"):
        run_main_job(replace(request, limits=Limits(trial_timeout_s=1e-6)))

    run_main_job(request)

    records = [r for r in read_records(experiment.name, tmp_path) or [] if not r.superseded]
    assert [record.state for record in records] == ["COMPLETE"] * 3
    assert len(pd.read_csv(tmp_path / "mini" / "leaderboard.csv")) == 3
    assert "already" not in capsys.readouterr().err

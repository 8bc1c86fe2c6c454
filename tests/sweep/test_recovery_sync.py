"""What an experiment recorded is carried to MLflow after the sweep, whatever became of MLflow."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lenet_exp.base import files
from lenet_exp.base.records import METRICS
from lenet_exp.cli import program
from lenet_exp.tracking import store as mlflow_store
from tests.labs.mlflow_lab import everything, plain_client
from tests.labs.places import MINI_FOLDER

EXPERIMENT = f"""\
name = "mini"

[data]
dataset = "fashion-mnist-mini"
folder = "{MINI_FOLDER}"
validation = 200
limit = 200

[baseline]
channels = 4
fc_layers = 1

[training]
epochs = 2

[space]
lr = [0.001, 0.002, 0.004]

[search]
trials = 2
pruner = "none"
sampler = "grid"
"""


def command(*arguments: str) -> tuple[int, str, str]:
    """Run a command line here; return its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit, match=r"^\d+$") as end:
        program.main(arguments)
    return int(str(end.value)), out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment file and what its sweep recorded in ``runs``."""
    folder = tmp_path_factory.mktemp("sync")
    (folder / "mini.toml").write_text(EXPERIMENT)
    assert command("sweep", *arguments(folder), "--device", "cpu", "--no-confirm")[0] == 0
    return folder


def arguments(folder: Path) -> list[str]:
    """Return what follows the command."""
    return [str(folder / "mini.toml"), "--root", str(folder / "runs")]


def shown(folder: Path) -> dict[str, Any]:
    """Return all that MLflow shows of the experiment."""
    return everything(plain_client(mlflow_store.local_uri(folder / "runs")), "mini")


def table(folder: Path) -> pd.DataFrame:
    """Return the leaderboard file."""
    return pd.read_csv(folder / "runs" / "mini" / "leaderboard.csv")


def without_mlflow(folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder in which MLflow's store and files are deleted.

    It is a copy because this process still has the original's store open.
    """
    shutil.copytree(
        folder, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("mlflow*", "artifacts")
    )
    return tmp_path


@pytest.mark.parametrize("flags", [[], ["--rebuild"]])
def test_a_deleted_store_comes_back(folder: Path, tmp_path: Path, flags: list[str]) -> None:
    """Params, points, times, statuses, tags, models and files are as before; the CSV names the new runs."""
    lost = without_mlflow(folder, tmp_path)

    code, out, err = command("sync", *arguments(lost), *flags)

    done = "checked 3 runs in MLflow" if flags else "uploaded 3 runs to MLflow"
    assert (code, out, err) == (0, f"{done}, deleted 0\n", "")
    assert shown(lost) == shown(folder)
    pd.testing.assert_frame_equal(
        table(lost).drop(columns="mlflow_run_id"), table(folder).drop(columns="mlflow_run_id")
    )
    client = plain_client(mlflow_store.local_uri(lost / "runs"))
    for _, row in table(lost).iterrows():
        assert client.get_run(row["mlflow_run_id"]).data.metrics["val_accuracy"] == row["val_accuracy"]
    carried = [path.read_bytes() for path in (lost / "runs" / "artifacts").rglob("leaderboard.csv")]
    assert carried == [(lost / "runs" / "mini" / "leaderboard.csv").read_bytes()]


def test_carrying_again_does_nothing(folder: Path) -> None:
    """What is in MLflow already is left as it is."""
    before = shown(folder)

    assert command("sync", *arguments(folder)) == (0, "uploaded 0 runs to MLflow, deleted 0\n", "")

    assert shown(folder) == before


def test_a_lost_spool_is_made_anew_from_the_study(folder: Path, tmp_path: Path) -> None:
    """Without store and spool the study gives parameters, statuses, models, values and last metrics back."""
    lost = without_mlflow(folder, tmp_path)
    shutil.rmtree(lost / "runs" / "mini" / "spool")

    code, out, _ = command("sync", *arguments(lost), "--rebuild")

    assert (code, out) == (0, "checked 3 runs in MLflow, deleted 0\n")
    before, after = shown(folder), shown(lost)
    for name in (name for name in before if name.startswith(("baseline", "trial"))):
        then, now = before[name], after[name]
        assert now["params"] == then["params"]
        assert [model[:3] for model in now["models"]] == [model[:3] for model in then["models"]]
        assert (now["info"][0], now["files"], now["inputs"]) == ("FINISHED", then["files"], then["inputs"])
        values = {metric: [point[:2] for point in points] for metric, points in now["points"].items()}
        assert values["val_accuracy"] == [point[:2] for point in then["points"]["val_accuracy"]]
        for metric in METRICS:
            assert values[metric][-1] == then["points"][metric][-1][:2]
    assert table(lost).drop(columns="mlflow_run_id").equals(table(folder).drop(columns="mlflow_run_id"))


def test_a_damaged_store_is_told(folder: Path, tmp_path: Path) -> None:
    """Exit code 9 and what to do; the store is left as it is."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    store = tmp_path / "runs" / "mlflow.db"
    store.write_bytes(b"no store" * 1000)

    code, out, err = command("sync", *arguments(tmp_path))

    assert (code, out) == (9, "")
    assert re.fullmatch(
        r"error: .*mlflow\.db is damaged: .*; run 'lenet-exp doctor --repair --root .*\n", err
    )
    assert store.read_bytes() == b"no store" * 1000


def test_a_sweep_at_work_is_left_alone(folder: Path) -> None:
    """Exit code 8 while a sweep holds the experiment."""
    with files.lock(folder / "runs" / "mini" / ".lock"):
        code, out, err = command("sync", *arguments(folder))

    assert (code, out) == (8, "")
    assert f"in use by pid {os.getpid()}" in err


def test_an_experiment_that_never_ran_has_nothing_to_carry(tmp_path: Path) -> None:
    """Exit code 3, and nothing is made."""
    (tmp_path / "mini.toml").write_text(EXPERIMENT)

    code, out, err = command("sync", *arguments(tmp_path))

    assert (code, out) == (3, "")
    assert re.fullmatch(
        r"error: 'mini' was never run under .*; run 'lenet-exp sweep .*mini.toml --root .*'\n", err
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mini.toml"]


def test_a_server_that_does_not_answer_is_told(folder: Path) -> None:
    """Exit code 7, at once where the port is closed, and without the password."""
    uri = f"http://ann:s3cret@127.0.0.1:{closed_port()}"

    code, out, err = command("sync", *arguments(folder), "--tracking-uri", uri)

    assert (code, out) == (7, "")
    assert re.fullmatch(r"error: the tracking store http://\*\*\*@127\S+ does not answer: .*\n", err)


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_a_sweep_that_requires_tracking_does_not_begin_without(folder: Path, tmp_path: Path) -> None:
    """Exit code 7 within 20 seconds when the server takes the call and is silent, and no study is begun."""
    experiment = [str(folder / "mini.toml"), "--root", str(tmp_path / "runs")]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        before = time.monotonic()

        code, out, err = command("sweep", *experiment, "--require-tracking", "--tracking-uri", uri)

        assert time.monotonic() - before < 17  # a process of its own takes two more to begin
    assert (code, out) == (7, "")
    assert re.fullmatch(r"error: the tracking store http://127\S+ does not answer.*\n", err)
    assert not (tmp_path / "runs" / "study.db").exists()


def test_names_of_every_script_work_from_end_to_end(folder: Path, tmp_path: Path) -> None:
    """File, study, MLflow, CSV and leaderboard, in a sweep of no trials, whose only row is the baseline."""
    name = "실험 Größe-5 Ωmega עברית"
    experiment = tmp_path / "mini.toml"
    experiment.write_text(EXPERIMENT.replace('"mini"', f'"{name}"').replace("trials = 2", "trials = 0"))

    assert command("sweep", *arguments(tmp_path), "--device", "cpu", "--no-confirm")[0] == 0

    (csv,) = (tmp_path / "runs").glob("*/leaderboard.csv")
    assert csv.parent.name.isascii()
    assert pd.read_csv(csv)["role"].tolist() == ["baseline"]
    assert command("leaderboard", *arguments(tmp_path), "--format", "csv")[1] == csv.read_text()
    seen = everything(plain_client(mlflow_store.local_uri(tmp_path / "runs")), name)
    assert [key.startswith(name) for key in seen].count(True) == 1
    assert seen["baseline"]["info"][0] == "FINISHED"

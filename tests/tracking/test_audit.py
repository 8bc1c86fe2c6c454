"""What people do to MLflow's store from outside is noticed, and mended by the next upload."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lenet_exp.base.errors import UnreachableError
from lenet_exp.tracking import store, uploader
from lenet_exp.tracking.events import Champion
from lenet_exp.tracking.model import file_marks
from lenet_exp.tracking.spool import STUDY
from lenet_exp.tracking.tracker import Tracker
from tests.labs.mlflow_lab import BASELINE, STUDY_METADATA, TRIAL, Lab, all_runs, everything, result

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = STUDY_METADATA.experiment


def written(root: Path) -> Lab:
    """Return an experiment whose sweep has ended with a champion, and of which MLflow has nothing yet."""
    lab = Lab(root)
    lab.spool.start_study(STUDY_METADATA)
    (lab.home / "leaderboard.csv").write_text("rank\n")
    lab.complete(TRIAL)
    lab.begin(BASELINE)
    lab.spool.end(BASELINE, "PRUNED", "pruned after epoch 2")
    lab.spool.champion(Champion(NAME, {"champion": TRIAL.stem}, "won"))
    lab.spool.end_study("COMPLETE")
    return lab


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of such an experiment, completely in MLflow, whose store no process has open."""
    lab = written(tmp_path_factory.mktemp("audit"))
    assert lab.sync().lacking == {}
    store.close_files(lab.uri)
    return lab.root


@pytest.fixture
def lab(uploaded: Path, tmp_path: Path) -> Lab:
    """A copy of it, which the test may spoil."""
    shutil.copytree(uploaded, tmp_path / "copy")
    return reopened(tmp_path / "copy")


def reopened(root: Path) -> Lab:
    """Return a lab in a root that has everything already."""
    lab = Lab.__new__(Lab)
    lab.root, lab.home, lab.artifacts = root, root / "exp", root / "artifacts"
    lab.uri = store.local_uri(root)
    lab._clock = iter(range(1_800_000_000, 1_900_000_000))
    lab.spool = lab.opened()
    store.connect(lab.uri, lab.artifacts)
    store.close_files(lab.uri)  # as another process, which has other copies of this root
    return lab


def shown(lab: Lab) -> dict[str, Any]:
    """Return all that MLflow shows, whatever the experiment is called; the alias works."""
    client = lab.client()
    run = client.get_run(str(lab.opened().run_id(STUDY)))
    (registered,) = client.search_registered_models()
    version = client.get_model_version(registered.name, registered.aliases["champion"])
    assert version.run_id == lab.opened().run_id(TRIAL.stem)
    assert "MLmodel" in file_marks(str(version.source), list)
    return everything(client, client.get_experiment(run.info.experiment_id).name)


def id_of(lab: Lab, stem: str = TRIAL.stem) -> str:
    """Return the id of a run."""
    return str(lab.opened().run_id(stem))


def delete_run(client: MlflowClient, lab: Lab) -> None:
    client.delete_run(id_of(lab))


def delete_every_run(client: MlflowClient, lab: Lab) -> None:
    for run in all_runs(client):
        client.delete_run(run.info.run_id)


def delete_experiment(client: MlflowClient, lab: Lab) -> None:
    client.delete_experiment("1")


def end_run(client: MlflowClient, lab: Lab) -> None:
    client.set_terminated(id_of(lab), "FAILED")


def run_again(client: MlflowClient, lab: Lab) -> None:
    client.update_run(id_of(lab, STUDY), status="RUNNING")


def strip_tags(client: MlflowClient, lab: Lab) -> None:
    for tag in ("lenet_exp.study", "lenet_exp.key", "mlflow.parentRunId"):
        client.delete_tag(id_of(lab), tag)


def delete_model(client: MlflowClient, lab: Lab) -> None:
    client.delete_logged_model(client.search_logged_models(["1"])[0].model_id)


def delete_model_files(client: MlflowClient, lab: Lab) -> None:
    shutil.rmtree(lab.artifacts / "models")


def delete_artifacts(client: MlflowClient, lab: Lab) -> None:
    shutil.rmtree(lab.artifacts)


def delete_alias(client: MlflowClient, lab: Lab) -> None:
    client.delete_registered_model_alias(NAME, "champion")


def delete_version(client: MlflowClient, lab: Lab) -> None:
    client.delete_model_version(NAME, "1")


def delete_registered(client: MlflowClient, lab: Lab) -> None:
    client.delete_registered_model(NAME)


def lose_rows(client: MlflowClient, lab: Lab) -> None:
    """As a store does that was put back from a backup made before the trial."""
    run_id = id_of(lab)
    with closing(sqlite3.connect(lab.root / "mlflow.db")) as connection, connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            if "run_uuid" in columns:
                connection.execute(f"DELETE FROM {table} WHERE run_uuid = ?", [run_id])


def spoil_model(client: MlflowClient, lab: Lab) -> None:
    """The file keeps its size."""
    path = next(lab.artifacts.rglob("model.pt2"))
    path.write_bytes(bytes(path.stat().st_size))


def block_files(client: MlflowClient, lab: Lab) -> None:
    """A link that leads out, a folder in a file's place, and a file in a folder's."""
    (lab.root.parent / "outside").write_text("theirs")
    for name in ("leaderboard.csv", "weights.safetensors"):
        path = next(lab.artifacts.rglob(name))
        path.unlink()
        path.symlink_to(lab.root.parent / "outside")
    next(lab.artifacts.rglob("MLmodel")).unlink()
    next(lab.artifacts.rglob("conda.yaml")).with_name("MLmodel").mkdir()
    data = next(lab.artifacts.rglob("model.pt2")).parent
    shutil.rmtree(data)
    data.write_text("")


def cut_file(client: MlflowClient, lab: Lab) -> None:
    next(lab.artifacts.rglob("leaderboard.csv")).write_text("r")


def strip_model(client: MlflowClient, lab: Lab) -> None:
    """A run's model is found without its tag."""
    (logged,) = client.search_logged_models(["1"])
    client.delete_logged_model_tag(logged.model_id, "lenet_exp.key")
    client.set_tag(id_of(lab), "lenet_exp.attempt", "7")


def exchange_keys(client: MlflowClient, lab: Lab) -> None:
    for run_id, stem in ((id_of(lab), BASELINE.stem), (id_of(lab, BASELINE.stem), TRIAL.stem)):
        client.set_tag(run_id, "lenet_exp.key", f"{STUDY_METADATA.study}/{stem}")


def rename_study(client: MlflowClient, lab: Lab) -> None:
    client.set_tag(id_of(lab, STUDY), "lenet_exp.study", "theirs")


QUICK = [
    spoil_model,
    block_files,
    exchange_keys,
    delete_run,
    delete_experiment,
    lose_rows,
    delete_model_files,
    delete_registered,
]
SLOW = [
    *(cut_file, strip_model, rename_study),
    *(delete_every_run, end_run, run_again, strip_tags),
    *(delete_model, delete_artifacts, delete_alias, delete_version),
]
EDITS = [*QUICK, *(pytest.param(edit, marks=pytest.mark.slow, id=edit.__name__) for edit in SLOW)]
#: What makes a new run or model, as the old one is gone for good.
GONE = (lose_rows, delete_model)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: getattr(edit, "__name__", None))
def test_what_somebody_changed_in_mlflow_is_told_and_mended(
    lab: Lab, edit: Callable[[MlflowClient, Lab], None]
) -> None:
    """A look says what is missing; `sync` restores the same runs, and then there is nothing to do."""
    before, ids = shown(lab), lab.opened().run_ids()
    assert uploader.lacking(lab.opened(), lab.uri) == {}
    edit(lab.client(), lab)

    assert uploader.lacking(lab.opened(), lab.uri) != {}
    report = lab.sync()

    assert (report.problems, report.lacking) == ((), {})
    after = shown(lab)
    if edit is block_files:  # what was in the way is beside the files
        assert (lab.root.parent / "outside").read_text() == "theirs"
        for run in after.values():
            if isinstance(run, dict):
                run["files"] = [name for name in run["files"] if ".damaged-" not in name]
    if edit in GONE:
        after["models"] = before["models"]
    if edit is strip_model:
        before["trial 0"]["models"] = after["trial 0"]["models"]
    assert after == before
    assert (lab.opened().run_ids() == ids) == (edit is not lose_rows)
    assert lab.sync().n_uploaded == 0


def test_what_people_log_beside_ours_stays_theirs(lab: Lab) -> None:
    """A point and a model of their own, in our runs, are neither missing nor taken for ours."""
    client = lab.client()
    client.log_metric(id_of(lab), "val_accuracy", 0.99, step=7)
    theirs = client.create_logged_model("1", "best", id_of(lab), tags={"lenet_exp.key": "mine"})
    client.finalize_logged_model(theirs.model_id, "READY")

    assert uploader.lacking(lab.opened(), lab.uri) == {}
    assert lab.sync(rebuild=True).lacking == {}


def test_names_that_people_give_are_kept(lab: Lab) -> None:
    """Experiment, run and registered model are found by their tags, however they are called."""
    client = lab.client()
    client.rename_experiment("1", "theirs")
    client.update_run(id_of(lab), name="my favourite")
    client.rename_registered_model(NAME, "theirs too")

    assert uploader.lacking(lab.opened(), lab.uri) == {}
    assert lab.sync(rebuild=True).lacking == {}

    assert client.get_experiment_by_name(NAME) is None
    assert client.get_run(id_of(lab)).info.run_name == "my favourite"
    assert [registered.name for registered in client.search_registered_models()] == ["theirs too"]
    assert len(all_runs(client, "theirs")) == 3


def test_what_is_deleted_in_mid_sweep_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running attempt's run is restored, a study's run that is gone is made anew with all below it."""
    monkeypatch.setattr(uploader, "RETRY_S", 0.01)
    lab = Lab(tmp_path)
    said: list[str] = []
    tracker = Tracker(lab.spool, STUDY_METADATA, tracking_uri=lab.uri, on_problem=said.append)
    tracker.start()
    lab.complete(BASELINE)
    lab.begin(TRIAL)
    assert not tracker.drain()  # as the trial goes on
    client, ids = lab.client(), lab.spool.run_ids()
    study_id = lab.spool.run_id(STUDY)
    client.delete_run(ids[TRIAL])
    client.delete_run(ids[BASELINE])
    with closing(sqlite3.connect(lab.root / "mlflow.db")) as connection, connection:
        for table in ("tags", "params", "runs"):
            connection.execute(f"DELETE FROM {table} WHERE run_uuid = ?", [study_id])

    lab.spool.epoch(TRIAL, result(3))
    tracker.drain()
    lab.spool.end(TRIAL, "PRUNED")
    tracker.finish("COMPLETE")
    assert tracker.close()

    runs = {run.info.run_id: run for run in all_runs(client)}
    assert lab.spool.run_ids() == ids
    assert set(runs) == {*ids.values(), lab.spool.run_id(STUDY)}
    assert lab.spool.run_id(STUDY) != study_id
    parents = {runs[run_id].data.tags["mlflow.parentRunId"] for run_id in ids.values()}
    assert parents == {lab.spool.run_id(STUDY)}
    assert [p.step for p in client.get_metric_history(ids[TRIAL], "val_loss")] == [1, 2, 3]
    assert said == []
    assert uploader.lacking(lab.opened(), lab.uri) == {}


def test_a_store_that_is_deleted_in_mid_sweep_is_made_again(tmp_path: Path) -> None:
    """MLflow would write on to the deleted file, and everything would be said to be there."""
    lab = Lab(tmp_path)
    tracker = Tracker(lab.spool, STUDY_METADATA, tracking_uri=lab.uri)
    tracker.start()
    lab.begin(BASELINE)
    lab.spool.end(BASELINE, "PRUNED")
    assert tracker.drain()
    for file in lab.root.glob("mlflow.db*"):
        file.unlink()

    lab.begin(TRIAL)
    lab.spool.end(TRIAL, "PRUNED")
    tracker.finish("COMPLETE")

    assert tracker.close()
    assert uploader.lacking(lab.opened(), lab.uri) == {}
    with closing(sqlite3.connect(lab.root / "mlflow.db")) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (3,)


def test_two_studies_of_one_name_share_a_server(lab: Lab, tmp_path: Path) -> None:
    """Each has its runs, and a registered model of its own; neither touches the other's."""
    before = shown(lab)
    (tmp_path / "other").mkdir()
    other = written(tmp_path / "other")
    other.spool.start_study(replace(STUDY_METADATA, study="ünï exp-2"))
    other.spool.end_study("COMPLETE")

    report = uploader.sync(other.opened(), lab.uri, lab.artifacts)
    again = uploader.sync(other.opened(), lab.uri, lab.artifacts, rebuild=True)

    assert (report.lacking, again.lacking, again.n_deleted) == ({}, {}, 0)
    client = lab.client()
    assert len(all_runs(client)) == 6
    assert {registered.name for registered in client.search_registered_models()} == {NAME, "ünï exp-2"}
    assert lab.sync(rebuild=True).lacking == {}
    names = {run.info.run_id for run in all_runs(client)}
    assert names >= {*lab.opened().run_ids().values(), *other.opened().run_ids().values()}
    assert before["trial 0"]["points"]


@pytest.mark.parametrize("is_copy", [False, True])
def test_artifacts_follow_a_root_that_is_moved(lab: Lab, tmp_path: Path, *, is_copy: bool) -> None:
    """Models load from the new place, new files go there, and a copy leaves the original as it is."""
    before = shown(lab)
    store.close_files(lab.uri)
    moved = tmp_path / "möved here"
    shutil.copytree(lab.root, moved) if is_copy else shutil.move(lab.root, moved)
    files = {path: path.stat().st_mtime_ns for path in lab.root.rglob("*")}

    there = reopened(moved)

    assert uploader.lacking(there.opened(), there.uri) == {}
    assert there.sync(rebuild=True).lacking == {}
    assert shown(there) == before
    with closing(sqlite3.connect(moved / "mlflow.db")) as connection:
        uris = connection.execute(
            "SELECT artifact_uri FROM runs UNION SELECT artifact_location FROM logged_models UNION"
            " SELECT source FROM model_versions UNION SELECT storage_location FROM model_versions UNION"
            " SELECT artifact_location FROM experiments WHERE experiment_id = 1"
        ).fetchall()
    assert all(uri.startswith(moved.as_uri()) for (uri,) in uris)
    assert {path: path.stat().st_mtime_ns for path in lab.root.rglob("*")} == files


def test_a_copy_of_the_root_leaves_the_runs_of_the_other_alone(lab: Lab) -> None:
    """Unless it is told to take them over: then those of other trainings are made anew, and none is left."""
    lab.spool.start_study(replace(STUDY_METADATA, sweeps=("a", "b"), tags={"sweep": "b"}))
    lab.spool.end_study("COMPLETE")
    assert lab.sync().lacking == {}
    before = id_of(lab), id_of(lab, BASELINE.stem)
    path = lab.spool.path(BASELINE.stem)
    path.write_text(path.read_text().replace('"seed":7', '"seed":8'))
    lab.spool.start_study(replace(STUDY_METADATA, sweeps=("a", "c"), tags={"sweep": "c"}))
    lab.spool.end_study("COMPLETE")

    with pytest.raises(UnreachableError, match=r"of another copy of it; .* 'lenet-exp sync --rebuild'"):
        lab.sync()
    assert lab.sync(rebuild=True).lacking == {}

    after = id_of(lab), id_of(lab, BASELINE.stem)
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert lab.sync().lacking == {}

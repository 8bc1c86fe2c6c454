from __future__ import annotations

import itertools
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lenet_exp.base.errors import NoResultError
from lenet_exp.base.records import METRICS, RunKey
from lenet_exp.tracking import store, uploader
from lenet_exp.tracking.spool import Spool
from lenet_exp.tracking.tracker import Tracker
from tests.labs.mlflow_lab import (
    BASELINE,
    OTHER,
    SMALL,
    STUDY_METADATA,
    TRIAL,
    Lab,
    empty_store,
    everything,
    plain_client,
    points,
    refuse,
    result,
    runs_by_name,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for seconds in a test."""
    monkeypatch.setattr(uploader, "RETRY_S", 0.01)
    monkeypatch.setattr(uploader, "BACKOFF_S", (0.05, 0.1))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An experiment whose study has begun."""
    lab = Lab(tmp_path)
    lab.spool.start_study(STUDY_METADATA)
    return lab


def test_attempts_appear_in_mlflow(lab: Lab) -> None:
    """Each attempt is one run below the study's, with its status, parameters, points, times and tags."""
    lab.complete(TRIAL)
    lab.begin(BASELINE, n_epochs=1)
    lab.spool.end(BASELINE, "PRUNED", "pruned after epoch 1")
    lab.begin(OTHER, n_epochs=0, retry_of=0)
    lab.spool.end(OTHER, "FAIL", "lost https://ann:s3cret@host/")

    report = lab.sync()

    runs = runs_by_name(lab.client())
    study, trial, baseline, other = (runs[name] for name in ("ünï exp-1", "trial 0", "baseline 0", "trial 1"))
    assert report == uploader.SyncReport(n_uploaded=3, n_deleted=0, problems=())
    assert {run.data.tags["mlflow.parentRunId"] for run in (trial, baseline, other)} == {study.info.run_id}
    assert [run.info.status for run in (trial, baseline, other)] == ["FINISHED", "KILLED", "FAILED"]
    assert trial.data.params["channels_1"] == "2"
    assert trial.data.params["channels_3"] == ""
    assert (trial.data.params["epochs"], trial.data.params["seed"]) == ("2", "7")
    assert set(trial.data.params) == set(other.data.params) == {*SMALL.hyperparameters(), "epochs", "seed"}
    run_log = lab.spool.read(TRIAL)
    assert run_log is not None
    assert run_log.end is not None
    assert points(lab.client(), trial) == {
        name: [(n, getattr(result(n), name), run_log.epoch_ms[n - 1]) for n in (1, 2)]
        for name in sorted(METRICS)
    }
    assert (trial.info.start_time, trial.info.end_time) == (run_log.start_ms, run_log.end.time_ms)
    assert (
        trial.data.tags.items()
        >= {
            "lenet_exp.role": "trial",
            "lenet_exp.trial": "0",
            "lenet_exp.attempt": "1",
            "lenet_exp.state": "COMPLETE",
            "lenet_exp.config": SMALL.id,
            "lenet_exp.study": "ünï exp-1",
            "lenet_exp.device": "cpu",
        }.items()
    )
    assert other.data.tags["lenet_exp.reason"] == "lost https://***@host/"
    assert baseline.data.tags["lenet_exp.reason"] == "pruned after epoch 1"
    assert trial.inputs is not None
    assert trial.inputs.dataset_inputs[0].dataset.digest == "0" * 36
    assert lab.opened().run_ids() == {
        TRIAL: trial.info.run_id,
        BASELINE: baseline.info.run_id,
        OTHER: other.info.run_id,
    }


def test_uploading_again_changes_nothing(lab: Lab) -> None:
    """What is in MLflow is not uploaded again, and uploading all of it again ends the same."""
    lab.complete(TRIAL)
    lab.spool.end_study("COMPLETE")
    lab.sync()
    before = everything(lab.client())

    assert lab.sync().n_uploaded == 0
    assert lab.sync(rebuild=True).n_uploaded == 1

    assert everything(lab.client()) == before


def test_a_number_that_is_no_trial_s_goes_when_runs_are_rebuilt(lab: Lab) -> None:
    """Until November 2026 every run had one; today a confirmation's run says what it confirms."""
    lab.complete(confirmed := RunKey("confirm", 0, 1))
    lab.sync()
    run_id = lab.opened().run_ids()[confirmed]
    lab.client().set_tag(run_id, "lenet_exp.trial", "0")

    lab.sync(rebuild=True)

    tags = lab.client().get_run(run_id).data.tags
    assert "lenet_exp.trial" not in tags
    assert tags["lenet_exp.of"] == "confirm 0"


class CrashError(BaseException):
    """The process ends here."""


class CrashingClient:
    """MLflow's client in a process that is killed after its n-th call."""

    def __init__(self, client: MlflowClient, n_calls: int) -> None:
        """Pass ``n_calls`` calls on; the answer to the last is lost."""
        self._client = client
        self._left = n_calls

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return the client's method."""

        def call(*args: Any, **options: Any) -> Any:
            answer = getattr(self._client, name)(*args, **options)
            self._left -= 1
            if self._left == 0:
                raise CrashError
            return answer

        return call


@pytest.mark.slow
def test_a_crash_anywhere_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after any of its calls to MLflow, tracking ends with the same runs, points and models."""
    connect = store.connect

    def uploaded(n_calls: int) -> tuple[dict[str, Any], bool]:
        """Return what MLflow shows after a crash and a second try, and whether there was a crash."""
        root = tmp_path / str(n_calls)
        root.mkdir()
        lab = Lab(root)
        lab.spool.start_study(STUDY_METADATA)
        lab.complete(TRIAL)
        lab.spool.end_study("COMPLETE")
        client = CrashingClient(connect(lab.uri), n_calls)
        crashed = False
        with monkeypatch.context() as patch:
            patch.setattr(store, "connect", lambda *_: client)
            try:
                lab.sync()
            except CrashError:
                crashed = True
        lab.sync()
        return everything(lab.client()), crashed

    undisturbed, _ = uploaded(0)
    for n_calls in itertools.count(1):
        seen, crashed = uploaded(n_calls)
        assert seen == undisturbed
        if not crashed:
            break
    assert n_calls > 20


def test_points_that_are_not_finite_are_left_out(lab: Lab) -> None:
    """MLflow gets no NaN and no infinity, and a tag says which metrics had them."""
    lab.begin(TRIAL, n_epochs=1)
    lab.spool.epoch(TRIAL, result(2, val_loss=math.inf))
    lab.spool.epoch(TRIAL, result(3, val_loss=math.nan))
    lab.spool.end(TRIAL, "PRUNED", "diverged")

    lab.sync()

    run = runs_by_name(lab.client())["trial 0"]
    assert [step for step, _, _ in points(lab.client(), run)["val_loss"]] == [1]
    assert [step for step, _, _ in points(lab.client(), run)["train_loss"]] == [1, 2, 3]
    assert run.data.tags["lenet_exp.not_finite"] == "val_loss"


def test_many_epochs_are_uploaded(lab: Lab) -> None:
    """An attempt with more points than MLflow takes at once has all of them."""
    lab.begin(TRIAL, n_epochs=350)

    lab.sync()

    run = runs_by_name(lab.client())["trial 0"]
    assert [step for step, _, _ in points(lab.client(), run)["val_loss"]] == list(range(1, 351))


def test_the_study_has_a_run_of_its_own(lab: Lab) -> None:
    """The study's run has its parameters, its files without secrets, and the status of the sweep."""
    (lab.home / "experiment.toml").write_text('storage = "postgresql://ann:s3cret@db/x"\n')
    (lab.home / "leaderboard.csv").write_text("rank\n")
    lab.spool.end_study("PRUNED", "interrupted")

    lab.sync()

    run = runs_by_name(lab.client())[STUDY_METADATA.study]
    assert run.data.params == {"trials": "3"}
    assert run.data.tags["lenet_exp.version"] == "0.1"
    assert run.data.tags["lenet_exp.role"] == "study"
    assert (run.info.status, run.info.end_time) == ("KILLED", 1_700_000_001_000)
    folder = Path(lab.client().download_artifacts(run.info.run_id, ""))
    assert (folder / "experiment.toml").read_text() == 'storage = "postgresql://***@db/x"\n'
    assert (folder / "leaderboard.csv").read_text() == "rank\n"


def test_a_study_goes_on_with_other_flags(lab: Lab) -> None:
    """A sweep begun again is the same run, with the new tags; a parameter keeps its first value."""
    lab.spool.end_study("PRUNED", "interrupted")
    lab.sync()
    lab.spool.start_study(
        replace(STUDY_METADATA, params={"trials": 5, "sampler": "tpe"}, tags={"version": "0.2"})
    )
    lab.spool.end_study("COMPLETE")

    lab.sync()

    run = runs_by_name(lab.client())[STUDY_METADATA.study]
    assert run.info.status == "FINISHED"
    assert run.data.params == {"trials": "3", "sampler": "tpe"}
    assert run.data.tags["lenet_exp.version"] == "0.2"
    assert run.data.tags["lenet_exp.reason"] == ""


def test_nothing_stays_running_without_a_sweep(lab: Lab) -> None:
    """What a dead driver left open is ended, and goes on when it ends otherwise later."""
    lab.begin(TRIAL)

    lab.sync()

    assert {run.info.status for run in runs_by_name(lab.client()).values()} == {"KILLED"}
    lab.spool.end(TRIAL, "FAIL", "interrupted")
    lab.sync()
    run = runs_by_name(lab.client())["trial 0"]
    assert (run.info.status, run.data.tags["lenet_exp.reason"]) == ("FAILED", "interrupted")


def test_a_deleted_store_is_made_again(lab: Lab) -> None:
    """After the store was deleted, all runs, points and models come back from the spool."""
    lab.complete(TRIAL)
    lab.spool.end_study("COMPLETE")
    lab.sync()
    before = everything(lab.client())
    for file in lab.root.glob("mlflow.db*"):
        file.unlink()
    shutil.rmtree(lab.artifacts)
    # MLflow keeps its connections, even to a deleted file, by the store's name.
    uri = store.local_uri(lab.root).replace("mlflow.db", "./mlflow.db")

    uploader.sync(lab.opened(), uri, lab.artifacts)

    assert everything(plain_client(uri)) == before


def test_rebuilding_removes_what_the_spool_does_not_know(lab: Lab) -> None:
    """A rebuild deletes second copies and unknown runs of this study, makes missing ones, and no others."""
    lab.complete(TRIAL)
    lab.begin(BASELINE)
    lab.spool.end(BASELINE, "COMPLETE")
    lab.spool.end_study("COMPLETE")
    lab.sync()
    client = lab.client()
    before = everything(client)
    ours = {"lenet_exp.study": STUDY_METADATA.study}
    client.create_run(
        "1", tags={**ours, "lenet_exp.key": f"{STUDY_METADATA.study}/{TRIAL.stem}"}, run_name="twin"
    )
    client.create_run(
        "1", tags={**ours, "lenet_exp.key": f"{STUDY_METADATA.study}/trial-00009-1"}, run_name="ghost"
    )
    other = client.create_run("1", tags={"lenet_exp.study": "another"}, run_name="other")
    client.delete_run(runs_by_name(client)["baseline 0"].info.run_id)

    report = lab.sync(rebuild=True)

    client.delete_run(other.info.run_id)
    assert everything(client) == before
    assert report.n_deleted == 1  # the ghost; the twin went when its original was looked for


def test_ghosts_do_not_run(lab: Lab) -> None:
    """Runs that a lost answer or a lost spool left RUNNING are over after the next start."""
    lab.complete(TRIAL)
    lab.sync()
    client = lab.client()
    for name, stem in (("twin", TRIAL.stem), ("ghost", "trial-00009-1")):
        tags = {"lenet_exp.study": STUDY_METADATA.study, "lenet_exp.key": f"{STUDY_METADATA.study}/{stem}"}
        client.create_run("1", tags=tags, run_name=name)

    lab.sync()

    runs = runs_by_name(client)
    assert "twin" not in runs
    assert runs["ghost"].info.status == "KILLED"
    assert runs["trial 0"].info.status == "FINISHED"


def test_another_store_gets_everything(lab: Lab) -> None:
    """A spool that is uploaded to another store than before is uploaded as a whole."""
    lab.complete(TRIAL)
    lab.spool.end_study("COMPLETE")
    lab.sync()
    before = everything(lab.client())
    other = lab.root / "other"
    other.mkdir()
    (other / "mlflow.db").write_bytes(empty_store())

    sync_report = uploader.sync(lab.opened(), store.local_uri(other), other / "artifacts")

    assert sync_report.n_uploaded == 1
    assert everything(plain_client(store.local_uri(other))) == before


def test_a_deleted_experiment_comes_back(lab: Lab) -> None:
    """An experiment that was deleted in MLflow's UI is restored, not stumbled over."""
    lab.sync()
    lab.client().delete_experiment("1")
    lab.begin(TRIAL)
    lab.spool.end(TRIAL, "PRUNED")

    lab.sync()

    assert runs_by_name(lab.client())["trial 0"].info.status == "KILLED"


def test_an_attempt_that_mlflow_refuses_does_not_hold_up_the_others(lab: Lab) -> None:
    """When MLflow refuses one attempt, that is told once, and the others are uploaded."""
    lab.sync()
    refuse(lab.client(), TRIAL)
    lab.begin(TRIAL)
    lab.complete(OTHER)

    report = lab.sync()

    assert len(report.problems) == 1
    assert report.problems[0].startswith(f"upload of {TRIAL.stem} to MLflow failed: ")
    assert "Changing param values is not allowed" in report.problems[0]
    assert report.lacking == {TRIAL.stem: "it lacks tags"}
    assert runs_by_name(lab.client())["trial 1"].info.status == "FINISHED"


def test_what_is_recorded_while_the_thread_waits_is_drained_at_once(tmp_path: Path) -> None:
    """Whoever drains need not know whether the thread was woken for what is new."""
    lab = Lab(tmp_path)
    tracker = Tracker(lab.spool, STUDY_METADATA, tracking_uri=lab.uri, artifact_root=lab.artifacts)
    tracker.start()
    try:
        assert tracker.drain()
        time.sleep(0.2)  # now the thread sleeps until it is woken, or for half a minute
        lab.spool.keep("what", 1, 1)

        assert tracker.drain(timeout_s=5)
    finally:
        assert tracker.close()


@pytest.mark.parametrize("left", [b"", b'{"time_ms":17'], ids=["empty", "half a line"])
def test_an_attempt_whose_first_line_was_cut_off_is_none(lab: Lab, left: bytes) -> None:
    """A driver killed in its first write leaves a file, and nothing that anyone would wait for."""
    lab.complete(TRIAL)
    (lab.home / "spool" / f"{OTHER.stem}.jsonl").write_bytes(left)
    lab.spool = lab.opened()
    tracker = Tracker(lab.spool, STUDY_METADATA, tracking_uri=lab.uri, artifact_root=lab.artifacts)
    tracker.start()

    assert tracker.drain(timeout_s=10)
    tracker.finish("COMPLETE")
    assert tracker.close()

    assert sorted(lab.opened().stems()) == ["study", TRIAL.stem]
    assert lab.opened().pending() == []
    assert set(runs_by_name(lab.client())) == {STUDY_METADATA.study, "trial 0"}


def test_nothing_recorded_is_told(tmp_path: Path) -> None:
    """A spool in which no sweep has written is an error that says what to do."""
    spool = Spool(tmp_path / "exp" / "spool")

    with pytest.raises(NoResultError, match="nothing was recorded here yet; run the sweep first"):
        uploader.sync(spool, store.local_uri(tmp_path))


def test_the_process_is_left_alone(lab: Lab) -> None:
    """Tracking leaves MLflow's process-wide state and the working folder as they were."""
    import mlflow

    before = (
        mlflow.get_tracking_uri(),
        mlflow.active_run(),
        mlflow.last_active_run(),
        sorted(Path.cwd().iterdir()),
    )
    lab.complete(TRIAL)

    lab.sync()

    after = (
        mlflow.get_tracking_uri(),
        mlflow.active_run(),
        mlflow.last_active_run(),
        sorted(Path.cwd().iterdir()),
    )
    assert after == before

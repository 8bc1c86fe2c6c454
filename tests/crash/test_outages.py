from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lenet_exp.tracking import store as mlflow_store
from lenet_exp.tracking import uploader
from lenet_exp.tracking.spool import STUDY, Spool
from lenet_exp.tracking.tracker import Tracker
from tests.labs.mlflow_lab import (
    BASELINE,
    OTHER,
    STUDY_METADATA,
    TRIAL,
    Lab,
    empty_store,
    everything,
    experiment_id,
    plain_client,
    refuse,
    result,
    runs_by_name,
)
from tests.labs.outage_lab import LIMIT_S, Line, free_port, start_server, wait_until_healthy
from tests.labs.places import MINI_FOLDER, PROJECT


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real tracking server."""
    root = tmp_path_factory.mktemp("server")
    port = free_port()
    process = start_server(root, port)
    try:
        wait_until_healthy(port)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def line(server: int) -> Iterator[Line]:
    """A line to the tracking server, whose experiment is empty."""
    line = Line(server)
    yield line
    line.switch("up")
    client = plain_client(line.uri)
    if experiment := client.get_experiment_by_name(STUDY_METADATA.experiment):
        other = f"of test {experiment.experiment_id}"
        client.set_experiment_tag(experiment.experiment_id, "lenet_exp.experiment", other)
        client.rename_experiment(experiment.experiment_id, other)
    line.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for seconds in a test."""
    monkeypatch.setattr(uploader, "RETRY_S", 0.01)
    monkeypatch.setattr(uploader, "BACKOFF_S", (0.05, 0.1))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An experiment whose study has not begun."""
    return Lab(tmp_path)


class Tracked:
    """A tracker and what it says."""

    def __init__(self, lab: Lab, uri: str) -> None:
        """Start a tracker that carries the lab's spool to ``uri``."""
        self.said: queue.Queue[str] = queue.Queue()
        self.tracker = Tracker(
            lab.spool,
            STUDY_METADATA,
            tracking_uri=uri,
            artifact_root=lab.artifacts if uri.startswith("sqlite") else None,
            on_problem=self.said.put,
            on_recovered=lambda: self.said.put("recovered"),
        )
        self.tracker.start()

    def next(self) -> str:
        """Return what it says next."""
        return self.said.get(timeout=LIMIT_S)

    def close(self, timeout_s: float = LIMIT_S) -> bool:
        """End the sweep."""
        self.tracker.finish("COMPLETE")
        return self.tracker.close(timeout_s)


def carried_undisturbed(lab: Lab) -> object:
    """Return what MLflow would show of the lab's spool if there had been no outage."""
    copy = lab.root / "undisturbed"
    shutil.copytree(lab.home, copy / "exp")
    (copy / "exp" / "spool" / "index.jsonl").unlink(missing_ok=True)
    uploader.sync(Spool(copy / "exp" / "spool"), lab.uri, lab.artifacts)
    return everything(lab.client())


def test_a_sweep_is_carried_while_it_goes_on(lab: Lab) -> None:
    """A run is RUNNING with the points it has while it trains, and is ended with the sweep."""
    tracked = Tracked(lab, lab.uri)
    lab.begin(TRIAL)
    tracked.tracker.notify()
    wait_for(lambda: TRIAL in lab.spool.run_ids() and len(history(lab)) == 2)
    assert {run.info.status for run in runs_by_name(lab.client()).values()} == {"RUNNING"}

    lab.spool.epoch(TRIAL, result(3))
    lab.spool.end(TRIAL, "PRUNED")

    assert tracked.close()
    assert tracked.tracker.problem is None
    assert len(history(lab)) == 3
    assert {run.info.status for run in runs_by_name(lab.client()).values()} == {"KILLED", "FINISHED"}
    assert everything(lab.client()) == carried_undisturbed(lab)


def test_what_was_given_up_runs_again(lab: Lab) -> None:
    """An attempt that was carried as cut off is RUNNING again when its sweep goes on with it."""
    lab.spool.start_study(STUDY_METADATA)
    lab.begin(TRIAL)
    lab.sync()
    lab.spool = lab.opened()

    tracked = Tracked(lab, lab.uri)

    wait_for(lambda: {run.info.status for run in runs_by_name(lab.client()).values()} == {"RUNNING"})
    assert tracked.close()


def test_a_refused_attempt_does_not_hold_up_the_end(lab: Lab) -> None:
    """An attempt that MLflow refuses is told once; the others are carried, and the end says not all are."""
    tracked = Tracked(lab, lab.uri)
    wait_for(lambda: lab.spool.run_id(STUDY) is not None)
    refuse(lab.client(), TRIAL)
    lab.begin(TRIAL)
    tracked.tracker.notify()
    assert f"upload of {TRIAL.stem} to MLflow failed" in tracked.next()
    lab.complete(OTHER)
    before = time.monotonic()

    assert not tracked.close()

    assert time.monotonic() - before < LIMIT_S / 2
    assert tracked.said.empty()
    assert runs_by_name(lab.client())["trial 1"].info.status == "FINISHED"


def history(lab: Lab) -> list[float]:
    """Return the points that the trial's run has."""
    run_id = lab.spool.run_ids()[TRIAL]
    return [point.value for point in lab.client().get_metric_history(run_id, "val_loss")]


def wait_for(condition: object) -> None:
    """Return once the condition holds."""
    assert callable(condition)
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_leaderboard_is_carried_when_it_changes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the study is uploaded again after it changed, during the sweep and at its end."""
    monkeypatch.setattr(uploader, "FILES_EVERY_S", 0.01)
    leaderboard = lab.home / "leaderboard.csv"
    tracked = Tracked(lab, lab.uri)
    for content in ("first", "second"):
        leaderboard.write_text(content)
        wait_for(lambda content=content: content in uploaded(lab))

    monkeypatch.setattr(uploader, "FILES_EVERY_S", 1000.0)
    wait_for(lambda: "second" in uploaded(lab))
    leaderboard.write_text("last")

    assert tracked.close()
    assert uploaded(lab) == ["last"]


def uploaded(lab: Lab) -> list[str]:
    """Return the leaderboards among the artifacts."""
    return [path.read_text() for path in lab.artifacts.rglob("leaderboard.csv")]


def test_outages_leave_no_trace(lab: Lab, line: Line) -> None:
    """With the server gone at the start and again in the middle, MLflow ends as if it had never been."""
    line.switch("cut")
    tracked = Tracked(lab, line.uri)
    assert "does not answer" in tracked.next()
    lab.complete(TRIAL)
    lab.begin(BASELINE, n_epochs=1)
    line.switch("up")
    assert tracked.next() == "recovered"

    wait_for(lambda: BASELINE in lab.spool.run_ids())
    line.switch("cut")
    lab.spool.epoch(BASELINE, result(2))
    tracked.tracker.notify()
    assert "does not answer" in tracked.next()
    lab.spool.end(BASELINE, "FAIL", "died")
    lab.complete(OTHER)
    line.switch("up")
    assert tracked.next() == "recovered"

    assert tracked.close()
    assert tracked.said.empty()
    assert everything(plain_client(line.uri)) == carried_undisturbed(lab)


def test_lost_answers_make_no_second_runs(lab: Lab, line: Line) -> None:
    """When the answer to a request is lost, what it made is found and not made again."""
    line.lose_answers_to = {
        b"experiments/create",
        b"runs/create",
        b"runs/log-batch",
        b"logged-models",
        b"runs/update",
    }
    tracked = Tracked(lab, line.uri)
    lab.complete(TRIAL)

    assert tracked.close()

    from mlflow.entities import ViewType

    client = plain_client(line.uri)
    assert line.lose_answers_to == set()
    assert everything(client) == carried_undisturbed(lab)
    # The study's and the trial's; none was made and deleted again.
    assert len(client.search_runs([experiment_id(client)], run_view_type=ViewType.ALL)) == 2


def test_a_silent_server_holds_up_nobody(lab: Lab, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the server is silent the driver writes on and leaves in time; later nothing is missing."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    line.switch("silent")
    before = time.monotonic()
    tracked = Tracked(lab, line.uri)
    lab.begin(BASELINE, n_epochs=100)
    lab.spool.end(BASELINE, "PRUNED")
    assert time.monotonic() - before < 1

    assert not tracked.close(timeout_s=0.5)
    assert time.monotonic() - before < 2

    line.switch("up")
    report = uploader.sync(lab.opened(), line.uri)
    assert report.n_uploaded == 1
    assert everything(plain_client(line.uri)) == carried_undisturbed(lab)


def test_a_dead_server_is_not_waited_for(lab: Lab, line: Line) -> None:
    """A sweep whose server has long been gone ends after one more try."""
    line.switch("cut")
    tracked = Tracked(lab, line.uri)
    assert "does not answer" in tracked.next()
    before = time.monotonic()

    assert not tracked.close()

    assert time.monotonic() - before < 5
    assert tracked.tracker.problem is not None
    assert tracked.said.empty()


def test_a_store_that_stays_away_is_reported_lost_once(lab: Lab, line: Line) -> None:
    """Whoever requires tracking hears of an outage that lasts, and not of one that is soon over."""
    tracked = Tracked(lab, line.uri)
    lost: queue.Queue[str] = queue.Queue()
    tracked.tracker.when_lost(lambda: lost.put("lost"), after_s=0.5)
    wait_for(lambda: lab.spool.run_id(STUDY) is not None)
    line.switch("cut")
    lab.begin(TRIAL)
    tracked.tracker.notify()
    assert "does not answer" in tracked.next()
    line.switch("up")
    assert tracked.next() == "recovered"
    assert lost.empty()

    line.switch("cut")
    lab.spool.end(TRIAL, "PRUNED")
    tracked.tracker.notify()

    assert lost.get(timeout=LIMIT_S) == "lost"
    time.sleep(0.5)
    assert lost.empty()
    assert not tracked.close()


def test_a_damaged_store_stops_no_sweep(lab: Lab) -> None:
    """With a store that cannot be used the sweep goes on, and afterwards a new one gets everything."""
    store = lab.root / "mlflow.db"
    store.write_bytes(store.read_bytes()[:5000])
    tracked = Tracked(lab, lab.uri)
    assert "is damaged" in tracked.next()
    lab.complete(TRIAL)

    assert not tracked.close()

    store.unlink()
    assert lab.sync().n_uploaded == 1
    assert runs_by_name(lab.client())["trial 0"].info.status == "FINISHED"


EXPERIMENT = """\
name = "outage"
[data]
dataset = "fashion-mnist-mini"
folder = "{folder}"
validation = 200
limit = 400
[baseline]
channels = 4
fc_layers = 1
[training]
epochs = 12
[space]
batch_size = [400]
lr = {{ low = 1e-4, high = 1e-2, log = true }}
[search]
trials = 10
pruner = "none"
"""


@pytest.mark.slow
def test_a_sweep_does_not_notice_what_happens_to_its_server(tmp_path: Path) -> None:
    """Its server stalled, killed and started anew, it ends with exit code 0 and everything in MLflow."""
    fixture = MINI_FOLDER
    (tmp_path / "outage.toml").write_text(EXPERIMENT.format(folder=fixture))
    store = tmp_path / "server"
    store.mkdir()
    port = free_port()
    server = start_server(store, port)
    uri = f"http://127.0.0.1:{port}"
    flags = ["--root", "runs", "--tracking-uri", uri, "--device", "cpu", "--workers", "2", "--no-confirm"]
    environment = {
        "PYTHONPATH": str(PROJECT),
        "LENET_EXP_TRAINER": "tests.labs.paced_trainer",
        "LENET_EXP_DATA": str(tmp_path / "data"),
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
    }
    spool, said = tmp_path / "runs" / "outage" / "spool", tmp_path / "said"

    def wait_for_epochs(n: int) -> None:
        """Return when ``n`` more epochs were trained."""
        goal = trained() + n
        wait_for(lambda: trained() >= goal or sweep.poll() is not None)

    def wait_until_said(pattern: str) -> None:
        """Return when the sweep has said so."""
        wait_for(lambda: re.search(pattern, said.read_text()) or sweep.poll() is not None)

    def trained() -> int:
        return sum(path.read_text().count('"event":"epoch"') for path in spool.glob("trial-*.jsonl"))

    try:
        wait_until_healthy(port)
        with said.open("wb") as output:
            sweep = subprocess.Popen(
                [sys.executable, "-m", "lenet_exp.sweep", "outage.toml", *flags],
                cwd=tmp_path,
                env=os.environ | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_for_epochs(2)
        os.killpg(server.pid, signal.SIGSTOP)
        wait_until_said(r"does not answer: .*timed out")
        wait_for_epochs(2)
        os.killpg(server.pid, signal.SIGCONT)
        wait_until_said("answers again")
        wait_for_epochs(2)
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        wait_until_said("does not answer: .*refused|does not answer: .*reset|does not answer: .*closed")
        wait_for_epochs(2)
        assert sweep.poll() is None, said.read_text()
        server = start_server(store, port)
        assert sweep.wait(timeout=2 * LIMIT_S) == 0, said.read_text()
        wait_until_healthy(port)
        recorded = Spool(spool)
        if recorded.pending():  # it ended before its server was back
            uploader.sync(recorded, uri)
        seen = everything(plain_client(uri), "outage")
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    statuses = {seen[name]["info"][0] for name in seen if name != "models"}
    assert statuses == {"FINISHED"}
    assert len(seen) == 1 + 1 + 10 + 1  # the study, the baseline, the trials; how many models
    calm = tmp_path / "calm"
    shutil.copytree(
        tmp_path / "runs" / "outage", calm / "outage", ignore=shutil.ignore_patterns("index.jsonl")
    )
    (calm / "mlflow.db").write_bytes(empty_store())
    uploader.sync(Spool(calm / "outage" / "spool"), mlflow_store.local_uri(calm), calm / "artifacts")
    assert seen == everything(plain_client(mlflow_store.local_uri(calm)), "outage")

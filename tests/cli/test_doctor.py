"""`lenet-exp doctor`: what is wrong is named with what to do, and repaired on request."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lenet_exp.base import files
from lenet_exp.cli import doctor
from lenet_exp.cli.doctor import Check, worst
from lenet_exp.config import loader
from lenet_exp.data.images import training_images
from lenet_exp.study.records import TrialRecord
from lenet_exp.study.study import open_study
from lenet_exp.sweep.fingerprint import fingerprint
from lenet_exp.tracking import store
from lenet_exp.tracking.spool import Spool
from tests.labs.mlflow_lab import everything, plain_client
from tests.labs.studies import read_records
from tests.sweep.test_recovery_sync import EXPERIMENT, arguments, closed_port, command

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture(scope="module")
def original(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment file and what its sweep recorded in ``runs``."""
    folder = tmp_path_factory.mktemp("doctor")
    # With a confirmation, whose plan and readings are the study's alone.
    (folder / "mini.toml").write_text(EXPERIMENT + "[confirm]\ntop = 1\nseeds = 2\n")
    assert command("sweep", *arguments(folder), "--device", "cpu")[0] == 0
    with closing(sqlite3.connect(folder / "runs" / "study.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder


@pytest.fixture
def root(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what was recorded, which the test may spoil; the machine is not looked at each time."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(doctor, "_device", lambda: "a device")
    return tmp_path / "runs"


def visit(root: Path, *flags: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Return the exit code, and by what was looked at whether it is ok and what is said of it."""
    code, out, err = command("doctor", "--root", str(root), *flags)
    assert err == ""
    lines = [re.fullmatch(r"(ok|wrong|repaired) +([\w.-]+): (.+)", line) for line in out.splitlines()]
    return code, {line[2]: (line[1], line[3]) for line in lines if line}


def records(root: Path) -> list[TrialRecord]:
    """Return what the study has, in order."""
    return sorted(read_records("mini", root) or [], key=lambda record: record.key)


def shown(root: Path) -> dict[str, Any]:
    """Return all that MLflow shows."""
    return everything(plain_client(store.local_uri(root)), "mini")


def files_of(root: Path) -> dict[str, bytes]:
    """Return every file that is not SQLite's own."""
    ours = (path for path in root.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm")))
    return {str(path.relative_to(root)): path.read_bytes() for path in ours if path.name != ".lock"}


def aside(path: Path) -> list[bytes]:
    """Return what was moved aside of a store, without SQLite's own files."""
    moved = path.parent.glob(f"{path.name}.damaged-*")
    return [file.read_bytes() for file in moved if not file.name.endswith(("-wal", "-shm"))]


def test_a_machine_in_order_is_told_so(original: Path) -> None:
    """Exit code 0, and a line for everything that was looked at."""
    code, found = visit(original / "runs")

    assert code == 0
    wanted = ["installation", "device", "workers", "data", "disk", "study", "mlflow", "mini"]
    assert list(found) == wanted
    assert {state for state, _ in found.values()} == {"ok"}
    assert found["mini"][1] == "7 attempts, all ended and in MLflow"
    assert re.match(r"lenet_exp \S+, Python 3\.\d+\.\d+, torch 2\.", found["installation"][1])


def test_where_nothing_was_recorded_nothing_is_made(tmp_path: Path) -> None:
    """A first look at a new machine leaves no trace."""
    code, found = visit(tmp_path / "none" / "runs", "--repair")

    assert (code, {state for state, _ in found.values()}) == (0, {"ok"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "text", "gone"])
def test_a_damaged_study_is_rebuilt_from_the_spool(root: Path, damage: str) -> None:
    """Exit code 9; repaired, records and CSV are as before, the damaged file is kept, and once is enough."""
    told, csv = records(root), (root / "mini" / "leaderboard.csv").read_bytes()
    path = root / "study.db"
    content = {"cut": path.read_bytes()[:5_000], "text": b"text" * 1_000, "gone": b""}[damage]
    for file in root.glob("study.db*"):
        file.unlink()
    if damage != "gone":
        path.write_bytes(content)

    code, found = visit(root)
    assert (code, found["study"][0]) == (9, "wrong")
    assert "doctor --repair" in found["study"][1]
    code, found = visit(root, "--repair")
    assert (code, found["study"][0]) == (0, "repaired"), found

    assert records(root) == told
    assert aside(root / "study.db") == ([] if damage == "gone" else [content])
    # What is free on the disk changes meanwhile.
    (code, repaired), (_, looked_at) = visit(root, "--repair"), visit(root)
    assert (code, repaired | {"disk": looked_at["disk"]}) == (0, looked_at)
    assert command("leaderboard", *arguments(root.parent), "--format", "csv")[1].encode() == csv
    mini = loader.load(root.parent / "mini.toml")
    again = open_study(mini.with_precision(told[0].values["precision"]), root)
    again.check_fingerprint(fingerprint(again.experiment, training_images(mini.data)))


def test_a_damaged_store_of_mlflow_s_is_made_anew(root: Path, original: Path) -> None:
    """Exit code 9; repaired, everything is in it again, and the damaged file is kept."""
    for file in root.glob("mlflow.db*"):
        file.unlink()
    (root / "mlflow.db").write_bytes(b"text" * 1_000)

    code, found = visit(root)
    assert (code, found["mlflow"][0]) == (9, "wrong")
    code, found = visit(root, "--repair")

    assert (code, found["mlflow"][0]) == (0, "repaired"), found
    assert shown(root) == shown(original / "runs")
    assert aside(root / "mlflow.db") == [b"text" * 1_000]
    assert visit(root, "--repair")[1]["mlflow"][0] == "ok"


@pytest.mark.parametrize("in_training", [True, False])
def test_what_a_killed_driver_left_is_ended(root: Path, in_training: bool) -> None:
    """Exit code 9; repaired, nothing is RUNNING in study or MLflow, and what was cut off is queued."""
    mini = loader.load(root.parent / "mini.toml")
    study, spool = open_study(mini, root), Spool(root / "mini" / "spool")
    begun = spool.study()
    assert begun is not None
    spool.start_study(begun.metadata)
    if in_training:
        attempt = study.ask()
        assert attempt is not None
        params = attempt.configuration.to_dict()
        metadata = {"params": params, "label": attempt.label, "seed": attempt.seed}
        spool.start(attempt.key, metadata)
    client = plain_client(store.local_uri(root))
    run_id = spool.run_id("study")
    assert run_id is not None
    client.update_run(run_id, status="RUNNING")

    code, found = visit(root)
    assert (code, found["mini"][0]) == (9, "wrong")
    code, found = visit(root, "--repair")

    assert (code, found["mini"][0]) == (0, "repaired"), found
    assert open_study(mini, root).n_waiting() == in_training
    statuses = {name: seen["info"][0] for name, seen in shown(root).items() if name != "models"}
    assert "RUNNING" not in statuses.values()
    before = files_of(root)
    assert visit(root, "--repair")[1]["mini"][0] == "ok"
    assert files_of(root) == before


def test_a_store_of_another_version_is_never_touched(root: Path) -> None:
    """Exit code 9 with what to do, repair or not, and the file is as it was."""
    for name in ("study.db", "mlflow.db"):
        with closing(sqlite3.connect(root / name)) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = 'v9.9.9'")
        with closing(sqlite3.connect(root / name)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = {name: (root / name).read_bytes() for name in ("study.db", "mlflow.db")}

    code, found = visit(root, "--repair")

    assert (code, found["study"][0], found["mlflow"][0]) == (9, "wrong", "wrong")
    assert "has schema v9.9.9" in found["study"][1]
    assert {name: (root / name).read_bytes() for name in before} == before
    assert not list(root.glob("*.damaged-*"))


def test_a_sweep_at_work_is_no_fault(root: Path) -> None:
    """It is said who it is, and nothing of its own is repaired."""
    spool = Spool(root / "mini" / "spool")
    begun = spool.study()
    assert begun is not None
    spool.start_study(begun.metadata)
    with files.lock(root / "mini" / ".lock"):
        code, found = visit(root, "--repair")

    assert (code, found["mini"][0]) == (0, "ok")
    assert f"a sweep is at work: pid {os.getpid()} since" in found["mini"][1]


def test_a_server_that_is_gone_and_a_full_disk_are_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its own exit code, the disk's first, and without the password."""
    uri = f"http://ann:s3cret@127.0.0.1:{closed_port()}"
    code, found = visit(root, "--tracking-uri", uri)
    assert (code, found["mlflow"][0]) == (7, "wrong")
    assert "http://***@127.0.0.1" in found["mlflow"][1]

    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", 10**18)
    code, found = visit(root, "--tracking-uri", uri)
    assert (code, found["disk"][0], found["mlflow"][0]) == (5, "wrong", "wrong")
    assert "make room" in found["disk"][1]


def test_what_mlflow_has_missed_is_carried(root: Path, original: Path) -> None:
    """Exit code 7; repaired, MLflow has it."""
    (root / "mini" / "spool" / "index.jsonl").unlink()

    code, found = visit(root)
    assert (code, found["mini"][0]) == (7, "wrong")
    code, found = visit(root, "--repair")

    assert (code, found["mini"][0]) == (0, "repaired"), found
    assert shown(root) == shown(original / "runs")


def test_the_exit_code_is_that_of_the_most_urgent_check() -> None:
    """A damaged store comes before a full disk, a full disk before a server that is gone."""
    assert worst([]) == 0
    assert worst([Check("a", "", 7), Check("b", "", 5)]) == 5
    assert worst([Check("a", "", 5), Check("b", "", 9)]) == 9

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from lenet_exp.base.errors import StoreError
from lenet_exp.study.storage import close, flush, open_storage, read_storage
from tests.labs.documents import copied_study
from tests.labs.swept import Swept


def test_the_journal_is_one_that_a_killed_writer_cannot_corrupt(tmp_path: Path) -> None:
    """WAL is set on the file itself, so whoever opens it later uses it."""
    open_storage(tmp_path)

    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_commits_do_not_wait_for_the_disk_and_a_flush_does(tmp_path: Path) -> None:
    """What is told is flushed; the commits before it are not."""
    storage = open_storage(tmp_path)
    with storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL

    optuna.create_study(storage=storage)
    flush(tmp_path)
    flush(tmp_path / "none")


def test_a_write_that_a_signal_has_cut_off_holds_nobody_up(tmp_path: Path) -> None:
    """Its transaction is rolled back, whoever still refers to it, and the next writer finds the file free."""
    storage = open_storage(tmp_path)
    left = storage.engine.connect()
    left.exec_driver_sql("CREATE TABLE half (n INTEGER)")
    left.exec_driver_sql("INSERT INTO half VALUES (1)")
    began = time.monotonic()

    close(storage)

    assert time.monotonic() - began < 5
    with closing(sqlite3.connect(tmp_path / "study.db", timeout=0)) as connection:
        connection.execute("BEGIN IMMEDIATE")


def test_an_end_does_not_wait_for_who_reads(tmp_path: Path) -> None:
    """The journal then stays beside the file, with all that was told."""
    storage = open_storage(tmp_path)
    with closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM studies").fetchall()
        optuna.create_study(storage=storage, study_name="told")
        began = time.monotonic()

        close(storage)

        assert time.monotonic() - began < 10
    assert [study.study_name for study in open_storage(tmp_path).get_all_studies()] == ["told"]


def test_what_is_only_read_is_not_made(tmp_path: Path) -> None:
    """Looking for results leaves no empty file behind."""
    assert read_storage(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("found", "advice"),
    [
        ("v9.9.9", "install the newer Optuna that wrote it"),
        (
            "v2.4.0.a",
            r"copy it to .*/study.db.v2.4.0.a, then run 'optuna storage upgrade --storage sqlite:///",
        ),
    ],
)
def test_a_storage_of_another_version_is_refused_and_left_as_it_is(
    tmp_path: Path, way: str, found: str, advice: str
) -> None:
    """Nothing is migrated behind the user's back; the message has both versions and what to do."""
    open_storage(tmp_path)
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (found,))
        connection.commit()
    before = (tmp_path / "study.db").read_bytes()

    with pytest.raises(
        StoreError, match=rf"has schema {found}, Optuna {optuna.__version__} wants v\S+; {advice}"
    ):
        open_storage(tmp_path)

    assert (tmp_path / "study.db").read_bytes() == before


def test_a_storage_on_a_disk_that_is_read_only_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what lies in the journal is read, from a copy, and nothing is written beside the original."""
    study = optuna.create_study(storage=open_storage(tmp_path), study_name="s")
    study.tell(study.ask(), 0.5)
    before = sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir())
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK and Path(path) == tmp_path))

    storage = read_storage(tmp_path)

    assert storage is not None
    assert optuna.load_study(study_name="s", storage=storage).best_value == 0.5
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_storage_is_refused_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    """Exit code 9, with the path; the file can still be looked at."""
    optuna.create_study(storage=open_storage(tmp_path))
    path = tmp_path / "study.db"
    path.write_bytes(path.read_bytes()[:5_000] if damage == "cut" else b"not a database, but text" * 100)
    for beside in ("study.db-wal", "study.db-shm"):
        (tmp_path / beside).unlink(missing_ok=True)
    before = path.read_bytes()

    with pytest.raises(StoreError, match=r"study\.db: the study's storage is damaged: .*doctor --repair"):
        open_storage(tmp_path)

    assert path.read_bytes() == before


def test_a_copy_for_other_tools_says_what_a_trial_is(swept_once: Swept, tmp_path: Path) -> None:
    """The documented command copies a study that Optuna's tools can read, with a label on each trial."""
    copy = copied_study(swept_once.root, tmp_path)

    study = optuna.load_study(study_name="swept", storage=f"sqlite:///{copy}")

    assert [trial.user_attrs["label"] for trial in study.trials] == ["trial 0", "trial 1", "trial 2"]

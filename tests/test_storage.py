import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from lenet_exp.errors import StoreError
from lenet_exp.storage import flush, open_storage, read_storage


def test_the_journal_is_one_that_a_killed_writer_cannot_corrupt(tmp_path: Path) -> None:
    """WAL is set on the file itself, so whoever opens it later uses it."""
    open_storage(tmp_path)

    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_commits_do_not_wait_for_the_disk_and_a_flush_does(tmp_path: Path) -> None:
    """What is told is flushed; the thirty commits before it are not."""
    storage = open_storage(tmp_path)
    with storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL

    optuna.create_study(storage=storage)
    flush(tmp_path)
    flush(tmp_path / "none")


def test_what_is_only_read_is_not_made(tmp_path: Path) -> None:
    """Looking for results leaves no empty file behind."""
    assert read_storage(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_storage_of_another_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """Nothing is migrated behind the user's back; the message says what is installed."""
    open_storage(tmp_path)
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.9.9'")
        connection.commit()
    before = (tmp_path / "study.db").read_bytes()

    with pytest.raises(StoreError, match=rf"not of Optuna {optuna.__version__}"):
        open_storage(tmp_path)

    assert (tmp_path / "study.db").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_storage_is_refused_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    """Exit code 9, with the path; the file can still be looked at."""
    optuna.create_study(storage=open_storage(tmp_path))
    path = tmp_path / "study.db"
    path.write_bytes(path.read_bytes()[:5_000] if damage == "cut" else b"not a database, but text" * 100)
    for beside in ("study.db-wal", "study.db-shm"):
        (tmp_path / beside).unlink(missing_ok=True)
    before = path.read_bytes()

    with pytest.raises(StoreError, match=r"study\.db: the study's storage is damaged"):
        open_storage(tmp_path)

    assert path.read_bytes() == before

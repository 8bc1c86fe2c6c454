from __future__ import annotations

import json
import shutil
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from lenet_exp.base.errors import ConfigError, StoreError, UnreachableError
from lenet_exp.tracking import store as mlflow_store
from lenet_exp.tracking.model import FILES, log_file, mark
from lenet_exp.tracking.store import check_reachable, connect, local_uri, reason


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store made by us."""
    root = tmp_path_factory.mktemp("made") / "rööt of runs"
    mlflow_store.connect(local_uri(root), root / "artifacts")
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A folder with an empty store."""
    shutil.copy(made / "mlflow.db", tmp_path)
    return tmp_path


def test_a_reason_is_one_plain_line() -> None:
    """What is told of an error is its root cause in one short line, without secrets or control characters."""
    try:
        try:
            raise ConnectionRefusedError("no\n\x1b[31mhttp://ann:s3cret@host " + "x" * 300)
        except OSError as error:
            raise RuntimeError("long story") from error
    except RuntimeError as error:
        told = reason(error)

    assert told.startswith("no [31mhttp://***@host xxx")
    assert len(told) <= 200
    assert told.isprintable()


def test_an_error_without_words_has_its_name() -> None:
    """An error that says nothing is told by its name."""
    assert reason(TimeoutError()) == "TimeoutError"


@pytest.mark.parametrize("name", ["50%", "why?", "a#b"])
def test_a_path_that_mlflow_misreads_is_refused(tmp_path: Path, name: str) -> None:
    """MLflow would keep its store elsewhere than where such a path says."""
    with pytest.raises(ConfigError, match="choose another --root"):
        local_uri(tmp_path / name)


def test_a_store_is_made_whole(made: Path) -> None:
    """A store that is made is in WAL mode, with nothing of its making left and nothing outside."""
    with closing(sqlite3.connect(made / "mlflow.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT artifact_location FROM experiments").fetchall() == [
            ((made / "artifacts" / "0").as_uri(),)
        ]
    assert {path.name for path in made.iterdir()} <= {"mlflow.db", "mlflow.db-wal", "mlflow.db-shm"}


def test_two_makers_share_one_store(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that another sweep made while we were making ours is used as it is."""
    shutil.copy(made / "mlflow.db", tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE experiments SET name = 'theirs'")
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name != "mlflow.db" and exists(path))

    mlflow_store.prepare(local_uri(tmp_path))

    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        assert connection.execute("SELECT name FROM experiments").fetchall() == [("theirs",)]


def truncate(path: Path) -> None:
    """Cut the file as a bad copy does."""
    path.write_bytes(path.read_bytes()[:5000])


def scribble(path: Path) -> None:
    """Write over pages in the middle."""
    content = bytearray(path.read_bytes())
    content[8192:65536] = b"\xff" * (65536 - 8192)
    path.write_bytes(content)


def replace_by_text(path: Path) -> None:
    """Put something else there."""
    path.write_text("rank,role\n" * 1000)


def replace_by_other(path: Path) -> None:
    """Put another program's database there."""
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE trials (n INTEGER)")


def empty_version(path: Path) -> None:
    """Leave the table of the version, but no version."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM alembic_version")


def age(path: Path) -> None:
    """Make it a store of another version."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0123456789ab'")


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (truncate, "is damaged: .*run 'lenet-exp doctor --repair --root "),
        (scribble, "is damaged: .*moves it aside"),
        (replace_by_text, "is damaged: file is not a database; run "),
        (replace_by_other, "is not an MLflow store: no such table"),
        (empty_version, "is damaged"),
        (age, "has schema 0123456789ab, MLflow .* wants .*; copy it, then run 'mlflow db upgrade sqlite:///"),
    ],
)
def test_a_store_that_cannot_be_used_is_told(root: Path, spoil: Callable[[Path], None], match: str) -> None:
    """A damaged or foreign store is told with what to do, and left as it is."""
    path = root / "mlflow.db"
    spoil(path)
    before = path.read_bytes()

    with pytest.raises(StoreError, match=match):
        check_reachable(local_uri(root))

    assert path.read_bytes() == before


def test_a_store_that_answers_is_reachable(root: Path) -> None:
    """A store in order raises nothing."""
    check_reachable(local_uri(root))


def test_a_refusing_server_is_unreachable() -> None:
    """A port on which nobody listens is told at once, without the password."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://ann:s3cret@127.0.0.1:{closed.getsockname()[1]}"

        with pytest.raises(
            UnreachableError, match=r"store http://\*\*\*@127\.0\.0\.1:\d+ does not answer: .*refused"
        ):
            check_reachable(uri)


def test_a_silent_server_is_unreachable() -> None:
    """A server that takes the request and says nothing is given up in time."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"

        with pytest.raises(
            UnreachableError,
            match=r"does not answer: no answer within 0\.3 s; start it, or name another with --tracking-uri",
        ):
            check_reachable(uri, timeout_s=0.3)


def test_a_file_is_added_to_a_run(root: Path, tmp_path: Path) -> None:
    """It is among the run's artifacts and in its list of files; a run that is not there is told, not made."""
    client = connect(local_uri(root))
    experiment = client.create_experiment("files", artifact_location=(tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"picture")

    log_file(local_uri(root), run, picture)

    assert [file.path for file in client.list_artifacts(run)] == ["picture.png"]
    assert FILES not in client.get_run(run).data.tags
    client.set_tag(run, FILES, '{"other.png": [1, "2"]}')
    log_file(local_uri(root), run, picture, "figures")
    noted = json.loads(client.get_run(run).data.tags[FILES])
    assert noted == {"other.png": [1, "2"], "figures/picture.png": mark(b"picture")}
    with pytest.raises(UnreachableError, match=r"did not accept .*: .*0000"):
        log_file(local_uri(root), "0" * 32, picture)


def test_a_store_on_a_read_only_disk_is_not_called_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has it open, so to close other programs would not help."""
    monkeypatch.setattr("os.access", lambda *_: False)

    said = str(mlflow_store.no_answer("sqlite:////disk/mlflow.db", "unable to open database file"))

    assert "locked" not in said
    assert "/disk cannot be written; copy it" in said

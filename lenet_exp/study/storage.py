"""Where the studies are kept, in a SQLite file or PostgreSQL: made, checked before it is used, and opened."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import optuna
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from lenet_exp.base.errors import DiskError, StoreError, UnreachableError, mask_url
from lenet_exp.base.files import sync_file
from lenet_exp.base.layout import study_db
from lenet_exp.study import postgres
from lenet_exp.study.rdb import TrialStorage


def preload() -> None:
    """Load what Optuna loads when a storage is first opened, which takes half a second."""
    TrialStorage("sqlite://").engine.dispose()


def open_storage(root: Path, url: str | None = None) -> TrialStorage:
    """Return the study storage below ``root``, or at a URL of PostgreSQL's; it is made if need be.

    Raises:
        StoreError: If it is damaged or of another version.
        UnreachableError: If it does not answer.
    """
    if url:
        return _of_this_version(partial(postgres.connect, url), mask_url(url), mask_url(url))
    _prepare(study_db(root))
    return _connect(root)


def read_storage(root: Path, url: str | None = None) -> TrialStorage | None:
    """Return the study storage below ``root``, or at a URL, for reading; None if there is none.

    Raises:
        StoreError: If it is damaged or of another version.
        UnreachableError: If it does not answer.
    """
    if url:
        return open_storage(root, url)
    path = study_db(root)
    if not path.exists():
        return None
    if not os.access(root, os.W_OK):
        root = _copy(path)
    _check(study_db(root))
    return _connect(root)


def close(storage: TrialStorage) -> None:
    """Let go of a SQLite file, into which all of its journal has been folded."""
    storage.remove_session()
    with storage.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    storage.engine.dispose()


def running_studies(storage: TrialStorage) -> dict[str, int]:
    """Return the names of the studies with trials RUNNING, and how many each has."""
    running = (optuna.trial.TrialState.RUNNING,)
    found = {
        name: len(
            storage.get_all_trials(storage.get_study_id_from_name(name), deepcopy=False, states=running)
        )
        for name in (study.study_name for study in storage.get_all_studies())
    }
    return {name: count for name, count in found.items() if count}


def _copy(path: Path) -> Path:
    """Return a folder with a copy of the file, which lasts as long as this process.

    SQLite cannot read a file in WAL mode where it may not write beside it.
    """
    folder = Path(tempfile.mkdtemp(prefix="lenet-exp-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for source in path.parent.glob(f"{path.name}*"):
        if source.name in (path.name, f"{path.name}-wal"):
            shutil.copyfile(source, folder / source.name)
    return folder


@contextmanager
def full_disk_named(root: Path) -> Iterator[None]:
    """Say that there is no space where the storage below ``root`` could not be written for that reason.

    Raises:
        DiskError: In the place of what the database raised.
    """
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        reasons = f"{error} {error.__cause__}"
        if "disk is full" not in reasons and "disk I/O error" not in reasons:
            raise
        raise DiskError(
            f"{study_db(root)}: no space left on its disk; make room and run the same command again"
        ) from error


def _connect(root: Path) -> TrialStorage:
    path = study_db(root)
    url = f"sqlite:///{path.resolve()}"
    engine = {"connect_args": {"timeout": 60}}
    connect = partial(TrialStorage, url, engine_kwargs=engine)
    try:
        storage = _of_this_version(connect, str(path), url)
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        raise UnreachableError(f"{path}: the study's storage does not answer: {reason}") from None
    sqlalchemy.event.listen(storage.engine, "connect", _without_sync)
    storage.engine.dispose()  # of the connections that were made before
    return storage


def _without_sync(connection: sqlite3.Connection, _: object) -> None:
    """Let commits reach the disk when the system likes, which no crash but the system's can show.

    A trial has a commit for each epoch, and a wait of milliseconds for each of them would be most of the
    driver's work. What must be on the disk, `flush` sees there.
    """
    connection.execute("PRAGMA synchronous=NORMAL")


def flush(root: Path) -> None:
    """Return when all that was committed is on the disk, so that no power cut undoes it."""
    journal = study_db(root).with_name(f"{study_db(root).name}-wal")
    if journal.exists():
        sync_file(journal)


def _of_this_version(connect: Callable[..., TrialStorage], where: str, url: str) -> TrialStorage:
    """Return what ``connect`` returns, unless it is of another version, which is never migrated."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    try:
        return connect()
    except RuntimeError:  # the schema's version
        unchecked = connect(skip_compatibility_check=True)
    found, wanted = unchecked.get_current_version(), unchecked.get_head_version()
    older = found in unchecked.get_all_versions()
    unchecked.engine.dispose()
    backup = f"copy it to {where}.{found}" if url.startswith("sqlite") else "back it up with pg_dump"
    advice = (
        f"{backup}, then run 'optuna storage upgrade --storage {url}'"
        if older
        else "install the newer Optuna that wrote it"
    )
    raise StoreError(f"{where}: has schema {found}, Optuna {optuna.__version__} wants {wanted}; {advice}")


def _check(path: Path) -> None:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as connection:
            # What it finds can have several lines.
            found = " ".join(connection.execute("PRAGMA quick_check(1)").fetchone()[0].split())
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        raise StoreError(
            f"{path}: the study's storage is damaged: {found}; "
            "'lenet-exp doctor --repair' moves it aside and rebuilds it from the spool"
        )


def _prepare(path: Path) -> None:
    """Check the file if it is there, and set its journal to WAL, which a killed writer cannot corrupt."""
    if path.exists():
        _check(path)
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")

"""Opens the studies' storage, a SQLite file or a PostgreSQL database, once it is checked or created."""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from lenet_exp.base.errors import DiskError, LockedError, StoreError, UnreachableError, mask_url
from lenet_exp.base.files import check_database, sync_file
from lenet_exp.base.layout import study_db
from lenet_exp.base.lineage import MARK, Lineage
from lenet_exp.base.messages import repair_command
from lenet_exp.study import postgres
from lenet_exp.study.rdb import TrialStorage

#: Milliseconds that a sweep's end waits for those who read the study, before it leaves the journal as it is.
_READERS_MS = 1000


def preload() -> None:
    """Import, ahead of time, the modules that Optuna needs to open a storage, which takes half a second.

    Call it while waiting for something else, as a sweep does for the fork server (experiments/LOG.md, Speed:
    the start, the end, and what lies between trainings).
    """
    TrialStorage("sqlite://").engine.dispose()


def open_storage(root: Path, url: str | None = None) -> TrialStorage:
    """Open the studies' storage, and create it if there is none.

    Args:
        root: Folder of everything that runs write, with the SQLite file.
        url: URL of a PostgreSQL database to use instead of the SQLite file; None for the file.

    Raises:
        ConfigError: If ``url`` is not a PostgreSQL URL, or psycopg is not installed.
        StoreError: If the storage is damaged, or another version of Optuna wrote it.
        UnreachableError: If the storage does not answer.
    """
    if url:
        return _of_this_version(partial(postgres.connect, url), mask_url(url), mask_url(url))
    _prepare(study_db(root))
    return _connect(root)


def read_storage(root: Path, url: str | None = None) -> TrialStorage | None:
    """Open the studies' storage for reading, or return None if there is no SQLite file.

    A file in a folder that this process may not write to is copied first.

    Args:
        root: Folder of everything that runs write, with the SQLite file.
        url: URL of a PostgreSQL database to use instead of the SQLite file; None for the file.

    Raises:
        ConfigError: If ``url`` is not a PostgreSQL URL, or psycopg is not installed.
        StoreError: If the storage is damaged, or another version of Optuna wrote it.
        UnreachableError: If the storage does not answer.
    """
    if url:
        return open_storage(root, url)
    path = study_db(root)
    check_database(path)
    if is_empty(root):
        return None
    if not os.access(root, os.W_OK):
        root = _copy(path)
    _check(study_db(root))
    return _connect(root)


def is_empty(root: Path) -> bool:
    """Return True if there is no SQLite file below ``root``, or one of zero bytes, which holds nothing."""
    path = study_db(root)
    return not path.exists() or (path.is_file() and path.stat().st_size == 0)


#: Optuna studies with the numbers of their trials and of those that have ended, and the study's mark.
_CONTENT = """
    SELECT s.study_name,
      (SELECT count(*) FROM trials t WHERE t.study_id = s.study_id),
      (SELECT count(*) FROM trials t WHERE t.study_id = s.study_id AND t.state NOT IN ('RUNNING', 'WAITING')),
      (SELECT a.value_json FROM study_user_attributes a WHERE a.study_id = s.study_id AND a.key = :mark)
    FROM studies s WHERE s.study_name = :first OR s.study_name = :second
"""


#: Values of studies and trials that SQLite takes for no JSON; Python's NaN is among them.
_NO_JSON = " UNION ALL ".join(
    f"SELECT value_json FROM {table} WHERE NOT json_valid(value_json)"
    for table in ("study_user_attributes", "trial_user_attributes")
)


def ensure_stored(
    storage: TrialStorage, root: Path, url: str | None, written: Mapping[str, tuple[int, int, Any]]
) -> None:
    """Check that the storage still has what this process has written to it.

    A SQLite file is opened anew by its path, as an open connection would not see that it was replaced.

    Args:
        storage: Storage that was written to.
        root: Folder of everything that runs write.
        url: URL of the studies' storage in PostgreSQL; None for the file below ``root``.
        written: Numbers of trials and of ended trials, and the mark of the lineage, None without one; for
            each of the two Optuna studies by its name.

    Raises:
        LockedError: If another sweep has begun since, as it may once the lock was lost.
        StoreError: If the study was deleted, emptied, or replaced by another or an older one.
    """
    first, second = written
    names = {"first": first, "second": second, "mark": MARK}
    try:
        if url:
            rows = storage.rows(_CONTENT, names)
        else:
            with closing(_read_only(study_db(root))) as connection:
                rows = connection.execute(_CONTENT, names).fetchall()
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            return  # somebody else is writing to it, so it is there
        rows = []
    content = {row[0]: (row[1], row[2], _mark(row[3])) for row in rows}
    for name, (n_trials, n_ended, mark) in written.items():
        stored = content.get(name, (-1, -1, None))
        if stored[0] < n_trials or stored[1] < n_ended or stored[2] != mark:
            where = f"{mask_url(url) if url else study_db(root)}: the study {first.partition('/')[0]!r}"
            if mark and Lineage.of_mark(stored[2]).follows(Lineage.of_mark(mark)):
                raise LockedError(f"{where} is another sweep's by now; this one stops, and leaves it alone")
            raise StoreError(
                f"{where} was deleted, emptied or replaced while the sweep was at work; nothing is lost:"
                f" put it back, or run '{repair_command(root, url)}', which restores it from the spool;"
                " then run the same command again"
            )


@contextmanager
def damaged_rows_told(name: str, root: Path, url: str | None = None) -> Iterator[None]:
    """Context manager: tell which study it is whose rows cannot be read, and what to do.

    Args:
        name: Name of the experiment.
        root: Folder of everything that runs write.
        url: URL of the studies' storage in PostgreSQL; None for the file below ``root``.

    Raises:
        StoreError: If rows of the study were deleted or changed, so that it cannot be read.
    """
    try:
        yield
    # Optuna asserts what its tables should have.
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or "a row is missing"
        raise StoreError(
            f"{mask_url(url) if url else study_db(root)}: the study {name!r} is damaged: {reason};"
            f" put the right one back, or run '{repair_command(root, url)}', which restores it from the spool"
        ) from None


def _mark(text: str | None) -> Any:
    """Return the mark that is stored as JSON; None if it was replaced by something else."""
    with suppress(TypeError, ValueError):
        return json.loads(text or "")
    return None


def set_aside(storage: TrialStorage, name: str) -> str | None:
    """Rename an experiment's Optuna studies, so that it can be restored under their names; delete nothing.

    Args:
        storage: Storage that holds them.
        name: Name of the experiment.

    Returns:
        The new name, which ends in the time; None if the storage has no study of this name.
    """
    aside = f"{name} set aside {time.strftime('%Y%m%d-%H%M%S')}"
    query = sqlalchemy.text("UPDATE studies SET study_name = :new WHERE study_name = :old")
    with storage.engine.begin() as connection:
        renamed = [
            connection.execute(query, {"old": f"{name}{part}", "new": f"{aside}{part}"}).rowcount
            for part in ("", "/fixed")
        ]
    return aside if any(renamed) else None


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=60)


def close(storage: TrialStorage) -> None:
    """Write the journal of a SQLite storage into the file itself, if there is room, and close the storage."""
    # A write that a signal interrupted may have left its session unusable, and its transaction open, for
    # which the journal, and whoever writes next, would wait for a minute.
    with suppress(SQLAlchemyError):
        storage.remove_session()
    for opened in storage.opened:
        with suppress(sqlite3.Error):
            opened.rollback()
    with suppress(SQLAlchemyError), storage.engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA busy_timeout={_READERS_MS}")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    storage.engine.dispose()
    for opened in storage.opened:
        with suppress(sqlite3.Error):
            opened.close()
    storage.opened.clear()


def is_running(storage: TrialStorage, study_name: str) -> bool:
    """Return True if an Optuna study has RUNNING trials; all are read, so that damaged ones raise an error.

    Args:
        storage: Storage of the studies.
        study_name: Name of the Optuna study; there may be none of this name.
    """
    try:
        study_id = storage.get_study_id_from_name(study_name)
    except KeyError:
        return False
    trials = storage.get_all_trials(study_id, deepcopy=False)
    return any(trial.state == optuna.trial.TrialState.RUNNING for trial in trials)


def _copy(path: Path) -> Path:
    """Copy a SQLite file to a new folder and return the folder, which is deleted when this process ends.

    SQLite cannot read a file in WAL mode if it may not write to the file's folder.
    """
    folder = Path(tempfile.mkdtemp(prefix="lenet-exp-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for source in path.parent.glob(f"{path.name}*"):
        if source.name in (path.name, f"{path.name}-wal"):
            shutil.copyfile(source, folder / source.name)
    return folder


@contextmanager
def full_disk_named(root: Path) -> Iterator[None]:
    """Context manager: replace the database's error for a full disk by one that names the SQLite file.

    Raises:
        DiskError: If the ``with`` block could not write to the storage below ``root`` for lack of space.
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
    sqlalchemy.event.listen(storage.engine, "connect", lambda opened, _: storage.opened.append(opened))
    storage.engine.dispose()  # closes the connections that were opened without the setting
    return storage


def _without_sync(connection: sqlite3.Connection, _: object) -> None:
    """Set synchronous=NORMAL: a process crash loses no commit, but a power cut may lose the last ones.

    So `flush` waits for the disk when a trial ends: once, instead of 33 times a trial (experiments/LOG.md,
    Speed: where the time of a training step goes, what helped and what did not).
    """
    connection.execute("PRAGMA synchronous=NORMAL")


def flush(root: Path) -> None:
    """Wait until every commit to the SQLite file below ``root`` is on the disk, safe from a power cut."""
    journal = study_db(root).with_name(f"{study_db(root).name}-wal")
    if journal.exists():
        sync_file(journal)


def _of_this_version(connect: Callable[..., TrialStorage], where: str, url: str) -> TrialStorage:
    """Open the storage with ``connect``, and return it if its schema is that of the installed Optuna.

    Args:
        connect: Function that opens the storage; takes keyword arguments of `TrialStorage`.
        where: File or masked URL of the storage, for the error message.
        url: SQLAlchemy's URL of the storage, without secrets, for the command in the error message.

    Raises:
        StoreError: If another version of Optuna wrote the storage; it is never migrated.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    try:
        return connect()
    except RuntimeError:  # Optuna's, for a schema of another version
        unchecked = connect(skip_compatibility_check=True)
    stored, wanted = unchecked.get_current_version(), unchecked.get_head_version()
    older = stored in unchecked.get_all_versions()
    unchecked.engine.dispose()
    backup = f"copy it to {where}.{stored}" if url.startswith("sqlite") else "back it up with pg_dump"
    advice = (
        f"{backup}, then run 'optuna storage upgrade --storage {url}'"
        if older
        else "install the newer Optuna that wrote it"
    )
    raise StoreError(f"{where}: has schema {stored}, Optuna {optuna.__version__} wants {wanted}; {advice}")


def _check(path: Path) -> None:
    try:
        with closing(_read_only(path)) as connection:
            # SQLite's answer can have several lines.
            verdict = " ".join(connection.execute("PRAGMA quick_check(1)").fetchone()[0].split())
            # One such value keeps Optuna from reading any study. A file without the tables is a new one.
            with suppress(sqlite3.OperationalError):
                for (text,) in connection.execute(_NO_JSON) if verdict == "ok" else ():
                    json.loads(text)
    except (TypeError, ValueError):
        verdict = "it has a value that is no JSON"
    except sqlite3.DatabaseError as error:
        verdict = str(error)
    if verdict != "ok":
        raise StoreError(
            f"{path}: the study's storage is damaged: {verdict}; "
            f"'{repair_command(path.parent)}' moves it aside and rebuilds it from the spool"
        )


def _prepare(path: Path) -> None:
    """Check the SQLite file if it exists, and set its journal to WAL, which no killed writer can corrupt."""
    check_database(path)
    if path.exists():
        _check(path)
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")

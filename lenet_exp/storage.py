"""The SQLite file that holds the studies: made, checked before it is used, and opened."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
from sqlalchemy.exc import SQLAlchemyError

from lenet_exp.errors import DiskError, StoreError, UnreachableError


def storage_path(root: Path) -> Path:
    """Return where the storage below ``root`` is, whether it exists or not."""
    return root / "study.db"


def open_storage(root: Path) -> optuna.storages.RDBStorage:
    """Return the study storage below ``root``, which is made if need be.

    Raises:
        StoreError: If it is damaged or of another version.
        UnreachableError: If it does not answer.
    """
    _prepare(storage_path(root))
    return _connect(root)


def read_storage(root: Path) -> optuna.storages.RDBStorage | None:
    """Return the study storage below ``root`` for reading; None if there is none.

    Raises:
        StoreError: If it is damaged or of another version.
        UnreachableError: If it does not answer.
    """
    path = storage_path(root)
    if not path.exists():
        return None
    _check(path)
    return _connect(root)


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
            f"{storage_path(root)}: no space left on its disk; make room and run the same command again"
        ) from error


def _connect(root: Path) -> optuna.storages.RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    path = storage_path(root)
    try:
        return optuna.storages.RDBStorage(
            f"sqlite:///{path.resolve()}", engine_kwargs={"connect_args": {"timeout": 60}}
        )
    except RuntimeError as error:  # the schema's version
        reason = str(error).splitlines()[0]
        raise StoreError(
            f"{path}: not of Optuna {optuna.__version__}, which is installed: {reason}"
        ) from None
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        raise UnreachableError(f"{path}: the study's storage does not answer: {reason}") from None


def _check(path: Path) -> None:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as connection:
            found = connection.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        raise StoreError(f"{path}: the study's storage is damaged: {found}; restore a copy, or move it away")


def _prepare(path: Path) -> None:
    """Check the file if it is there, and set its journal to WAL, which a killed writer cannot corrupt."""
    if path.exists():
        _check(path)
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")

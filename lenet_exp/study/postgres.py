"""A study's storage in PostgreSQL: reached in time, held by one driver, and waited for when it restarts."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import optuna
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from lenet_exp.base.errors import ConfigError, LockedError, UnreachableError, mask_url
from lenet_exp.study.rdb import TrialStorage

if TYPE_CHECKING:
    import psycopg

#: Seconds for which a storage that has gone is waited for.
PATIENCE_S = 600.0
#: Seconds between two tries: at first, and at most.
BACKOFF_S = (0.2, 10.0)
#: Seconds that a connection may take, for each address of the host.
CONNECT_S = 5

#: What Optuna asks of a storage in a sweep; each is one transaction.
_OPERATIONS = (
    "create_new_study",
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    "get_all_trials",
    "get_trial_id_from_study_id_trial_number",
    "write_trial",
)


def parsed(text: str) -> URL:
    """Return the URL, with the driver that we use.

    Raises:
        ConfigError: If it is none of PostgreSQL's, or the driver is not installed.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError("--storage must be a URL such as postgresql://user@host/database") from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigError(f"--storage must be a postgresql:// URL, found {mask_url(text)}")
    try:
        import psycopg  # noqa: F401 - only whether it is there
    except ImportError:
        raise ConfigError("--storage needs psycopg; run: pip install 'lenet_exp[postgres]'") from None
    return url.set(drivername="postgresql+psycopg")


def connect(text: str, **options: Any) -> PatientStorage:
    """Return the storage at the URL; its tables are made if need be, ``options`` are Optuna's.

    Raises:
        ConfigError: If the URL is none of PostgreSQL's, or its driver is not installed.
        UnreachableError: If it does not answer, or does not let us in.
    """
    url = parsed(text)
    engine = {
        "pool_pre_ping": True,
        "connect_args": {"connect_timeout": CONNECT_S, "application_name": _ourselves()},
    }
    try:
        storage = PatientStorage(url.render_as_string(hide_password=False), engine_kwargs=engine, **options)
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise _unreachable(text, error) from None
    # The pool's connections are closed with the storage, and not found open when Python ends.
    weakref.finalize(storage, storage.engine.dispose)
    return storage


class PatientStorage(TrialStorage):
    """Optuna's storage, whose every operation is tried again while the server is gone.

    An operation may have been done though its answer was lost; each can be done twice.
    """

    #: Told in one line when the server goes, and when it is back.
    on_problem: Callable[[str], None] = staticmethod(lambda _: None)
    #: Called when the server is back, before anything is written.
    on_return: Callable[[], None] = staticmethod(lambda: None)
    _is_inside = False
    _has_given_up = False

    def _persist(self, name: str, operation: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self._is_inside:  # an operation within another, which is tried again as a whole
            return operation(self, *args, **options)
        self._is_inside = True
        wait_s, gone_since = BACKOFF_S[0], None
        try:
            while True:
                try:
                    if gone_since is None:
                        return operation(self, *args, **options)
                    self.on_return()
                    if name == "write_trial":
                        options["again"] = True
                    result = operation(self, *args, **options)
                    self.on_problem("the study's storage answers again; nothing was lost")
                    return result
                except (SQLAlchemyError, optuna.exceptions.StorageInternalError, UnreachableError) as error:
                    if not _is_gone(error):
                        raise
                    now = time.monotonic()
                    if gone_since is None:
                        gone_since = now
                        self.on_problem(f"{_reason(error)}; the study's storage is waited for")
                    if self._has_given_up or now - gone_since >= PATIENCE_S:
                        self._has_given_up = True
                        raise UnreachableError(
                            f"the study's storage has been gone for {now - gone_since:.0f} s: "
                            f"{_reason(error)}; run the same command again when it is back"
                        ) from None
                    time.sleep(wait_s)
                    wait_s = min(2 * wait_s, BACKOFF_S[1])
        finally:
            self._is_inside = False


def _patient(name: str) -> Callable[..., Any]:
    operation = getattr(PatientStorage, name)

    @functools.wraps(operation)
    def persist(self: PatientStorage, *args: Any, **options: Any) -> Any:
        return self._persist(name, operation, *args, **options)

    return persist


for _name in _OPERATIONS:
    setattr(PatientStorage, _name, _patient(_name))


class AdvisoryLock:
    """A lock that the server keeps for our session, and lets go when the session ends, however it ends."""

    def __init__(self, text: str, study: str) -> None:
        """Take the lock of a study.

        Raises:
            LockedError: If another session has it, with whose it is.
            UnreachableError: If the server does not answer.
        """
        self._text = text
        self._study = study
        digest = hashlib.sha256(f"lenet_exp {study}".encode()).digest()
        self._key = int.from_bytes(digest[:8], signed=True)
        self._connection: psycopg.Connection | None = None
        try:
            self.hold()
        except BaseException:
            self.close()
            raise

    def hold(self) -> None:
        """Make sure that the lock is still ours; a server that started anew has forgotten it."""
        import psycopg

        try:
            if self._connection is not None:
                with suppress(psycopg.OperationalError):
                    self._connection.execute("SELECT 1")
                    return
                self._connection.close()
            self._connection = self._connected()
            taken = self._connection.execute("SELECT pg_try_advisory_lock(%s)", [self._key]).fetchone()
            if not (taken and taken[0]):
                raise LockedError(
                    f"study {self._study!r} is held by {self._holder()}; wait for it, or end it"
                )
        except psycopg.Error as error:
            raise _unreachable(self._text, error) from error

    def close(self) -> None:
        """Let go."""
        if self._connection is not None:
            self._connection.close()

    def _connected(self) -> psycopg.Connection:
        import psycopg

        # libpq takes the URL too, but for the name of SQLAlchemy's driver.
        url = parsed(self._text).set(drivername="postgresql").render_as_string(hide_password=False)
        return psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_S, application_name=_ourselves())

    def _holder(self) -> str:
        assert self._connection is not None
        holder = self._connection.execute(
            "SELECT application_name, backend_start::timestamp(0)"
            " FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE locktype = 'advisory' AND granted AND (classid::bigint << 32) | objid::bigint = %s",
            [self._key],
        ).fetchone()
        return f"{holder[0]} since {holder[1]}" if holder else "another session"


@contextmanager
def study_lock(text: str, study: str) -> Iterator[AdvisoryLock]:
    """Hold a study for one driver, wherever the others are; see `AdvisoryLock`."""
    lock = AdvisoryLock(text, study)
    try:
        yield lock
    finally:
        lock.close()


def _ourselves() -> str:
    return f"pid {os.getpid()} on host {platform.node()}"[:63]


def _is_gone(error: BaseException) -> bool:
    """Return whether it was the server that was gone, and not the question that was wrong."""
    import psycopg

    causes: list[BaseException | None] = [error]
    while cause := causes[-1]:
        if isinstance(cause, psycopg.OperationalError | UnreachableError):
            return True
        if isinstance(cause, DBAPIError) and cause.connection_invalidated:
            return True
        causes.append(cause.__cause__ or cause.__context__)
    return False


def _reason(error: BaseException) -> str:
    while error.__cause__:
        error = error.__cause__
    return mask_url((str(error).splitlines() or [type(error).__name__])[0])


def _unreachable(text: str, error: BaseException) -> UnreachableError:
    return UnreachableError(f"the study's storage {mask_url(text)} does not answer: {_reason(error)}")

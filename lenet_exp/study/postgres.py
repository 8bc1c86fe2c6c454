"""The studies' storage in PostgreSQL: locks on studies, and patience while the server does not answer."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from lenet_exp.base.errors import (
    ConfigError,
    LenetExpError,
    LockedError,
    StoreError,
    UnreachableError,
    mask_url,
)
from lenet_exp.study.rdb import TrialStorage

if TYPE_CHECKING:
    import psycopg

#: A sweep gives up once the server has not answered for this many seconds.
PATIENCE_S = 600.0
#: Seconds before an operation is repeated: the first time, and at most; each wait is twice the one before.
BACKOFF_S = (0.2, 10.0)
#: Seconds to wait for a connection to each address of the host.
CONNECT_S = 5
#: Seconds between two looks at the lock's session; firewalls and poolers drop what idles for longer.
PING_S = 1.0
#: Seconds that a session of our own, which the server has not yet noticed to be dead, gets to end.
GHOST_S = 5.0

#: Parameters of libpq by which a connection through a dead network is noticed within ten seconds.
_TCP: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
#: Settings of the lock's session, if the server has them: it may idle, and a dead client is noticed.
_SESSION = (
    "('idle_session_timeout', '0'), ('tcp_user_timeout', '20000'), ('tcp_keepalives_idle', '5'),"
    " ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3')"
)
#: A transaction may idle for this long, in milliseconds: one that a suspended sweep left blocks all others.
_IDLE_TRANSACTION_MS = 20_000
#: SQL condition on ``pg_locks`` for the advisory lock with the key ``%(key)s``.
_IS_LOCK = (
    "locktype = 'advisory' AND granted AND objsubid = 1"
    " AND (classid::bigint << 32) | objid::bigint = %(key)s"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)

#: Methods of the storage that a sweep calls; each is one transaction.
_OPERATIONS = (
    "create_new_study set_study_user_attr set_study_system_attr get_study_id_from_name get_study_name_from_id"
    " get_study_directions get_study_user_attrs get_study_system_attrs get_all_studies get_all_trials"
    " get_trial_id_from_study_id_trial_number write_trial rows"
)


def parsed(text: str) -> URL:
    """Parse a PostgreSQL URL for SQLAlchemy, with psycopg as its driver.

    Raises:
        ConfigError: If ``text`` is not a PostgreSQL URL, or psycopg is not installed.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError("--storage must be a URL such as postgresql://host/database") from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigError(f"--storage must be a postgresql:// URL, found {mask_url(text)}")
    try:
        import psycopg  # noqa: F401 - to see if it is installed
    except ImportError:
        raise ConfigError("--storage needs psycopg; run 'pip install \"lenet_exp[postgres]\"'") from None
    return url.set(drivername="postgresql+psycopg")


def connect(url: str, **options: Any) -> PatientStorage:
    """Open the storage at ``url``, and create its tables if it has none.

    Args:
        url: URL of the database, with the user and, if there is one, the password.
        **options: Keyword arguments of `RDBStorage`, such as ``skip_compatibility_check``.

    Raises:
        ConfigError: If ``url`` is not a PostgreSQL URL, or psycopg is not installed.
        UnreachableError: If the server does not answer, or refuses the user.
    """
    address = parsed(url).render_as_string(hide_password=False)
    engine = {
        "pool_pre_ping": True,
        "connect_args": {"connect_timeout": CONNECT_S, "application_name": _application_name(), **_TCP},
    }
    try:
        storage = PatientStorage(address, engine_kwargs=engine, **options)
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise _unreachable(url, error) from None
    sqlalchemy.event.listen(storage.engine, "connect", _with_limit)
    storage.engine.dispose()  # closes the connections that were opened without the setting
    # Closes the pool's connections with the storage; psycopg warns of those still open when Python exits.
    weakref.finalize(storage, storage.engine.dispose)
    return storage


class PatientStorage(TrialStorage):
    """A `TrialStorage` that repeats an operation until the server answers, for at most `PATIENCE_S`.

    An operation may have been carried out although its answer was lost, so each may be carried out twice.
    """

    #: Takes a line for the user, when the server stops answering and when it answers again.
    on_problem: Callable[[str], None] = staticmethod(lambda _: None)
    #: Called each time before an operation is repeated; see `Study.when_gone`.
    on_return: Callable[[], None] = staticmethod(lambda: None)
    _is_inside = False
    _has_given_up = False

    def _until_answered(self, name: str, operation: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self._is_inside:  # an operation within another, which is repeated as a whole
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
                        options["may_repeat"] = True
                    result = operation(self, *args, **options)
                    self.on_problem("the study's storage answers again; nothing was lost")
                    return result
                except (SQLAlchemyError, optuna.exceptions.StorageInternalError, UnreachableError) as error:
                    if not _is_gone(error):
                        raise self._refused(error) from error
                    now = time.monotonic()
                    if gone_since is None:
                        gone_since = now
                        self.on_problem(f"{_reason(error)}; waiting for the study's storage")
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

    def patiently(self, operation: Callable[[], Any]) -> Any:
        """Call ``operation`` until the server answers, for at most `PATIENCE_S`; return what it returns."""
        return self._until_answered("", lambda _: operation())

    def _refused(self, error: Exception) -> StoreError:
        """Return the error to raise when the server answers, but cannot do what it is asked."""
        refusal = StoreError(
            f"the study's storage is not as this sweep left it: {_reason(error)};"
            " nothing more is written to it, and 'lenet-exp doctor' says what is there"
        )
        with suppress(SQLAlchemyError, optuna.exceptions.StorageInternalError):  # the guards are refused too
            self.on_refused(refusal)
        return refusal


def _patient(name: str) -> Callable[..., Any]:
    operation = getattr(PatientStorage, name)

    @functools.wraps(operation)
    def patient(self: PatientStorage, *args: Any, **options: Any) -> Any:
        return self._until_answered(name, operation, *args, **options)

    return patient


for _name in _OPERATIONS.split():
    setattr(PatientStorage, _name, _patient(_name))


class AdvisoryLock:
    """A lock on a study, which the server releases when this process's session ends, for whatever reason.

    A thread looks at the session every `PING_S` seconds, and acquires the lock again if the session was lost.
    """

    def __init__(self, url: str, study: str) -> None:
        """Acquire the lock.

        Args:
            url: URL of the database, with the user and, if there is one, the password.
            study: Name of the study to lock.

        Raises:
            ConfigError: If ``url`` leads to a pooler that gives each transaction another session.
            LockedError: If another process has the lock; the message names that process.
            UnreachableError: If the server does not answer.
        """
        self._url = url
        self._study = study
        digest = hashlib.sha256(f"lenet_exp {study}".encode()).digest()
        self._key = {"key": int.from_bytes(digest[:8], signed=True)}
        self._connection: psycopg.Connection | None = None
        #: Process and start of the server's end of the latest session that had the lock.
        self._session: tuple[int, datetime] | None = None
        self._mutex = threading.Lock()
        self._closed = threading.Event()
        self._lost: LenetExpError | None = None
        #: Called by the thread when it sees that another process has the lock.
        self.on_lost: Callable[[], object] = lambda: None
        try:
            self.hold()
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._watch, name="lock", daemon=True).start()

    def hold(self) -> None:
        """Make sure that this process still has the lock; acquire it again if the session was lost."""
        import psycopg

        with self._mutex:
            if self._lost is not None:
                raise self._lost
            try:
                if not self._has_lock():
                    self._acquire()
            except psycopg.errors.ProtocolViolation as error:  # a pooler's, which refuses transactions
                raise self._pooled() from error
            except psycopg.Error as error:
                raise _unreachable(self._url, error) from error
            except LenetExpError as error:
                self._lost = error
                raise

    def close(self) -> None:
        """End the session, which releases the lock."""
        self._closed.set()
        # The thread may be waiting for a dead network; the session then ends with this process.
        if self._mutex.acquire(timeout=1):
            try:
                if self._connection is not None:
                    self._connection.close()
            finally:
                self._mutex.release()

    def _watch(self) -> None:
        while not self._closed.wait(PING_S):
            try:
                self.hold()
            except UnreachableError:
                continue  # taken again as soon as the server is back
            except LenetExpError:
                if not self._closed.is_set():
                    self.on_lost()
                return

    def _has_lock(self) -> bool:
        import psycopg

        if self._connection is None or self._session is None:
            return False
        query = (
            "SELECT pg_backend_pid(),"
            f" EXISTS (SELECT FROM pg_locks WHERE {_IS_LOCK} AND pid = pg_backend_pid())"
        )
        with suppress(psycopg.Error):
            pid, is_held = self._row(self._connection, query)
            if pid != self._session[0]:
                raise self._pooled()
            return bool(is_held)
        return False

    def _acquire(self) -> None:
        """Acquire the lock in a new session."""
        if self._connection is not None:
            self._connection.close()
        connection = self._connection = self._connected()
        self._ensure_one_session(connection)
        connection.execute(
            f"SELECT set_config(name, value, false) FROM (VALUES {_SESSION}) AS wanted (name, value)"
            " JOIN pg_settings USING (name)"
        )
        give_up_at = time.monotonic() + GHOST_S
        while not self._row(connection, "SELECT pg_try_advisory_lock(%(key)s)")[0]:
            if not self._end_ghost(connection) or time.monotonic() >= give_up_at:
                raise LockedError(
                    f"study {self._study!r} is in use by {self._holder(connection)};"
                    " wait until it ends, or stop it"
                )
            time.sleep(0.05)
        self._session = self._row(
            connection, "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        )

    def _end_ghost(self, connection: psycopg.Connection) -> bool:
        """End our former session if the server still has it, as the network died; return True if so."""
        if self._session is None:
            return False
        pid, since = self._session
        query = (
            "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
            f" WHERE {_IS_LOCK} AND pid = %(pid)s AND backend_start = %(since)s"
        )
        return connection.execute(query, {**self._key, "pid": pid, "since": since}).fetchone() is not None

    def _ensure_one_session(self, connection: psycopg.Connection) -> None:
        """Make sure that no pooler lends our session to others, before a lock is left in it."""
        query = "SELECT pg_backend_pid()"
        pid = self._row(connection, query)
        # A transaction on a second connection takes a session, which is ours only if a pooler has lent it.
        with self._connected() as other, other.transaction():
            is_lent = self._row(other, query) == pid or self._row(connection, query) != pid
        # A pooler that takes its sessions in turn changes ours now at the latest.
        if is_lent or any(self._row(connection, query) != pid for _ in range(3)):
            raise self._pooled()

    def _pooled(self) -> ConfigError:
        return ConfigError(
            f"--storage {mask_url(self._url)} is a pooler that gives each transaction another session, so no"
            " lock can be held through it; name the server itself, or a pooler in session mode"
        )

    def _connected(self) -> psycopg.Connection:
        import psycopg

        # psycopg takes the same URL, but without the name of SQLAlchemy's driver.
        url = parsed(self._url).set(drivername="postgresql").render_as_string(hide_password=False)
        return psycopg.connect(
            url,
            autocommit=True,
            prepare_threshold=None,  # poolers do not know prepared statements
            connect_timeout=CONNECT_S,
            application_name=_application_name(),
            **_TCP,
        )

    def _row(self, connection: psycopg.Connection, query: str) -> Any:
        """Return the first row of a query, in which ``%(key)s`` stands for the lock's key."""
        return connection.execute(query, self._key if "%(key)s" in query else None).fetchone()

    def _holder(self, connection: psycopg.Connection) -> str:
        holder = self._row(
            connection,
            "SELECT application_name, backend_start::timestamp(0)"
            f" FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE {_IS_LOCK}",
        )
        return f"{holder[0]} since {holder[1]}" if holder else "another session"


def _with_limit(connection: psycopg.Connection, _: object) -> None:
    connection.execute(f"SET idle_in_transaction_session_timeout = {_IDLE_TRANSACTION_MS}")
    connection.commit()


def _application_name() -> str:
    # Shown to a user who finds the study locked; PostgreSQL cuts it off after 63 bytes.
    return f"pid {os.getpid()} on host {platform.node()}"[:63]


def _is_gone(error: BaseException) -> bool:
    """Return True if an error says that the server did not answer, False if the query was wrong."""
    import psycopg

    causes: list[BaseException | None] = [error]
    while cause := causes[-1]:
        # A standby that is about to become the primary still refuses to write.
        read_only = psycopg.errors.ReadOnlySqlTransaction
        if isinstance(cause, psycopg.OperationalError | UnreachableError | read_only):
            return True
        if isinstance(cause, DBAPIError) and cause.connection_invalidated:
            return True
        causes.append(cause.__cause__ or cause.__context__)
    return False


def _reason(error: BaseException) -> str:
    while error.__cause__:
        error = error.__cause__
    return mask_url((str(error).splitlines() or [type(error).__name__])[0])


def _unreachable(url: str, error: BaseException) -> UnreachableError:
    return UnreachableError(f"the study's storage {mask_url(url)} does not answer: {_reason(error)}")

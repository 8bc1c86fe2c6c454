"""The studies' storage in PostgreSQL: locks on studies, and patience while the server does not answer."""

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

#: A sweep gives up once the server has not answered for this many seconds.
PATIENCE_S = 600.0
#: Seconds before an operation is repeated: the first time, and at most; each wait is twice the one before.
BACKOFF_S = (0.2, 10.0)
#: Seconds to wait for a connection to each address of the host.
CONNECT_S = 5

#: Methods of the storage that a sweep calls; each is one transaction.
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
    "rows",
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
        "connect_args": {"connect_timeout": CONNECT_S, "application_name": _application_name()},
    }
    try:
        storage = PatientStorage(address, engine_kwargs=engine, **options)
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise _unreachable(url, error) from None
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
                        raise
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


def _patient(name: str) -> Callable[..., Any]:
    operation = getattr(PatientStorage, name)

    @functools.wraps(operation)
    def patient(self: PatientStorage, *args: Any, **options: Any) -> Any:
        return self._until_answered(name, operation, *args, **options)

    return patient


for _name in _OPERATIONS:
    setattr(PatientStorage, _name, _patient(_name))


class AdvisoryLock:
    """A lock on a study, which the server releases when this process's session ends, for whatever reason."""

    def __init__(self, url: str, study: str) -> None:
        """Acquire the lock.

        Args:
            url: URL of the database, with the user and, if there is one, the password.
            study: Name of the study to lock.

        Raises:
            LockedError: If another process has the lock; the message names that process.
            UnreachableError: If the server does not answer.
        """
        self._url = url
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
        """Make sure that this process still has the lock; acquire it again if the session was lost.

        Raises:
            LockedError: If another process has the lock; the message names that process.
            UnreachableError: If the server does not answer.
        """
        import psycopg

        try:
            if self._connection is not None:
                with suppress(psycopg.OperationalError):
                    self._connection.execute("SELECT 1")
                    return
                self._connection.close()
            self._connection = self._connected()
            row = self._connection.execute("SELECT pg_try_advisory_lock(%s)", [self._key]).fetchone()
            if not (row and row[0]):
                raise LockedError(
                    f"study {self._study!r} is in use by {self._holder()}; wait until it ends, or stop it"
                )
        except psycopg.Error as error:
            raise _unreachable(self._url, error) from error

    def close(self) -> None:
        """End the session, which releases the lock."""
        if self._connection is not None:
            self._connection.close()

    def _connected(self) -> psycopg.Connection:
        import psycopg

        # psycopg takes the same URL, but without the name of SQLAlchemy's driver.
        url = parsed(self._url).set(drivername="postgresql").render_as_string(hide_password=False)
        return psycopg.connect(
            url, autocommit=True, connect_timeout=CONNECT_S, application_name=_application_name()
        )

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
def study_lock(url: str, study: str) -> Iterator[AdvisoryLock]:
    """Context manager: lock a study for the length of the ``with`` block, against drivers on any machine.

    Args:
        url: URL of the database, with the user and, if there is one, the password.
        study: Name of the study to lock.

    Raises:
        LockedError: If another process has the lock; the message names that process.
        UnreachableError: If the server does not answer.
    """
    lock = AdvisoryLock(url, study)
    try:
        yield lock
    finally:
        lock.close()


def _application_name() -> str:
    # Shown to a user who finds the study locked; PostgreSQL cuts it off after 63 bytes.
    return f"pid {os.getpid()} on host {platform.node()}"[:63]


def _is_gone(error: BaseException) -> bool:
    """Return True if an error says that the server did not answer, False if the query was wrong."""
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


def _unreachable(url: str, error: BaseException) -> UnreachableError:
    return UnreachableError(f"the study's storage {mask_url(url)} does not answer: {_reason(error)}")

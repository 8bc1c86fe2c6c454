"""MLflow's tracking store: where the local one is, how it is created and checked; connecting to any store."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_exp.base.errors import ConfigError, LenetExpError, StoreError, UnreachableError, mask_url
from lenet_exp.base.files import check_database
from lenet_exp.base.layout import artifacts, mlflow_db
from lenet_exp.base.messages import repair_command

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Environment variables that MLflow reads; those that the user has set stay. MLflow must not retry requests,
#: as a repeated ``create_run`` creates a second run; the uploader retries, and first looks for what is there.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it shows the password of the server's URL
    "GIT_PYTHON_REFRESH": "quiet",
}

_SQLITE = "sqlite:///"


def local_uri(root: Path) -> str:
    """Return the tracking URI of the local store below ``root``; the store need not exist.

    Raises:
        ConfigError: If MLflow would misread the path, or a link leads out of ``root``.
    """
    for inside in (mlflow_db(root), artifacts(root)):
        if not inside.resolve().is_relative_to(root.resolve()):
            raise ConfigError(f"{inside} is a link that leads out of {root}; remove it")
    path = mlflow_db(root.resolve())  # a link in the file's place is not followed
    if unsafe := sorted(set("%?#") & set(str(path))):
        raise ConfigError(
            f"MLflow cannot keep its store in {path}: the path contains {unsafe[0]!r}; choose another --root"
        )
    return f"{_SQLITE}{path}"


def locate(tracking_uri: str | None, root: Path) -> tuple[str, Path | None]:
    """Return the URI of the store to use, and the artifact folder of experiments that are created in it.

    The folder is None if the server chooses it.

    Args:
        tracking_uri: URI that the user chose; None for the local store below ``root``.
        root: Folder of everything that runs write.

    Raises:
        ConfigError: If MLflow would misread the path.
    """
    return (tracking_uri, None) if tracking_uri else (local_uri(root), artifacts(root))


def reason(error: BaseException) -> str:
    """Return the message of the root cause of ``error``, as one short line with secrets masked."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    printable = "".join(char if char.isprintable() else " " for char in str(error))
    text = " ".join(printable.split()) or type(error).__name__
    return mask_url(text if len(text) <= 200 else f"{text[:199]}…")


def prepare_environment() -> None:
    """Set the variables of `ENVIRONMENT` that the user has not set."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def connect(uri: str, artifact_root: Path | None = None) -> MlflowClient:
    """Connect to the store, and return a client. A local store that does not exist is created.

    The first call takes seconds.

    Args:
        uri: URI of the store, as MLflow takes it.
        artifact_root: Default artifact folder of a local store that is created; None means the folder
            ``artifacts`` beside the store.

    Raises:
        StoreError: If a local store is damaged, not MLflow's, or of another version.
    """
    prepare(uri, artifact_root)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def prepare(uri: str, artifact_root: Path | None = None) -> None:
    """Silence MLflow, and create or check a local store, as `connect` does before it connects.

    Args:
        uri: URI of the store, as MLflow takes it.
        artifact_root: Default artifact folder of a local store that is created; None means the folder
            ``artifacts`` beside the store.

    Raises:
        StoreError: If a local store is damaged, not MLflow's, or of another version.
    """
    prepare_environment()
    # MLflow's warnings are about its own use of libraries, which our users cannot change.
    warnings.filterwarnings("ignore", module=r"mlflow\.")
    # These loggers print tracebacks, and a line for each migration of the schema.
    logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    if path := local_path(uri):
        check_database(path)
        folder = artifact_root or artifacts(path.parent)
        if not path.exists():
            _create_store(path, folder)
        _check_store(path)
        _move_artifacts(path, folder.resolve().as_uri())


def check_reachable(uri: str, artifact_root: Path | None = None, timeout_s: float = 20) -> None:
    """Check that the store answers; a local store that does not exist is created.

    Args:
        uri: URI of the store, as MLflow takes it.
        artifact_root: Default artifact folder of a local store that is created; None means the folder
            ``artifacts`` beside the store.
        timeout_s: Seconds to wait for the answer.

    Raises:
        UnreachableError: If the store does not answer within ``timeout_s``.
        StoreError: If a local store is damaged, not MLflow's, or of another version.
    """
    errors: list[Exception] = []
    is_loaded = threading.Event()

    def ask() -> None:
        try:
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  # its time is not the store's

            is_loaded.set()
            connect(uri, artifact_root).search_experiments(max_results=1)
        except Exception as error:  # raised again in the waiting thread
            errors.append(error)
        finally:
            is_loaded.set()

    prepare_environment()
    asking = threading.Thread(target=ask, name="check-reachable", daemon=True)
    asking.start()
    is_loaded.wait()
    asking.join(timeout_s)
    if asking.is_alive():
        raise no_answer(uri, f"no answer within {timeout_s:g} s")
    if errors and isinstance(errors[0], LenetExpError):
        raise errors[0]
    if errors:
        raise no_answer(uri, reason(errors[0])) from errors[0]


def no_answer(uri: str, problem: str) -> UnreachableError:
    """Return the error to raise when a store does not answer; it says what to do about it.

    Args:
        uri: URI of the store, as MLflow takes it.
        problem: Description of the failure.
    """
    path = local_path(uri)
    if path and not os.access(path.parent, os.W_OK):  # SQLite writes beside the file, even to read it
        return UnreachableError(
            f"the tracking store {path} cannot be opened: {path.parent} cannot be written;"
            " copy it to another folder, and name that with --root"
        )
    if path:
        return UnreachableError(
            f"the tracking store {path} is locked or slow: {problem}; close the programs that have it open,"
            " then run the same command again"
        )
    return UnreachableError(
        f"the tracking store {mask_url(uri)} does not answer: {problem};"
        " start it, or name another with --tracking-uri"
    )


def local_path(uri: str) -> Path | None:
    """Return the file of a local store; None if ``uri`` is a server's."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def files_id(uri: str) -> tuple[object, ...]:
    """Return a value that changes when a local store's files are deleted or replaced; empty for a server."""
    path = local_path(uri)
    ids: list[object] = []
    for name in (path, path.with_name(f"{path.name}-wal")) if path else ():
        with contextlib.suppress(OSError):
            status = name.stat()
            ids.append((name.name, status.st_dev, status.st_ino))
    return tuple(ids)


def close_files(uri: str) -> None:
    """Have MLflow close a local store's files, so that its next call opens those that are in place now."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with contextlib.suppress(ImportError):
        from mlflow.tracking._tracking_service import utils

        getattr(utils, "_artifact_repos_cache", {}).clear()
    stores: tuple[Any, ...] = (SqlAlchemyStore, Registry)
    for store in stores:
        for uri_of_engine, engine in getattr(store, "_engine_map", {}).items():
            if uri_of_engine == uri:
                engine.dispose()


class TimedClient:
    """A client of MLflow that knows how long the store has been at work on the present call."""

    def __init__(self, client: Any) -> None:
        """Pass calls on to ``client``."""
        self._client = client
        self._since: float | None = None

    @property
    def waited_s(self) -> float:
        """Seconds since the present call was made; 0 if there is none."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return the client's method."""
        method = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            self._since = time.monotonic()
            try:
                return method(*args, **options)
            finally:
                self._since = None

        return call


def _create_store(path: Path, artifact_root: Path) -> None:
    """Create a local store, whole or not at all: MLflow refuses one whose creation was interrupted."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        # MlflowClient would create the store too, but with the default experiment in the working folder.
        create: Callable[[str, str], Any] = SqlAlchemyStore
        create(f"{_SQLITE}{part}", artifact_root.resolve().as_uri()).engine.dispose()
        with contextlib.closing(sqlite3.connect(part)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        # Unlike renaming, linking does not replace a store that another sweep has created meanwhile.
        try:
            os.link(part, path)
        except FileExistsError:
            pass
        except OSError:  # the file system has no links
            part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _check_store(path: Path) -> None:
    """Raise StoreError unless the file is a store that the installed MLflow can use as it is."""
    import mlflow
    from alembic.script import ScriptDirectory

    advice = f"run '{repair_command(path.parent)}', which moves it aside and creates it again"
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm", f"{path.name}-journal"):
        other = path.with_name(name)
        if other.exists() and not other.is_file():  # SQLite would wait for ever at a pipe
            kind = "folder" if other.is_dir() else "pipe or device"
            raise StoreError(f"{other} is a {kind}, not a file of MLflow's store; {advice}")
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=20)) as connection:
            # The finding can have several lines.
            finding = " ".join(connection.execute("PRAGMA quick_check(1)").fetchone()[0].split())
            version = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise  # it is locked or unreadable, which does not mean damaged
        raise StoreError(f"{path} is not an MLflow store: {error}; {advice}") from error
    except (sqlite3.DatabaseError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {error}; {advice}") from error
    if finding != "ok":
        raise StoreError(f"{path} is damaged: {finding}; {advice}")
    wanted = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations")).get_current_head()
    if version != wanted:
        raise StoreError(
            f"{path} has schema {version}, MLflow {mlflow.__version__} wants {wanted}; "
            f"copy it, then run 'mlflow db upgrade {_SQLITE}{path}'"
        )


#: Where MLflow keeps absolute URIs of artifacts: tables and their columns.
_ARTIFACT_URIS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def _move_artifacts(path: Path, folder_uri: str) -> None:
    """Make a store whose root was moved or copied find its artifacts in the root that it is in now.

    Only URIs below the artifact folder of the old root are changed: people may keep artifacts elsewhere.

    Args:
        path: File of the store.
        folder_uri: URI of the artifact folder.
    """
    with contextlib.closing(sqlite3.connect(path, timeout=20)) as connection, connection:
        # The default experiment has a folder of its own in the artifact folder, ours have the folder itself.
        rows = connection.execute(
            "SELECT artifact_location FROM experiments WHERE experiment_id = 0 OR experiment_id IN"
            " (SELECT experiment_id FROM experiment_tags WHERE key = 'lenet_exp.experiment' UNION"
            " SELECT experiment_id FROM runs JOIN tags USING (run_uuid) WHERE key = 'lenet_exp.study')"
        )
        folders = {str(uri).removesuffix("/0") for (uri,) in rows}
        for old in folders - {folder_uri}:
            if not old.startswith("file:") or not old.endswith(f"/{artifacts(path).name}"):
                continue
            if not os.access(path, os.W_OK):
                return  # what can only be read is read as it is
            for table, column in _ARTIFACT_URIS:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
                    f" WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (folder_uri, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )

"""Where MLflow keeps its runs: making and checking the local store, reaching one, naming it safely."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_exp.base.errors import ConfigError, LenetExpError, StoreError, UnreachableError, mask_url
from lenet_exp.base.layout import artifacts, mlflow_db

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Taken by MLflow when it is imported or used; what the user has set stays. A request is not retried by
#: MLflow, because a retried ``create_run`` makes two runs: the uploader tries again, and looks first.
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
    """Return the tracking URI of the store below ``root``, which need not exist.

    Raises:
        ConfigError: If MLflow would misread the path.
    """
    path = mlflow_db(root).resolve()
    if found := sorted(set("%?#") & set(str(path))):
        raise ConfigError(
            f"MLflow cannot keep its store in {path}: it has a {found[0]!r}; choose another --root"
        )
    return f"{_SQLITE}{path}"


def locate(tracking_uri: str | None, root: Path) -> tuple[str, Path | None]:
    """Return the URI for what is recorded below ``root``, and where new experiments keep their files.

    The second is None where that is the server's affair.

    Args:
        tracking_uri: As the user named it; None for the store below ``root``.
        root: Folder of everything that runs write.

    Raises:
        ConfigError: If MLflow would misread the path.
    """
    return (tracking_uri, None) if tracking_uri else (local_uri(root), artifacts(root))


def reason(error: BaseException) -> str:
    """Return what is behind ``error``, in one line and without secrets."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    printable = "".join(char if char.isprintable() else " " for char in str(error))
    text = " ".join(printable.split()) or type(error).__name__
    return mask_url(text if len(text) <= 200 else f"{text[:199]}…")


def prepare_environment() -> None:
    """Set what MLflow reads from the environment, unless the user has."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def connect(uri: str, artifact_root: Path | None = None) -> MlflowClient:
    """Return a client of the store; a local one is made if need be. Takes seconds the first time.

    Args:
        uri: As MLflow takes it.
        artifact_root: Where a local store that is made keeps what belongs to no experiment of ours.

    Raises:
        StoreError: If a local store is damaged, not MLflow's, or of another version.
    """
    prepare(uri, artifact_root)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def prepare(uri: str, artifact_root: Path | None = None) -> None:
    """Do what `connect` does before it connects: quieten MLflow, make and check a local store."""
    prepare_environment()
    # How MLflow uses itself and other libraries is nothing our users can change.
    warnings.filterwarnings("ignore", module=r"mlflow\.")
    # These print tracebacks, and a line for each step of the schema.
    logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    if uri.startswith(_SQLITE):
        path = Path(uri.removeprefix(_SQLITE))
        if not path.exists():
            _make_store(path, artifact_root or artifacts(path.parent))
        _check_store(path)


def log_file(uri: str, run_id: str, path: Path) -> None:
    """Add a file to the artifacts of a run.

    Raises:
        UnreachableError: If the store does not answer, or has no such run.
        StoreError: If it is damaged, not MLflow's, or of another version.
    """
    try:
        client = connect(uri)
        # MLflow remembers where a run's files go, and would not ask the store.
        client.get_run(run_id)
        client.log_artifact(run_id, str(path))
    except LenetExpError:
        raise
    except Exception as error:  # a server, a database and a file system each have their own
        raise UnreachableError(
            f"the tracking store {mask_url(uri)} did not take it: {reason(error)}"
        ) from error


def check_reachable(uri: str, artifact_root: Path | None = None, timeout_s: float = 20) -> None:
    """Make sure that the store answers.

    Args:
        uri: As MLflow takes it.
        artifact_root: See `connect`.
        timeout_s: Longest wait for the answer.

    Raises:
        UnreachableError: If it does not within ``timeout_s``.
        StoreError: If it is damaged, not MLflow's, or of another version.
    """
    errors: list[Exception] = []

    def ask() -> None:
        try:
            connect(uri, artifact_root).search_experiments(max_results=1)
        except Exception as error:  # told by the thread that waits
            errors.append(error)

    asking = threading.Thread(target=ask, name="check-reachable", daemon=True)
    asking.start()
    asking.join(timeout_s)
    where = f"the tracking store {mask_url(uri)} does not answer"
    if asking.is_alive():
        raise UnreachableError(f"{where} within {timeout_s:g} s; start it, or name another")
    if errors and isinstance(errors[0], LenetExpError):
        raise errors[0]
    if errors:
        raise UnreachableError(f"{where}: {reason(errors[0])}") from errors[0]


def _make_store(path: Path, artifact_root: Path) -> None:
    """Make a local store, whole or not at all: MLflow refuses one whose making was cut off."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        # MlflowClient would make it too, but with a default experiment in the working folder.
        make: Callable[[str, str], Any] = SqlAlchemyStore
        make(f"{_SQLITE}{part}", artifact_root.resolve().as_uri()).engine.dispose()
        with contextlib.closing(sqlite3.connect(part)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        # A link, unlike a renaming, leaves alone the store that another sweep has made meanwhile.
        try:
            os.link(part, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _check_store(path: Path) -> None:
    """Raise StoreError unless the file is a store that this MLflow can use as it is."""
    import mlflow
    from alembic.script import ScriptDirectory

    advice = "move it away and run 'lenet-exp sync', which makes it anew"
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=20)) as connection:
            # What it finds can have several lines.
            found = " ".join(connection.execute("PRAGMA quick_check(1)").fetchone()[0].split())
            version = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise  # locked or unreadable: not the store's fault
        raise StoreError(f"{path} is not a store of MLflow's: {error}; {advice}") from error
    except (sqlite3.DatabaseError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {error}; {advice}") from error
    if found != "ok":
        raise StoreError(f"{path} is damaged: {found}; {advice}")
    wanted = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations")).get_current_head()
    if version != wanted:
        raise StoreError(
            f"{path} has schema {version}, MLflow {mlflow.__version__} wants {wanted}; "
            f"copy it, then run 'mlflow db upgrade {_SQLITE}{path}'"
        )

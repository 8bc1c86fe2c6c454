"""Uploads the spool to MLflow, during a sweep or afterwards.

At the first contact with a store, and whenever the store refuses something, all of the study's runs are
looked at, and whatever is missing is uploaded again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lenet_exp.base import failpoints
from lenet_exp.base.errors import LenetExpError, NoResultError, UnreachableError
from lenet_exp.base.messages import counted
from lenet_exp.base.records import RunKey
from lenet_exp.tracking import audit, jsonl, store
from lenet_exp.tracking.events import RunLog, extended_run_log, extended_study_log
from lenet_exp.tracking.runs import MlflowRuns
from lenet_exp.tracking.spool import STUDY, Spool
from lenet_exp.tracking.store import reason

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Number of times that an upload may fail, while the store answers, before it is given up.
TRIES = 5
#: Seconds between two searches for changed files of the study, such as the leaderboard.
FILES_EVERY_S = 30.0
#: Seconds until a failed upload is tried again; and until one is that has failed `TRIES` times.
RETRY_S = 1.0
TRY_AGAIN_S = 60.0
#: Seconds to wait between two tries during an outage: at first, and at most; the wait doubles in between.
BACKOFF_S = (0.5, 15.0)
_FILES = "files"


class OutageError(UnreachableError):
    """The tracking store does not answer, or cannot be used as it is. That may change during a sweep."""


@dataclass
class _Upload:
    """The progress of an attempt's upload.

    Attributes:
        run_log: Log of the lines read so far; None if there are none.
        offset: Number of bytes of the file read so far.
        run_id: Id of the attempt's run in MLflow; None until it is known.
        n_logged: Number of epochs that are in MLflow.
    """

    run_log: RunLog | None = None
    offset: int = 0
    run_id: str | None = None
    n_logged: int = 0


class Uploader:
    """Uploads the pending lines of a spool to a store, in the caller's thread."""

    def __init__(
        self,
        spool: Spool,
        tracking_uri: str,
        artifact_root: Path | None,
        on_problem: Callable[[str], None],
        *,
        in_sweep: bool,
        takes_over: bool = False,
    ) -> None:
        """Create the uploader; it neither imports MLflow nor connects to the store yet.

        Args:
            spool: Spool to upload.
            tracking_uri: URI of the store, as MLflow takes it.
            artifact_root: Artifact folder of an experiment that is created; None lets the server choose it.
            on_problem: Function that is called with a line of text on each failed upload and missing model.
            in_sweep: True if a sweep is at work; if False, every attempt without an end was cut off.
            takes_over: True to take over runs that another copy of the root has written.
        """
        self._spool = spool
        self._uri = tracking_uri
        self._artifact_root = artifact_root
        self._on_problem = on_problem
        self._in_sweep = in_sweep
        self._takes_over = takes_over
        self._runs: MlflowRuns | None = None
        self._uploads: dict[str, _Upload] = {}
        self._failures: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._told: set[str] = set()
        self._client: store.TimedClient | None = None
        self._files_id: tuple[object, ...] = ()
        self._is_checked = False
        #: Number of attempts uploaded up to their end.
        self.n_uploaded = 0

    @property
    def waited_s(self) -> float:
        """Seconds for which the store has been at work on the present call; 0 if there is none."""
        return self._client.waited_s if self._client else 0.0

    def left(self) -> list[str]:
        """Return the stems of the files that MLflow lacks lines of."""
        return [stem for stem in self._spool.pending() if not self._is_up_to_date(stem)]

    def _is_up_to_date(self, stem: str) -> bool:
        """Return True if all lines of an attempt that has not ended are in MLflow."""
        upload = self._uploads.get(stem)
        if upload is None or upload.run_log is None or upload.n_logged < len(upload.run_log.epochs):
            return False
        return upload.run_log.end is None and upload.offset == self._spool.path(stem).stat().st_size

    def connect(self) -> MlflowRuns:
        """Connect to the store, and return the study's runs in it; the first call adopts what is there.

        Raises:
            OutageError: If the store does not answer, or cannot be used as it is.
            NoResultError: If the study was never started.
        """
        if self._runs is None:
            study = self._spool.study()
            if study is None:
                raise NoResultError(f"{self._spool.home}: nothing was recorded here yet; run the sweep first")
            try:
                self._client = store.TimedClient(store.connect(self._uri, self._artifact_root))
                client = cast("MlflowClient", self._client)
                self._runs = MlflowRuns(
                    client, self._spool, study, self._artifact_root, takes_over=self._takes_over
                )
            except Exception as error:
                raise self._outage(error) from error
            self._files_id = store.files_id(self._uri)
        return self._runs

    def reconnect(self) -> None:
        """Look at everything in the store again before the next upload."""
        self._runs = None
        self._uploads.clear()

    def close(self) -> None:
        """Close a local store, so that its file alone has everything, for whoever copies it."""
        if store.local_path(self._uri):
            store.close_files(self._uri)

    def retry(self) -> None:
        """Try once more what has failed, however often."""
        self._due.clear()

    def upload(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Upload pending lines, the study's own last, and from time to time the study's files.

        Args:
            stop: Function that is called before each attempt; if it returns True, the upload ends early.

        Returns:
            True if nothing is left to try; False if the caller should call again.

        Raises:
            OutageError: If the store does not answer. Call again; nothing is lost or created twice.
        """
        if self._runs and self._files_id != store.files_id(self._uri):
            # Somebody has deleted or replaced the store; what MLflow has open is no longer in the root.
            store.close_files(self._uri)
            self.reconnect()
        runs = self.connect()
        for stem in self._spool.pending():
            if stop():
                return False
            step = self._upload_study if stem == STUDY else partial(self._upload_attempt, stem)
            if not self._try(stem, partial(step, runs)):
                return False
        if time.monotonic() >= self._due.get(_FILES, 0):
            if not self._try(_FILES, runs.upload_files):
                return False
            self._due[_FILES] = time.monotonic() + FILES_EVERY_S
        return self._files_id == store.files_id(self._uri)

    def _try(self, name: str, step: Callable[[], bool | None]) -> bool:
        """Call ``step``, which uploads ``name``; return False if it is to be called again soon."""
        if time.monotonic() < self._due.get(name, 0):
            return True
        try:
            is_done = step() is not False
        except Exception as error:
            self._ping()
            n_failures = self._failures[name] = self._failures.get(name, 0) + 1
            # The store answers, so somebody may have deleted what is to be changed.
            self.reconnect()
            if n_failures < TRIES:
                return False
            self._tell(f"upload of {name} to MLflow failed: {reason(error)}")
            self._due[name] = time.monotonic() + TRY_AGAIN_S
            return True
        self._failures.pop(name, None)
        return is_done

    def _tell(self, problem: str) -> None:
        """Call ``on_problem``, once with each text."""
        if problem not in self._told:
            self._told.add(problem)
            self._on_problem(problem)

    def _ping(self) -> None:
        """Raise OutageError if the store does not answer, which explains why an upload failed."""
        try:
            self.connect().ping()
        except Exception as error:
            raise self._outage(error) from error

    def _outage(self, error: Exception) -> OutageError:
        if isinstance(error, LenetExpError):
            return OutageError(str(error))
        return OutageError(str(store.no_answer(self._uri, reason(error))))

    def _upload_attempt(self, stem: str, runs: MlflowRuns) -> None:
        """Upload the lines of an attempt's file that are not uploaded yet."""
        upload = self._uploads.setdefault(stem, _Upload())
        entries, upload.offset = jsonl.read(self._spool.path(stem), upload.offset)
        upload.run_log = run_log = extended_run_log(upload.run_log, RunKey.from_stem(stem), entries)
        if run_log is None:
            self._spool.remove(stem)
            del self._uploads[stem]
            return
        if upload.run_id is None:
            upload.run_id = runs.begin(run_log)
        runs.log_epochs(upload.run_id, run_log, upload.n_logged)
        upload.n_logged = len(run_log.epochs)
        if run_log.end:
            problem = runs.finish(upload.run_id, run_log, run_log.end)
            failpoints.point("after_mlflow")
            self._spool.record_uploaded(stem, upload.offset)
            del self._uploads[stem]
            self.n_uploaded += 1
            if problem:
                self._tell(f"{stem}: {problem}")
        elif not self._in_sweep:
            runs.cut_off(upload.run_id, (run_log.start_ms, *run_log.epoch_ms)[-1])

    def _upload_study(self, runs: MlflowRuns) -> bool | None:
        """Upload the study's lines; return False if other runs have to be uploaded before."""
        entries, offset = jsonl.read(self._spool.path(STUDY))
        study = extended_study_log(None, entries)
        if study is None:
            return None
        if study.end and self._in_sweep and not self._is_checked:
            # Before the sweep ends: has somebody deleted or changed in MLflow what was complete?
            self._is_checked = True
            self._uploads.clear()
            runs.adopt()
            if self._spool.pending() != [STUDY]:
                return False
        runs.begin_study(study)
        if study.end:
            runs.finish_study(study.end)
        elif not self._in_sweep:
            runs.cut_off_study()
        if study.champion:
            # Last, so that a failure of the registry holds up nothing else.
            runs.register(study.champion)
        if study.end or self._in_sweep:
            self._spool.record_uploaded(STUDY, offset)
        return None


@dataclass(frozen=True)
class SyncReport:
    """The result of `sync`.

    Attributes:
        n_uploaded: Number of attempts whose upload was completed.
        n_deleted: Number of runs that were deleted because they are not in the spool's index.
        problems: Lines of text, one about each failed upload and each missing model.
        lacking: Words that say what a run still lacks in MLflow, by stem; empty if MLflow has everything.
    """

    n_uploaded: int
    n_deleted: int
    problems: tuple[str, ...] = ()
    lacking: Mapping[str, str] = field(default_factory=dict)

    @property
    def what_is_lacking(self) -> str:
        """What is missing in MLflow, in a line."""
        return not_whole(self.lacking)


def not_whole(lacking: Mapping[str, str]) -> str:
    """Return how many runs are not whole in MLflow, and what the first of them lacks, in a line."""
    stem, lack = next(iter(lacking.items()))
    more = f", and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    return f"{counted(len(lacking), 'run')} not completely in MLflow: {stem}: {lack}{more}"


def sync(
    spool: Spool,
    tracking_uri: str,
    artifact_root: Path | None = None,
    *,
    rebuild: bool = False,
    on_uploaded: Callable[[], None] = lambda: None,
    on_run: Callable[[int, int], None] = lambda *_: None,
) -> SyncReport:
    """Upload everything in the spool to MLflow. No sweep may be at work on the spool.

    Args:
        spool: Spool of an experiment.
        tracking_uri: URI of the store, as MLflow takes it.
        artifact_root: Artifact folder of an experiment that is created; None lets the server choose it.
        rebuild: True to check every run in the store instead of trusting the spool's index: missing runs are
            created again, and runs of this study that the spool does not have are deleted.
        on_uploaded: Function that is called when every run has its id, before the study's files are uploaded;
            it may change these files.
        on_run: Function that is called before each run, with how many attempts are done, and of how many.

    Raises:
        UnreachableError: If the store does not answer, or cannot be used as it is.
        NoResultError: If the study was never started.
    """
    problems: list[str] = []
    if rebuild:
        spool.forget_uploaded()
    study = spool.study()
    if study and study.end is None:  # its driver died, and its run may still be RUNNING
        spool.mark_pending(STUDY)
    uploader = Uploader(
        spool, tracking_uri, artifact_root, problems.append, in_sweep=False, takes_over=rebuild
    )
    uploader.connect()  # which finds what the store has lost
    total = len({*spool.pending()} - {STUDY})

    def tell() -> bool:
        on_run(uploader.n_uploaded, total)
        return False

    while not uploader.upload(tell):
        time.sleep(RETRY_S)
    runs = uploader.connect()
    n_deleted = runs.delete_unknown() if rebuild else 0
    on_uploaded()
    try:
        runs.upload_files()
    except Exception as error:
        problems.append(f"upload of files to MLflow failed: {reason(error)}")
    return SyncReport(uploader.n_uploaded, n_deleted, tuple(problems), runs.lacking())


def lacking(spool: Spool, tracking_uri: str) -> dict[str, str]:
    """Return what runs lack in MLflow, in words, by stem, without changing anything.

    Args:
        spool: Spool of an experiment.
        tracking_uri: URI of the store, as MLflow takes it.

    Raises:
        UnreachableError: If the store does not answer.
        StoreError: If a local store is damaged, not MLflow's, or of another version.
    """
    study = spool.study()
    if study is None:
        return {}
    try:
        client = store.connect(tracking_uri)
        return audit.lacking(client, spool, study, audit.stored(client, spool, study.metadata))
    except LenetExpError:
        raise
    except Exception as error:  # a server, a database and a file system have exceptions of their own
        raise store.no_answer(tracking_uri, reason(error)) from error

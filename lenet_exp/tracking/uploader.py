"""Uploads the spool to MLflow, in a thread of its own during a sweep, or afterwards on request.

The driver never waits for MLflow. During an outage the thread tries again after longer and longer waits, and
then continues where it stopped. What is not uploaded when the sweep ends, `sync` uploads later.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lenet_exp.base import failpoints
from lenet_exp.base.errors import LenetExpError, NoResultError, UnreachableError, mask_url
from lenet_exp.base.records import RunKey, State
from lenet_exp.tracking import jsonl, store
from lenet_exp.tracking.events import RunLog, StudyMetadata, extended_run_log, extended_study_log
from lenet_exp.tracking.runs import MlflowRuns
from lenet_exp.tracking.spool import STUDY, Spool
from lenet_exp.tracking.store import reason

#: Number of times that an upload may fail, while the store answers, before it is given up.
TRIES = 3
#: Seconds between two searches for changed files of the study, such as the leaderboard.
FILES_EVERY_S = 30.0
#: Seconds until a failed upload is tried again.
RETRY_S = 1.0
#: Seconds to wait between two tries during an outage: at first, and at most; the wait doubles in between.
BACKOFF_S = (0.5, 15.0)


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
    ) -> None:
        """Create the uploader; it neither imports MLflow nor connects to the store yet.

        Args:
            spool: Spool to upload.
            tracking_uri: URI of the store, as MLflow takes it.
            artifact_root: Artifact folder of an experiment that is created; None lets the server choose it.
            on_problem: Function that is called with a line of text on each failed upload and missing model.
            in_sweep: True if a sweep is at work; if False, every attempt without an end was cut off.
        """
        self._spool = spool
        self._uri = tracking_uri
        self._artifact_root = artifact_root
        self._on_problem = on_problem
        self._in_sweep = in_sweep
        self._runs: MlflowRuns | None = None
        self._uploads: dict[str, _Upload] = {}
        self._failures: dict[str, int] = {}
        self._files_due = 0.0
        #: Number of attempts uploaded up to their end.
        self.n_uploaded = 0

    @property
    def all_uploaded(self) -> bool:
        """True if no upload has been given up."""
        return max(self._failures.values(), default=0) < TRIES

    def connect(self) -> MlflowRuns:
        """Connect to the store, and return the study's runs in it; the first call settles left-over runs.

        Raises:
            OutageError: If the store does not answer, or cannot be used as it is.
            NoResultError: If the study was never started.
        """
        if self._runs is None:
            study = self._spool.study()
            if study is None:
                raise NoResultError(f"{self._spool.home}: nothing was recorded here yet; run the sweep first")
            try:
                client = store.connect(self._uri, self._artifact_root)
                runs = MlflowRuns(client, self._spool, study, self._artifact_root)
                runs.settle()
            except Exception as error:
                raise self._outage(error) from error
            self._runs = runs
        return self._runs

    def upload(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Upload pending lines, the study's own last, and from time to time the study's files.

        Args:
            stop: Function that is called before each attempt; if it returns True, the upload ends early.

        Returns:
            True if nothing is left to try; False if the caller should call again.

        Raises:
            OutageError: If the store does not answer. Call again; nothing is lost or created twice.
        """
        runs = self.connect()
        is_clean = True
        for stem in self._spool.pending():
            if stop():
                return False
            step = self._upload_study if stem == STUDY else partial(self._upload_attempt, stem)
            is_clean &= self._try(stem, partial(step, runs))
        if time.monotonic() >= self._files_due:
            is_clean &= self._try("files", runs.upload_files)
            self._files_due = time.monotonic() + FILES_EVERY_S
        return is_clean

    def _try(self, name: str, step: Callable[[], None]) -> bool:
        """Call ``step``, which uploads ``name``; return False if it failed and is to be tried again."""
        if self._failures.get(name, 0) >= TRIES:
            return True
        try:
            step()
        except Exception as error:
            self._ping()
            self._failures[name] = self._failures.get(name, 0) + 1
            if self._failures[name] == TRIES:
                self._on_problem(f"upload of {name} to MLflow failed: {reason(error)}")
                return True
            return False
        self._failures.pop(name, None)
        return True

    def _ping(self) -> None:
        """Raise OutageError if the store does not answer, which explains why an upload failed."""
        try:
            self.connect().ping()
        except Exception as error:
            raise self._outage(error) from error

    def _outage(self, error: Exception) -> OutageError:
        if isinstance(error, LenetExpError):
            return OutageError(str(error))
        return OutageError(f"the tracking store {mask_url(self._uri)} does not answer: {reason(error)}")

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
                self._on_problem(f"{stem}: {problem}")
        elif not self._in_sweep:
            runs.cut_off(upload.run_id, (run_log.start_ms, *run_log.epoch_ms)[-1])

    def _upload_study(self, runs: MlflowRuns) -> None:
        entries, offset = jsonl.read(self._spool.path(STUDY))
        study = extended_study_log(None, entries)
        if study is None:
            return
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


class Tracker:
    """A thread that uploads a sweep's spool to MLflow while the sweep is at work."""

    def __init__(
        self,
        spool: Spool,
        metadata: StudyMetadata,
        *,
        tracking_uri: str,
        artifact_root: Path | None = None,
        on_problem: Callable[[str], None] = lambda _: None,
        on_recovered: Callable[[], None] = lambda: None,
    ) -> None:
        """Create the thread; `start` starts it.

        Args:
            spool: Spool that the sweep's driver writes to.
            metadata: Metadata of the study, which `start` writes to the spool.
            tracking_uri: URI of the store, as MLflow takes it.
            artifact_root: Artifact folder of an experiment that is created; None lets the server choose it.
            on_problem: Function that the uploading thread calls with a line of text about each outage, failed
                upload and missing model.
            on_recovered: Function that the uploading thread calls when an outage has ended.
        """
        self._spool = spool
        self._metadata = metadata
        self._on_problem = on_problem
        self._on_recovered = on_recovered
        self._uploader = Uploader(spool, tracking_uri, artifact_root, self._report, in_sweep=True)
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._stop = threading.Event()
        self._down_since: float | None = None
        self._lost_after_s = math.inf
        self._on_lost: Callable[[], None] = lambda: None
        self._is_drained = False
        #: The last text that ``on_problem`` got; None if there was none or an outage has ended since.
        self.problem: str | None = None

    def start(self) -> None:
        """Write the study's metadata to the spool, and start the thread."""
        store.prepare_environment()
        self._spool.start_study(self._metadata)
        self._thread.start()

    def when_lost(self, on_lost: Callable[[], None], after_s: float) -> None:
        """Set a function to call when an outage lasts too long.

        Args:
            on_lost: Function that the uploading thread calls, at most once.
            after_s: Number of seconds that one outage must have lasted before the call.
        """
        self._on_lost, self._lost_after_s = on_lost, after_s

    def notify(self) -> None:
        """Tell the thread that the spool has pending lines. This takes microseconds."""
        self._changed.set()

    def drain(self, timeout_s: float = 20) -> bool:
        """Wait until the spool is uploaded, a problem comes up, or ``timeout_s`` seconds have passed.

        Returns:
            True if the spool is uploaded.
        """
        deadline = time.monotonic() + timeout_s
        self.notify()
        while self._spool.pending() and self.problem is None and time.monotonic() < deadline:
            time.sleep(RETRY_S / 20)
        return not self._spool.pending()

    def finish(self, state: State, reason: str | None = None) -> None:
        """Write to the spool how the sweep ended.

        Args:
            state: COMPLETE; PRUNED if the sweep was interrupted and can be continued; or FAIL.
            reason: Cause of the end, in one line; None if there is nothing to explain.
        """
        self._spool.end_study(state, reason)
        self.notify()

    def close(self, timeout_s: float = 30) -> bool:
        """Upload what is pending, for at most ``timeout_s`` seconds, and end the thread.

        A store that has not answered for some time gets one more try instead of the whole time.

        Returns:
            True if all of the spool is in MLflow; if not, `sync` uploads the rest.
        """
        self._closing.set()
        self.notify()
        self._thread.join(timeout_s)
        self._stop.set()
        return self._is_drained

    def _run(self) -> None:
        wait_s, n_failures = BACKOFF_S[0], 0
        while not self._stop.is_set():
            self._changed.clear()
            is_closing = self._closing.is_set()
            try:
                is_clean = self._uploader.upload(self._stop.is_set)
            except OutageError as outage:
                self._went_down(outage)
                n_failures += 1
                if is_closing and n_failures >= TRIES:
                    return
                (self._stop if is_closing else self._closing).wait(wait_s)
                wait_s = min(2 * wait_s, BACKOFF_S[1])
                continue
            self._came_up()
            wait_s, n_failures = BACKOFF_S[0], 0
            if is_closing and is_clean:
                self._is_drained = self._uploader.all_uploaded
                return
            if not is_closing:
                self._changed.wait(FILES_EVERY_S if is_clean else RETRY_S)

    def _went_down(self, outage: OutageError) -> None:
        if self._down_since is None:
            self._down_since = time.monotonic()
            self._report(str(outage))
        if time.monotonic() - self._down_since >= self._lost_after_s:
            self._lost_after_s = math.inf
            self._on_lost()

    def _came_up(self) -> None:
        if self._down_since is not None:
            self._down_since = self.problem = None
            self._on_recovered()

    def _report(self, problem: str) -> None:
        self.problem = problem
        self._on_problem(problem)


@dataclass(frozen=True)
class SyncReport:
    """The result of `sync`.

    Attributes:
        n_uploaded: Number of attempts whose upload was completed.
        n_deleted: Number of runs that were deleted because they are not in the spool's index.
        problems: Lines of text, one about each failed upload and each missing model.
    """

    n_uploaded: int
    n_deleted: int
    problems: tuple[str, ...]


def sync(
    spool: Spool,
    tracking_uri: str,
    artifact_root: Path | None = None,
    *,
    rebuild: bool = False,
    on_uploaded: Callable[[], None] = lambda: None,
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
    uploader = Uploader(spool, tracking_uri, artifact_root, problems.append, in_sweep=False)
    while not uploader.upload():
        time.sleep(RETRY_S)
    runs = uploader.connect()
    n_deleted = runs.delete_unknown() if rebuild else 0
    on_uploaded()
    try:
        runs.upload_files()
    except Exception as error:
        problems.append(f"upload of files to MLflow failed: {reason(error)}")
    return SyncReport(uploader.n_uploaded, n_deleted, tuple(problems))

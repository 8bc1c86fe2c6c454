"""Carries the spool to MLflow, in a thread of its own during a sweep, or afterwards on request.

The driver never waits for MLflow. When it is gone the thread waits too, longer each time, and then goes
on where it was; what was not carried by the end of the sweep, `sync` carries later.
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

#: An attempt that cannot be carried this often, though the store answers, is put aside.
TRIES = 3
#: Seconds between two looks at the leaderboard and its like.
FILES_EVERY_S = 30.0
#: Seconds until an attempt that could not be carried is tried again.
RETRY_S = 1.0
#: Seconds of waiting for a store that is gone: at first, and at most.
BACKOFF_S = (0.5, 15.0)


class OutageError(UnreachableError):
    """The tracking store is gone, or cannot be used as it is. It may come back."""


@dataclass
class _Upload:
    """How far an attempt is on its way: what was read of it, and what of that is in MLflow."""

    record: RunLog | None = None
    offset: int = 0
    run_id: str | None = None
    n_logged: int = 0


class Uploader:
    """Carries what is new in a spool to a store, in the caller's thread."""

    def __init__(
        self,
        spool: Spool,
        tracking_uri: str,
        artifact_root: Path | None,
        on_problem: Callable[[str], None],
        *,
        in_sweep: bool,
    ) -> None:
        """Prepare; nothing is imported or asked yet.

        Args:
            spool: What to carry.
            tracking_uri: Where to.
            artifact_root: Where new experiments keep their files; None leaves that to the server.
            on_problem: Told, in one line, of each attempt that is put aside or has no model.
            in_sweep: Whether a sweep is at work; if not, an attempt without an end has been cut off.
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
        #: How many attempts were carried to their end.
        self.n_uploaded = 0

    @property
    def all_uploaded(self) -> bool:
        """Whether nothing had to be put aside."""
        return max(self._failures.values(), default=0) < TRIES

    def connect(self) -> MlflowRuns:
        """Return the study in the store.

        Raises:
            OutageError: If the store does not answer, or cannot be used as it is.
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
        """Carry what is new, the study's own lines last.

        Args:
            stop: Asked before each attempt.

        Returns:
            Whether nothing is left; if not, call again.

        Raises:
            OutageError: If the store does not answer. Call again; nothing is lost or made twice.
        """
        runs = self.connect()
        is_clean = True
        for stem in self._spool.pending():
            if stop():
                return False
            ship = self._upload_study if stem == STUDY else partial(self._upload_attempt, stem)
            is_clean &= self._try(stem, partial(ship, runs))
        if time.monotonic() >= self._files_due:
            is_clean &= self._try("files", runs.upload_files)
            self._files_due = time.monotonic() + FILES_EVERY_S
        return is_clean

    def _try(self, what: str, step: Callable[[], None]) -> bool:
        """Return whether a step needs no other try: it is done, or has failed for good."""
        if self._failures.get(what, 0) >= TRIES:
            return True
        try:
            step()
        except Exception as error:
            self._ping()
            self._failures[what] = self._failures.get(what, 0) + 1
            if self._failures[what] == TRIES:
                self._on_problem(f"{what} is not in MLflow: {reason(error)}")
                return True
            return False
        self._failures.pop(what, None)
        return True

    def _ping(self) -> None:
        """Raise OutageError unless the store answers, so that it was the attempt that failed."""
        try:
            self.connect().ping()
        except Exception as error:
            raise self._outage(error) from error

    def _outage(self, error: Exception) -> OutageError:
        if isinstance(error, LenetExpError):
            return OutageError(str(error))
        return OutageError(f"the tracking store {mask_url(self._uri)} does not answer: {reason(error)}")

    def _upload_attempt(self, stem: str, runs: MlflowRuns) -> None:
        """Carry an attempt as far as the spool has it; what is done already is not done again."""
        upload = self._uploads.setdefault(stem, _Upload())
        entries, upload.offset = jsonl.read(self._spool.path(stem), upload.offset)
        upload.record = record = extended_run_log(upload.record, RunKey.from_stem(stem), entries)
        if record is None:
            self._spool.remove(stem)
            del self._uploads[stem]
            return
        if upload.run_id is None:
            upload.run_id = runs.begin(record)
        runs.log_epochs(upload.run_id, record, upload.n_logged)
        upload.n_logged = len(record.epochs)
        if record.end:
            problem = runs.finish(upload.run_id, record, record.end)
            failpoints.point("after_mlflow")
            self._spool.keep_uploaded(stem, upload.offset)
            del self._uploads[stem]
            self.n_uploaded += 1
            if problem:
                self._on_problem(f"{stem}: {problem}")
        elif not self._in_sweep:
            runs.cut_off(upload.run_id, (record.start_ms, *record.epoch_ms)[-1])

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
            # Last, so that what it takes from the registry's side holds up nothing else.
            runs.register(study.champion)
        if study.end or self._in_sweep:
            self._spool.keep_uploaded(STUDY, offset)


class Tracker:
    """The thread that carries a sweep's spool to MLflow while the sweep goes on."""

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
        """Prepare; nothing happens before `start`.

        Args:
            spool: The sweep's spool, into which the driver writes.
            metadata: What the study's run says.
            tracking_uri: Where to; see `lenet_exp.tracking.store.local_uri`.
            artifact_root: Where new experiments keep their files; None leaves that to the server.
            on_problem: Called in the thread with one line, for each outage and each attempt put aside.
            on_recovered: Called in the thread when an outage is over.
        """
        self._spool = spool
        self._metadata = metadata
        self._on_problem = on_problem
        self._on_recovered = on_recovered
        self._uploader = Uploader(spool, tracking_uri, artifact_root, self._note, in_sweep=True)
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._stop = threading.Event()
        self._down_since: float | None = None
        self._lost_after_s = math.inf
        self._on_lost: Callable[[], None] = lambda: None
        self._is_drained = False
        #: The last outage or attempt put aside, in one line; None if all is well.
        self.problem: str | None = None

    def start(self) -> None:
        """Note in the spool that a sweep is at work, and begin to carry."""
        store.prepare_environment()
        self._spool.start_study(self._metadata)
        self._thread.start()

    def when_lost(self, on_lost: Callable[[], None], after_s: float) -> None:
        """Call ``on_lost`` once in the thread, should the store be gone for ``after_s`` seconds on end."""
        self._on_lost, self._lost_after_s = on_lost, after_s

    def notify(self) -> None:
        """Say that the spool has news. Costs microseconds."""
        self._changed.set()

    def drain(self, timeout_s: float = 20) -> bool:
        """Wait until what is in the spool now is in MLflow; a store that is gone is not waited for.

        Returns:
            Whether it is.
        """
        deadline = time.monotonic() + timeout_s
        self.notify()
        while self._spool.pending() and self.problem is None and time.monotonic() < deadline:
            time.sleep(RETRY_S / 20)
        return not self._spool.pending()

    def finish(self, state: State, reason: str | None = None) -> None:
        """Note in the spool how the sweep ended: COMPLETE, PRUNED (cut short, can go on) or FAIL."""
        self._spool.end_study(state, reason)
        self.notify()

    def close(self, timeout_s: float = 30) -> bool:
        """Carry the rest and end the thread.

        A store that has been gone for some time gets one more try, not the whole time.

        Returns:
            Whether all of the spool is in MLflow. If not, `sync` carries the rest.
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
            self._note(str(outage))
        if time.monotonic() - self._down_since >= self._lost_after_s:
            self._lost_after_s = math.inf
            self._on_lost()

    def _came_up(self) -> None:
        if self._down_since is not None:
            self._down_since = self.problem = None
            self._on_recovered()

    def _note(self, problem: str) -> None:
        self.problem = problem
        self._on_problem(problem)


@dataclass(frozen=True)
class SyncReport:
    """What `sync` did.

    Attributes:
        n_uploaded: Attempts that are in MLflow now and were not, or not whole.
        n_deleted: Runs that the spool does not know, and second copies.
        problems: What could not be carried, a line each.
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
    """Carry to MLflow all that is in the spool. No sweep may be at work on it.

    Args:
        spool: An experiment's spool.
        tracking_uri: Where to.
        artifact_root: Where new experiments keep their files; None leaves that to the server.
        rebuild: Look at every run instead of trusting what is known to be there: make the missing ones
            anew, delete those of this study that the spool does not know.
        on_uploaded: Called when every run has its id; what it changes in the study's files is uploaded.

    Raises:
        UnreachableError: If the store does not answer, or cannot be used as it is.
        NoResultError: If there is nothing to carry.
    """
    problems: list[str] = []
    if rebuild:
        spool.forget_uploaded()
    begun = spool.study()
    if begun and begun.end is None:  # its driver died: in MLflow it may seem to be at work still
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
        problems.append(f"files are not in MLflow: {reason(error)}")
    return SyncReport(uploader.n_uploaded, n_deleted, tuple(problems))

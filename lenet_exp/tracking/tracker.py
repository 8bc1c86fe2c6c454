"""A thread that uploads a sweep's spool to MLflow while the sweep is at work.

The driver never waits for MLflow. During an outage the thread tries again after longer and longer waits, and
then continues where it stopped. What is not uploaded when the sweep ends, `sync` uploads later.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lenet_exp.base.errors import SweepInterruptedError, UnreachableError
from lenet_exp.base.messages import counted, say
from lenet_exp.base.records import State
from lenet_exp.tracking import store, uploader
from lenet_exp.tracking.events import StudyMetadata
from lenet_exp.tracking.spool import Spool
from lenet_exp.tracking.uploader import OutageError, Uploader

#: Seconds that the store may take for one call before it is waited for no longer.
PATIENCE_S = 30.0
#: Seconds between two lines about the runs that are left.
TELL_EVERY_S = 5.0
#: Number of tries to reach the store when the sweep has ended.
LAST_TRIES = 5
_TICK_S = 0.02


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
        on_left: Callable[[int], None] = lambda _: None,
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
            on_left: Function that gets the number of runs that are left, every few seconds of a wait.
        """
        self._spool = spool
        self._metadata = metadata
        self._on_problem = on_problem
        self._on_recovered = on_recovered
        self._on_left = on_left
        self._uploader = Uploader(spool, tracking_uri, artifact_root, self._report, in_sweep=True)
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._stop = threading.Event()
        self._down_since: float | None = None
        self._lost_after_s = math.inf
        self._on_lost: Callable[[], None] = lambda: None
        self._is_drained = False
        # Numbers of notifications: those made, and those that an upload without a failure has come after.
        self._asked = self._served = 0
        #: What the sweep found: ``metrics`` and ``tags`` of the study's run, written when it ends.
        self.result: Mapping[str, Any] = {}
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

    @property
    def n_left(self) -> int:
        """Number of runs that are not completely in MLflow, the study's own included."""
        return len(self._uploader.left())

    def state(self) -> str:
        """Return ``live``, or how many runs the spool has to keep for a store that has a problem."""
        return f"spooling {counted(self.n_left, 'run')}" if self.problem else "live"

    def notify(self) -> None:
        """Tell the thread that the spool has pending lines. This takes microseconds."""
        self._asked += 1
        self._changed.set()

    def drain(self, timeout_s: float = PATIENCE_S) -> bool:
        """Wait until everything in the spool was uploaded or refused, as long as the store answers.

        Args:
            timeout_s: Seconds that the store may take for one call.

        Returns:
            True if the spool is uploaded.
        """
        self.notify()
        asked = self._asked
        self._wait(lambda: not self._spool.pending() or self._served >= asked or self._is_down, timeout_s)
        return not self._spool.pending()

    @property
    def _is_down(self) -> bool:
        return self._down_since is not None

    def _wait(self, is_over: Callable[[], bool], timeout_s: float) -> None:
        """Wait until ``is_over``, or until the store takes longer than ``timeout_s`` for one call."""
        told = time.monotonic()
        while self._thread.is_alive() and not is_over() and self._uploader.waited_s < timeout_s:
            if time.monotonic() - told >= TELL_EVERY_S:
                told = time.monotonic()
                self._on_left(self.n_left)
            self._thread.join(_TICK_S)

    def finish(self, state: State, reason: str | None = None) -> None:
        """Write to the spool how the sweep ended.

        Args:
            state: COMPLETE; PRUNED if the sweep was interrupted and can be continued; or FAIL.
            reason: Cause of the end, in one line; None if there is nothing to explain.
        """
        self._spool.end_study(state, reason, self.result)
        self.notify()

    def close(self, timeout_s: float | None = None) -> bool:
        """Upload what is pending, and end the thread.

        A store that has not answered for some time gets a few more tries.

        Args:
            timeout_s: Seconds to wait at most; None to wait as long as the store answers.

        Returns:
            True if all of the spool is in MLflow; if not, `sync` uploads the rest.
        """
        self._closing.set()
        self.notify()
        try:
            if timeout_s is None:
                self._wait(lambda: False, PATIENCE_S)
            else:
                self._thread.join(timeout_s)
        finally:
            self._stop.set()
        return self._is_drained

    def _run(self) -> None:
        wait_s, n_failures = uploader.BACKOFF_S[0], 0
        closing_since: float | None = None
        while not self._stop.is_set():
            self._changed.clear()
            asked, is_closing = self._asked, self._closing.is_set()
            if is_closing and closing_since is None:
                self._uploader.retry()
                wait_s, n_failures, closing_since = uploader.BACKOFF_S[0], 0, time.monotonic()
            try:
                is_clean = self._uploader.upload(self._stop.is_set)
            except OutageError as outage:
                self._went_down(outage)
                n_failures += 1
                waited_s = time.monotonic() - closing_since if closing_since else 0.0
                if is_closing and (n_failures >= LAST_TRIES or waited_s > PATIENCE_S):
                    return
                (self._stop if is_closing else self._closing).wait(wait_s)
                wait_s = min(2 * wait_s, uploader.BACKOFF_S[1])
                continue
            self._came_up()
            wait_s, n_failures = uploader.BACKOFF_S[0], 0
            if is_clean:
                self._served = asked
            if is_closing and is_clean:
                self._is_drained = not self._uploader.left()
                self._uploader.close()
                return
            if not is_closing:
                self._changed.wait(uploader.FILES_EVERY_S if is_clean else uploader.RETRY_S)
            elif not is_clean:
                self._stop.wait(uploader.RETRY_S)

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


@contextmanager
def tracked(
    metadata: StudyMetadata, tracking: tuple[str, Path | None], spool: Spool, sync_command: str
) -> Iterator[Tracker]:
    """Context manager: upload the spool to MLflow for the length of the ``with`` block.

    After the block the study's run in MLflow ends: as COMPLETE, as PRUNED after an interrupt, else as FAIL.

    Args:
        metadata: Name, parameters, tags and files of the study's run.
        tracking: URI and artifact folder of the MLflow store, from `lenet_exp.tracking.store.locate`.
        spool: Spool to upload.
        sync_command: Command that uploads what this one could not, for the user to paste.
    """
    tracker = Tracker(
        spool,
        metadata,
        tracking_uri=tracking[0],
        artifact_root=tracking[1],
        on_problem=lambda problem: say(f"warning: {problem}"),
        on_recovered=lambda: say("MLflow answers again; nothing was lost"),
        on_left=lambda n_runs: say(f"uploading to MLflow: {counted(n_runs, 'run')} left"),
    )
    tracker.start()
    patience_s: float | None = None  # a sweep that ends by itself waits as long as the store answers
    try:
        yield tracker
    except (SweepInterruptedError, KeyboardInterrupt) as stop:
        deadline = getattr(stop, "deadline", None)
        patience_s = 15 if deadline is None else max(1.0, min(15.0, deadline - time.monotonic()))
        say("uploading to MLflow what it lacks; Ctrl-C again leaves that to the next command")
        tracker.finish("PRUNED", "interrupted")
        raise
    except BaseException as error:
        patience_s = 30.0
        tracker.finish("FAIL", (str(error).splitlines() or [type(error).__name__])[0])
        raise
    else:
        tracker.finish("COMPLETE")
    finally:
        try:
            is_uploaded = tracker.close(patience_s)
        except KeyboardInterrupt:  # in the wait
            is_uploaded = False
            raise
        finally:
            if not is_uploaded:
                left = "1 run is" if tracker.n_left == 1 else f"{tracker.n_left} runs are"
                # Without the repair that a warning has advised, `sync` would fail as the sweep did.
                first = "after that repair " if "--repair" in (tracker.problem or "") else ""
                say(f"{left} not in MLflow yet; nothing is lost: {first}'{sync_command}' uploads the rest")


@contextmanager
def outage_told(tracker: Tracker) -> Iterator[None]:
    """Context manager: give an interrupt caused by --require-tracking the message of the outage."""
    try:
        yield
    except SweepInterruptedError as stop:
        if stop.exit_code != UnreachableError.exit_code:
            raise
        raise SweepInterruptedError(
            f"{tracker.problem}; stopped, as --require-tracking asks; run the same command again to go on",
            stop.exit_code,
        ) from None

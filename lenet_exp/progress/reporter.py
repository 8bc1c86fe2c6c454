"""What the sweep tells how it stands: keeps the state, estimates the time left, writes ``progress.json``.

The calls take microseconds and never fail; files are written by a thread of its own. Whatever goes wrong with
the file is dropped, as no sweep may fail for want of being watched.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lenet_exp.base.errors import SweepInterruptedError
from lenet_exp.base.messages import counted, say
from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.execution.resources import measure
from lenet_exp.progress.estimate import Duration, Waiting, in_words, time_left
from lenet_exp.progress.state import MAX_NOTES, Incumbent, Note, Phase, Progress, Running, TimeLeft

if TYPE_CHECKING:
    from lenet_exp.config.experiment import Experiment
    from lenet_exp.config.hyperparameters import Configuration
    from lenet_exp.study.records import Attempt, TrialRecord

#: Seconds between two versions of the file while something changes, and while nothing does.
WRITE_EVERY_S, ALIVE_EVERY_S = 1.0, 5.0
#: Seconds that take, more or less, test split, tables and page, and the timing of a configuration.
PAGE_S, TIMING_S = 6.0, 3.0
#: How an attempt ended, as `Counts` names it.
Ending = Literal["complete", "pruned", "infeasible", "failed", "retried"]


class Reporter:
    """Keeps how a sweep stands. One thread changes it, but for notes and for what an interrupt waits for."""

    def __init__(self) -> None:
        """Start in the phase ``loading``; nothing is shown or written yet."""
        self._state = Progress()
        self._began = time.monotonic()
        self._notes: deque[Note] = deque(maxlen=MAX_NOTES)
        self._running: dict[RunKey, tuple[Running, float]] = {}
        self._durations: deque[Duration] = deque(maxlen=200)
        self._waiting, self._after = Waiting(), Waiting()
        self._workers = 1
        self._is_confirmed = False
        self._experiment: Experiment | None = None
        self._baseline: float | None = None
        self._tracking: Callable[[], str] = str
        self._looked: dict[str, Any] = {}
        self._stopping = ""
        self._changed = threading.Event()
        #: True to tell in each plain line how far the sweep is; what draws a board clears it.
        self.is_plain = False
        #: Function that ends what is drawn, so that results can be printed.
        self.close: Callable[[], None] = lambda: None
        #: Function that is called once everything is loaded.
        self.loaded: Callable[[], None] = lambda: None

    # What the sweep tells.

    def begin_experiment(
        self,
        experiment: Experiment,
        workers: int,
        records: Iterable[TrialRecord],
        tracking: Callable[[], str] = str,
    ) -> None:
        """Tell what is run, and what earlier calls have done of it.

        Args:
            experiment: Experiment whose file has been read.
            workers: Number of trainings at once.
            records: Records of the attempts that have ended.
            tracking: Function that returns the state of the upload to MLflow, for `Progress.tracking`.
        """
        self.loaded()
        self._experiment, self._workers, self._tracking = experiment, workers, tracking
        unit = "trial" if experiment.space else "training"
        self._state = replace(self._state, experiment=experiment.name, unit=unit)
        for record in records:
            if record.key.role != "confirm":
                self._count(ended_as(record))
                if record.state == "COMPLETE" and record.value is not None:
                    self._complete(record.label, record.value)

    def search(self, *, is_confirmed: bool) -> None:
        """Tell that the search begins, or the trainings of a list.

        Args:
            is_confirmed: True if a confirmation follows, of as many trainings as the experiment asks for.
        """
        self.phase("search")
        self._is_confirmed = is_confirmed
        if is_confirmed and self._experiment is not None:
            self._after = _confirmation(self._experiment)

    def phase(self, phase: Phase, detail: str = "", *, line: str = "", n_seeds: int = 0) -> None:
        """Tell what the sweep is at from now on.

        Args:
            phase: Phase that begins.
            detail: More about it, in a few words.
            line: Line to say where no board shows the phase; empty if another line tells it already.
            n_seeds: Number of fresh seeds of a confirmation.
        """
        if phase == "confirmation":
            self._is_confirmed = True
            self._after = Waiting()
            self._state = replace(self._state, unit="training", n_done=0, n_total=0, n_seeds=n_seeds)
        self._state = replace(self._state, phase=phase, detail=detail)
        if line and self.is_plain:
            say(line)
        self._changed.set()

    def position(self, n_done: int, n_total: int, n_waiting: int) -> None:
        """Tell how far the phase is.

        Args:
            n_done: Number of its trials or trainings that have ended.
            n_total: Number of all.
            n_waiting: Number of trainings that have not begun; those that are no trials count too.
        """
        is_confirmation = self._state.phase == "confirmation"
        # A finalist is not pruned, so it takes as long as all epochs do.
        self._waiting = Waiting(full=n_waiting) if is_confirmation else Waiting(n_waiting)
        self._state = replace(self._state, n_done=n_done, n_total=n_total)

    def begin(self, attempt: Attempt) -> None:
        """Tell that a worker now trains an attempt."""
        differs = distinguishing(attempt.configuration, self._experiment) if self._experiment else ""
        run = Running(attempt.label, attempt.configuration.epochs, differs)
        self._running[attempt.key] = run, time.monotonic()

    def epoch(self, key: RunKey, result: EpochResult) -> None:
        """Tell the result of an epoch.

        Args:
            key: Key of the attempt.
            result: Losses, accuracies and times of the epoch.
        """
        if key not in self._running:
            return
        run, began = self._running[key]
        accuracy = result.train_accuracy if math.isnan(result.val_accuracy) else result.val_accuracy
        run = replace(run, epoch=result.epoch, accuracy=accuracy, examples_per_s=result.examples_per_s)
        self._running[key] = replace(run, trained_s=time.monotonic() - began), began
        self._changed.set()

    def end(self, key: RunKey, label: str, ended: Ending, value: float | None = None) -> None:
        """Tell that an attempt has ended.

        Args:
            key: Key of the attempt.
            label: Name that people see.
            ended: State in which it ended, a retry included.
            value: Validation accuracy of a complete training; None without one.
        """
        if started := self._running.pop(key, None):
            run, began = started
            if run.epoch and ended in ("complete", "pruned"):
                self._durations.append(Duration(time.monotonic() - began, run.epoch, run.epochs))
        if key.role != "confirm":
            self._count(ended)
            if value is not None and ended == "complete":
                self._complete(label, value)
        self._changed.set()

    def _count(self, ended: Ending) -> None:
        counts = self._state.counts
        self._state = replace(self._state, counts=replace(counts, **{ended: getattr(counts, ended) + 1}))

    def _complete(self, label: str, value: float) -> None:
        if self._experiment and self._experiment.ablate:
            return  # the best of single seeds is nobody's answer; the table compares means over seeds
        best = self._state.incumbent
        if label == "baseline":
            self._baseline = value
        if best is None or value > best.val_accuracy:
            best = Incumbent(label, value)
        delta = None if self._baseline is None else best.val_accuracy - self._baseline
        self._state = replace(self._state, incumbent=replace(best, delta=delta))

    def note(self, line: str) -> bool:
        """Keep a line for the user, from any thread or signal handler; return False, as it is not shown."""
        self._notes.append(Note(time.time(), line))
        return False

    def stopping(self, why: str) -> None:
        """Tell what an interrupt waits for. Safe in a signal handler."""
        self._stopping = why

    # What is shown.

    def progress(self) -> Progress:
        """Return how the sweep stands now. Safe in a signal handler, as it asks nobody and takes no lock."""
        now, state = time.monotonic(), self._state
        # `list` copies at once, whatever the driver's thread is doing.
        running = [replace(run, ran_s=now - began) for run, began in list(self._running.values())]
        left = time_left(list(self._durations), running, self._waiting + self._after, self._workers)
        is_training = state.phase in ("search", "confirmation")
        return replace(
            state,
            running=tuple(running),
            left=self._with_rest(left) if left and is_training and not self._stopping else None,
            stopping="" if state.has_ended else self._stopping,
            notes=tuple(self._notes),
            ran_s=round(now - self._began, 1),
            updated=round(time.time(), 3),
            **self._looked,
        )

    def _with_rest(self, left: TimeLeft) -> TimeLeft:
        """Return the time until the command ends, which is some seconds after the last training."""
        n_timed = self._experiment.confirm.top + 1 if self._experiment and self._is_confirmed else 0
        rest_s = PAGE_S + TIMING_S * n_timed
        return TimeLeft(left.low_s + rest_s / 2, left.middle_s + rest_s, left.high_s + 2 * rest_s)

    def with_position(self, line: str) -> str:
        """Return a line that tells of a training's end, where no board is shown with how far the sweep is."""
        if not self.is_plain or not self._state.n_total:
            return line
        progress = self.progress()
        left = f", {in_words(progress.left)} left" if progress.left else ""
        is_confirmation = progress.phase == "confirmation" and progress.n_seeds
        seeds = f", {progress.n_seeds_done} of {counted(progress.n_seeds, 'seed')}" if is_confirmation else ""
        return f"{line}; {progress.n_done} of {counted(progress.n_total, progress.unit)}{seeds}{left}"

    def _look(self, folder: Path) -> None:
        """Find out how memory, disk and MLflow are."""
        looked: dict[str, Any] = {"memory_bytes": measure().memory_bytes}
        with suppress(Exception):  # the uploading thread changes what is looked at
            looked["tracking"] = self._tracking()
        with suppress(OSError):
            looked["disk_bytes"] = shutil.disk_usage(folder).free
        self._looked = looked

    @contextmanager
    def recording(self, path: Path) -> Iterator[None]:
        """Context manager: keep a file up to date with how the sweep stands, and with how it ended.

        Args:
            path: The file, in a folder that this process has locked.
        """
        stop = threading.Event()
        writer = threading.Thread(target=self._keep_written, args=(path, stop), name="progress", daemon=True)
        writer.start()
        try:
            yield
        except BaseException as error:
            is_asked = isinstance(error, SweepInterruptedError | KeyboardInterrupt)
            self.phase("interrupted" if is_asked else "failed", (str(error).splitlines() or [""])[0])
            raise
        else:
            self.phase("done")
        finally:
            stop.set()
            self._changed.set()
            writer.join(2.0)  # a disk that hangs is not waited for

    def _keep_written(self, path: Path, stop: threading.Event) -> None:
        while not stop.is_set():
            self._changed.clear()
            self._look(path.parent)
            self._write(path)
            # If the end came before `clear`, `stop` tells of it and `changed` does not.
            if not stop.wait(WRITE_EVERY_S):
                self._changed.wait(ALIVE_EVERY_S)
        self._write(path)

    def _write(self, path: Path) -> None:
        # The command line imports this module, and Windows, which lacks fcntl, is to be told so in a line.
        from lenet_exp.base.files import write_atomically

        with suppress(Exception):
            write_atomically(path, self.progress().to_json().encode(), durable=False)


def _confirmation(experiment: Experiment) -> Waiting:
    """Return the trainings that a confirmation takes, as far as the experiment's settings tell."""
    from lenet_exp.config.experiment import FIRST_SEEDS  # pydantic is slow to load

    settings = experiment.confirm
    n_configurations = settings.top + 1
    if settings.seeds != "auto":
        return Waiting(full=n_configurations * settings.seeds)
    # The first stage tells how many seeds the second takes.
    n_more = max(0, settings.max_seeds - FIRST_SEEDS)
    return Waiting(
        full=n_configurations * (FIRST_SEEDS + n_more / 3), full_spread=n_configurations * n_more / 3
    )


def ended_as(record: TrialRecord) -> Ending:
    """Return how an attempt ended, as `Counts` names it."""
    if record.superseded:
        return "retried"
    if record.state == "COMPLETE":
        return "complete"
    return "infeasible" if record.infeasible else "pruned" if record.state == "PRUNED" else "failed"


def distinguishing(configuration: Configuration, experiment: Experiment) -> str:
    """Return in what a configuration differs from the baseline, in the words of the tables.

    Args:
        configuration: Configuration of a training.
        experiment: Experiment that it is part of.
    """
    from lenet_exp.config.describe import differences  # pydantic is slow to load

    usual = experiment.baseline_configuration
    return differences(configuration.hyperparameters(), usual.hyperparameters())

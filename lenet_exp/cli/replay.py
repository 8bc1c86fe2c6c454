"""Replay: train a recorded attempt again from its record, and compare the two epoch by epoch.

On the same machine with the same number of threads the metrics are identical, bit for bit.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lenet_exp.base.environment import CAUSES
from lenet_exp.base.errors import NoResultError, printable
from lenet_exp.base.layout import Layout
from lenet_exp.base.messages import counted, say, step
from lenet_exp.base.records import EpochResult
from lenet_exp.config.experiment import Experiment, Watch
from lenet_exp.data.images import training_images
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.execution.protocol import Conditions, Ended, Epoch, Task
from lenet_exp.execution.resources import WorkerPlan
from lenet_exp.execution.signals import unwinding
from lenet_exp.results.lookup import ExperimentResults, read_results
from lenet_exp.results.views.console import print_rows
from lenet_exp.study.records import Attempt, TrialRecord

#: Rows of the printed table of differences; more would say nothing new.
MAX_SHOWN = 20
#: Metrics that are compared; times are never equal.
COMPARED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True)
class Difference:
    """A metric that is not the same in both trainings.

    Attributes:
        epoch: Number of the epoch, from 1.
        metric: Name of the metric, one of `COMPARED`.
        recorded: Value in the record; NaN if the record lacks the epoch.
        replayed: Value in the replay; NaN if the replay lacks the epoch.
    """

    epoch: int
    metric: str
    recorded: float
    replayed: float


@dataclass(frozen=True)
class Replay:
    """A comparison of a replay with the recorded training.

    Attributes:
        record: Record of the attempt that was trained again.
        differences: Metrics that are not the same, in the order of epochs.
        n_compared: Number of epochs that were compared.
        changes: Name, recorded value and present value of each condition that has changed since, such as the
            number of threads; a change can explain differences.
        unknown: Names of conditions that the record does not have, and which may have changed too.
    """

    record: TrialRecord
    differences: tuple[Difference, ...]
    n_compared: int
    changes: tuple[tuple[str, Any, Any], ...]
    unknown: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """True if the repeated training has the same metrics as the recorded one, bit for bit."""
        return not self.differences


def replay(
    experiment: Experiment,
    root: Path,
    trial: str,
    *,
    threads: int | None = None,
    device: str | None = None,
    storage: str | None = None,
    say: Callable[[str], Any] = say,
) -> Replay:
    """Train a recorded attempt again and compare the two; nothing that was recorded changes.

    Args:
        experiment: Experiment that has the attempt.
        root: Folder that holds all results.
        trial: Name of the attempt: a trial number, a label, an MLflow run id, ``champion`` or ``baseline``.
        threads: Number of CPU threads to train with; None for the recorded number.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; None for the recorded kind of device.
        storage: URL of the PostgreSQL database that holds the study; None for ``study.db`` in ``root``.
        say: Function that gets a line of text for the user after each epoch.

    Raises:
        ConfigError: If there is no such attempt.
        NoResultError: If the record has no epoch to compare, or the replay fails.
        DataError: If the images are missing or damaged.
        DeviceError: If the device is not available.
        SweepInterruptedError: If the user presses Ctrl-C.
    """
    with step("reading the record"):
        results = read_results(experiment, root, storage)
        record = results.find(trial)
        original = results.original(record)
    if original is not record:
        say(f"{record.label} is a duplicate of {original.label}, which was trained; replaying that")
    log = results.attempt(original)
    recorded = log.epochs if log else ()
    diverged = original.reason.startswith("diverged")
    if not (recorded or diverged):
        reason = original.reason or "no epoch was recorded"
        raise NoResultError(f"{original.label} has no epoch to compare: {reason}; name another trial")
    images = training_images(results.experiment.data)
    n_threads = threads or int(original.result.get("threads", 1))
    kept = "interrupted; nothing that was recorded has changed"
    with closing(LocalExecutor()) as executor, unwinding(kept):
        with step("loading torch"):
            machine = executor.probe(device or str(original.result.get("device_type", "auto")))
        epochs = counted(original.configuration.epochs, "epoch")
        say(f"{original.label}: training it again, {epochs}, on {machine.name}")
        with tempfile.TemporaryDirectory() as folder:
            layout, plan = Layout(Path(folder), "replay"), WorkerPlan(1, n_threads, "as recorded")
            conditions = Conditions(_as_trained(results, original), images, machine, layout, plan)
            task = _task(original, conditions)
            is_whole = original.state == "COMPLETE" or diverged
            replayed = _train(executor, task, recorded, None if is_whole else len(recorded), say)
    changes, unknown = _causes(results, original, conditions.metadata() | {"data": images.digest})
    n_compared = max(len(recorded), len(replayed))
    return Replay(original, compare(recorded, replayed), n_compared, changes, unknown)


def _causes(
    results: ExperimentResults, record: TrialRecord, now: Mapping[str, Any]
) -> tuple[tuple[tuple[str, Any, Any], ...], tuple[str, ...]]:
    """Return `Replay.changes` and `Replay.unknown`: what can explain differences.

    Args:
        results: Results of the experiment that has the attempt.
        record: Record of the attempt.
        now: Present value of each condition, by name.
    """
    then = {name: record.result[name] for name in CAUSES if name in record.result}
    if then and "kernels" not in then:  # recorded before there was a choice
        then["kernels"] = "fast" if record.result.get("device_type") == "cpu" else "torch"
    if "data" in results.fingerprint:
        then = {"data": results.fingerprint["data"]["digest"], **then}
    changes = tuple((name, value, now[name]) for name, value in then.items() if value != now[name])
    return changes, tuple(name for name in CAUSES if name not in then)


def show(comparison: Replay) -> None:
    """Print the metrics that differ, if any, and the verdict on the replay.

    Raises:
        NoResultError: If the two trainings are not identical; the message is the verdict.
    """
    if not comparison.identical:
        shown = comparison.differences[:MAX_SHOWN]
        n_metrics = comparison.n_compared * len(COMPARED)
        print_rows(
            f"{comparison.record.label}: {len(comparison.differences)} of {n_metrics} metrics differ",
            ("epoch", "metric", "recorded", "replayed", "difference"),
            [
                (
                    str(each.epoch),
                    each.metric,
                    f"{each.recorded!r}",
                    f"{each.replayed!r}",
                    f"{each.replayed - each.recorded:+.3g}",
                )
                for each in shown
            ],
        )
        raise NoResultError(verdict(comparison))
    sys.stdout.write(f"{printable(verdict(comparison))}\n")


def _as_trained(results: ExperimentResults, record: TrialRecord) -> Experiment:
    """Return the experiment with the settings of the recorded training, and without ``[watch]``."""
    training = {
        "compile": bool(record.result.get("compiled")),
        "kernels": record.result.get("kernels", "fast"),
    }
    experiment = results.experiment
    return experiment.model_copy(
        update={"training": experiment.training.model_copy(update=training), "watch": Watch()}
    )


def _task(record: TrialRecord, conditions: Conditions) -> Task:
    """Return the task that trains a recorded attempt again."""
    key, configuration = record.key, record.configuration
    attempt = Attempt(key, configuration, record.seed, record.label, key, train_on=record.train_on)
    return Task(attempt, conditions, conditions.machine.devices[0], checkpoints=False)


def _train(
    executor: LocalExecutor,
    task: Task,
    recorded: Sequence[EpochResult],
    max_epochs: int | None,
    say: Callable[[str], Any],
) -> list[EpochResult]:
    """Train ``task``, and return its epochs.

    Args:
        executor: Executor that is running no attempt.
        task: Task that trains the recorded attempt again.
        recorded: Epochs of the record, with which each epoch is compared.
        max_epochs: Number of epochs to stop after; None to train all.
        say: Function that gets a line of text for the user after each epoch.
    """
    epochs: list[EpochResult] = []
    executor.submit(task)
    while True:
        for event in executor.events():
            if isinstance(event, Epoch):
                epochs.append(event.result)
                is_same = not compare(recorded[len(epochs) - 1 : len(epochs)], [event.result])
                say(f"epoch {event.result.epoch}: {'as recorded' if is_same else 'differs from the record'}")
                if len(epochs) == max_epochs:
                    executor.stop(task.key)
                    return epochs
            elif isinstance(event, Ended):
                if event.how in ("failed", "died"):
                    raise NoResultError(f"the replay of {task.key.stem} failed: {event.reason}")
                return epochs


def compare(recorded: Sequence[EpochResult], replayed: Sequence[EpochResult]) -> tuple[Difference, ...]:
    """Return the metrics in which two trainings differ; an epoch that only one of them has differs in all.

    Args:
        recorded: Epochs of the record.
        replayed: Epochs of the replay.

    Example:
        >>> result = EpochResult(1, 0.5, 0.8, 0.4, 0.9, 1000.0, 2.0)
        >>> compare([result], [result])
        ()
    """
    by_epoch = [{result.epoch: result.metrics() for result in results} for results in (recorded, replayed)]
    differences = []
    for epoch in sorted(by_epoch[0].keys() | by_epoch[1].keys()):
        then, now = (metrics.get(epoch, {}) for metrics in by_epoch)
        for name in COMPARED:
            pair = then.get(name, math.nan), now.get(name, math.nan)
            # NaN in both is no difference: the validation loss of a network that diverges is NaN.
            is_same = pair[0] == pair[1] or (math.isnan(pair[0]) and math.isnan(pair[1]))
            if not (then and now and is_same):
                differences.append(Difference(epoch, name, *pair))
    return tuple(differences)


def verdict(comparison: Replay) -> str:
    """Return a sentence on a replay: that the training is identical, or what may explain the differences.

    Example:
        >>> from lenet_exp.base.records import RunKey
        >>> record = TrialRecord(RunKey("trial", 3, 1), "COMPLETE", "trial 3", {}, 2, "c", 0)
        >>> verdict(Replay(record, (), 2, (("threads", 1, 2),), ()))
        'trial 3 is identical in 2 epochs, bit for bit, though threads was 1 and is 2'
    """
    changes = ", ".join(f"{name} was {then} and is {now}" for name, then, now in comparison.changes)
    label = comparison.record.label
    if comparison.identical and not comparison.n_compared:
        return f"{label} diverged in its first epoch, as recorded"
    if comparison.identical:
        though = f", though {changes}" if changes else ""
        epochs = f"{comparison.n_compared} epoch{'s' if comparison.n_compared > 1 else ''}"
        return f"{label} is identical in {epochs}, bit for bit{though}"
    first = comparison.differences[0]
    text = f"{label} differs from epoch {first.epoch} on, {first.metric} first: "
    if changes:
        return f"{text}{changes}, which can explain it"
    if comparison.unknown:
        unknown = ", ".join(comparison.unknown)
        return f"{text}no recorded condition has changed, but the record does not have: {unknown}"
    return f"{text}nothing explains it, as data, code, versions, machine and threads are the same"

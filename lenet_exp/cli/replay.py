"""Trains a recorded attempt again from its record, and compares the two epoch by epoch.

On one machine and one number of threads the metrics are the same bit for bit, or something is wrong.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lenet_exp.base.environment import CAUSES
from lenet_exp.base.errors import NoResultError, SweepInterruptedError, printable
from lenet_exp.base.layout import Layout
from lenet_exp.base.messages import say
from lenet_exp.base.records import EpochResult, TrainOn
from lenet_exp.config.experiment import Experiment, Watch
from lenet_exp.data.images import training_images
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.execution.protocol import Conditions, Ended, Epoch, Task
from lenet_exp.execution.resources import WorkerPlan
from lenet_exp.results.lookup import ExperimentResults, read_results
from lenet_exp.results.views.console import print_rows
from lenet_exp.study.records import Attempt, TrialRecord

#: Differences that are shown; more say nothing more.
MAX_SHOWN = 20
#: What must be equal; the times of two trainings never are.
COMPARED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True)
class Difference:
    """A number that came out otherwise."""

    epoch: int
    metric: str
    results: float
    replayed: float


@dataclass(frozen=True)
class Replay:
    """How a second training compares with the recorded one.

    Attributes:
        record: The attempt that was trained first.
        differences: Numbers that came out otherwise, in order.
        n_compared: Epochs that were compared.
        changes: What is not as it was, and can explain differences: what, then, now.
        unknown: Possible causes that the record says nothing of.
    """

    record: TrialRecord
    differences: tuple[Difference, ...]
    n_compared: int
    changes: tuple[tuple[str, Any, Any], ...]
    unknown: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Whether all numbers are the same, bit for bit."""
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
    """Train a recorded attempt again; nothing that was recorded is changed.

    Args:
        experiment: Whose attempt.
        root: Folder of everything that runs wrote.
        trial: A name of the attempt, as `ExperimentResults.find` takes it.
        threads: Threads of the training; None for as many as the record says.
        device: The device, as the user names it; None for the kind that the record says.
        storage: URL of the study's storage, where it is not a file below ``root``.
        say: Told how it goes, a line at a time.

    Raises:
        ConfigError: If there is no such attempt, or it is of a kind that is not replayed.
        NoResultError: If the record has nothing to compare, or the replay fails.
        DataError: If the images are missing or damaged.
        DeviceError: If the device is not there.
        SweepInterruptedError: At Ctrl-C.
    """
    results = read_results(experiment, root, storage)
    record = results.find(trial)
    original = results.original(record)
    if original is not record:
        say(f"{record.label} was told the value of {original.label}, which was trained; replaying that")
    attempt = results.attempt(original)
    first = attempt.epochs if attempt else ()
    diverged = original.reason.startswith("diverged")
    if not (first or diverged):
        why = original.reason or "no epoch was recorded"
        raise NoResultError(f"{original.label} has nothing to compare with: {why}; name another")
    images = training_images(results.experiment.data)
    used = threads or int(original.result.get("threads", 1))
    executor = LocalExecutor()
    try:
        machine = executor.probe(device or str(original.result.get("device_type", "auto")))
        say(f"{original.label}: training it again, {original.configuration.epochs} epochs, on {machine.name}")
        with tempfile.TemporaryDirectory() as folder:
            layout, plan = Layout(Path(folder), "replay"), WorkerPlan(1, used, "as recorded")
            again = Conditions(_as_trained(results, original), images, machine, layout, plan)
            task = _task(results, original, again)
            whole = original.state == "COMPLETE" or diverged
            second = _train(executor, task, first, None if whole else len(first), say)
    except KeyboardInterrupt:
        raise SweepInterruptedError("interrupted; nothing that was recorded has changed") from None
    finally:
        executor.close()
    now = again.metadata() | {"data": images.digest}
    changes, unknown = _causes(results, original, now)
    return Replay(original, compare(first, second), max(len(first), len(second)), changes, unknown)


def _causes(
    results: ExperimentResults, record: TrialRecord, now: Mapping[str, Any]
) -> tuple[tuple[tuple[str, Any, Any], ...], tuple[str, ...]]:
    """Return what has changed, with then and now, and what cannot be told, as the record does not say it."""
    then = {name: record.result[name] for name in CAUSES if name in record.result}
    if then and "kernels" not in then:  # recorded before there was a choice
        then["kernels"] = "fast" if record.result.get("device_type") == "cpu" else "torch"
    if "data" in results.fingerprint:
        then = {"data": results.fingerprint["data"]["digest"], **then}
    changes = tuple((name, value, now[name]) for name, value in then.items() if value != now[name])
    return changes, tuple(name for name in CAUSES if name not in then)


def show(done: Replay) -> None:
    """Print what came out otherwise, if anything, and the verdict.

    Raises:
        NoResultError: If the two trainings are not identical; the message is the verdict.
    """
    if not done.identical:
        shown = done.differences[:MAX_SHOWN]
        print_rows(
            f"{done.record.label}: {len(done.differences)} of {done.n_compared * len(COMPARED)} differ",
            ("epoch", "metric", "recorded", "replayed", "difference"),
            [
                (
                    str(d.epoch),
                    d.metric,
                    f"{d.results!r}",
                    f"{d.replayed!r}",
                    f"{d.replayed - d.results:+.3g}",
                )
                for d in shown
            ],
        )
        raise NoResultError(verdict(done))
    sys.stdout.write(f"{printable(verdict(done))}\n")


def _as_trained(results: ExperimentResults, record: TrialRecord) -> Experiment:
    """Return the experiment with a step computed as the record says, and nothing watched besides."""
    training = {
        "compile": bool(record.result.get("compiled")),
        "kernels": record.result.get("kernels", "fast"),
    }
    experiment = results.experiment
    return experiment.model_copy(
        update={"training": experiment.training.model_copy(update=training), "watch": Watch()}
    )


def _task(results: ExperimentResults, record: TrialRecord, again: Conditions) -> Task:
    """Return what the attempt was, to be done again."""
    attempt = results.attempt(record)
    tags = attempt.metadata["tags"] if attempt else {}
    train_on: TrainOn = tags.get("lenet_exp.train_on", "train")
    key, configuration = record.key, record.configuration
    what = Attempt(key, configuration, record.seed, record.label, key, train_on=train_on)
    return Task(what, again, again.machine.devices[0], checkpoints=False)


def _train(
    executor: LocalExecutor,
    task: Task,
    first: Sequence[EpochResult],
    wanted: int | None,
    say: Callable[[str], Any],
) -> list[EpochResult]:
    """Return the epochs of ``task``, at most ``wanted`` if that is given."""
    epochs: list[EpochResult] = []
    executor.submit(task)
    while True:
        for event in executor.events():
            if isinstance(event, Epoch):
                epochs.append(event.result)
                same = not compare(first[len(epochs) - 1 : len(epochs)], [event.result])
                say(f"epoch {event.result.epoch}: {'identical' if same else 'different'}")
                if len(epochs) == wanted:
                    executor.stop(task.key)
                    return epochs
            elif isinstance(event, Ended):
                if event.how in ("failed", "died"):
                    raise NoResultError(f"the replay of {task.key.stem} failed: {event.reason}")
                return epochs


def compare(first: Sequence[EpochResult], second: Sequence[EpochResult]) -> tuple[Difference, ...]:
    """Return where two trainings differ; an epoch that only one has differs in everything.

    Args:
        first: The recorded epochs.
        second: The epochs of the replay.

    Example:
        >>> one = EpochResult(1, 0.5, 0.8, 0.4, 0.9, 1000.0, 2.0)
        >>> compare([one], [one])
        ()
    """
    nothing = float("nan")
    by_epoch = [{result.epoch: result.metrics() for result in results} for results in (first, second)]
    differences = []
    for epoch in sorted(by_epoch[0].keys() | by_epoch[1].keys()):
        then, now = (metrics.get(epoch, {}) for metrics in by_epoch)
        for name in COMPARED:
            pair = then.get(name, nothing), now.get(name, nothing)
            # Both may be no number, as the loss on validation images of a network that diverges.
            if not (then and now) or (pair[0] != pair[1] and not (pair[0] != pair[0] and pair[1] != pair[1])):
                differences.append(Difference(epoch, name, *pair))
    return tuple(differences)


def verdict(done: Replay) -> str:
    """Return a sentence on a replay: identical, or what explains the differences.

    Example:
        >>> from lenet_exp.base.records import RunKey
        >>> record = TrialRecord(RunKey("trial", 3, 1), "COMPLETE", "trial 3", {}, 2, "c", 0)
        >>> verdict(Replay(record, (), 2, (("threads", 1, 2),), ()))
        'trial 3 is identical in 2 epochs, bit for bit, though threads was 1 and is 2'
    """
    changes = ", ".join(f"{name} was {then} and is {now}" for name, then, now in done.changes)
    label = done.record.label
    if done.identical and not done.n_compared:
        return f"{label} diverged in its first epoch, as recorded"
    if done.identical:
        though = f", though {changes}" if changes else ""
        epochs = f"{done.n_compared} epoch{'s' if done.n_compared > 1 else ''}"
        return f"{label} is identical in {epochs}, bit for bit{though}"
    where = done.differences[0]
    text = f"{label} came out otherwise from epoch {where.epoch} on, {where.metric} first: "
    if changes:
        return f"{text}{changes}, which can explain it"
    if done.unknown:
        unknown = ", ".join(done.unknown)
        return f"{text}nothing that was recorded has changed, but the record does not say: {unknown}"
    return f"{text}nothing explains it, as data, code, versions, machine and threads are the same"

"""Trained weights on disk: the digest by which they are known, and how damaged ones are trained again.

The digest is recorded with the attempt's result when it completes. Whoever loads weights checks it, as a file
that was changed or exchanged would otherwise give another accuracy without a sign. Nothing here loads torch.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lenet_exp.base.errors import DataError, NoResultError
from lenet_exp.base.files import move_aside
from lenet_exp.base.layout import Layout
from lenet_exp.base.messages import repair_command
from lenet_exp.base.records import RunKey, TrainOn
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.execution.protocol import Conditions, Ended, Task
from lenet_exp.study.records import Attempt, TrialRecord

#: Name of the SHA-256 of an attempt's weights in its result, and of those in the study that have replaced it:
#: by the attempt's stem, of weights that were trained again and came out otherwise.
SHA256 = "weights_sha256"
#: A training that dies or runs out of memory is tried this often.
_TRIES = 3


def read_weights(path: Path, sha256: str | None = None) -> bytes:
    """Return the content of a file with weights.

    Args:
        path: File to read, ``weights.safetensors``.
        sha256: Recorded digest of the content; None if none was recorded, and nothing is checked.

    Raises:
        DataError: If the file is missing, is no file, or has another digest.
    """
    advice = f"'{repair_command(path.parents[3])}' trains it again"
    try:
        # Without waiting, as a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DataError(f"{path}: is not a file; {advice}")
            content = file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; {advice}") from None
    if sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise DataError(f"{path}: is damaged, or has the weights of another training; {advice}")
    return content


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of a file with weights, in hexadecimal digits.

    Raises:
        DataError: If the file is missing, or is no file.
    """
    return hashlib.sha256(read_weights(path)).hexdigest()


def recorded_digest(key: RunKey, result: Mapping[str, Any], kept: Mapping[str, Any]) -> str | None:
    """Return the digest that the weights of an attempt must have; None if it was recorded without one.

    Args:
        key: Key of the attempt.
        result: Result of the attempt, as study and spool have it.
        kept: Values that `Study.keep` stored, by name.
    """
    replaced = kept.get(SHA256) or {}
    digest: str | None = replaced.get(key.stem, result.get(SHA256))
    return digest


def damaged_weights(
    records: Iterable[TrialRecord], layout: Layout, kept: Mapping[str, Any] | None = None
) -> list[TrialRecord]:
    """Return the complete attempts whose weights are missing, or are not those that were recorded.

    Attempts without a recorded digest are left out, and duplicates, which have no weights of their own.

    Args:
        records: Records of all attempts.
        layout: Paths of the experiment.
        kept: Values that `Study.keep` stored, by name; None for none.
    """
    damaged = []
    for record in records:
        digest = recorded_digest(record.key, record.result, kept or {})
        if record.state != "COMPLETE" or digest is None or "duplicate_of" in record.result:
            continue
        try:
            read_weights(layout.weights(record.key), digest)
        except DataError:
            damaged.append(record)
    return damaged


def restore_weights(
    record: TrialRecord,
    train_on: TrainOn,
    conditions: Conditions,
    executor: LocalExecutor,
    kept: Mapping[str, Any],
    keep: Callable[[str, Any], None],
) -> str:
    """Train a complete attempt again from its seed, to the same path, and say in a sentence what came of it.

    What lies at the path is moved aside. Weights that come out otherwise, on another machine or with other
    code, are kept as the attempt's own from then on; its recorded result stays as it is.

    Args:
        record: Record of the attempt whose weights are missing or damaged.
        train_on: Images that it was trained on.
        conditions: Experiment, images, machine and limits; threads and kernels are those recorded.
        executor: Executor that is running no attempt.
        kept: Values that `Study.keep` stored, by name.
        keep: `Study.keep`, which stores a value in the study.

    Raises:
        NoResultError: If the training does not complete.
    """
    path, digest = conditions.layout.weights(record.key), recorded_digest(record.key, record.result, kept)
    for place in (path.parent, path):
        # Where a folder belongs, a link could lead out of the root, and a file would be in the way.
        is_folder = place == path.parent and place.is_dir() and not place.is_symlink()
        if os.path.lexists(place) and not is_folder:
            move_aside(place)
    _train(record, train_on, _as_recorded(conditions, record), executor)
    now = weights_digest(path)
    if now == digest:
        return f"{record.label}: its weights were missing or damaged; trained again, with the same weights"
    keep(SHA256, {**(kept.get(SHA256) or {}), record.key.stem: now})
    why = "as machine or code are others" if digest else "which cannot be compared with those before"
    return f"{record.label}: its weights were missing or damaged; trained again, with other weights, {why}"


def _as_recorded(conditions: Conditions, record: TrialRecord) -> Conditions:
    """Return the conditions with the threads and kernels of a recorded training."""
    training, recorded = conditions.experiment.training, record.result
    as_then = {
        "kernels": recorded.get("kernels", training.kernels),
        "compile": bool(recorded.get("compiled", training.compile)),
    }
    return replace(
        conditions,
        experiment=conditions.experiment.model_copy(update={"training": training.model_copy(update=as_then)}),
        plan=replace(conditions.plan, threads=int(recorded.get("threads", conditions.plan.threads))),
        test_images=None,
    )


def _train(record: TrialRecord, train_on: TrainOn, conditions: Conditions, executor: LocalExecutor) -> None:
    key = record.key
    attempt = Attempt(key, record.configuration, record.seed, record.label, origin=key, train_on=train_on)
    reason = ""
    for _ in range(_TRIES):
        executor.submit(Task(attempt, conditions, conditions.machine.devices[0], checkpoints=False))
        try:
            ended = next(e for e in _events(executor) if isinstance(e, Ended) and e.key == key)
        finally:
            executor.stop(key)
        if ended.how == "completed":
            return
        reason = ended.reason
        if ended.how not in ("died", "oom"):
            break
    raise NoResultError(
        f"{record.label}: its weights are missing or damaged, and it cannot be trained again: {reason}; put"
        f" {conditions.layout.weights(key)} back from a backup, or run the same command on another machine"
    )


def _events(executor: LocalExecutor) -> Iterable[object]:
    while True:
        yield from executor.events()

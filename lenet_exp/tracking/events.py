"""What the spool's lines say: of an attempt, of the study, of its champion. Plain values; no files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lenet_exp.base.records import EpochResult, RunKey, State


@dataclass(frozen=True)
class DatasetMetadata:
    """What the trainings read.

    Attributes:
        name: Such as ``fashion-mnist``.
        digest: Of its files; MLflow takes up to 36 characters.
        source: Where it came from.
    """

    name: str
    digest: str
    source: str


@dataclass(frozen=True)
class StudyMetadata:
    """What the study's own run says, and what all attempts share.

    Attributes:
        study: A name that no other study has, wherever its runs are kept.
        experiment: MLflow's experiment.
        params: Parameters of the study's run; the first value of each stays.
        tags: Tags of the study's run; the last value of each stays.
        dataset: The input of every run.
        files: To be kept with the study's run, absolute or relative to the experiment's folder; one
            that is not there yet is taken once it is.
        image_size: Side of the images that the models take, in pixels.
        fingerprint: What makes the study this study, see `lenet_exp.sweep.fingerprint`; for a rebuilding.
    """

    study: str
    experiment: str
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    dataset: DatasetMetadata | None = None
    files: tuple[str, ...] = ()
    image_size: int = 28
    fingerprint: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class End:
    """How an attempt or a study ended.

    Attributes:
        time_ms: Wall clock, since 1970.
        state: Anything but RUNNING.
        reason: One line, where there is one.
        weights: The attempt's ``weights.safetensors``, relative to the experiment's folder.
        result: The measurements that the study was told; recovery and rebuilding read them here.
    """

    time_ms: int
    state: State
    reason: str | None = None
    weights: str | None = None
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunLog:
    """Everything the spool has about an attempt.

    Attributes:
        key: The attempt.
        metadata: ``params`` (the effective hyper-parameters and ``epochs``), ``seed``, ``config`` (their
            hash), ``label`` and ``tags``, as `Spool.start` was given them; ``study`` is for a rebuild.
        start_ms: Wall clock, since 1970.
        epochs: In order, each once.
        epoch_ms: When each of them ended.
        end: None while it runs.
        test: What it reached on the test split, by metric.
        test_ms: When that was found out.
    """

    key: RunKey
    metadata: Mapping[str, Any]
    start_ms: int
    epochs: tuple[EpochResult, ...] = ()
    epoch_ms: tuple[int, ...] = ()
    end: End | None = None
    test: Mapping[str, float] = field(default_factory=dict)
    test_ms: int = 0


@dataclass(frozen=True)
class Champion:
    """Which trained networks are to be registered as models, and under which alias.

    Attributes:
        name: Of the registered model.
        aliases: The attempt's stem by alias; two aliases may name one attempt.
        description: Of the registered model, in Markdown.
    """

    name: str
    aliases: Mapping[str, str]
    description: str


@dataclass(frozen=True)
class StudyLog:
    """Everything the spool has about the study.

    Attributes:
        metadata: As they were told last.
        start_ms: When it was begun first.
        end: None while a driver is at work.
        champion: None until one was found.
        kept: What `Study.keep` keeps, by name; for a rebuilding.
    """

    metadata: StudyMetadata
    start_ms: int
    end: End | None = None
    champion: Champion | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)


def extended_run_log(
    record: RunLog | None, key: RunKey, entries: Iterable[Mapping[str, Any]]
) -> RunLog | None:
    """Return the record with the lines ``entries`` added; None if there is nothing to record.

    Args:
        record: What the lines before gave; None at the beginning.
        key: The attempt.
        entries: Lines of its file, in order.
    """
    for entry in entries:
        now = entry["time_ms"]
        if record is None:
            record = RunLog(key, {}, now)
        if entry["event"] == "start":  # begun again: whatever ended it before is undone
            record = replace(record, metadata=_attempt_metadata(_start_of(entry)), end=None)
        elif entry["event"] == "end":
            record = replace(record, end=_end(entry))
        elif entry["event"] == "test":
            metrics = {name: float(value) for name, value in entry["metrics"].items()}
            record = replace(record, test=metrics, test_ms=now)
        elif not record.epochs or entry["result"]["epoch"] > record.epochs[-1].epoch:
            result = _epoch_result(entry["result"])
            record = replace(record, epochs=(*record.epochs, result), epoch_ms=(*record.epoch_ms, now))
    return record


def extended_study_log(record: StudyLog | None, entries: Iterable[Mapping[str, Any]]) -> StudyLog | None:
    """Return the study's record with the lines ``entries`` added; None if there is nothing to record."""
    for entry in entries:
        if entry["event"] == "start":
            metadata = _study_metadata(_start_of(entry))
            start_ms = record.start_ms if record else entry["time_ms"]
            record = replace(record or StudyLog(metadata, start_ms), metadata=metadata, end=None)
        elif record and entry["event"] == "champion":
            record = replace(record, champion=Champion(**entry["champion"]))
        elif record and entry["event"] == "keep":
            record = replace(record, kept={**record.kept, entry["name"]: entry["value"]})
        elif record:
            record = replace(record, end=End(entry["time_ms"], entry["state"], entry["reason"]))
    return record


def _start_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a start's line says; the key was called ``facts`` until November 2026."""
    return dict(entry["metadata"] if "metadata" in entry else entry["facts"])


def _attempt_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of an attempt at its start; its hash was called ``identity`` at first."""
    return {"config" if name == "identity" else name: value for name, value in metadata.items()}


def _end(entry: Mapping[str, Any]) -> End:
    names = ("time_ms", "state", "reason", "weights")
    return End(**{name: entry[name] for name in names}, result=entry.get("result", entry.get("facts", {})))


def _epoch_result(values: Mapping[str, Any]) -> EpochResult:
    """Return the result that a line has; what is not finite is a string there."""
    metrics = {name: float(value) for name, value in values.items() if name not in ("epoch", "watched")}
    watched = {name: float(value) for name, value in values.get("watched", {}).items()}
    return EpochResult(epoch=values["epoch"], **metrics, watched=watched)


def _study_metadata(values: dict[str, Any]) -> StudyMetadata:
    if "identity" in values:  # as the fingerprint was called until November 2026
        values = {"fingerprint": values["identity"], **values}
        del values["identity"]
    dataset = values["dataset"]
    return StudyMetadata(
        **{
            **values,
            "files": tuple(values["files"]),
            "dataset": DatasetMetadata(**dataset) if dataset else None,
        }
    )

"""What the spool's lines say about an attempt, the study and its champion, as plain records."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lenet_exp.base.lineage import Lineage
from lenet_exp.base.records import EpochResult, RunKey, State
from lenet_exp.config.describe import differences
from lenet_exp.tracking import jsonl

#: MLflow's tag with the command that made a run; runs from before December 2026 have none.
SOURCE = "mlflow.source.name"
# Characters of the part of a run's name that says what differs.
_NAME_LENGTH = 80


@dataclass(frozen=True)
class DatasetMetadata:
    """The data set of a study's trainings, as MLflow shows it.

    Attributes:
        name: Name of the data set, such as ``fashion-mnist``.
        digest: Hash of the data set's files; MLflow shows the first 36 characters.
        source: URL or folder that the files came from.
    """

    name: str
    digest: str
    source: str


@dataclass(frozen=True)
class StudyMetadata:
    """What the study's own run in MLflow shows, and what the runs of all its attempts share.

    Attributes:
        study: Random id of the study, the same for as long as there is any record of it.
        experiment: Name of MLflow's experiment.
        params: Parameters of the study's run, by name; a value that has been logged is never changed.
        tags: Tags of the study's run, by name; a later value replaces an earlier one.
        dataset: Data set to log as the input of every run; None to log none.
        files: Files and folders to upload to the study's run, absolute or relative to the experiment's
            folder; what does not exist yet is uploaded once it does.
        image_size: Side of the images that the models take, in pixels.
        fingerprint: Settings that may not change in the study (see `lenet_exp.sweep.fingerprint`); a rebuild
            of the study's storage restores them.
        sweeps: Token of each sweep that wrote to the study, in order.
    """

    study: str
    experiment: str
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    dataset: DatasetMetadata | None = None
    files: tuple[str, ...] = ()
    image_size: int = 28
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    sweeps: tuple[str, ...] = ()


@dataclass(frozen=True)
class End:
    """How an attempt or a study ended.

    Attributes:
        time_ms: Time of the end, in ms since 1970.
        state: Final state: COMPLETE, PRUNED or FAIL.
        reason: Cause of the end, in one line; None if there is nothing to explain.
        weights: Path of ``weights.safetensors``, relative to the experiment's folder; None if there are none.
        result: Measurements that the study stores too; recovery and a rebuild of its storage read them here.
            At the study's end: ``metrics`` and ``tags`` of its run, which say what was found.
    """

    time_ms: int
    state: State
    reason: str | None = None
    weights: str | None = None
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunLog:
    """Everything that the spool has about an attempt.

    Attributes:
        key: Key of the attempt.
        metadata: Values by name: ``params`` (the effective hyper-parameters and ``epochs``), ``config``
            (their hash), ``seed``, ``label``, ``tags``, ``study_id`` and ``study`` (from which a
            rebuild restores the trial).
        start_ms: Time of the attempt's first start, in ms since 1970.
        epochs: Results of the epochs, in order; each epoch occurs once.
        epoch_ms: Time at which each epoch ended, in ms since 1970.
        end: End of the attempt; None while it runs.
        test: Metrics on the test split, by name; empty if the attempt was not evaluated there.
        test_ms: Time of the evaluation on the test split, in ms since 1970; 0 if there was none.
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
    """The trained networks to register as versions of one model, each under an alias.

    Attributes:
        name: Name of the registered model.
        aliases: Stem of the attempt whose network gets the alias, by alias; two aliases may share an attempt.
        description: Description of the registered model, in Markdown.
    """

    name: str
    aliases: Mapping[str, str]
    description: str


@dataclass(frozen=True)
class StudyLog:
    """Everything that the spool has about the study.

    Attributes:
        metadata: Metadata that the last driver wrote.
        start_ms: Time at which the first driver started, in ms since 1970.
        end: End of the last driver's work; None while a driver is at work.
        champion: Networks to register; None until there are any.
        kept: Values that `Study.keep` stored, by name; a rebuild of the study's storage restores them.
        n_kept: Number of values that had been kept when the last of them was.
    """

    metadata: StudyMetadata
    start_ms: int
    end: End | None = None
    champion: Champion | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)
    n_kept: int = 0

    @property
    def lineage(self) -> Lineage:
        """What the spool's own file says about the study's origin."""
        metadata = self.metadata
        return Lineage(metadata.study, metadata.sweeps, self.n_kept, fingerprint=metadata.fingerprint)


def label_of(run_log: RunLog) -> str:
    """Return an attempt's label, with which the name of its run begins."""
    return str(run_log.metadata.get("label") or f"{run_log.key.role}-{run_log.key.trial}")


def name_of(run_log: RunLog, study: StudyMetadata) -> str:
    """Return the name that an attempt's run gets: its label, and what differs from the baseline.

    Args:
        run_log: Log of the attempt.
        study: Metadata of the study, with the baseline.
    """
    baseline = study.fingerprint.get("baseline", {})
    changes = textwrap.shorten(
        differences(run_log.metadata.get("params", {}), baseline), _NAME_LENGTH, placeholder=" …"
    )
    return f"{label_of(run_log)}: {changes}" if changes else label_of(run_log)


def deltas(run_log: RunLog, baselines: Mapping[Any, float]) -> dict[str, float] | None:
    """Return an attempt's ``val_delta`` by name; empty if it has none, None as long as no baseline is known.

    A trial is compared with the one baseline of its search; another training with the baseline of its seed,
    as in the tables.

    Args:
        run_log: Log of the attempt.
        baselines: ``val_accuracy`` of each complete baseline, by its seed.
    """
    is_complete = run_log.epochs and run_log.end and run_log.end.state == "COMPLETE"
    if not is_complete or run_log.key.role == "confirm":
        return {}
    of_search = [*baselines.values()][-1:] if run_log.key.role == "trial" else []
    baseline = next(iter(of_search), baselines.get(run_log.metadata.get("seed")))
    if baseline is None:
        return None
    delta = round(run_log.epochs[-1].val_accuracy - baseline, 6)  # so that MLflow's table shows 0.0272
    return {"val_delta": delta} if math.isfinite(delta) else {}


def extended_run_log(
    run_log: RunLog | None, key: RunKey, entries: Iterable[Mapping[str, Any]]
) -> RunLog | None:
    """Extend an attempt's log by further lines of its spool file.

    Args:
        run_log: Log of the file's earlier lines; None if there are none.
        key: Key of the attempt.
        entries: Further lines of the attempt's file, in order.

    Returns:
        The extended log; None if the file has no line at all.

    Raises:
        ValueError: If a line is not what an attempt's file has, or is another attempt's.
    """
    for entry in entries:
        jsonl.check_attempt_line(entry, key)
        time_ms = entry["time_ms"]
        if run_log is None:
            if entry["event"] != "start":
                raise ValueError("the line that begins it is missing")
            run_log = RunLog(key, {}, time_ms)
        if entry["event"] == "start":  # a second start resumes the attempt, so an earlier end is void
            run_log = replace(run_log, metadata=_attempt_metadata(_started_with(entry)), end=None)
        elif entry["event"] == "end":
            run_log = replace(run_log, end=_end(entry))
        elif entry["event"] == "test":
            metrics = {name: float(value) for name, value in entry["metrics"].items()}
            run_log = replace(run_log, test=metrics, test_ms=time_ms)
        elif not run_log.epochs or entry["result"]["epoch"] > run_log.epochs[-1].epoch:
            epochs = (*run_log.epochs, _epoch_result(entry["result"]))
            run_log = replace(run_log, epochs=epochs, epoch_ms=(*run_log.epoch_ms, time_ms))
    return run_log


def extended_study_log(study_log: StudyLog | None, entries: Iterable[Mapping[str, Any]]) -> StudyLog | None:
    """Extend the study's log by further lines of its spool file.

    Args:
        study_log: Log of the file's earlier lines; None if there are none.
        entries: Further lines of the study's file, in order.

    Returns:
        The extended log; None if the study was never started.

    Raises:
        ValueError: If a line is not what the study's file has.
    """
    for entry in entries:
        jsonl.check_study_line(entry)
        if entry["event"] == "start":
            metadata = _study_metadata(_started_with(entry))
            start_ms = study_log.start_ms if study_log else entry["time_ms"]
            study_log = replace(study_log or StudyLog(metadata, start_ms), metadata=metadata, end=None)
        elif study_log and entry["event"] == "champion":
            study_log = replace(study_log, champion=Champion(**entry["champion"]))
        elif study_log and entry["event"] == "keep":
            kept = {**study_log.kept, entry["name"]: entry["value"]}
            # Until November 2026 the lines were not numbered.
            study_log = replace(study_log, kept=kept, n_kept=entry.get("n_kept", study_log.n_kept + 1))
        elif study_log:
            result = entry.get("result", {})  # until December 2026 there was none
            study_log = replace(
                study_log, end=End(entry["time_ms"], entry["state"], entry["reason"], result=result)
            )
    return study_log


def _started_with(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a start line, whose key was ``facts`` until November 2026."""
    return dict(entry["metadata"] if "metadata" in entry else entry["facts"])


def _attempt_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the key ``identity``, which spools had until November 2026, to ``config``."""
    return {"config" if name == "identity" else name: value for name, value in metadata.items()}


def _end(entry: Mapping[str, Any]) -> End:
    names = ("time_ms", "state", "reason", "weights")
    return End(**{name: entry[name] for name in names}, result=entry.get("result", entry.get("facts", {})))


def _epoch_result(values: Mapping[str, Any]) -> EpochResult:
    """Return an epoch's result from the values in its line, where NaN and infinities are strings."""
    metrics = {name: float(value) for name, value in values.items() if name not in ("epoch", "watched")}
    watched = {name: float(value) for name, value in values.get("watched", {}).items()}
    return EpochResult(epoch=values["epoch"], **metrics, watched=watched)


def _study_metadata(values: dict[str, Any]) -> StudyMetadata:
    if "identity" in values:  # the name of the fingerprint until November 2026
        values = {"fingerprint": values["identity"], **values}
        del values["identity"]
    dataset = values["dataset"]
    return StudyMetadata(
        **{
            **values,
            "files": tuple(values["files"]),
            "sweeps": tuple(values.get("sweeps", ())),
            "dataset": DatasetMetadata(**dataset) if dataset else None,
        }
    )

"""Restores damaged and lost files of the spool: whole lines stay, and the study supplies the rest.

What is damaged is moved aside, never deleted. Every step is safe to repeat.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lenet_exp.base.errors import StoreError, shorten
from lenet_exp.base.files import make_folder, move_aside, read_file, write_atomically
from lenet_exp.base.layout import Layout
from lenet_exp.base.messages import counted, say
from lenet_exp.base.records import METRICS, RunKey
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.results.champion import elected
from lenet_exp.results.evaluation import READINGS, read_evaluations
from lenet_exp.study.records import DIGEST, TrialRecord
from lenet_exp.study.study import Study
from lenet_exp.tracking import jsonl
from lenet_exp.tracking.events import (
    DatasetMetadata,
    RunLog,
    StudyMetadata,
    extended_run_log,
    extended_study_log,
)
from lenet_exp.tracking.spool import STUDY, Spool

Entry = dict[str, Any]


def damage(
    records: Collection[TrialRecord],
    spool: Spool,
    experiment: str,
    study_id: str,
    stems: Iterable[str] | None = None,
) -> dict[str, str]:
    """Return what is wrong with files of the spool, by stem; a file that is missing is wrong too.

    Args:
        records: Records of all attempts that have ended.
        spool: Spool of the same experiment.
        experiment: Name of the experiment.
        study_id: Id of the study; empty if it is too old to have one.
        stems: Files to read, `STUDY` aside; None for all of them.

    Raises:
        StoreError: If most attempts differ, so that study and spool are of two sweeps.
    """
    by_stem = {record.key.stem: record for record in records}
    there = set(spool.stems())
    wrong, differing = {}, 0
    spool.study_id = study_id
    if fault := _study_fault(spool, experiment, is_begun=bool(records)):
        wrong[STUDY] = fault
    for stem in sorted((there if stems is None else set(stems) & there) - {STUDY}):
        record = by_stem.get(stem)
        try:
            log = spool.read(RunKey.from_stem(stem))
        except StoreError as error:
            wrong[stem] = str(error)
            continue
        if record is not None and log is None:
            wrong[stem] = f"{spool.path(stem)} has no whole line"
        elif record is not None and log is not None:
            if not is_log_of(log, record):
                differing += 1
                wrong[stem] = f"{spool.path(stem)} has another result than the study"
            elif not _is_whole(log, record):
                wrong[stem] = f"{spool.path(stem)} is incomplete"
    if differing > 1 and 2 * differing > len(by_stem):
        raise StoreError(
            f"{spool.home}: study and spool differ in {differing} of {len(by_stem)} attempts,"
            " so they are not of the same sweep; put back the one that belongs to the other"
        )
    lost = {stem: f"{spool.path(stem)} is missing" for stem in by_stem.keys() - there}
    return {**wrong, **dict(sorted(lost.items()))}


def salvage(study: Study, spool: Spool, layout: Layout, wrong: Mapping[str, str]) -> None:
    """Restore files of the spool, and tell the user of each that was damaged.

    Args:
        study: Study of the experiment, which supplies what the files have lost.
        spool: Spool of the same experiment, to which nobody else writes.
        layout: Paths of the experiment's files.
        wrong: Reason why each file is to be restored, by stem, from `damage`.
    """
    records = {record.key.stem: record for record in study.records()}
    there, n_lost = set(spool.stems()), 0
    for stem in sorted(wrong, key=lambda stem: stem != STUDY):
        whole = jsonl.intact_lines(spool.path(stem), stem)
        if stem == STUDY:
            lines = _study_lines(study, layout, whole)
        elif stem in records:
            lines = list(_attempt_lines(study, layout, records[stem], whole))
        else:
            lines = []
        n_lost += stem not in there
        moved_to = _replace(spool, stem, lines)
        if moved_to:
            remedy = "restored from the study" if lines else "the study does not know its attempt"
            say(f"warning: {wrong[stem].partition('; ')[0]}; moved to {moved_to}, {remedy}")
    if n_lost:
        say(f"warning: {spool.folder}: {counted(n_lost, 'file')} missing, restored from the study")


def keep_intact(spool: Spool) -> None:
    """Make readable, without the study, each damaged file of which only superfluous lines are damaged.

    Raises:
        StoreError: If a file has lost something. It stays as it is.
    """
    for stem in spool.stems():
        try:
            _ = spool.study() if stem == STUDY else spool.read(RunKey.from_stem(stem))
        except StoreError as error:
            lines = jsonl.intact_lines(spool.path(stem), stem)
            if not _suffices(lines, stem):
                problem = str(error).partition("; ")[0]
                advice = (
                    "restore it from a backup"
                    if stem == STUDY
                    else "move it away, and its training is repeated"
                )
                raise StoreError(f"{problem}; the study is lost too; {advice}") from None
            moved_to = _replace(spool, stem, lines)
            say(f"warning: {str(error).partition('; ')[0]}; moved to {moved_to}, its whole lines are kept")


def is_log_of(log: RunLog, record: TrialRecord) -> bool:
    """Return True if nothing in an attempt's log contradicts what the study has of the attempt.

    Args:
        log: Log of the attempt.
        record: Record of the attempt.
    """
    metadata = log.metadata
    try:
        configuration = Configuration.from_dict(metadata["params"])
    except Exception:  # pydantic's, or a hyper-parameter that there never was
        return False
    lines: list[Entry] = [{"event": "epoch", "result": epoch.to_dict()} for epoch in log.epochs]
    if log.end:
        lines.append({"event": "end", "state": log.end.state, "result": log.end.result})
    basics = (configuration.id, metadata.get("seed"))
    return basics == (record.config, record.seed) and all(_agrees(e, record) for e in lines)


def _is_whole(log: RunLog, record: TrialRecord) -> bool:
    """Return True if a log has every epoch and the end of an attempt."""
    return log.end is not None and {epoch.epoch for epoch in log.epochs} >= record.history.keys()


def _agrees(entry: Entry, record: TrialRecord) -> bool:
    """Return True unless a line says otherwise than the study how an epoch or the attempt went."""
    if entry["event"] == "epoch":
        number = entry["result"]["epoch"]
        accuracy = float(entry["result"]["val_accuracy"])
        known = record.history.get(number, accuracy)
        return known == accuracy or (math.isnan(known) and math.isnan(accuracy))
    if entry["event"] == "end":
        result = entry.get("result", {}) if record.state != "FAIL" else {}
        known = json.loads(jsonl.encoded(record.result))
        return bool(entry["state"] == record.state) and all(known.get(n, v) == v for n, v in result.items())
    return True


def _study_fault(spool: Spool, experiment: str, *, is_begun: bool) -> str | None:
    try:
        log = spool.study()
    except StoreError as error:
        return str(error)
    if log is None:
        state = "has no whole line" if STUDY in spool.stems() else "is missing"
        return f"{spool.path(STUDY)} {state}" if is_begun else None
    if log.metadata.experiment != experiment:
        return f"{spool.path(STUDY)} is that of {log.metadata.experiment!r}"
    if spool.study_id and log.metadata.study != spool.study_id:
        return f"{spool.path(STUDY)} is that of another study, {shorten(log.metadata.study)}"
    return None


def _study_lines(study: Study, layout: Layout, whole: Sequence[Entry]) -> list[Entry]:
    """Return the lines of the study's file: the whole ones, and what the study keeps beside its trials."""
    name = study.experiment.name
    log = _study_log(whole)
    lines, ends = list(whole), list[Entry]()
    if (
        log is None
        or log.metadata.experiment != name
        or log.metadata.study != (study.lineage.id or log.metadata.study)
    ):
        lines = [_line("start", metadata=asdict(_metadata(study, layout)))]
        log = _study_log(lines)
        ends = [_line("end", state="COMPLETE", reason=None)]
    assert log is not None
    kept = study.all_kept()
    n_kept = study.lineage.n_kept
    lines += [_line("keep", name=n, value=v, n_kept=n_kept) for n, v in kept.items() if log.kept.get(n) != v]
    complete = [each for each in read_evaluations(kept.get(READINGS)) if each.completed]
    champion = elected(name, study.experiment.question, complete[-1]) if complete else None
    if champion and log.champion != champion:
        lines.append(_line("champion", champion=asdict(champion)))
    return lines + ends


def _metadata(study: Study, layout: Layout) -> StudyMetadata:
    """Return the study's metadata as far as the study has them; the next sweep writes all of them."""
    name, lineage = study.experiment.name, study.lineage
    fingerprint = dict(lineage.fingerprint)
    data = fingerprint.get("data", {})
    files = (layout.experiment_file, layout.leaderboard, layout.readings, layout.figures, layout.report)
    return StudyMetadata(
        study=lineage.id,
        experiment=name,
        dataset=DatasetMetadata(data["dataset"], data["digest"], "") if "digest" in data else None,
        files=tuple(map(layout.relative, files)),
        image_size=data.get("resize") or 28,
        fingerprint=fingerprint,
        sweeps=lineage.sweeps,
    )


def _study_log(lines: Sequence[Entry]) -> Any:
    first = next((n for n, entry in enumerate(lines) if entry["event"] == "start"), len(lines))
    return extended_study_log(None, lines[first:])


def _attempt_lines(
    study: Study, layout: Layout, record: TrialRecord, whole: Sequence[Entry]
) -> Iterator[Entry]:
    """Yield the lines of an attempt's file: the whole ones if they are its own, and the study's for the rest.

    Of all epochs but the last the study has only ``val_accuracy``, so their other metrics are NaN then.
    """
    if not _are_of(whole, record):
        whole = []
    own = [entry for entry in whole if _agrees(entry, record)]
    start = next((entry for entry in own if entry["event"] == "start"), None)
    epochs = {entry["result"]["epoch"]: entry for entry in reversed(own) if entry["event"] == "epoch"}
    end = next((entry for entry in reversed(own) if entry["event"] == "end"), None)
    tests = [entry for entry in own if entry["event"] == "test"]
    yield start or _start(study, record, own)
    time_ms = (start or (own or [_line("")])[0])["time_ms"]
    for number in sorted(epochs.keys() | record.history.keys()):
        yield epochs.get(number) or {**_epoch(number, record), "time_ms": time_ms}
        time_ms = epochs.get(number, {"time_ms": time_ms})["time_ms"]
    yield end or _end(record, layout)
    yield from tests or _tests(study, record)


def _are_of(lines: Sequence[Entry], record: TrialRecord) -> bool:
    """Return True unless the lines begin as another attempt does."""
    starts = [entry for entry in lines if entry["event"] == "start"]
    log = extended_run_log(None, record.key, starts)
    return log is None or is_log_of(log, record)


def _start(study: Study, record: TrialRecord, own: Sequence[Entry]) -> Entry:
    metadata = {
        "label": record.label,
        "params": record.configuration.to_dict(),
        "seed": record.seed,
        "config": record.config,
        "tags": {"rebuilt_from": "the study", "lenet_exp.train_on": record.train_on},
        "study_id": study.lineage.id,
        "study": study.drawn(record.key),
    }
    line = _line("start", key=record.key.stem, metadata=metadata)
    return {**line, "time_ms": own[0]["time_ms"]} if own else line


def _epoch(number: int, record: TrialRecord) -> Entry:
    metrics: dict[str, Any] = dict.fromkeys(METRICS, math.nan)
    if number == record.epochs:
        metrics |= {name: record.result[name] for name in METRICS if name in record.result}
    metrics["val_accuracy"] = record.history[number]
    return _line("epoch", result={"epoch": number, **metrics})


def _end(record: TrialRecord, layout: Layout) -> Entry:
    weights = layout.kept_weights(record.key) if record.state == "COMPLETE" else None
    result = {name: value for name, value in record.result.items() if name != DIGEST}
    if record.state == "FAIL":
        result = {name: bool(result.get(name)) for name in ("crashed", "alone")}
        result["retry"] = record.superseded
    return _line("end", state=record.state, reason=record.reason, weights=weights, result=result)


def _tests(study: Study, record: TrialRecord) -> Iterator[Entry]:
    for evaluation in reversed(read_evaluations(study.kept(READINGS))):
        for score in evaluation.scores:
            if score.run == record.key.stem:
                metrics = {"test_accuracy": score.test_accuracy, "test_loss": score.test_loss}
                yield _line("test", metrics=metrics)
                return


def _suffices(lines: Sequence[Entry], stem: str) -> bool:
    """Return True if lines that were kept say all that a rebuild of the study needs."""
    try:
        if stem == STUDY:
            return extended_study_log(None, lines) is not None
        log = extended_run_log(None, RunKey.from_stem(stem), lines)
    except ValueError:
        return False
    if log is None or log.end is None:
        return False
    numbers = [epoch.epoch for epoch in log.epochs]
    is_whole = numbers == list(range(1, len(numbers) + 1))
    return is_whole and (log.end.state != "COMPLETE" or len(numbers) == log.metadata["params"].get("epochs"))


def _line(event: str, **values: Any) -> Entry:
    # As it is read back, so that lines can be compared.
    line: Entry = json.loads(jsonl.encoded({"time_ms": round(time.time() * 1000), "event": event, **values}))
    return line


def _replace(spool: Spool, stem: str, lines: Sequence[Entry]) -> Path | None:
    """Write a file of the spool anew; return where the old one was moved to; None if it had nothing else."""
    path = spool.path(stem)
    content = b"".join(map(jsonl.encoded, lines))
    moved_to = None
    try:
        before = read_file(path)
        head, _, tail = before.rpartition(b"\n")
        # A disk that was full leaves the beginning of a line, which is in no record.
        is_kept = content.startswith(head) and (not tail or tail.startswith(b'{"time_ms":'))
        moved_to = None if is_kept else move_aside(path)
    except FileNotFoundError:
        make_folder(path.parent)
    except StoreError:
        moved_to = move_aside(path)
    if lines:
        write_atomically(path, content)
    has_news = stem == STUDY or any(entry["event"] == "test" for entry in lines)
    spool.replaced(stem, has_news=has_news)
    return moved_to

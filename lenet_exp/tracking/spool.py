"""The spool: a log of every attempt on this machine's disk, whether MLflow can be reached or not.

The driver adds a line to an attempt's file when the attempt starts, after each epoch, and when it ends. The
uploader uploads the lines to MLflow, during the sweep, after an outage, or on request. An index says what has
been uploaded; if it is lost, everything is uploaded again.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lenet_exp.base import failpoints
from lenet_exp.base.errors import DataError, DiskError, StoreError
from lenet_exp.base.files import disk_error
from lenet_exp.base.lineage import Lineage
from lenet_exp.base.records import EpochResult, RunKey, State
from lenet_exp.tracking import jsonl
from lenet_exp.tracking.events import (
    Champion,
    RunLog,
    StudyLog,
    StudyMetadata,
    extended_run_log,
    extended_study_log,
)

#: Stem (file name without suffix) of the study's own file; no attempt has this stem.
STUDY = "study"
_INDEX = "index.jsonl"


class Spool:
    """An experiment's spool. Only one process may write to it; its driver and uploader share an object."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """Open the spool, which need not exist yet.

        Args:
            folder: Folder of the spool, ``<root>/<experiment>/spool``.
            clock: Function that returns the time, in seconds since 1970.
        """
        self.folder = folder
        #: The experiment's folder; paths in the spool are relative to it.
        self.home = folder.parent
        self._clock = clock
        self._repaired: set[Path] = set()
        self._lock = threading.Lock()
        self._run_ids: dict[str, str] = {}
        # The same ids by key, without the study's: `run_ids` is called after every trial.
        self._attempt_runs: dict[RunKey, str] = {}
        #: Bytes of each file that are in MLflow, by stem.
        self._uploaded: dict[str, int] = {}
        self._load_index()
        self._pending = {stem for stem, size in self._sizes().items() if size != self._uploaded.get(stem)}

    # Writing, by the driver. Each method returns when its line is on the disk.

    def start_study(self, metadata: StudyMetadata) -> None:
        """Write that a driver starts to work on the study, for the first time or again.

        Raises:
            DiskError: If the line cannot be written.
        """
        self._write(STUDY, {"event": "start", "metadata": asdict(metadata)})

    def end_study(self, state: State, reason: str | None = None) -> None:
        """Append the line that says that the sweep's process has ended its work.

        Args:
            state: COMPLETE; PRUNED if the work was interrupted and can be continued; or FAIL.
            reason: Cause of the end, in one line; None if there is nothing to explain.

        Raises:
            DiskError: If the line cannot be written.
        """
        self._write(STUDY, {"event": "end", "state": state, "reason": reason})

    def start(self, key: RunKey, metadata: Mapping[str, Any]) -> None:
        """Write that an attempt starts.

        Args:
            key: Key of the attempt.
            metadata: Values that describe the attempt, as `RunLog.metadata` lists them.

        Raises:
            DiskError: If the line cannot be written.
        """
        self._write(key.stem, {"event": "start", "metadata": metadata})

    def epoch(self, key: RunKey, result: EpochResult) -> None:
        """Write the result of an epoch; if it is written twice, the first result counts.

        Args:
            key: Key of the attempt.
            result: Metrics of the epoch.

        Raises:
            DiskError: If the line cannot be written.
        """
        self._write(key.stem, {"event": "epoch", "result": result.to_dict()})

    def end(
        self,
        key: RunKey,
        state: State,
        reason: str | None = None,
        weights: str | None = None,
        result: Mapping[str, Any] | None = None,
    ) -> None:
        """Write how an attempt ended; if it is written twice, the last end counts.

        Args:
            key: Key of the attempt.
            state: COMPLETE, PRUNED or FAIL.
            reason: Cause of the end, in one line; None if there is nothing to explain.
            weights: Path of ``weights.safetensors``, relative to the experiment's folder; None if there are
                none.
            result: Measurements that the study is told next; None if there are none.

        Raises:
            DiskError: If the line cannot be written.
        """
        entry = {"event": "end", "state": state, "reason": reason, "weights": weights, "result": result or {}}
        self._write(key.stem, entry)

    def test(self, key: RunKey, metrics: Mapping[str, float]) -> None:
        """Write an attempt's metrics on the test split, after its end; if written twice, the last ones count.

        Args:
            key: Key of the attempt.
            metrics: Metrics by name, such as ``test_accuracy``.

        Raises:
            DiskError: If the line cannot be written.
        """
        self._write(key.stem, {"event": "test", "metrics": dict(metrics)})

    def champion(self, champion: Champion) -> None:
        """Write which networks are to be registered; the last such line counts.

        Raises:
            DiskError: If the line cannot be written.
        """
        self._write(STUDY, {"event": "champion", "champion": asdict(champion)})

    def keep(self, name: str, value: Any, n_kept: int) -> None:
        """Write a value that the study stores next, so that a rebuild of the study's storage can restore it.

        Args:
            name: Name that the study stores it under.
            value: JSON value; the last one of each name counts.
            n_kept: Number of values that the study has kept so far, this one included.

        Raises:
            DiskError: If the line cannot be written.
        """
        self._write(STUDY, {"event": "keep", "name": name, "value": value, "n_kept": n_kept})

    def _write(self, stem: str, entry: Mapping[str, Any]) -> None:
        try:
            failpoints.point("spool")
        except OSError as error:
            raise disk_error(self.path(stem), error) from error
        self._append(self.path(stem), {"time_ms": round(self._clock() * 1000), **entry})
        with self._lock:
            self._pending.add(stem)

    def _append(self, path: Path, entry: Mapping[str, Any]) -> None:
        if path not in self._repaired:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise disk_error(self.folder, error) from error
            jsonl.repair(path)
            self._repaired.add(path)
        try:
            jsonl.append(path, entry)
        except DiskError:
            self._repaired.discard(path)
            raise

    # Reading.

    def path(self, stem: str) -> Path:
        """Return the path of the file with this stem, which is an attempt's or `STUDY`.

        Raises:
            ValueError: If ``stem`` is neither; it could lead out of the folder.
        """
        if stem != STUDY:
            RunKey.from_stem(stem)
        return self.folder / f"{stem}.jsonl"

    def read(self, key: RunKey) -> RunLog | None:
        """Return the log of an attempt, or None if it has none.

        Raises:
            StoreError: If its file is damaged.
        """
        entries, _ = jsonl.read(self.path(key.stem))
        return extended_run_log(None, key, entries)

    def run_logs(self) -> Iterator[RunLog]:
        """Yield the logs of all attempts, sorted by key.

        Raises:
            StoreError: If a file is damaged.
        """
        for key in sorted(RunKey.from_stem(stem) for stem in self.stems() if stem != STUDY):
            if run_log := self.read(key):
                yield run_log

    def unfinished(self) -> Iterator[RunLog]:
        """Yield the logs of the attempts that have not ended, sorted by key.

        Files that are completely uploaded are not read, as their attempts have ended.

        Raises:
            StoreError: If a file is damaged.
        """
        for key in sorted(RunKey.from_stem(stem) for stem in self.pending() if stem != STUDY):
            if (run_log := self.read(key)) and run_log.end is None:
                yield run_log

    def study(self) -> StudyLog | None:
        """Return the log of the study, or None if it was never started.

        Raises:
            StoreError: If its file is damaged.
        """
        return extended_study_log(None, jsonl.read(self.path(STUDY))[0])

    def of_study(self) -> Iterator[RunLog]:
        """Yield the logs of all attempts but those that come from another study, sorted by key.

        Raises:
            StoreError: If a file is damaged.
        """
        keys = self.lineage().keys
        yield from (log for log in self.run_logs() if log.key in keys)

    def lineage(self, known: Collection[RunKey] = ()) -> Lineage:
        """Return what the spool says about its study, to be compared with the study itself.

        Args:
            known: Keys of the attempts that the study has. The files of others are read, and left out if
                they have no whole line, or come from another study.

        Raises:
            StoreError: If a file is damaged.
        """
        keys = {RunKey.from_stem(stem) for stem in self.stems() if stem != STUDY}
        study, study_id = self.study(), self._study_id(sorted(keys))
        if study and study_id not in ("", study.metadata.study):  # the study's file is another study's
            study = None
        for key in keys - frozenset(known):
            log = self.read(key)
            if log is None or log.metadata.get("study_id", study_id) != study_id:
                keys.discard(key)
        lineage = Lineage(study_id, keys=frozenset(keys))
        if study is None:
            return lineage
        metadata = study.metadata
        return Lineage(metadata.study, metadata.sweeps, study.n_kept, lineage.keys, metadata.fingerprint)

    def _study_id(self, keys: Sequence[RunKey]) -> str:
        """Return the study's id that most of the first attempts have; empty if they are too old for it."""
        logs = (self.read(key) for key in keys[:5])
        ids = Counter(log.metadata["study_id"] for log in logs if log and log.metadata.get("study_id"))
        return ids.most_common(1)[0][0] if ids else ""

    def stems(self) -> list[str]:
        """Return the stems of all files that have lines: those of attempts, and `STUDY`."""
        return sorted(self._sizes())

    def inside(self, path: str) -> Path:
        """Return the absolute path of ``path``, which is relative to the experiment's folder.

        Raises:
            DataError: If the path leads out of that folder.
        """
        file = (self.home / path).resolve()
        if not file.is_relative_to(self.home.resolve()):
            raise DataError(f"{path} leads out of {self.home}")
        return file

    def _sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file of an attempt or of the study, by stem, without empty files.

        A driver that dies between creating a file and writing to it leaves an empty one: nothing was started.
        """
        if not self.folder.is_dir():
            return {}
        with os.scandir(self.folder) as entries:
            files = {
                entry.name.removesuffix(".jsonl"): entry for entry in entries if entry.name.endswith(".jsonl")
            }
            sizes = {
                stem: file.stat().st_size
                for stem, file in files.items()
                if stem == STUDY or _is_attempt(stem)
            }
            return {stem: size for stem, size in sizes.items() if size}

    # The index, written by the uploader: the ids of the runs in MLflow, and how much of a file is uploaded.

    def run_ids(self) -> dict[RunKey, str]:
        """Return the ids of the attempts' runs in MLflow, by key, without attempts that have no run yet."""
        with self._lock:
            return dict(self._attempt_runs)

    def run_id(self, stem: str) -> str | None:
        """Return the id of the run in MLflow of an attempt, or of `STUDY`; None if it has no run yet."""
        with self._lock:
            return self._run_ids.get(stem)

    def record_run_id(self, stem: str, run_id: str) -> None:
        """Write the id of a new run to the index.

        Args:
            stem: Stem of the attempt, or `STUDY`.
            run_id: Id of the new run in MLflow.

        Raises:
            DiskError: If the index cannot be written.
        """
        self._append(self.folder / _INDEX, {"stem": stem, "run_id": run_id})
        with self._lock:
            self._remember_run(stem, run_id)

    def _remember_run(self, stem: str, run_id: str) -> None:
        self._run_ids[stem] = run_id
        if stem != STUDY:
            self._attempt_runs[RunKey.from_stem(stem)] = run_id

    def pending(self) -> list[str]:
        """Return the stems of the files with lines that are not uploaded yet; `STUDY` comes last."""
        with self._lock:
            return sorted(self._pending, key=lambda stem: (stem == STUDY, stem))

    def record_uploaded(self, stem: str, offset: int) -> None:
        """Write to the index how much of a file is uploaded; if that is all of it, it is no longer pending.

        Args:
            stem: Stem of the attempt, or `STUDY`.
            offset: Number of bytes at the start of its file that are in MLflow.

        Raises:
            DiskError: If the index cannot be written.
        """
        self._append(self.folder / _INDEX, {"stem": stem, "uploaded": offset})
        with self._lock:
            self._uploaded[stem] = offset
            # The driver writes a line first and marks the file pending after, so no line can be missed here.
            if self.path(stem).stat().st_size == offset:
                self._pending.discard(stem)

    def remove(self, stem: str) -> None:
        """Empty a file that has only an incomplete line, and stop counting it as pending.

        A driver that died while it wrote the line left the file; its attempt was not started.

        Raises:
            DiskError: If the file cannot be written.
        """
        jsonl.repair(self.path(stem))
        with self._lock:
            self._pending.discard(stem)

    def mark_pending(self, stem: str) -> None:
        """Mark the file with this stem as pending, so that it is uploaded again."""
        with self._lock:
            self._pending.add(stem)

    def forget_uploaded(self) -> None:
        """Delete the index, so that runs are searched for in MLflow and everything is uploaded again."""
        with self._lock:
            (self.folder / _INDEX).unlink(missing_ok=True)
            self._run_ids.clear()
            self._attempt_runs.clear()
            self._uploaded.clear()
            self._pending = set(self._sizes())

    def _load_index(self) -> None:
        index = self.folder / _INDEX
        try:
            entries, _ = jsonl.read(index)
        except StoreError:
            with suppress(OSError):  # the disk may be read-only
                index.unlink()
            return
        for entry in entries:
            if "run_id" in entry:
                self._remember_run(entry["stem"], entry["run_id"])
            else:  # the key was ``shipped`` until November 2026
                self._uploaded[entry["stem"]] = entry["uploaded" if "uploaded" in entry else "shipped"]


def _is_attempt(stem: str) -> bool:
    try:
        RunKey.from_stem(stem)
    except ValueError:
        return False
    return True

"""The spool: what every attempt did, on this machine's disk, whether MLflow is there or not.

The driver writes: a line when an attempt starts, after each epoch, and when it ends, in a file per attempt.
The uploader reads the lines and carries them to MLflow, at once, after an outage, or when it is asked to.
What it has carried is kept in an index, which can be lost: everything is then carried again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lenet_exp.base import failpoints
from lenet_exp.base.errors import DataError, DiskError, StoreError
from lenet_exp.base.files import disk_error
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

#: Stands in for an attempt's stem where the study's own run is meant; no attempt has this stem.
STUDY = "study"
_INDEX = "index.jsonl"


class Spool:
    """An experiment's spool. One process writes; in it the driver and the tracking thread share this."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """Open the spool, which need not exist yet.

        Args:
            folder: ``<root>/<experiment>/spool``.
            clock: Seconds since 1970.
        """
        self.folder = folder
        #: The experiment's folder: what files are relative to.
        self.home = folder.parent
        self._clock = clock
        self._mended: set[Path] = set()
        self._lock = threading.Lock()
        self._run_ids: dict[str, str] = {}
        #: The same by key, without the study's; asked for after every trial.
        self._attempt_runs: dict[RunKey, str] = {}
        self._uploaded: dict[str, int] = {}
        self._load_index()
        self._pending = {stem for stem, size in self._sizes().items() if size != self._uploaded.get(stem)}

    # What the driver writes.

    def start_study(self, metadata: StudyMetadata) -> None:
        """Note that a driver began to work on the study, for the first time or again."""
        self._write(STUDY, {"event": "start", "metadata": asdict(metadata)})

    def end_study(self, state: State, reason: str | None = None) -> None:
        """Note that the driver is done: COMPLETE, PRUNED (interrupted, can go on) or FAIL."""
        self._write(STUDY, {"event": "end", "state": state, "reason": reason})

    def start(self, key: RunKey, metadata: Mapping[str, Any]) -> None:
        """Note that an attempt began.

        Args:
            key: The attempt.
            metadata: See `RunLog`.

        Raises:
            DiskError: If it cannot be written.
        """
        self._write(key.stem, {"event": "start", "metadata": metadata})

    def epoch(self, key: RunKey, result: EpochResult) -> None:
        """Note what an epoch gave; of an epoch noted twice the first stays.

        Raises:
            DiskError: If it cannot be written.
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
        """Note how an attempt ended; the last end stays.

        Args:
            key: The attempt.
            state: COMPLETE, PRUNED or FAIL.
            reason: One line.
            weights: The path of ``weights.safetensors``, relative to the experiment's folder.
            result: The measurements that the study is about to be told.

        Raises:
            DiskError: If it cannot be written.
        """
        ended = {"event": "end", "state": state, "reason": reason, "weights": weights, "result": result or {}}
        self._write(key.stem, ended)

    def test(self, key: RunKey, metrics: Mapping[str, float]) -> None:
        """Note what an attempt that has ended reached on the test split; the last note stays.

        Raises:
            DiskError: If it cannot be written.
        """
        self._write(key.stem, {"event": "test", "metrics": dict(metrics)})

    def champion(self, champion: Champion) -> None:
        """Note which networks are to be registered; the last note stays.

        Raises:
            DiskError: If it cannot be written.
        """
        self._write(STUDY, {"event": "champion", "champion": asdict(champion)})

    def keep(self, name: str, value: Any) -> None:
        """Note what the study is about to keep, should it have to be rebuilt.

        Raises:
            DiskError: If it cannot be written.
        """
        self._write(STUDY, {"event": "keep", "name": name, "value": value})

    def _write(self, stem: str, entry: Mapping[str, Any]) -> None:
        try:
            failpoints.point("spool")
        except OSError as error:
            raise disk_error(self.path(stem), error) from error
        self._append(self.path(stem), {"time_ms": round(self._clock() * 1000), **entry})
        with self._lock:
            self._pending.add(stem)

    def _append(self, path: Path, entry: Mapping[str, Any]) -> None:
        if path not in self._mended:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise disk_error(self.folder, error) from error
            jsonl.mend(path)
            self._mended.add(path)
        try:
            jsonl.append(path, entry)
        except DiskError:
            self._mended.discard(path)
            raise

    # What is read back.

    def path(self, stem: str) -> Path:
        """Return the file of an attempt, or of `STUDY`.

        Raises:
            ValueError: If ``stem`` names neither, and so could lead out of the folder.
        """
        if stem != STUDY:
            RunKey.from_stem(stem)
        return self.folder / f"{stem}.jsonl"

    def read(self, key: RunKey) -> RunLog | None:
        """Return what is known of an attempt; None if nothing is.

        Raises:
            StoreError: If its file is damaged.
        """
        entries, _ = jsonl.read(self.path(key.stem))
        return extended_run_log(None, key, entries)

    def records(self) -> Iterator[RunLog]:
        """Yield all attempts, by role, number and try.

        Raises:
            StoreError: If a file is damaged.
        """
        for key in sorted(RunKey.from_stem(stem) for stem in self.stems() if stem != STUDY):
            if record := self.read(key):
                yield record

    def unfinished(self) -> Iterator[RunLog]:
        """Yield the attempts without an end, without reading those that are in MLflow already.

        Raises:
            StoreError: If a file is damaged.
        """
        for key in sorted(RunKey.from_stem(stem) for stem in self.pending() if stem != STUDY):
            if (record := self.read(key)) and record.end is None:
                yield record

    def study(self) -> StudyLog | None:
        """Return what is known of the study; None if it was never started.

        Raises:
            StoreError: If its file is damaged.
        """
        return extended_study_log(None, jsonl.read(self.path(STUDY))[0])

    def stems(self) -> list[str]:
        """Return the stems of all attempts, and `STUDY`."""
        return sorted(self._sizes())

    def inside(self, path: str) -> Path:
        """Return the file at ``path``, relative to the experiment's folder.

        Raises:
            DataError: If it is not in that folder.
        """
        file = (self.home / path).resolve()
        if not file.is_relative_to(self.home.resolve()):
            raise DataError(f"{path} is not in {self.home}")
        return file

    def _sizes(self) -> dict[str, int]:
        """Return the bytes in the file of each attempt and of the study, whatever else lies there.

        A file without any is what a driver has left that died between making and writing it: no attempt.
        """
        if not self.folder.is_dir():
            return {}
        with os.scandir(self.folder) as found:
            files = {
                entry.name.removesuffix(".jsonl"): entry for entry in found if entry.name.endswith(".jsonl")
            }
            sizes = {
                stem: file.stat().st_size
                for stem, file in files.items()
                if stem == STUDY or _is_attempt(stem)
            }
            return {stem: size for stem, size in sizes.items() if size}

    # What tracking keeps: which run is whose, and what is in MLflow already.

    def run_ids(self) -> dict[RunKey, str]:
        """Return MLflow's run of every attempt that has one."""
        with self._lock:
            return dict(self._attempt_runs)

    def run_id(self, stem: str) -> str | None:
        """Return MLflow's run of an attempt, or of `STUDY`; None if it has none yet."""
        with self._lock:
            return self._run_ids.get(stem)

    def keep_run_id(self, stem: str, run_id: str) -> None:
        """Note MLflow's run of an attempt, or of `STUDY`."""
        self._append(self.folder / _INDEX, {"stem": stem, "run_id": run_id})
        with self._lock:
            self._know_run(stem, run_id)

    def _know_run(self, stem: str, run_id: str) -> None:
        self._run_ids[stem] = run_id
        if stem != STUDY:
            self._attempt_runs[RunKey.from_stem(stem)] = run_id

    def pending(self) -> list[str]:
        """Return the stems whose file has lines that were not shipped, the study's last."""
        with self._lock:
            return sorted(self._pending, key=lambda stem: (stem == STUDY, stem))

    def keep_uploaded(self, stem: str, offset: int) -> None:
        """Note that the file is in MLflow up to ``offset``, in bytes, and that it ends there for now."""
        self._append(self.folder / _INDEX, {"stem": stem, "uploaded": offset})
        with self._lock:
            self._uploaded[stem] = offset
            # The driver adds to the file first and to the news after, so nothing is missed between.
            if self.path(stem).stat().st_size == offset:
                self._pending.discard(stem)

    def remove(self, stem: str) -> None:
        """Cut off what a dead driver has left of a file's first line: there is no such attempt.

        Raises:
            DiskError: If the file cannot be written.
        """
        jsonl.mend(self.path(stem))
        with self._lock:
            self._pending.discard(stem)

    def mark_pending(self, stem: str) -> None:
        """Count a file among the news again."""
        with self._lock:
            self._pending.add(stem)

    def forget_uploaded(self) -> None:
        """Forget the runs and what was shipped: all of it is news again."""
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
            with suppress(OSError):  # a disk that is read-only
                index.unlink()
            return
        for entry in entries:
            if "run_id" in entry:
                self._know_run(entry["stem"], entry["run_id"])
            else:  # ``shipped`` until November 2026
                self._uploaded[entry["stem"]] = entry["uploaded" if "uploaded" in entry else "shipped"]


def _is_attempt(stem: str) -> bool:
    try:
        RunKey.from_stem(stem)
    except ValueError:
        return False
    return True

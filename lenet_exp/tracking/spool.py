"""The spool: a log of every attempt on this machine's disk, whether MLflow can be reached or not.

The driver adds a line to an attempt's file when the attempt starts, after each epoch, and when it ends. The
uploader uploads the lines to MLflow, during the sweep, after an outage, or on request. An index says what has
been uploaded; if it is lost, everything is uploaded again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lenet_exp.base import failpoints
from lenet_exp.base.errors import DataError, DiskError, StoreError, shorten
from lenet_exp.base.files import check_folder, disk_error, make_folder, move_aside
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
STUDY = jsonl.STUDY
_INDEX = "index.jsonl"


class Spool:
    """An experiment's spool. Only one process may write to it; its driver and uploader share an object."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """Open the spool, which need not exist yet.

        Args:
            folder: Folder of the spool, ``<root>/<experiment>/spool``.
            clock: Function that returns the time, in seconds since 1970.

        Raises:
            ConfigError: If the folder is a link that leads out of the root.
            StoreError: If it is no folder.
        """
        self.folder = folder
        #: The experiment's folder; paths in the spool are relative to it.
        self.home = folder.parent
        self._clock = clock
        self._repaired: set[Path] = set()
        #: Id of the study, once it is known; files of another study are then damaged ones.
        self.study_id = ""
        self._lock = threading.Lock()
        self._run_ids: dict[str, str] = {}
        # The same ids by key, without the study's: `run_ids` is called after every trial.
        self._attempt_runs: dict[RunKey, str] = {}
        #: Bytes of each file that are in MLflow, by stem.
        self._uploaded: dict[str, int] = {}
        check_folder(folder, self.home.parent)
        #: Why the index cannot be used as it is; None if it can.
        self._index_damage: str | None = None
        self._load_index()
        self._pending = {stem for stem, size in self._sizes().items() if size != self._uploaded.get(stem)}

    # Writing, by the driver. Each method returns when its line is on the disk.

    def start_study(self, metadata: StudyMetadata) -> None:
        """Write that a driver starts to work on the study, for the first time or again.

        Raises:
            DiskError: If the line cannot be written.
        """
        self._write(STUDY, {"event": "start", "metadata": asdict(metadata)})
        self.study_id = metadata.study

    def end_study(
        self, state: State, reason: str | None = None, result: Mapping[str, Any] | None = None
    ) -> None:
        """Append the line that says that the sweep's process has ended its work.

        Args:
            state: COMPLETE; PRUNED if the work was interrupted and can be continued; or FAIL.
            reason: Cause of the end, in one line; None if there is nothing to explain.
            result: Results of the sweep: ``metrics`` and ``tags`` of the study's run; None for nothing.

        Raises:
            DiskError: If the line cannot be written.
        """
        end = {"event": "end", "state": state, "reason": reason}
        self._write(STUDY, {**end, "result": dict(result)} if result else end)

    def start(self, key: RunKey, metadata: Mapping[str, Any]) -> None:
        """Write that an attempt starts.

        Args:
            key: Key of the attempt.
            metadata: Values that describe the attempt, as `RunLog.metadata` lists them.

        Raises:
            DiskError: If the line cannot be written.
        """
        self._write(key.stem, {"event": "start", "key": key.stem, "metadata": metadata})

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
        check_folder(self.folder, self.home.parent)
        if path not in self._repaired:
            make_folder(self.folder)
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
            StoreError: If its file is damaged, or another attempt's.
        """
        with jsonl.damage_told(self.path(key.stem)):
            run_log = extended_run_log(None, key, jsonl.read(self.path(key.stem))[0])
            theirs = run_log and run_log.metadata.get("study_id")
            if theirs and self.study_id and theirs != self.study_id:
                raise ValueError(f"it is the file of another study, {shorten(theirs)}")
        return run_log

    def run_logs(self, on_damage: Callable[[str], object] | None = None) -> Iterator[RunLog]:
        """Yield the logs of all attempts, sorted by key.

        Args:
            on_damage: Called with a line for the user for each damaged file, which is then left out; None to
                raise an error.

        Raises:
            StoreError: If a file is damaged and ``on_damage`` is None.
        """
        for key in sorted(RunKey.from_stem(stem) for stem in self.stems() if stem != STUDY):
            try:
                run_log = self.read(key)
            except StoreError as error:
                if on_damage is None:
                    raise
                on_damage(f"{error}; left out")
                continue
            if run_log:
                yield run_log

    def unfinished(self) -> Iterator[RunLog]:
        """Yield the logs of the attempts that have not ended, sorted by key; uploaded files are not read.

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
        with jsonl.damage_told(self.path(STUDY)):
            return extended_study_log(None, jsonl.read(self.path(STUDY))[0])

    def lineage(self, known: Collection[RunKey] = ()) -> Lineage:
        """Return what the spool says about its study, to be compared with the study itself.

        Args:
            known: Keys of the attempts that the study has. The files of others are read, and left out if
                they have no whole line, or come from another study.
        """
        files = {RunKey.from_stem(stem): self.path(stem) for stem in self.stems() if stem != STUDY}
        log = None
        with suppress(StoreError):  # it is damaged, and the attempts have the id too
            log = self.study()
        return jsonl.lineage_of(files, log.lineage if log else None, known)

    def stems(self) -> list[str]:
        """Return the stems of all files that are not empty: those of attempts, and `STUDY`."""
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
        return jsonl.sizes(self.folder)

    # The index, written by the uploader: the ids of the runs in MLflow, and how much of a file is uploaded.

    def run_ids(self) -> dict[RunKey, str]:
        """Return the ids of the attempts' runs in MLflow, by key, as far as they have one."""
        with self._lock:
            return dict(self._attempt_runs)

    def run_id(self, stem: str) -> str | None:
        """Return the id of an attempt's run in MLflow, or of `STUDY`'s; None if it has none yet."""
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
        self._append_to_index({"stem": stem, "run_id": run_id})
        with self._lock:
            self._remember_run(stem, run_id)

    def _remember_run(self, stem: str, run_id: str) -> None:
        self._run_ids[stem] = run_id
        if stem != STUDY:
            self._attempt_runs[RunKey.from_stem(stem)] = run_id

    def pending(self) -> list[str]:
        """Return the stems of files with lines to upload; `STUDY` comes last."""
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
        self._append_to_index({"stem": stem, "uploaded": offset})
        with self._lock:
            self._uploaded[stem] = offset
            # The driver writes a line first and marks the file pending after, so no line can be missed here.
            if self.path(stem).stat().st_size == offset:
                self._pending.discard(stem)

    def remove(self, stem: str) -> None:
        """Empty a file that has only an incomplete line, and stop counting it as pending."""
        jsonl.repair(self.path(stem))
        with self._lock:
            self._pending.discard(stem)

    def mark_pending(self, stem: str) -> None:
        """Mark a file as pending, so that it is uploaded again."""
        with self._lock:
            self._pending.add(stem)

    def replaced(self, stem: str, *, has_news: bool) -> None:
        """Note that a file was written anew; it is pending, unless it was uploaded and has no news since.

        Args:
            stem: Stem of the file.
            has_news: True if it may have lines that were never uploaded.
        """
        self._repaired.discard(self.path(stem))
        self.mark_pending(stem)
        if stem in self._uploaded and not has_news and self.path(stem).exists():
            self.record_uploaded(stem, self.path(stem).stat().st_size)

    def forget_uploaded(self) -> None:
        """Delete the index, so that runs are searched for in MLflow and everything is uploaded again."""
        self._set_index_aside()
        with self._lock:
            (self.folder / _INDEX).unlink(missing_ok=True)
            self._run_ids.clear()
            self._attempt_runs.clear()
            self._uploaded.clear()
            self._pending = set(self._sizes())

    def _load_index(self) -> None:
        """Read the index. A damaged one counts as none: what it says is found in MLflow, by tags."""
        try:
            run_ids, self._uploaded = jsonl.indexed(jsonl.read(self.folder / _INDEX)[0])
        except (StoreError, ValueError) as error:
            self._index_damage = str(error)
            return
        for stem, run_id in run_ids.items():
            self._remember_run(stem, run_id)

    def _set_index_aside(self) -> None:
        """Move a damaged index aside. Reading it does not: the disk may be read-only."""
        if self._index_damage is not None:
            move_aside(self.folder / _INDEX)
            self._index_damage = None

    def _append_to_index(self, entry: Mapping[str, Any]) -> None:
        self._set_index_aside()
        self._append(self.folder / _INDEX, entry)

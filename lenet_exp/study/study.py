"""The study: its trials, their results, and the settings that it was started with.

One storage holds two Optuna studies for each experiment. The sampler searches the first. The second,
``<name>/fixed``, holds the fixed trainings (the baseline, listed runs, alternatives, confirmations): they
neither steer the sampler nor spend its budget, and yet are stored, resumed and retried in the same way.

Only one process at a time, a sweep's driver, opens a study for writing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import TrialState

from lenet_exp.base import failpoints
from lenet_exp.base.lineage import MARK, Lineage
from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.base.seeding import derive_seed
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.trainings import FixedTraining
from lenet_exp.study.postgres import PatientStorage
from lenet_exp.study.rdb import TrialStorage
from lenet_exp.study.records import TRAINING, Attempt, TrialRecord
from lenet_exp.study.sampling import Grid, hidden_from_sampler, load_fixed, load_search
from lenet_exp.study.storage import close, damaged_rows_told, ensure_stored, flush, is_empty, open_storage
from lenet_exp.study.trials import (
    OPEN,
    RECORD,
    RESULT,
    RETRY,
    UNKNOWN,
    as_record,
    counts,
    drawn_values,
    kept_record,
    key_of,
    trial_records,
    with_digest,
    with_records,
)
from lenet_exp.study.values import KeptValues
from lenet_exp.study.write_through import SingleWriterStorage

#: A training is given up once this many of its attempts have crashed.
MAX_ATTEMPTS = 3

# Key of `Attempt.exclusive` in storages that exist, so it cannot be renamed.
_EXCLUSIVE = "alone"


class Study(KeptValues):
    """The study of an experiment, opened for writing; see the module's docstring."""

    def __init__(
        self, storage: TrialStorage, experiment: Experiment, flush: Callable[[], None] = lambda: None
    ) -> None:
        """Load both Optuna studies from ``storage``, or create them; `open_study` opens the storage too.

        Args:
            storage: Storage in which no other process may write to these two studies.
            experiment: Experiment that the study belongs to; it names the sampler, the pruner and the seed.
            flush: Function that returns once every commit is on the disk; called when an attempt has ended.
        """
        self.experiment = experiment
        self._database = storage
        storage.on_refused = self.refused
        self._storage = SingleWriterStorage(storage)
        super().__init__(load_search(self._storage, experiment), load_fixed(self._storage, experiment), flush)
        self._trials, self._histories = dict[RunKey, optuna.Trial](), dict[RunKey, dict[int, float]]()
        # A trial that has ended never changes, so it is read only once; a study of thousands stays fast.
        trials = [study.get_trials(deepcopy=False) for study in (self._fixed, self._search)]
        records = [record for listed in trials for record in trial_records(listed)]
        self._ended = {record.key: record for record in records if record.state not in OPEN}
        self.lineage = with_records(self.lineage, records)
        self._n_finished = sum(counts(record) for record in self._ended.values())
        # Not Optuna's, which retries use up: a trial's seed does not depend on what others went through.
        self._next_number = 1 + max((r.key.trial for r in records if r.key.role == "trial"), default=-1)
        self._grid = Grid(experiment) if experiment.search.sampler == "grid" and experiment.space else None

    def when_gone(self, on_problem: Callable[[str], None], hold: Callable[[], None]) -> None:
        """Register functions to call when the database server stops answering; no effect on a SQLite file.

        Args:
            on_problem: Function that takes a line for the user, when the server is gone and when it is back.
            hold: Function that makes sure that the server's lock on the study is ours; it becomes a `guard`.
        """
        if isinstance(store := self._database, PatientStorage):
            store.on_problem, store.on_return, self.patiently = on_problem, self.ensure_ours, store.patiently
            self.guard(partial(self.patiently, hold), first=True)

    def ask(self) -> Attempt | None:
        """Start the next trial, a queued retry before a new draw; return None if a grid has no point left."""
        self.ensure_ours()
        with self._storage.transaction():
            attempt = self._ask()
        self._flush()  # before the spool has a line of it, so a study that lacks it is not the right one
        return attempt

    def _ask(self) -> Attempt | None:
        if self._grid is not None and not self._enqueue_grid_point():
            return None
        hidden = hidden_from_sampler(self.experiment, self._search.get_trials(deepcopy=False))
        with self._storage.hiding(hidden):
            trial = self._search.ask()
            failpoints.point("after_ask")
            configuration = self.experiment.search_space.suggest(trial)
        queued = trial.user_attrs.get(RETRY, {"root": self._next_number, "attempt": 1, "crashes": 0})
        root, before = queued["root"], queued["attempt"] - 1
        # Until November 2026 an attempt had Optuna's number, not its trial's, and a retry no key of it.
        retried = queued.get("key", RunKey("trial", queued.get("of", root), before).stem)
        attempt = Attempt(
            key=RunKey("trial", root, queued["attempt"]),
            configuration=configuration,
            seed=derive_seed(self.experiment.search.seed, "trial", root),
            label=f"trial {root}",
            origin=RunKey("trial", root, 1),
            retry_of=RunKey.from_stem(retried) if before else None,
            exclusive=bool(queued.get(_EXCLUSIVE)),
        )
        return self._begin(trial, attempt, {name: queued[name] for name in queued if name != "key"})

    def ask_fixed(self, fixed: FixedTraining) -> Attempt | None:
        """Start the next attempt at a fixed training; return None if it has ended for good or is given up."""
        tried = self._tried(fixed.name, fixed.seed)
        # What was tried again after it had ended or was given up starts without crashes.
        ended = [n for n, record in enumerate(tried, 1) if not record.result.get("retried")]
        crashes = sum(bool(record.result.get("crashed")) for record in tried[max(ended, default=0) :])
        if any(not record.superseded for record in tried):
            return None
        self.ensure_ours()
        with self._storage.transaction():
            trial = self._fixed.ask()
            failpoints.point("after_ask")
            number = tried[0].key.trial if tried else trial.number
            key = RunKey(fixed.role, number, len(tried) + 1)
            origin, retry_of = (tried[0].key, tried[-1].key) if tried else (key, None)
            exclusive = any(record.result.get(_EXCLUSIVE) for record in tried)
            basics = fixed.configuration, fixed.seed, fixed.label
            attempt = Attempt(key, *basics, origin, retry_of, exclusive, fixed.train_on, fixed)
            self._begin(trial, attempt, {TRAINING: fixed.name, "crashes": crashes})
        self._flush()
        return attempt

    def fixed_record(self, fixed: FixedTraining) -> TrialRecord | None:
        """Return the final record of a fixed training, which no retry replaces; None if it has none yet."""
        return next((r for r in self._tried(fixed.name, fixed.seed) if not r.superseded), None)

    def _tried(self, name: str, seed: int) -> list[TrialRecord]:
        tried = [r for r in self._ended.values() if r.result.get(TRAINING) == name and r.seed == seed]
        return sorted(tried, key=lambda record: record.key.attempt)

    def try_again(self, record: TrialRecord) -> None:
        """Have a training that was given up, or that a limit ended, tried once more.

        A trial is queued; a fixed training is begun by the next `ask_fixed`.

        Args:
            record: Record of its last attempt, which ended and is not superseded.
        """
        self.ensure_ours()
        if record.key.role == "trial":
            trial = self._search.get_trials(deepcopy=False)[record.number]
            again = {"of": record.number, "key": record.key.stem, "root": record.trial, "crashes": 0}
            self._enqueue_retry(trial.params, again | {"attempt": record.key.attempt + 1})
        self._n_finished -= counts(record)
        self._ended[record.key] = replace(record, followed=True)

    def _begin(self, trial: optuna.Trial, attempt: Attempt, extra: Mapping[str, Any]) -> Attempt:
        extra = {"origin": attempt.origin.stem, _EXCLUSIVE: attempt.exclusive, **extra}
        record = kept_record(attempt.key, attempt.label, attempt.configuration, attempt.seed, extra)
        trial.set_user_attr(RECORD, record)
        if attempt.key.role == "trial":
            self._next_number = max(self._next_number, attempt.key.trial + 1)
        self._trials[attempt.key] = trial
        self._histories[attempt.key] = {}
        return attempt

    def drawn(self, key: RunKey) -> dict[str, Any]:
        """Return what the study stores of an attempt beside its `Attempt`, for `restore_study`."""
        study = self._search if key.role == "trial" else self._fixed
        running = self._trials.get(key)
        return drawn_values(running or study.get_trials(deepcopy=False)[self._ended[key].number])

    def report(self, key: RunKey, result: EpochResult) -> bool:
        """Record an epoch's ``val_accuracy``, and ask the pruner whether to end the trial.

        Args:
            key: Key of the running attempt that trained the epoch.
            result: Result of the epoch, of which the number and ``val_accuracy`` are used.

        Returns:
            True if the pruner would end the trial now; never after the last epoch, or for a fixed training.
        """
        trial = self._trials[key]
        with self._storage.transaction():
            # Without a validation split this is NaN, which Optuna stores.
            trial.report(result.val_accuracy, step=result.epoch)
            self._histories[key][result.epoch] = result.val_accuracy
            last = trial.user_attrs[RECORD]["epochs"] == result.epoch
            return key.role == "trial" and not last and trial.should_prune()

    def tell(
        self,
        key: RunKey,
        state: Literal["COMPLETE", "PRUNED", "FAIL"],
        value: float | None = None,
        result: Mapping[str, Any] | None = None,
    ) -> None:
        """Record how an attempt has ended; from then on its record is neither lost nor changed.

        Args:
            key: Key of the attempt that has ended.
            state: State in which it ended.
            value: Final ``val_accuracy``, NaN without a validation split; None unless COMPLETE.
            result: JSON values to store, by name: measurements, and the ``reason`` unless COMPLETE.
        """
        self.ensure_ours()
        trial = self._trials.pop(key)
        record, study = trial.user_attrs[RECORD], self._search if key.role == "trial" else self._fixed
        kept = dict(result or {}) | ({TRAINING: record[TRAINING]} if TRAINING in record else {})
        stored = UNKNOWN if value is not None and math.isnan(value) else value
        final = stored if state == "COMPLETE" else None
        ended = as_record(trial.number, state, record, kept, self._histories.pop(key, {}), final)
        ended = replace(ended, result=with_digest(ended))
        with self._storage.transaction():
            trial.set_user_attr(RESULT, ended.result)
            trial.set_user_attr("label", ": ".join(filter(None, (record["label"], kept.get("reason")))))
            failpoints.point("in_tell")
            study.tell(trial, final, state=TrialState[state])
        self._flush()
        self._ended[key], self._n_finished = ended, self._n_finished + counts(ended)

    def fail(
        self,
        key: RunKey,
        reason: str,
        *,
        retry: bool,
        crashed: bool = True,
        exclusive: bool = False,
        limits: Mapping[str, float] | None = None,
    ) -> bool:
        """Record that an attempt failed; a trial to be retried is queued again.

        Args:
            key: Key of the attempt that failed.
            reason: Cause of the failure, in one line.
            retry: True to retry the training, unless `MAX_ATTEMPTS` of its attempts have crashed.
            crashed: True if this counts as a crash; False if the driver was stopped, or memory ran out.
            exclusive: True to train each later attempt with no other attempt beside it.
            limits: Limits of the attempt that may be the cause, by name; None if there are none.

        Returns:
            True if the training will be retried.
        """
        self.ensure_ours()
        trial = self._trials[key]
        record = trial.user_attrs[RECORD]
        crashes = record["crashes"] + crashed
        is_retried = retry and crashes < MAX_ATTEMPTS
        exclusive = exclusive or record.get(_EXCLUSIVE, False)
        if is_retried and key.role == "trial":
            next_attempt = {"of": trial.number, "key": key.stem, "root": record["root"]}
            next_attempt |= {"attempt": key.attempt + 1}
            # Queued before the failure is recorded: should the driver die in between, this can be repeated.
            self._enqueue_retry(trial.params, next_attempt | {"crashes": crashes, _EXCLUSIVE: exclusive})
            failpoints.point("after_retry")
        result = {"reason": reason, "retried": is_retried, "crashed": crashed, _EXCLUSIVE: exclusive}
        self.tell(key, "FAIL", result=result | dict(limits or {}))
        return is_retried

    def _enqueue_retry(self, params: Mapping[str, Any], retry: Mapping[str, Any]) -> None:
        """Queue a retry of a trial, unless the same retry is in the queue or was started from it."""
        for other in self._search.get_trials(deepcopy=False):
            is_same = other.user_attrs.get(RETRY, {}).get("of") == retry["of"]
            if is_same and (other.state == TrialState.WAITING or RECORD in other.user_attrs):
                return
        self._search.enqueue_trial(dict(params), user_attrs={RETRY: dict(retry)})

    def orphans(self) -> list[RunKey]:
        """Return the attempts that a driver left RUNNING when it died; the caller must end each of them.

        The caller holds the study's lock, so no other driver can be training them. A trial without a record,
        whose driver died while drawing it, is set to FAIL here; if it was a retry, it is queued again.
        """
        orphans = []
        for study in (self._search, self._fixed):
            study_id = self._storage.get_study_id_from_name(study.study_name)
            for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                record = frozen.user_attrs.get(RECORD)
                if record is None:
                    if RETRY in frozen.user_attrs:
                        params = frozen.system_attrs.get("fixed_params", frozen.params)
                        self._enqueue_retry(params, frozen.user_attrs[RETRY])
                    study.tell(frozen.number, state=TrialState.FAIL)
                    continue
                key = key_of(record, frozen.number)
                trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, frozen.number)
                self._trials[key] = optuna.Trial(study, trial_id)
                self._histories[key] = dict(frozen.intermediate_values)
                orphans.append(key)
        return orphans

    def complete_history(self, key: RunKey, results: Sequence[EpochResult]) -> None:
        """Report the epochs of an orphan that its driver did not report before it died.

        Args:
            key: Key of the attempt, one of the `orphans`.
            results: Results of all its recorded epochs, in order; epochs that were reported are skipped.
        """
        for result in results:
            if result.epoch not in self._histories[key]:
                self.report(key, result)

    def open_origins(self) -> set[RunKey]:
        """Return the first attempt at each training that is still open: running, or to be retried."""
        waiting = self._search.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        queued = {RunKey("trial", t.user_attrs[RETRY]["root"], 1) for t in waiting if RETRY in t.user_attrs}
        running = {RunKey.from_stem(trial.user_attrs[RECORD]["origin"]) for trial in self._trials.values()}
        ended = self._ended.values()
        over = {(r.result.get(TRAINING), r.seed) for r in ended if not r.superseded}
        failed = (r for r in ended if r.key.role != "trial" and r.superseded)
        fixed = {r.key for r in failed if (r.result.get(TRAINING), r.seed) not in over}
        # What a limit ended goes on from its checkpoint once the limit is raised.
        limited = {r.origin or r.key for r in ended if r.limited and not r.superseded}
        return queued | running | fixed | limited

    def written(self) -> dict[str, tuple[int, int, Any]]:
        """Return what is written of each Optuna study, by its name, as `ensure_stored` compares it."""
        marks = {self._search: self._search.user_attrs.get(MARK), self._fixed: None}
        return {s.study_name: (*self._storage.n_written(s.study_name), mark) for s, mark in marks.items()}

    def close(self) -> None:
        """Close the storage; a SQLite file is then whole without its journal."""
        if not isinstance(self._database, PatientStorage) and not self.lost:
            close(self._database)

    def records(self) -> list[TrialRecord]:
        """Return the records of all attempts that have ended, those at fixed trainings included."""
        return list(self._ended.values())

    def record(self, key: RunKey) -> TrialRecord:
        """Return the record of an attempt that has ended."""
        return self._ended[key]

    def n_waiting(self) -> int:
        """Return the number of retries in the queue."""
        return len(self._search.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    @property
    def n_finished(self) -> int:
        """The number of trials that count against the budget: ended, feasible and not retried."""
        return self._n_finished

    def _enqueue_grid_point(self) -> bool:
        """Queue the grid's next point, unless a retry is queued; return False if no point is left."""
        if self.n_waiting():
            return True
        assert self._grid is not None
        trials = self._search.get_trials(deepcopy=False)
        if point := self._grid.next({record.config for record in trial_records(trials)}):
            self._search.enqueue_trial(point)
        return point is not None


def open_study(
    experiment: Experiment,
    root: Path,
    url: str | None = None,
    check: Callable[[Lineage | None], None] = lambda _: None,
) -> Study:
    """Open the study of an experiment for writing, and create it if there is none.

    Args:
        experiment: Experiment whose study is opened; the study has its name.
        root: Folder of everything that runs write, with the study's SQLite file.
        url: URL of a PostgreSQL database to use instead of the SQLite file; None for the file.
        check: Function of the study's lineage, None without a study; it raises if this is not the right one.

    Raises:
        LenetExpError: If the storage is damaged or of another version, or does not answer.
    """
    if not url and is_empty(root):
        check(None)
    storage = open_storage(root, url)
    with damaged_rows_told(experiment.name, root, url):
        names = {study.study_name for study in storage.get_all_studies()}
        if not names >= {experiment.name, f"{experiment.name}/fixed"}:
            check(None)
        study = Study(storage, experiment, partial(flush, root))
        check(study.lineage)
    study.guard(lambda: ensure_stored(storage, root, url, study.written()))
    return study

"""The study: its trials, their results, and the settings that it was started with.

One storage holds two Optuna studies for each experiment. The sampler searches the first. The second,
``<name>/fixed``, holds the fixed trainings (the baseline, listed runs, alternatives, confirmations): they
neither steer the sampler nor spend its budget, and yet are stored, resumed and retried in the same way.

Only one process at a time, a sweep's driver, opens a study for writing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import TrialState

from lenet_exp.base import failpoints
from lenet_exp.base.errors import ConfigError, LenetExpError, UnreachableError
from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.base.seeding import derive_seed
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.trainings import FixedTraining
from lenet_exp.study.postgres import PatientStorage
from lenet_exp.study.rdb import TrialStorage
from lenet_exp.study.records import Attempt, TrialRecord
from lenet_exp.study.sampling import Grid, hidden_from_sampler, load_fixed, load_search
from lenet_exp.study.storage import flush, open_storage
from lenet_exp.study.trials import (
    FINGERPRINT,
    OPEN,
    RECORD,
    RECORD_BASICS,
    RESULT,
    RETRY,
    UNKNOWN,
    as_record,
    counts,
    differences,
    kept_record,
    stored_fingerprint,
    trial_records,
)
from lenet_exp.study.write_through import SingleWriterStorage

#: A training is given up once this many of its attempts have crashed.
MAX_ATTEMPTS = 3

# Keys of `FixedTraining.name` and `Attempt.exclusive` in storages that exist, so they cannot be renamed.
_TRAINING, _EXCLUSIVE = "job", "alone"


class Study:
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
        self._flush = flush
        self._on_keep: Callable[[str, Any], None] = lambda *_: None
        self._checks: list[Callable[[], None]] = []
        #: Error of the check that found the study to be no longer ours; None as long as it is.
        self.lost: LenetExpError | None = None
        self._database = storage
        storage.on_refused = self._refused
        self._storage = SingleWriterStorage(storage)
        self._search = load_search(self._storage, experiment)
        self._fixed = load_fixed(self._storage, experiment)
        self._trials: dict[RunKey, optuna.Trial] = {}
        self._histories: dict[RunKey, dict[int, float]] = {}
        # A trial that has ended never changes, so it is read only once; a study of thousands stays fast.
        trials = self._fixed.get_trials(deepcopy=False) + self._search.get_trials(deepcopy=False)
        self._ended = {record.key: record for record in trial_records(trials) if record.state not in OPEN}
        self._n_finished = sum(counts(record) for record in self._ended.values())
        is_grid = experiment.search.sampler == "grid" and experiment.space
        self._grid = Grid(experiment) if is_grid else None

    def check_fingerprint(self, fingerprint: Mapping[str, Any]) -> None:
        """Store the fingerprint of a new study, or compare it with the one stored when the study was started.

        Args:
            fingerprint: JSON values of space, baseline, training, data, sampler and pruner.

        Raises:
            ConfigError: If the study was started with other settings or by another program; it is unchanged.
        """
        stored = stored_fingerprint(self._search.user_attrs)
        if stored is None and self._search.get_trials(deepcopy=False):
            name = self.experiment.name
            raise ConfigError(
                f"study {name!r} was created by another program; rename the experiment (name = ...)"
            )
        now = json.loads(json.dumps(fingerprint))
        if stored is None:
            self._search.set_user_attr(FINGERPRINT, now)
            self._search.set_user_attr("optuna_version", optuna.__version__)
            return
        if stored != now:
            changes = "; ".join(differences(stored, now))
            raise ConfigError(
                f"study {self.experiment.name!r} was started with other settings: {changes}; "
                "rename the experiment (name = ...), or undo the change"
            )

    def when_gone(self, on_problem: Callable[[str], None], hold: Callable[[], None]) -> None:
        """Register functions to call when the database server stops answering; no effect on a SQLite file.

        Args:
            on_problem: Function that takes a line for the user, when the server stops answering and when it
                answers again.
            hold: Function that makes sure that the server's lock on the study is ours; it becomes a `guard`,
                and all guards are asked before an operation is repeated.
        """
        if isinstance(self._database, PatientStorage):
            self._database.on_problem, self._database.on_return = on_problem, self.ensure_ours
            self.guard(partial(self._database.patiently, hold))

    def guard(self, check: Callable[[], None]) -> None:
        """Register a function that is called before an attempt is begun or ended, and before a value is kept.

        It raises a `LenetExpError` if the study is no longer ours to write. From then on every write of this
        object raises that error (see `lost`), and the storage is left alone.
        """
        self._checks.append(check)

    def ensure_ours(self) -> None:
        """Raise the error of a guard if the study is no longer ours to write.

        Raises:
            LenetExpError: If a guard says so, now or earlier; from then on the study is `lost`.
            UnreachableError: If the storage does not answer, which does not make the study lost.
        """
        if self.lost is not None:
            raise self.lost
        try:
            for check in self._checks:
                check()
        except UnreachableError:
            raise
        except LenetExpError as error:
            self.lost = error
            raise

    def _refused(self, error: LenetExpError) -> None:
        """Take note that the storage refused a write; raise a guard's error, which says who has the study."""
        if self.lost is None:
            with suppress(UnreachableError):
                self.ensure_ours()
            self.lost = error

    def ask(self) -> Attempt | None:
        """Start the next trial, a queued retry before a new draw; return None if a grid has no point left."""
        self.ensure_ours()
        with self._storage.transaction():
            return self._ask()

    def _ask(self) -> Attempt | None:
        if self._grid is not None and not self._enqueue_grid_point():
            return None
        hidden = hidden_from_sampler(self.experiment, self._search.get_trials(deepcopy=False))
        with self._storage.hiding(hidden):
            trial = self._search.ask()
            failpoints.point("after_ask")
            configuration = self.experiment.search_space.suggest(trial)
        queued = trial.user_attrs.get(RETRY, {"root": trial.number, "attempt": 1, "crashes": 0})
        attempt = Attempt(
            key=RunKey("trial", trial.number, queued["attempt"]),
            configuration=configuration,
            seed=derive_seed(self.experiment.search.seed, "trial", queued["root"]),
            label=f"trial {trial.number}",
            origin=RunKey("trial", queued["root"], 1),
            retry_of=RunKey("trial", queued["of"], queued["attempt"] - 1) if "of" in queued else None,
            exclusive=queued.get(_EXCLUSIVE, False),
        )
        return self._begin(trial, attempt, queued)

    def ask_fixed(self, fixed: FixedTraining) -> Attempt | None:
        """Start the next attempt at a fixed training; return None if it has ended for good or is given up."""
        tried = self._tried(fixed.name, fixed.seed)
        crashes = sum(bool(record.result.get("crashed")) for record in tried)
        if crashes >= MAX_ATTEMPTS or any(not record.superseded for record in tried):
            return None
        self.ensure_ours()
        with self._storage.transaction():
            trial = self._fixed.ask()
            failpoints.point("after_ask")
            key = RunKey(fixed.role, trial.number, len(tried) + 1)
            before = sorted(record.key for record in tried)
            origin, retry_of = (before[0], before[-1]) if before else (key, None)
            exclusive = any(record.result.get(_EXCLUSIVE) for record in tried)
            basics = fixed.configuration, fixed.seed, fixed.label
            attempt = Attempt(key, *basics, origin, retry_of, exclusive, fixed.train_on, fixed)
            return self._begin(trial, attempt, {_TRAINING: fixed.name, "crashes": crashes})

    def fixed_record(self, fixed: FixedTraining) -> TrialRecord | None:
        """Return the final record of a fixed training, which no retry replaces; None if it has none yet."""
        tried = self._tried(fixed.name, fixed.seed)
        return next((record for record in tried if not record.superseded), None)

    def _tried(self, name: str, seed: int) -> list[TrialRecord]:
        return [r for r in self._ended.values() if r.result.get(_TRAINING) == name and r.seed == seed]

    def keep(self, name: str, value: Any) -> None:
        """Store a JSON value in the study, and return once it is on the disk.

        Args:
            name: Name of the value, such as ``confirm_plan``; `kept` reads it by this name.
            value: JSON value to store; it replaces an earlier value of the same name.
        """
        self.ensure_ours()
        self._on_keep(name, value)
        self._fixed.set_user_attr(f"lenet_exp.{name}", value)
        self._flush()

    def when_kept(self, on_keep: Callable[[str, Any], None]) -> None:
        """Register a function that `keep` calls with the name and the value before it stores them."""
        self._on_keep = on_keep

    def kept(self, name: str) -> Any:
        """Return the value that `keep` stored under ``name``, or None if there is none."""
        return self._fixed.user_attrs.get(f"lenet_exp.{name}")

    def _begin(self, trial: optuna.Trial, attempt: Attempt, extra: Mapping[str, Any]) -> Attempt:
        extra = {"origin": attempt.origin.stem, _EXCLUSIVE: attempt.exclusive, **extra}
        record = kept_record(attempt.key, attempt.label, attempt.configuration, attempt.seed, extra)
        trial.set_user_attr(RECORD, record)
        self._trials[attempt.key] = trial
        self._histories[attempt.key] = {}
        return attempt

    def drawn(self, key: RunKey) -> dict[str, Any]:
        """Return the JSON values that the study stores of a running attempt beside those in `Attempt`.

        From both together `lenet_exp.study.restore` can rebuild the trial.
        """
        trial = self._trials[key]
        record = trial.user_attrs[RECORD]
        distributions = trial.distributions.items()
        return {
            "extra": {name: value for name, value in record.items() if name not in RECORD_BASICS},
            "retry": trial.user_attrs.get(RETRY),
            "distributions": {
                name: optuna.distributions.distribution_to_json(d) for name, d in distributions
            },
            # Parameters whose drawn value differs from the configuration's: padding ``same`` becomes pixels.
            "otherwise": {
                name: value for name, value in trial.params.items() if record["values"].get(name) != value
            },
        }

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
        record = trial.user_attrs[RECORD]
        kept = dict(result or {}) | ({_TRAINING: record[_TRAINING]} if _TRAINING in record else {})
        study = self._search if key.role == "trial" else self._fixed
        stored = UNKNOWN if value is not None and math.isnan(value) else value
        with self._storage.transaction():
            trial.set_user_attr(RESULT, kept)
            failpoints.point("in_tell")
            frozen = study.tell(trial, stored if state == "COMPLETE" else None, state=TrialState[state])
        self._flush()
        history = self._histories.pop(key, None) or frozen.intermediate_values
        # Optuna gives a pruned trial its last report as value; its record has no value.
        final = frozen.value if state == "COMPLETE" else None
        ended = as_record(frozen.number, state, record, kept, history, final)
        self._ended[key] = ended
        self._n_finished += counts(ended)

    def fail(
        self, key: RunKey, reason: str, *, retry: bool, crashed: bool = True, exclusive: bool = False
    ) -> bool:
        """Record that an attempt failed; a trial to be retried is queued again.

        Args:
            key: Key of the attempt that failed.
            reason: Cause of the failure, in one line.
            retry: True to retry the training, unless `MAX_ATTEMPTS` of its attempts have crashed.
            crashed: True if this counts as a crash; False if the driver was stopped, or memory ran out.
            exclusive: True to train each later attempt with no other attempt beside it.

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
            next_attempt = {"of": key.trial, "root": record["root"], "attempt": key.attempt + 1}
            # Queued before the failure is recorded: should the driver die in between, this can be repeated.
            self._enqueue_retry(trial.params, next_attempt | {"crashes": crashes, _EXCLUSIVE: exclusive})
            failpoints.point("after_retry")
        result = {"reason": reason, "retried": is_retried, "crashed": crashed, _EXCLUSIVE: exclusive}
        self.tell(key, "FAIL", result=result)
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
                key = RunKey(record["role"], frozen.number, record["attempt"])
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
        failed = [
            record for record in self._ended.values() if record.key.role != "trial" and record.superseded
        ]
        over = {(r.result.get(_TRAINING), r.seed) for r in self._ended.values() if not r.superseded}
        fixed = {record.key for record in failed if (record.result.get(_TRAINING), record.seed) not in over}
        return queued | running | fixed

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
        trials = trial_records(self._search.get_trials(deepcopy=False))
        point = self._grid.next({record.config for record in trials})
        if point is not None:
            self._search.enqueue_trial(point)
        return point is not None


def open_study(experiment: Experiment, root: Path, url: str | None = None) -> Study:
    """Open the study of an experiment for writing, and create it if there is none.

    Args:
        experiment: Experiment whose study is opened; the study has its name.
        root: Folder of everything that runs write, with the study's SQLite file.
        url: URL of a PostgreSQL database to use instead of the SQLite file; None for the file.

    Raises:
        ConfigError: If ``url`` is not a PostgreSQL URL, or psycopg is not installed.
        StoreError: If the storage is damaged, or another version of Optuna wrote it.
        UnreachableError: If the storage does not answer.
    """
    return Study(open_storage(root, url), experiment, partial(flush, root))

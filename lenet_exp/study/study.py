"""The study: which trials were drawn, what they gave, and whether it is the study we think it is.

One storage holds two Optuna studies for an experiment. The first is what the sampler searches. The
second, ``<name>/fixed``, holds the trainings that no sampler chose (the baseline, a list of runs),
so that they can neither steer the sampler nor spend its budget, and yet are kept, resumed and
retried in the same way.

Only one process, the driver, ever opens a study for writing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import TrialState

from lenet_exp.base import failpoints
from lenet_exp.base.errors import ConfigError
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

#: An attempt that died is tried again until it has had this many.
MAX_ATTEMPTS = 3


class Study:
    """An experiment's two Optuna studies; see the module's text."""

    def __init__(
        self, storage: TrialStorage, experiment: Experiment, flush: Callable[[], None] = lambda: None
    ) -> None:
        """Wrap the studies in ``storage``; use `open_study`.

        Args:
            storage: The storage that holds, or will hold, both studies.
            experiment: The experiment that the studies belong to.
            flush: A function that returns when all that was committed is on the disk.
        """
        self.experiment = experiment
        self._flush = flush
        self._on_keep: Callable[[str, Any], None] = lambda *_: None
        self._database = storage
        self._storage = SingleWriterStorage(storage)
        self._search = load_search(self._storage, experiment)
        self._fixed = load_fixed(self._storage, experiment)
        self._trials: dict[RunKey, optuna.Trial] = {}
        self._histories: dict[RunKey, dict[int, float]] = {}
        # What has ended never changes, so it is read once; a study of thousands stays quick.
        trials = self._fixed.get_trials(deepcopy=False) + self._search.get_trials(deepcopy=False)
        self._ended = {record.key: record for record in trial_records(trials) if record.state not in OPEN}
        self._n_finished = sum(counts(record) for record in self._ended.values())
        is_grid = experiment.search.sampler == "grid" and experiment.space
        self._grid = Grid(experiment) if is_grid else None

    def check_fingerprint(self, fingerprint: Mapping[str, Any]) -> None:
        """Store what makes this study what it is, or compare it with what was stored.

        Args:
            fingerprint: Plain values: space, baseline, training, data, sampler, pruner.

        Raises:
            ConfigError: If the study was started with another fingerprint; nothing is written then.
        """
        stored = stored_fingerprint(self._search.user_attrs)
        if stored is None and self._search.get_trials(deepcopy=False):
            name = self.experiment.name
            raise ConfigError(f"study {name!r} is none of lenet-exp's; rename the experiment (name = ...)")
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

    def when_gone(self, on_problem: Callable[[str], None], on_return: Callable[[], None]) -> None:
        """Say whom to tell when a server's storage goes, and what to do first when it is back."""
        if isinstance(self._database, PatientStorage):
            self._database.on_problem, self._database.on_return = on_problem, on_return

    def ask(self) -> Attempt | None:
        """Return the next trial of the search; None if a grid has no point left."""
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
            alone=queued.get("alone", False),
        )
        return self._begin(trial, attempt, queued)

    def ask_fixed(self, fixed: FixedTraining) -> Attempt | None:
        """Return an attempt at a training that no sampler chose; None if it is done or given up."""
        tried = self._tried(fixed.name, fixed.seed)
        crashes = sum(bool(record.result.get("crashed")) for record in tried)
        if crashes >= MAX_ATTEMPTS or any(not record.superseded for record in tried):
            return None
        with self._storage.transaction():
            trial = self._fixed.ask()
            failpoints.point("after_ask")
            key = RunKey(fixed.role, trial.number, len(tried) + 1)
            before = sorted(record.key for record in tried)
            origin, retry_of = (before[0], before[-1]) if before else (key, None)
            alone = any(record.result.get("alone") for record in tried)
            what = fixed.configuration, fixed.seed, fixed.label
            attempt = Attempt(key, *what, origin, retry_of, alone, fixed.train_on, fixed)
            return self._begin(trial, attempt, {"job": fixed.name, "crashes": crashes})

    def fixed_record(self, fixed: FixedTraining) -> TrialRecord | None:
        """Return how a training that no sampler chose ended; None if it has yet to."""
        tried = self._tried(fixed.name, fixed.seed)
        return next((record for record in tried if not record.superseded), None)

    def _tried(self, name: str, seed: int) -> list[TrialRecord]:
        return [r for r in self._ended.values() if r.result.get("job") == name and r.seed == seed]

    def keep(self, name: str, value: Any) -> None:
        """Keep a plain value with the study, durably, in the place of what was kept under this name."""
        self._on_keep(name, value)
        self._fixed.set_user_attr(f"lenet_exp.{name}", value)
        self._flush()

    def when_kept(self, on_keep: Callable[[str, Any], None]) -> None:
        """Say whom to tell of what is about to be kept."""
        self._on_keep = on_keep

    def kept(self, name: str) -> Any:
        """Return what was kept under this name; None if nothing was."""
        return self._fixed.user_attrs.get(f"lenet_exp.{name}")

    def _begin(self, trial: optuna.Trial, attempt: Attempt, extra: Mapping[str, Any]) -> Attempt:
        extra = {"origin": attempt.origin.stem, "alone": attempt.alone, **extra}
        record = kept_record(attempt.key, attempt.label, attempt.configuration, attempt.seed, extra)
        trial.set_user_attr(RECORD, record)
        self._trials[attempt.key] = trial
        self._histories[attempt.key] = {}
        return attempt

    def drawn(self, key: RunKey) -> dict[str, Any]:
        """Return what the study has of an attempt besides its configuration, seed and label.

        With those, `lenet_exp.study.restore` makes the trial anew. The values are JSON values.
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
            # Nearly always a value is drawn as it is used; ``same`` for a padding in pixels is not.
            "otherwise": {
                name: value for name, value in trial.params.items() if record["values"].get(name) != value
            },
        }

    def report(self, key: RunKey, result: EpochResult) -> bool:
        """Record an epoch's ``val_accuracy``; return whether the pruner would end the trial here."""
        trial = self._trials[key]
        with self._storage.transaction():
            # Optuna takes NaN, and gives it back.
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
        """End an attempt; from here on its result is never lost or changed.

        Args:
            key: The attempt.
            state: How it ended.
            value: ``val_accuracy`` after the last epoch, for COMPLETE; NaN if nothing was validated on.
            result: What else is to be kept; ``reason`` for the other states.
        """
        trial = self._trials.pop(key)
        record = trial.user_attrs[RECORD]
        kept = dict(result or {}) | ({"job": record["job"]} if "job" in record else {})
        study = self._search if key.role == "trial" else self._fixed
        told = UNKNOWN if value is not None and math.isnan(value) else value
        with self._storage.transaction():
            trial.set_user_attr(RESULT, kept)
            failpoints.point("in_tell")
            frozen = study.tell(trial, told if state == "COMPLETE" else None, state=TrialState[state])
        self._flush()
        history = self._histories.pop(key, None) or frozen.intermediate_values
        # Optuna takes the last report of a pruned trial for its value; it is none.
        told = frozen.value if state == "COMPLETE" else None
        ended = as_record(frozen.number, state, record, kept, history, told)
        self._ended[key] = ended
        self._n_finished += counts(ended)

    def fail(
        self, key: RunKey, reason: str, *, retry: bool, crashed: bool = True, alone: bool = False
    ) -> bool:
        """End an attempt as failed and, if it may be tried again, queue the next one.

        Args:
            key: The attempt.
            reason: One line.
            retry: Whether trying again can help; at most `MAX_ATTEMPTS` that crashed are made.
            crashed: Whether the attempt itself died, and not the driver around it.
            alone: Whether the next one is to be made with nothing beside it; so are those after it.

        Returns:
            Whether it will be tried again.
        """
        trial = self._trials[key]
        record = trial.user_attrs[RECORD]
        crashes = record["crashes"] + crashed
        again = retry and crashes < MAX_ATTEMPTS
        alone = alone or record.get("alone", False)
        if again and key.role == "trial":
            of = {"of": key.trial, "root": record["root"], "attempt": key.attempt + 1}
            # Queued before the failure is told: a crash in between is mended by asking again.
            self._enqueue_retry(trial.params, of | {"crashes": crashes, "alone": alone})
            failpoints.point("after_retry")
        result = {"reason": reason, "retried": again, "crashed": crashed, "alone": alone}
        self.tell(key, "FAIL", result=result)
        return again

    def _enqueue_retry(self, params: Mapping[str, Any], retry: Mapping[str, Any]) -> None:
        """Queue a retry unless it is queued already, or was taken from the queue and is on record."""
        for other in self._search.get_trials(deepcopy=False):
            is_same = other.user_attrs.get(RETRY, {}).get("of") == retry["of"]
            if is_same and (other.state == TrialState.WAITING or RECORD in other.user_attrs):
                return
        self._search.enqueue_trial(dict(params), user_attrs={RETRY: dict(retry)})

    def orphans(self) -> list[RunKey]:
        """Return the attempts that a dead driver left RUNNING, each of which is now to be ended.

        The caller holds the study's lock, so that nobody else's trial can be running. What was taken and
        never recorded is ended here; a retry of that kind is queued again.
        """
        found = []
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
                found.append(key)
        return found

    def complete_history(self, key: RunKey, results: Sequence[EpochResult]) -> None:
        """Report the epochs of an orphan that were trained and that its driver did not come to report."""
        for result in results:
            if result.epoch not in self._histories[key]:
                self.report(key, result)

    def open_origins(self) -> set[RunKey]:
        """Return the first attempts at the trainings that are not over: under way, or to be tried again."""
        waiting = self._search.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        queued = {RunKey("trial", t.user_attrs[RETRY]["root"], 1) for t in waiting if RETRY in t.user_attrs}
        running = {RunKey.from_stem(trial.user_attrs[RECORD]["origin"]) for trial in self._trials.values()}
        failed = [
            record for record in self._ended.values() if record.key.role != "trial" and record.superseded
        ]
        over = {(r.result.get("job"), r.seed) for r in self._ended.values() if not r.superseded}
        fixed = {record.key for record in failed if (record.result.get("job"), record.seed) not in over}
        return queued | running | fixed

    def records(self) -> list[TrialRecord]:
        """Return every attempt that has ended, of both studies."""
        return list(self._ended.values())

    def record(self, key: RunKey) -> TrialRecord:
        """Return what is known of an attempt that has ended."""
        return self._ended[key]

    def n_waiting(self) -> int:
        """Return how many retries are queued."""
        return len(self._search.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    @property
    def n_finished(self) -> int:
        """How many trials count against the budget: ended, feasible and not to be retried."""
        return self._n_finished

    def _enqueue_grid_point(self) -> bool:
        """Queue the first point of the grid that was never drawn, unless a retry is waiting."""
        if self.n_waiting():
            return True
        assert self._grid is not None
        trials = trial_records(self._search.get_trials(deepcopy=False))
        point = self._grid.next({record.config for record in trials})
        if point is not None:
            self._search.enqueue_trial(point)
        return point is not None


def open_study(experiment: Experiment, root: Path, url: str | None = None) -> Study:
    """Open or create the experiment's study below ``root``, or in PostgreSQL at ``url``.

    Raises:
        StoreError: If the storage is damaged or of another version.
        UnreachableError: If it does not answer.
    """
    return Study(open_storage(root, url), experiment, partial(flush, root))

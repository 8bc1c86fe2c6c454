"""Optuna's relational storage, extended to read and write whole trials.

In a known schema, one that `lenet_exp.study.tables` was written for, whole trials are read from the tables
and written to them directly. In an unknown one Optuna's public methods do the same, one value at a time.
"""

from __future__ import annotations

import copy
import sqlite3
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from lenet_exp.base.errors import LenetExpError, UnreachableError, printable
from lenet_exp.study.records import created_by_another, ended_by_another, gone

#: Revisions of Optuna's schema that `tables` was tested with: that of Optuna 5.0.
KNOWN_REVISIONS = ["v3.2.0.a"]
#: Names of the dictionaries of a `FrozenTrial` that grow while the trial is running.
_COLLECTED = ("params", "user_attrs", "system_attrs", "intermediate_values")


@dataclass(frozen=True)
class KeptTrial:
    """A trial as it was read from the storage, without its parameters and Optuna's own attributes.

    Attributes:
        number: Number of the trial in its Optuna study, from 0.
        state: State of the trial when it was read.
        user_attrs: JSON values stored with the trial, by key.
        intermediate_values: Reported ``val_accuracy`` by epoch; may be NaN.
        value: Final value; None if the trial has none.
    """

    number: int
    state: TrialState
    user_attrs: dict[str, Any] = field(default_factory=dict)
    intermediate_values: dict[int, float] = field(default_factory=dict)
    value: float | None = None


class Written(NamedTuple):
    """A trial as it was when last written, and its identifier in the storage."""

    trial_id: int
    trial: FrozenTrial


class TrialStorage(RDBStorage):
    """Optuna's storage in SQLite or PostgreSQL; see the module's docstring."""

    #: Called with the error of a write that was refused because the study is no longer ours to write.
    on_refused: Callable[[LenetExpError], None] = staticmethod(lambda _: None)

    @cached_property
    def opened(self) -> list[sqlite3.Connection]:
        """All connections to a SQLite file, also those that an interrupted write has not given back."""
        return []

    def write_trial(
        self, study_id: int, trial: FrozenTrial, written: Written | None = None, *, may_repeat: bool = False
    ) -> Written:
        """Write what has changed in a trial since it was last written.

        In a known schema, this is one transaction. In an unknown one the values are written one by one and
        the state last, so that calling this again completes a write that was cut off.

        Args:
            study_id: Identifier of the Optuna study in this storage.
            trial: The whole trial. Its values replace those stored; parameters are only ever added.
            written: Return value of the trial's last write; None if it was never written.
            may_repeat: True if this repeats a write whose acknowledgement was lost. A trial of this number
                that exists already is then the one that was written.

        Returns:
            The trial as written, to be passed as ``written`` to its next write.

        Raises:
            LockedError: If another process has created a trial of this number, or has ended the trial.
            StoreError: If the trial is gone, or another one has its place.
            sqlalchemy.exc.SQLAlchemyError: If the trial cannot be written, in a known schema; nothing of it
                is written then.
            optuna.exceptions.StorageInternalError: If the trial cannot be written, in an unknown schema.
        """
        new = {name: _changed(name, trial, written and written.trial) for name in _COLLECTED}
        try:
            if self._knows_tables:
                from lenet_exp.study import tables

                trial_id = tables.write(self.engine, study_id, trial, new, written, may_repeat=may_repeat)
            elif written is None:
                trial_id = self._create(study_id, trial, may_repeat)
            else:
                trial_id = written.trial_id
                self._update(study_id, trial, new, written)
        except LenetExpError as error:
            self.on_refused(error)
            raise
        return Written(trial_id, snapshot(trial))

    def kept_trials(self, study_name: str) -> list[KeptTrial] | None:
        """Return the trials of an Optuna study in the order of their numbers, or None without such a study.

        In a known schema this takes a tenth of the time that Optuna's own method takes (experiments/LOG.md,
        What was weighed when the house was divided).

        Raises:
            UnreachableError: If the storage does not answer.
        """
        try:
            study_id = self.get_study_id_from_name(study_name)
        except KeyError:
            return None
        try:
            if self._knows_tables:
                from lenet_exp.study import tables

                return [KeptTrial(**fields) for fields in tables.read(self.engine, study_id)]
            trials = self.get_all_trials(study_id, deepcopy=False)
        except (OperationalError, StorageInternalError) as error:
            cause = error.__cause__ if isinstance(error, StorageInternalError) else error
            reason = str(getattr(cause, "orig", cause)).splitlines()[0]
            raise UnreachableError(f"the study's storage does not answer: {reason}") from None
        return [KeptTrial(t.number, t.state, t.user_attrs, t.intermediate_values, t.value) for t in trials]

    def rows(self, query: str, values: Mapping[str, Any]) -> list[Any]:
        """Return the rows that a query gives.

        Args:
            query: SQL with names such as ``:name`` in place of values.
            values: Values by name.
        """
        with self.engine.connect() as connection:
            return list(connection.execute(text(query), values))

    @cached_property
    def _knows_tables(self) -> bool:
        # The stored revision is that of the installed Optuna, which opens no storage of another one. Asking
        # Optuna for its own revision instead would take 25 ms.
        revision = self.get_current_version()
        if revision in KNOWN_REVISIONS:
            return True
        _warn_once(revision)
        return False

    def _create(self, study_id: int, trial: FrozenTrial, may_repeat: bool) -> int:
        try:
            trial_id = self.get_trial_id_from_study_id_trial_number(study_id, trial.number)
            # By its start: another process may have created a trial of this number.
            is_ours = may_repeat and self.get_trial(trial_id).datetime_start == trial.datetime_start
        except KeyError:
            trial_id = self.create_new_trial(study_id, trial)
            # Optuna itself repeats a write whose answer was lost, and so may have created two trials.
            is_ours = self.get_trial_number_from_id(trial_id) == trial.number
        if not is_ours:
            raise created_by_another(trial.number)
        return trial_id

    def _update(
        self, study_id: int, trial: FrozenTrial, new: Mapping[str, Mapping[Any, Any]], written: Written
    ) -> None:
        """Write what is new in a trial value by value, if it is in the storage as this process left it."""
        trial_id, before = written
        try:
            is_there = self.get_trial_id_from_study_id_trial_number(study_id, trial.number) == trial_id
        except KeyError:
            is_there = False
        if not is_there:
            raise gone(trial.number)
        stored = self.get_trial(trial_id)
        if stored.state.is_finished():
            # This very write may have ended the trial, if its answer was lost or the driver repeats it.
            if (stored.state, stored.value) != (trial.state, trial.value):
                raise ended_by_another(trial.number)
            return
        try:
            for name, value in new["params"].items():
                distribution = trial.distributions[name]
                self.set_trial_param(trial_id, name, distribution.to_internal_repr(value), distribution)
            for key, value in new["user_attrs"].items():
                self.set_trial_user_attr(trial_id, key, value)
            for key, value in new["system_attrs"].items():
                self.set_trial_system_attr(trial_id, key, value)
            for step, value in new["intermediate_values"].items():
                self.set_trial_intermediate_value(trial_id, step, value)
            if trial.state != before.state:
                self.set_trial_state_values(trial_id, trial.state, trial.values)
        except UpdateFinishedTrialError:
            # A trial's state is written last, so Optuna's own repetition of that write has all values.
            stored = self.get_trial(trial_id)
            if (stored.state, stored.value) != (trial.state, trial.value):
                raise ended_by_another(trial.number) from None


def snapshot(trial: FrozenTrial) -> FrozenTrial:
    """Return a copy of the trial that does not change when Optuna adds to the original's dictionaries."""
    duplicate = copy.copy(trial)
    for name in (*_COLLECTED, "distributions"):
        setattr(duplicate, name, dict(getattr(trial, name)))
    return duplicate


def _changed(name: str, trial: FrozenTrial, before: FrozenTrial | None) -> dict[Any, Any]:
    """Return the entries of the trial's dictionary ``name`` that were set since its snapshot ``before``."""
    then = getattr(before, name, None) or {}
    # By identity: a value that was set again is another object, and NaN is not equal to itself.
    return {k: v for k, v in getattr(trial, name).items() if k not in then or then[k] is not v}


@cache
def _warn_once(revision: str) -> None:
    line = (
        f"the installed Optuna stores trials by schema {revision}, which is unknown to lenet-exp: "
        "the sweep is slower, and nothing else changes"
    )
    sys.stderr.write(f"{printable(line)}\n")

"""Optuna's relational storage, whose trials are also read and written whole.

Where the schema is one that `lenet_exp.study.tables` was written for, a trial is read and written in the
tables themselves. With any other Optuna its public methods do the same, one number at a time.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import OperationalError

from lenet_exp.base.errors import UnreachableError, printable

#: The revisions of Optuna's schema that `tables` was tested with: that of Optuna 5.0.
KNOWN_REVISIONS = ["v3.2.0.a"]
#: What a trial collects while it runs, each a dictionary of its own.
_COLLECTED = ("params", "user_attrs", "system_attrs", "intermediate_values")


@dataclass(frozen=True)
class KeptTrial:
    """What a storage has of a trial, without its parameters and what is Optuna's own.

    Attributes:
        number: The trial's number.
        state: The trial's state.
        user_attrs: The plain values that were kept with the trial, by name.
        intermediate_values: The values that were reported, by step.
        value: The value that was told at the end; None if none was.
    """

    number: int
    state: TrialState
    user_attrs: dict[str, Any] = field(default_factory=dict)
    intermediate_values: dict[int, float] = field(default_factory=dict)
    value: float | None = None


class Written(NamedTuple):
    """A trial as it was last written, and its identifier in the storage."""

    trial_id: int
    trial: FrozenTrial


class TrialStorage(RDBStorage):
    """Optuna's storage in SQLite or PostgreSQL; see the module's text."""

    def write_trial(
        self, study_id: int, trial: FrozenTrial, written: Written | None = None, *, again: bool = False
    ) -> Written:
        """Write what a trial has that was not written yet.

        It is one transaction in tables that are known. Otherwise a trial that goes on is written number by
        number, its state last, so that writing it again completes what was cut off.

        Args:
            study_id: The study's identifier in this storage.
            trial: The trial. What it has replaces what it had, but for parameters, which are only added.
            written: The trial as this returned it when it was last written; None if it never was.
            again: True if this repeats a write whose answer was lost: a trial of this number is then ours.

        Raises:
            RuntimeError: If somebody else has made a trial of this number, or has ended the trial.
            sqlalchemy.exc.SQLAlchemyError: If it cannot be written; in tables that are known, nothing is.
            optuna.exceptions.StorageInternalError: The same, in tables that are not known.
        """
        new = {name: _changed(name, trial, written and written.trial) for name in _COLLECTED}
        if self._knows_tables:
            from lenet_exp.study import tables

            trial_id = tables.write(self.engine, study_id, trial, new, written, again=again)
        elif written is None:
            trial_id = self._create(study_id, trial, again)
        else:
            trial_id = written.trial_id
            self._update(trial_id, trial, new, written.trial.state)
        return Written(trial_id, snapshot(trial))

    def kept_trials(self, study_name: str) -> list[KeptTrial] | None:
        """Return the trials of a study, in their order; None if there is no such study.

        In tables that are known, thousands take a tenth of the time in which Optuna builds its objects.

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

    @cached_property
    def _knows_tables(self) -> bool:
        # What is open has the revision of the Optuna that is installed: all others are refused, and to ask
        # Optuna for its own revision takes 25 ms.
        revision = self.get_current_version()
        if revision in KNOWN_REVISIONS:
            return True
        _say_once(revision)
        return False

    def _create(self, study_id: int, trial: FrozenTrial, again: bool) -> int:
        try:
            trial_id = self.get_trial_id_from_study_id_trial_number(study_id, trial.number)
            is_ours = again
        except KeyError:
            trial_id = self.create_new_trial(study_id, trial)
            # Optuna tries a lost answer again by itself, and may have made a second one.
            is_ours = self.get_trial_number_from_id(trial_id) == trial.number
        if not is_ours:
            raise RuntimeError(f"trial {trial.number} is another's: somebody else writes to this study")
        return trial_id

    def _update(
        self, trial_id: int, trial: FrozenTrial, new: Mapping[str, Mapping[Any, Any]], before: TrialState
    ) -> None:
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
            if trial.state != before:
                self.set_trial_state_values(trial_id, trial.state, trial.values)
        except UpdateFinishedTrialError:
            # An answer that was lost, or a retry of the driver's, may have ended it already.
            stored = self.get_trial(trial_id)
            if (stored.state, stored.value) != (trial.state, trial.value):
                raise RuntimeError(
                    f"trial {trial.number} was ended by another: somebody else writes to this study"
                ) from None


def snapshot(trial: FrozenTrial) -> FrozenTrial:
    """Return the trial as it is now; Optuna's own `Trial` adds to one that it was given."""
    taken = copy.copy(trial)
    for name in (*_COLLECTED, "distributions"):
        setattr(taken, name, dict(getattr(trial, name)))
    return taken


def _changed(name: str, trial: FrozenTrial, before: FrozenTrial | None) -> dict[Any, Any]:
    """Return what was set in one of a trial's dictionaries since ``before``."""
    then = getattr(before, name, None) or {}
    # Whatever is set is another object, also a NaN that takes the place of itself.
    return {k: v for k, v in getattr(trial, name).items() if k not in then or then[k] is not v}


@cache
def _say_once(revision: str) -> None:
    line = (
        f"the installed Optuna keeps its trials by schema {revision}, which is not known here: "
        "the sweep is slower, and nothing else changes"
    )
    sys.stderr.write(f"{printable(line)}\n")

"""Optuna's relational storage, whose trials are also read and written whole.

Optuna reads and writes a trial number by number, with two or three questions for each. The tables used here
are of the schema whose version is checked when a storage is opened, and hold what Optuna would have written.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import OperationalError

from lenet_exp.base.errors import UnreachableError

#: The columns of what is reported and of what is told, but for the trial.
_REPORT = ("step", "intermediate_value", "intermediate_value_type")
_RESULT = ("objective", "value", "value_type")
#: A table, what else than the trial tells its rows apart, and rows without the trial.
_Rows = tuple[Any, str, Sequence[dict[str, Any]]]


@dataclass(frozen=True)
class KeptTrial:
    """What a storage has of a trial, without its parameters and what is Optuna's own.

    Attributes:
        number: Of the trial.
        state: Of the trial.
        user_attrs: What was kept with it.
        intermediate_values: What was reported, by step.
        value: What was told; None if nothing was.
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
        """Write what a trial has that was not written yet, as one transaction.

        Args:
            study_id: Of the study, in this storage.
            trial: The trial. What it has replaces what it had; nothing is taken away.
            written: What was written of it before; None if nothing was.
            again: Whether the same may have been done already, without an answer.

        Raises:
            RuntimeError: If somebody else has made a trial of this number, or has ended the trial.
            sqlalchemy.exc.SQLAlchemyError: If it cannot be written; nothing is then.
        """
        with self.engine.begin() as connection:
            if written is None:
                trial_id = _create(connection, study_id, trial, again)
            else:
                trial_id = written.trial_id
                if trial.state != written.trial.state:
                    _change_state(connection, trial_id, trial, written.trial.state)
            for model, key, rows in _rows(trial, written and written.trial):
                if rows:
                    statement = _upsert(self.engine.dialect.name, model, key)
                    connection.execute(statement, [{"trial_id": trial_id, **row} for row in rows])
        return Written(trial_id, snapshot(trial))

    def kept_trials(self, study_name: str) -> list[KeptTrial] | None:
        """Return the trials of a study, in their order; None if there is no such study.

        For thousands of trials it takes a tenth of the time that Optuna takes to build its objects.

        Raises:
            UnreachableError: If the storage does not answer.
        """
        trial, attribute = models.TrialModel, models.TrialUserAttributeModel
        report, told = models.TrialIntermediateValueModel, models.TrialValueModel
        try:
            study_id = self.get_study_id_from_name(study_name)
        except KeyError:
            return None
        of_study = sqlalchemy.select(trial.trial_id).where(trial.study_id == study_id)
        found: dict[int, KeptTrial] = {}
        try:
            with self.engine.connect() as connection:

                def rows(model: Any, *columns: Any) -> Iterator[Any]:
                    query = sqlalchemy.select(model.trial_id, *columns).where(model.trial_id.in_(of_study))
                    for row in connection.execute(query.order_by(model.trial_id)):
                        # A sweep may have begun another one since the first query.
                        if model is trial or row[0] in found:
                            yield row

                for key, number, state in rows(trial, trial.number, trial.state):
                    found[key] = KeptTrial(number, state)
                for key, name, text in rows(attribute, attribute.key, attribute.value_json):
                    found[key].user_attrs[name] = json.loads(text)
                for key, step, *stored in rows(
                    report, report.step, report.intermediate_value, report.intermediate_value_type
                ):
                    found[key].intermediate_values[step] = report.stored_repr_to_intermediate_value(*stored)
                for key, *stored in rows(told, told.value, told.value_type):
                    found[key] = replace(found[key], value=told.stored_repr_to_value(*stored))
        except OperationalError as error:
            reason = str(error.orig).splitlines()[0]
            raise UnreachableError(f"the study's storage does not answer: {reason}") from None
        return list(found.values())


def snapshot(trial: FrozenTrial) -> FrozenTrial:
    """Return the trial as it is now; Optuna's own `Trial` adds to one that it was given."""
    taken = copy.copy(trial)
    for name in ("params", "distributions", "user_attrs", "system_attrs", "intermediate_values"):
        setattr(taken, name, dict(getattr(trial, name)))
    return taken


def _create(connection: sqlalchemy.Connection, study_id: int, trial: FrozenTrial, again: bool) -> int:
    model = models.TrialModel
    latest = connection.execute(
        sqlalchemy.select(model.trial_id, model.number)
        .where(model.study_id == study_id)
        .order_by(model.trial_id.desc())
        .limit(1)
    ).first()
    if again and latest and latest.number == trial.number:
        return int(latest.trial_id)
    if (latest.number + 1 if latest else 0) != trial.number:
        raise RuntimeError(f"trial {trial.number} is another's: somebody else writes to this study")
    row = {"study_id": study_id, "number": trial.number, **_state(trial)}
    return int(connection.execute(sqlalchemy.insert(model).returning(model.trial_id), row).scalar_one())


def _change_state(
    connection: sqlalchemy.Connection, trial_id: int, trial: FrozenTrial, before: TrialState
) -> None:
    model = models.TrialModel
    # An answer that was lost, or a retry of the driver's, may have changed it already.
    expected = model.state.in_([before, trial.state])
    changed = connection.execute(
        sqlalchemy.update(model).where(model.trial_id == trial_id, expected), _state(trial)
    )
    if changed.rowcount != 1:
        raise RuntimeError(f"trial {trial.number} was ended by another: somebody else writes to this study")


def _state(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "state": trial.state,
        "datetime_start": trial.datetime_start,
        "datetime_complete": trial.datetime_complete,
    }


def _rows(trial: FrozenTrial, before: FrozenTrial | None) -> Iterator[_Rows]:
    """Yield what differs between two states of a trial, table by table."""

    def new(name: str) -> dict[Any, Any]:
        then = getattr(before, name, None) or {}
        # Whatever is set is another object, also a NaN that takes the place of itself.
        return {k: v for k, v in getattr(trial, name).items() if k not in then or then[k] is not v}

    parameters = [
        {
            "param_name": name,
            "param_value": trial.distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(trial.distributions[name]),
        }
        for name, value in new("params").items()
    ]
    yield models.TrialParamModel, "param_name", parameters
    for model, attributes in (
        (models.TrialUserAttributeModel, "user_attrs"),
        (models.TrialSystemAttributeModel, "system_attrs"),
    ):
        rows = [{"key": key, "value_json": json.dumps(value)} for key, value in new(attributes).items()]
        yield model, "key", rows
    reported, told = models.TrialIntermediateValueModel, models.TrialValueModel
    reports = [
        dict(zip(_REPORT, (step, *reported.intermediate_value_to_stored_repr(value)), strict=True))
        for step, value in new("intermediate_values").items()
    ]
    yield reported, "step", reports
    values = trial.values if before is None or before.values is None else None
    results = [
        dict(zip(_RESULT, (objective, *told.value_to_stored_repr(value)), strict=True))
        for objective, value in enumerate(values or ())
    ]
    yield told, "objective", results


@cache
def _upsert(dialect: str, model: Any, key: str) -> Any:
    """Return the statement that adds rows, or replaces those of the same trial and ``key``."""
    table: sqlalchemy.Table = model.__table__
    # Each dialect has its own, as standard SQL has none; PostgreSQL's takes a tenth of a second to load.
    statement = import_module(f"sqlalchemy.dialects.{dialect}").insert(table)
    replaced = {
        column.name: statement.excluded[column.name]
        for column in table.columns
        if column.name not in ("trial_id", key) and not column.primary_key
    }
    return statement.on_conflict_do_update(index_elements=["trial_id", key], set_=replaced)

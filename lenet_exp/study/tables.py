"""Optuna's own tables, in which a trial is read and written whole.

Optuna reads and writes a trial number by number, with two or three questions for each. What is written here
is what it would have written. Only `lenet_exp.study.rdb` comes here, and only if it knows the schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

#: The columns of what is reported and of what is told, but for the trial.
_REPORT = ("step", "intermediate_value", "intermediate_value_type")
_RESULT = ("objective", "value", "value_type")
#: A table, what else than the trial tells its rows apart, and rows without the trial.
_Rows = tuple[Any, str, Sequence[dict[str, Any]]]


def write(
    engine: sqlalchemy.Engine,
    study_id: int,
    trial: FrozenTrial,
    new: Mapping[str, Mapping[Any, Any]],
    written: tuple[int, FrozenTrial] | None,
    *,
    again: bool,
) -> int:
    """Write a trial in one transaction and return its identifier; see `rdb.TrialStorage.write_trial`.

    Args:
        engine: The database.
        study_id: The study's identifier in it.
        trial: The trial as it is now.
        new: The entries set since it was last written, by the names of the trial's own dictionaries.
        written: Its identifier, and the trial as it was then; None if it was never written.
        again: True if this repeats a write whose acknowledgement was lost.
    """
    with engine.begin() as connection:
        if written is None:
            trial_id = _create(connection, study_id, trial, again)
        else:
            trial_id, before = written
            if trial.state != before.state:
                _change_state(connection, trial_id, trial, before.state)
        for model, key, rows in _rows(trial, new):
            if rows:
                statement = _upsert(engine.dialect.name, model, key)
                connection.execute(statement, [{"trial_id": trial_id, **row} for row in rows])
    return trial_id


def read(engine: sqlalchemy.Engine, study_id: int) -> Iterator[dict[str, Any]]:
    """Yield the trials of a study, in their order, as the fields of `rdb.KeptTrial`."""
    trial, attribute = models.TrialModel, models.TrialUserAttributeModel
    report, told = models.TrialIntermediateValueModel, models.TrialValueModel
    of_study = sqlalchemy.select(trial.trial_id).where(trial.study_id == study_id)
    found: dict[int, dict[str, Any]] = {}
    with engine.connect() as connection:

        def rows(model: Any, *columns: Any) -> Iterator[Any]:
            query = sqlalchemy.select(model.trial_id, *columns).where(model.trial_id.in_(of_study))
            for row in connection.execute(query.order_by(model.trial_id)):
                # A sweep may have begun another one since the first query.
                if model is trial or row[0] in found:
                    yield row

        for key, number, state in rows(trial, trial.number, trial.state):
            found[key] = {"number": number, "state": state, "user_attrs": {}, "intermediate_values": {}}
        for key, name, text in rows(attribute, attribute.key, attribute.value_json):
            found[key]["user_attrs"][name] = json.loads(text)
        for key, step, *stored in rows(
            report, report.step, report.intermediate_value, report.intermediate_value_type
        ):
            found[key]["intermediate_values"][step] = report.stored_repr_to_intermediate_value(*stored)
        for key, *stored in rows(told, told.value, told.value_type):
            found[key]["value"] = told.stored_repr_to_value(*stored)
    yield from found.values()


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


def _rows(trial: FrozenTrial, new: Mapping[str, Mapping[Any, Any]]) -> Iterator[_Rows]:
    """Yield what is to be written of a trial, table by table."""
    parameters = [
        {
            "param_name": name,
            "param_value": trial.distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(trial.distributions[name]),
        }
        for name, value in new["params"].items()
    ]
    yield models.TrialParamModel, "param_name", parameters
    for model, attributes in (
        (models.TrialUserAttributeModel, "user_attrs"),
        (models.TrialSystemAttributeModel, "system_attrs"),
    ):
        rows = [{"key": key, "value_json": json.dumps(value)} for key, value in new[attributes].items()]
        yield model, "key", rows
    reported, told = models.TrialIntermediateValueModel, models.TrialValueModel
    reports = [
        dict(zip(_REPORT, (step, *reported.intermediate_value_to_stored_repr(value)), strict=True))
        for step, value in new["intermediate_values"].items()
    ]
    yield reported, "step", reports
    # Values are told when a trial ends, which is the last that is written of it.
    results = [
        dict(zip(_RESULT, (objective, *told.value_to_stored_repr(value)), strict=True))
        for objective, value in enumerate(trial.values or ())
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

"""Reads and writes whole trials in Optuna's own tables.

Optuna reads and writes a trial value by value, with two or three queries for each. This module writes the
same rows at a sixth of the cost (experiments/LOG.md, Speed: what a sweep costs beside its arithmetic). Only
`lenet_exp.study.rdb` uses it, and only with a schema for which it was tested.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from typing import Any

import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial

from lenet_exp.study.records import created_by_another, ended_by_another, gone

#: Columns of a reported value and of a final value, without ``trial_id``.
_REPORT = ("step", "intermediate_value", "intermediate_value_type")
_RESULT = ("objective", "value", "value_type")
#: Columns with start and end of a trial; the model has properties of these names, which are in local time.
_TIMES = tuple(models.TrialModel.__table__.c[name] for name in ("datetime_start", "datetime_complete"))
#: A table as Optuna's model, the column that distinguishes a trial's rows, and rows without ``trial_id``.
_Rows = tuple[Any, str, Sequence[dict[str, Any]]]


def write(
    engine: sqlalchemy.Engine,
    study_id: int,
    trial: FrozenTrial,
    new: Mapping[str, Mapping[Any, Any]],
    written: tuple[int, FrozenTrial] | None,
    *,
    may_repeat: bool,
) -> int:
    """Write a trial in one transaction and return its identifier; see `rdb.TrialStorage.write_trial`.

    Args:
        engine: Connections to the database.
        study_id: Identifier of the Optuna study in the database.
        trial: The whole trial.
        new: Entries to write, for each of the trial's dictionaries under its name, such as ``params``.
        written: Identifier of the trial, and the trial as last written; None if it was never written.
        may_repeat: True if this repeats a write whose acknowledgement was lost.

    Raises:
        LockedError: If another process has created a trial of this number, or has ended the trial.
        StoreError: If the trial is gone, or another one has its place.
    """
    with engine.begin() as connection:
        if written is None:
            trial_id = _create(connection, study_id, trial, may_repeat)
        else:
            trial_id, before = written
            _ensure_as_written(connection, study_id, trial_id, trial, before)
            if trial.state != before.state:
                model = models.TrialModel
                statement = sqlalchemy.update(model).where(model.trial_id == trial_id)
                connection.execute(statement, _state(trial))
        for model, key, rows in _rows(trial, new):
            if rows:
                statement = _upsert(engine.dialect.name, model, key)
                connection.execute(statement, [{"trial_id": trial_id, **row} for row in rows])
    return trial_id


def read(engine: sqlalchemy.Engine, study_id: int) -> Iterator[dict[str, Any]]:
    """Yield the trials of an Optuna study in the order of their numbers, each as the fields of a `KeptTrial`.

    Args:
        engine: Connections to the database.
        study_id: Identifier of the Optuna study in the database.
    """
    trial, attribute = models.TrialModel, models.TrialUserAttributeModel
    report, final = models.TrialIntermediateValueModel, models.TrialValueModel
    of_study = sqlalchemy.select(trial.trial_id).where(trial.study_id == study_id)
    trials: dict[int, dict[str, Any]] = {}
    with engine.connect() as connection:

        def rows(model: Any, *columns: Any) -> Iterator[Any]:
            query = sqlalchemy.select(model.trial_id, *columns).where(model.trial_id.in_(of_study))
            for row in connection.execute(query.order_by(model.trial_id)):
                # A sweep may have started another trial since the first query.
                if model is trial or row[0] in trials:
                    yield row

        for trial_id, number, state in rows(trial, trial.number, trial.state):
            trials[trial_id] = {"number": number, "state": state, "user_attrs": {}, "intermediate_values": {}}
        for trial_id, name, text in rows(attribute, attribute.key, attribute.value_json):
            trials[trial_id]["user_attrs"][name] = json.loads(text)
        for trial_id, step, *stored in rows(
            report, report.step, report.intermediate_value, report.intermediate_value_type
        ):
            trials[trial_id]["intermediate_values"][step] = report.stored_repr_to_intermediate_value(*stored)
        for trial_id, *stored in rows(final, final.value, final.value_type):
            trials[trial_id]["value"] = final.stored_repr_to_value(*stored)
    yield from trials.values()


def _create(connection: sqlalchemy.Connection, study_id: int, trial: FrozenTrial, may_repeat: bool) -> int:
    model = models.TrialModel
    latest = connection.execute(
        sqlalchemy.select(model.trial_id, model.number, *_TIMES)
        .where(model.study_id == study_id)
        .order_by(model.trial_id.desc())
        .limit(1)
    ).first()
    # By its start: while the answer was lost, another process may have created a trial of this number.
    if (
        may_repeat
        and latest
        and (latest.number, latest.datetime_start) == (trial.number, trial.datetime_start)
    ):
        return int(latest.trial_id)
    if (latest.number + 1 if latest else 0) != trial.number:
        raise created_by_another(trial.number)
    row = {"study_id": study_id, "number": trial.number, **_state(trial)}
    return int(connection.execute(sqlalchemy.insert(model).returning(model.trial_id), row).scalar_one())


def _ensure_as_written(
    connection: sqlalchemy.Connection, study_id: int, trial_id: int, trial: FrozenTrial, before: FrozenTrial
) -> None:
    """Make sure that a trial is in the database as this process wrote it last, and lock its row.

    Args:
        connection: Connection whose transaction is about to write the trial.
        study_id: Identifier of the Optuna study in the database.
        trial_id: Identifier of the trial in the database.
        trial: The trial as it is to be.
        before: The trial as it was last written.
    """
    model = models.TrialModel
    columns = model.number, model.state, *_TIMES
    is_trial = model.trial_id == trial_id, model.study_id == study_id
    stored = connection.execute(sqlalchemy.select(*columns).where(*is_trial).with_for_update()).first()
    if stored is None or stored.number != trial.number:
        raise gone(trial.number)
    # This very write may have been done before, if its answer was lost or the driver repeats it.
    if tuple(stored) not in [(as_is.number, as_is.state, *_times(as_is)) for as_is in (before, trial)]:
        raise ended_by_another(trial.number)


def _state(trial: FrozenTrial) -> dict[str, Any]:
    start, complete = _times(trial)
    return {"state": trial.state, "datetime_start": start, "datetime_complete": complete}


def _times(trial: FrozenTrial) -> tuple[datetime | None, ...]:
    """Return start and end of a trial as Optuna stores them: in UTC, without a time zone."""
    times = trial.datetime_start, trial.datetime_complete
    return tuple(time and time.astimezone(UTC).replace(tzinfo=None) for time in times)


def _rows(trial: FrozenTrial, new: Mapping[str, Mapping[Any, Any]]) -> Iterator[_Rows]:
    """Yield the rows to write for a trial, table by table."""
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
    reported, final = models.TrialIntermediateValueModel, models.TrialValueModel
    reports = [
        dict(zip(_REPORT, (step, *reported.intermediate_value_to_stored_repr(value)), strict=True))
        for step, value in new["intermediate_values"].items()
    ]
    yield reported, "step", reports
    # A trial has final values only once it has ended, and then it is written for the last time.
    results = [
        dict(zip(_RESULT, (objective, *final.value_to_stored_repr(value)), strict=True))
        for objective, value in enumerate(trial.values or ())
    ]
    yield final, "objective", results


@cache
def _upsert(dialect: str, model: Any, key: str) -> Any:
    """Return a statement that inserts rows, and overwrites rows of the same trial and ``key``."""
    table: sqlalchemy.Table = model.__table__
    # Only the dialect in use is imported, as PostgreSQL's takes a tenth of a second to load.
    statement = import_module(f"sqlalchemy.dialects.{dialect}").insert(table)
    replaced = {
        column.name: statement.excluded[column.name]
        for column in table.columns
        if column.name not in ("trial_id", key) and not column.primary_key
    }
    return statement.on_conflict_do_update(index_elements=["trial_id", key], set_=replaced)

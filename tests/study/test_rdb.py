import re
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from lenet_exp.base.errors import LenetExpError, LockedError, StoreError, UnreachableError
from lenet_exp.base.layout import study_db
from lenet_exp.base.records import EpochResult
from lenet_exp.config.loader import parse
from lenet_exp.config.trainings import FixedTraining
from lenet_exp.study import rdb
from lenet_exp.study.rdb import KeptTrial, TrialStorage
from lenet_exp.study.storage import open_storage
from lenet_exp.study.study import open_study
from tests.labs.studies import read_records

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def storage(tmp_path: Path, way: str) -> TrialStorage:
    return open_storage(tmp_path)


NUMBERS = st.floats() | st.sampled_from([float("nan"), float("inf"), float("-inf"), 0.0])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def trials(draw: st.DrawFn, state: TrialState | None = None) -> FrozenTrial:
    """Return a trial such as a driver writes, in any state that it is written in."""
    state = draw(st.sampled_from(list(TrialState))) if state is None else state
    distributions = {
        "lr": FloatDistribution(1e-4, 0.1, log=True),
        "half": FloatDistribution(0, 1, step=0.5),
        "width": IntDistribution(4, 64, log=True),
        "pooling": CategoricalDistribution(["avg", "max", None, 3, 0.5, True]),
    }
    params = {
        "lr": draw(st.floats(1e-4, 0.1)),
        "half": draw(st.sampled_from([0.0, 0.5, 1.0])),
        "width": draw(st.integers(4, 64)),
        "pooling": draw(st.sampled_from(["avg", "max", None, 3, 0.5, True])),
    }
    used = draw(st.sets(st.sampled_from(sorted(params))))
    complete = state == TrialState.COMPLETE
    return create_trial(
        state=state,
        value=draw(st.floats(allow_nan=False)) if complete else None,
        params={name: params[name] for name in used},
        distributions={name: distributions[name] for name in used},
        user_attrs=draw(st.dictionaries(st.text(max_size=4), PLAIN, max_size=3)),
        system_attrs=draw(st.dictionaries(st.text(max_size=4), PLAIN, max_size=3)),
        intermediate_values=draw(st.dictionaries(st.integers(0, 9), NUMBERS, max_size=4)),
    )


#: A trial that runs does not go back to the queue.
LATER = st.sampled_from([state for state in TrialState if state != TrialState.WAITING])


def tables(path: Path, study: str) -> list[Any]:
    """Return what the database has of a study's trials, apart from the identifiers of rows."""
    found: list[Any] = []
    with closing(sqlite3.connect(path)) as connection:
        names = f"SELECT trial_id FROM trials JOIN studies USING (study_id) WHERE study_name = '{study}'"
        for table, columns in (
            ("trials", "number, state, datetime_start IS NULL, datetime_complete IS NULL"),
            ("trial_params", "param_name, param_value, distribution_json"),
            ("trial_values", "objective, value, value_type"),
            ("trial_user_attributes", "key, value_json"),
            ("trial_system_attributes", "key, value_json"),
            ("trial_intermediate_values", "step, intermediate_value, intermediate_value_type"),
        ):
            rows = connection.execute(f"SELECT {columns} FROM {table} WHERE trial_id IN ({names})").fetchall()
            found += [(table, *row) for row in rows]
    return sorted(found, key=repr)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_trials=st.lists(trials(), max_size=3))
def test_the_tables_hold_what_optuna_would_have_written(
    storage: TrialStorage, tmp_path: Path, given_trials: list[FrozenTrial]
) -> None:
    """Whatever a trial is, other tools find it as they expect it."""
    maximize = [optuna.study.StudyDirection.MAXIMIZE]
    count = len(storage.get_all_studies())
    ours, theirs = (storage.create_new_study(maximize, f"{name}{count}") for name in ("ours", "theirs"))
    for number, trial in enumerate(given_trials):
        trial.number = number
        storage.write_trial(ours, trial)
        storage.create_new_trial(theirs, trial)

    path = study_db(tmp_path)
    assert tables(path, f"ours{count}") == tables(path, f"theirs{count}")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=trials(TrialState.RUNNING), then=LATER.flatmap(trials), again=st.booleans())
def test_a_trial_that_goes_on_is_as_if_it_were_written_at_once(
    storage: TrialStorage, tmp_path: Path, first: FrozenTrial, then: FrozenTrial, again: bool
) -> None:
    """And what is written twice, for want of an answer, is there once."""
    maximize = [optuna.study.StudyDirection.MAXIMIZE]
    count = len(storage.get_all_studies())
    twice, once = (storage.create_new_study(maximize, f"{name}{count}") for name in ("twice", "once"))
    first.number = then.number = 0
    for name in ("user_attrs", "system_attrs", "intermediate_values"):
        setattr(then, name, {**getattr(first, name), **getattr(then, name)})
    for name in ("distributions", "params"):  # which are never drawn again
        setattr(then, name, {**getattr(then, name), **getattr(first, name)})

    written = storage.write_trial(twice, first)
    if again:
        assert storage.write_trial(twice, first, may_repeat=True) == written
    for _ in range(1 + again):
        storage.write_trial(twice, then, written)
    storage.write_trial(once, then)

    path = study_db(tmp_path)
    assert tables(path, f"twice{count}") == tables(path, f"once{count}")


def test_the_trial_of_another_is_left_alone(storage: TrialStorage) -> None:
    """Two that write would each miss what the other does."""
    study = optuna.create_study(storage=storage, study_name="s")
    trial = study.ask()
    frozen = create_trial(state=TrialState.RUNNING)
    frozen.number = 0

    refused: list[LenetExpError] = []
    storage.on_refused = refused.append
    with pytest.raises(LockedError, match="trial 0 was created by another process; this sweep stops"):
        storage.write_trial(study._study_id, frozen)

    frozen.number = 1
    written = storage.write_trial(study._study_id, frozen)
    study.tell(1, state=TrialState.FAIL)
    ended = create_trial(state=TrialState.COMPLETE, value=1.0)
    ended.number = 1
    with pytest.raises(LockedError, match="trial 1 was begun or ended by another process"):
        storage.write_trial(study._study_id, ended, written)
    frozen.intermediate_values = {1: 0.5}
    with pytest.raises(LockedError, match="trial 1 was begun or ended by another process"):
        storage.write_trial(study._study_id, frozen, written)
    with pytest.raises(StoreError, match="trial 1 is gone from the study's storage"):
        storage.write_trial(study._study_id + 1, frozen, written)
    assert len(refused) == 4
    assert study.trials[1].intermediate_values == {}
    assert [t.state for t in study.get_trials()] == [TrialState.RUNNING, TrialState.FAIL]
    assert trial.number == 0


def test_a_new_trial_is_written_whole_or_not_at_all(
    storage: TrialStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails halfway has left nothing."""
    monkeypatch.setattr(time, "sleep", lambda _: None)  # Optuna tries it again
    study = optuna.create_study(storage=storage, study_name="s")
    trial = create_trial(
        state=TrialState.COMPLETE, value=1.0, user_attrs={"a": 1}, intermediate_values={1: 2}
    )
    trial.number = 0
    with storage.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE trial_values RENAME TO away")

    with pytest.raises((SQLAlchemyError, StorageInternalError), match=r"trial_values|commit"):
        storage.write_trial(study._study_id, trial)

    with storage.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO trial_values")
    assert study.get_trials() == []


def test_trials_are_read_as_optuna_reads_them(storage: TrialStorage) -> None:
    """Every state, every kind of number, and nothing of the study beside it."""
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    other = optuna.create_study(storage=storage, study_name="other")
    for number, value in enumerate([0.5, float("nan"), float("inf"), float("-inf")]):
        for each in (study, other):
            trial = each.ask()
            trial.suggest_float("x", 0, 1)
            trial.set_user_attr("metadata", {"n": number, "lost": float("nan")})
            for step in (2, 1):
                trial.report(value, step)
            if number < 3:
                # Optuna takes no trial for complete whose value is not a number.
                each.tell(trial, value) if number != 1 else each.tell(trial, state=TrialState.PRUNED)
    study.enqueue_trial({"x": 0.5})
    study.tell(study.ask(), state=TrialState.FAIL)
    study.ask()

    kept = storage.kept_trials("s")

    def metadata(trials: Iterable[FrozenTrial | KeptTrial]) -> list[str]:
        return [
            repr((t.number, t.state, t.user_attrs, sorted(t.intermediate_values.items()), t.value))
            for t in trials
        ]

    assert kept is not None
    assert metadata(kept) == metadata(study.get_trials())
    assert storage.kept_trials("none") is None


SEARCH = parse(
    {
        "name": "s",
        "training": {"epochs": 9},
        "space": {"pooling": ["avg", "max"], "lr": {"low": 0.001, "high": 0.1, "log": True}},
        "search": {"startup_trials": 4},
    }
)


def searched(root: Path, first: int, last: int) -> None:
    """Make trials with these numbers: pruned ones, failed ones that are tried again, and one cut off."""
    study = open_study(SEARCH, root)
    for key in study.orphans():
        study.fail(key, "interrupted", retry=True, crashed=False)
    for number in range(first, last):
        attempt = study.ask()
        assert attempt is not None
        if number % 5 == 3:
            study.fail(attempt.key, "died", retry=True, crashed=True)
            continue
        for epoch in range(1, 10):
            accuracy = attempt.configuration.hyperparameters()["lr"] * 5 + epoch / 30
            if study.report(attempt.key, EpochResult(epoch, 1.0, 0.5, 1.0, accuracy, 1000.0, 1.0)):
                study.tell(attempt.key, "PRUNED", result={"reason": f"pruned after epoch {epoch}"})
                break
        else:
            study.tell(attempt.key, "COMPLETE", accuracy, {"train_s": 1.0})
    study.ask_fixed(FixedTraining("baseline", "baseline", "baseline", SEARCH.baseline_configuration, last))


def test_a_search_by_optunas_methods_is_the_search_in_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trial for trial, also where one goes on with what the other began."""
    known = rdb.KNOWN_REVISIONS
    for name, ways in {"tables": (known, known), "methods": ([], []), "both": (known, [])}.items():
        (tmp_path / name).mkdir()
        for way, bounds in zip(ways, [(0, 9), (9, 18)], strict=True):
            monkeypatch.setattr(rdb, "KNOWN_REVISIONS", way)
            searched(tmp_path / name, *bounds)

    found = {
        name: [tables(study_db(tmp_path / name), study) for study in ("s", "s/fixed")]
        + [repr(read_records("s", tmp_path / name))]
        for name in ("tables", "methods", "both")
    }

    assert found["methods"] == found["tables"]
    assert found["both"] == found["tables"]
    states = {row[2] for row in found["tables"][0] if row[0] == "trials"}
    assert states == {"COMPLETE", "PRUNED", "FAIL"}


def test_an_optuna_that_is_not_known_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for a process, however many storages it opens; none where the tables are known."""
    rdb._warn_once.cache_clear()
    assert open_storage(tmp_path).kept_trials("none") is None
    searched(tmp_path, 0, 1)
    assert capsys.readouterr().err == ""

    monkeypatch.setattr(rdb, "KNOWN_REVISIONS", [])
    for _ in range(2):
        searched(tmp_path, 1, 3)
        read_records("s", tmp_path)

    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(
        r"schema v\S+, which is unknown to lenet-exp: the sweep is slower, and nothing else", line
    )


def test_a_trial_that_optuna_has_made_twice_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tries again by itself when an answer was lost, and the number of the second is another trial's."""
    monkeypatch.setattr(rdb, "KNOWN_REVISIONS", [])
    storage = open_storage(tmp_path)
    study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "s")
    trial = create_trial(state=TrialState.RUNNING)
    trial.number = 0
    once = storage.create_new_trial
    monkeypatch.setattr(storage, "create_new_trial", lambda *args: (once(*args), once(*args))[1])

    with pytest.raises(LockedError, match="trial 0 was created by another process"):
        storage.write_trial(study_id, trial)


def test_a_storage_that_does_not_answer_is_an_error_of_ours(storage: TrialStorage) -> None:
    """Either way of reading names what the database said."""
    optuna.create_study(storage=storage, study_name="s")
    with storage.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE trials RENAME TO away")

    with pytest.raises(UnreachableError, match="storage does not answer: no such table: trials"):
        storage.kept_trials("s")

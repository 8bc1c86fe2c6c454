import json
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from lenet_exp.config.loader import parse
from lenet_exp.study.sampling import make_pruner, make_sampler
from lenet_exp.study.storage import open_storage
from lenet_exp.study.write_through import SingleWriterStorage

EXPERIMENT = parse(
    {"name": "s", "training": {"epochs": 4}, "search": {"startup_trials": 2, "reduction_factor": 2}}
)
optuna.logging.set_verbosity(optuna.logging.ERROR)
pytestmark = pytest.mark.usefixtures("way")


def metadata(study: optuna.Study) -> str:
    """Return what a study knows of its trials, apart from identifiers and times; NaN equals NaN."""
    trials: list[dict[str, Any]] = [
        {
            "number": trial.number,
            "state": trial.state,
            "values": trial.values,
            "params": trial.params,
            "distributions": trial.distributions,
            "user": trial.user_attrs,
            "system": trial.system_attrs,
            "history": trial.intermediate_values,
            "began": trial.datetime_start is not None,
            "ended": trial.datetime_complete is not None,
        }
        for trial in study.get_trials()
    ]
    return json.dumps(trials, sort_keys=True, default=repr)


def of(storage: BaseStorage, name: str = "s") -> optuna.Study:
    return optuna.create_study(
        storage=storage,
        study_name=name,
        direction="maximize",
        load_if_exists=True,
        sampler=make_sampler(EXPERIMENT, seed=0),
        pruner=make_pruner(EXPERIMENT),
    )


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ends=st.lists(st.sampled_from(["complete", "prune", "fail", "queue", "leave"]), max_size=12))
def test_the_storage_has_what_memory_has(tmp_path: Path, ends: list[str]) -> None:
    """Whatever a driver does, the next one finds in the storage what this one saw."""
    storage = open_storage(tmp_path)
    name = str(len(optuna.get_all_study_names(storage)))
    ours = SingleWriterStorage(storage)
    study = of(ours, name)
    study.set_user_attr("identity", {"lr": (1, 2)})
    for number, end in enumerate(ends):
        if end == "queue":
            study.enqueue_trial({"x": 0.5, "n": 2}, user_attrs={"retry": {"of": number}})
            continue
        with ours.transaction() if number % 3 else nullcontext():
            trial = study.ask()
            trial.suggest_float("x", 0, 1)
            if trial.suggest_int("n", 1, 2) == 2:
                trial.suggest_categorical("more", ["a", "b"])
            record = {"channels": (6, 16), "nan": float("nan")} if number % 2 else [number]
            trial.set_user_attr("record", record)
        for step in range(1, 4):
            trial.report(number + step, step)
            trial.should_prune()
        if end == "complete":
            study.tell(trial, number / 10)
        elif end != "leave":
            study.tell(trial, state=TrialState.PRUNED if end == "prune" else TrialState.FAIL)

    seen = metadata(study)

    assert metadata(of(storage, name)) == seen
    assert metadata(of(SingleWriterStorage(storage), name)) == seen
    assert of(storage, name).user_attrs == study.user_attrs == {"identity": {"lr": [1, 2]}}


def test_a_trial_is_written_when_its_transaction_ends(tmp_path: Path) -> None:
    """A driver that dies between two draws leaves no trial without its configuration."""
    ours = SingleWriterStorage(open_storage(tmp_path))
    study = of(ours)
    with ours.transaction():
        trial = study.ask()
        with ours.transaction():
            trial.suggest_float("x", 0, 1)
        assert of(open_storage(tmp_path)).get_trials() == []

    (written,) = of(open_storage(tmp_path)).get_trials()
    assert (written.params, written.state) == (trial.params, TrialState.RUNNING)


def test_what_a_failed_transaction_leaves_is_written_later(tmp_path: Path) -> None:
    """Nothing of it at first; then before the next trial, so that all have the same numbers in both."""
    ours = SingleWriterStorage(open_storage(tmp_path))
    study = of(ours)
    with suppress(ZeroDivisionError), ours.transaction():
        trial = study.ask()
        raise ZeroDivisionError
    assert of(open_storage(tmp_path)).get_trials() == []

    study.enqueue_trial({"x": 0.5})
    study.tell(trial, 1.0)

    states = [trial.state for trial in of(open_storage(tmp_path)).get_trials()]
    assert states == [TrialState.COMPLETE, TrialState.WAITING]


def test_the_end_of_a_trial_does_not_write_another(tmp_path: Path) -> None:
    """On a full disk what runs can be told, though what was drawn last finds no room."""
    ours = SingleWriterStorage(open_storage(tmp_path))
    study = of(ours)
    running = study.ask()
    with suppress(ZeroDivisionError), ours.transaction():
        study.ask()
        raise ZeroDivisionError

    study.tell(running, 1.0)

    assert [trial.state for trial in of(open_storage(tmp_path)).get_trials()] == [TrialState.COMPLETE]


def test_what_the_storage_refused_is_written_with_the_next_change(tmp_path: Path) -> None:
    """A disk that was full for a moment costs nothing."""
    storage = open_storage(tmp_path)
    trial = of(SingleWriterStorage(storage)).ask()
    with storage.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE trial_user_attributes RENAME TO away")
    with pytest.raises((SQLAlchemyError, StorageInternalError), match=r"trial_user_attributes|commit"):
        trial.set_user_attr("a", 1)
    with storage.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO trial_user_attributes")

    trial.report(0.5, 1)

    (written,) = of(open_storage(tmp_path)).get_trials()
    assert (written.user_attrs, written.intermediate_values) == ({"a": 1}, {1: 0.5})


def test_a_study_that_is_deleted_is_gone_from_both(tmp_path: Path) -> None:
    """And its name is free."""
    ours = SingleWriterStorage(open_storage(tmp_path))
    of(ours).ask()

    optuna.delete_study(study_name="s", storage=ours)

    assert optuna.get_all_study_names(open_storage(tmp_path)) == []
    assert of(ours).get_trials() == []


def test_trials_are_hidden_for_as_long_as_it_lasts(tmp_path: Path) -> None:
    """What a sampler is not shown is there all the same."""
    ours = SingleWriterStorage(open_storage(tmp_path))
    study = of(ours)
    for value in (0.1, 0.2, 0.3):
        study.tell(study.ask(), value)

    with ours.hiding({0, 1}):
        assert [trial.number for trial in study.get_trials()] == [2]

    assert len(study.get_trials()) == 3

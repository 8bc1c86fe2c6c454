import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from lenet_exp.experiment import parse
from lenet_exp.sampling import make_pruner, make_sampler
from lenet_exp.single_writer import SingleWriterStorage
from lenet_exp.storage import open_storage

EXPERIMENT = parse(
    {"name": "s", "training": {"epochs": 4}, "search": {"startup_trials": 2, "reduction_factor": 2}}
)
optuna.logging.set_verbosity(optuna.logging.ERROR)


def facts(study: optuna.Study) -> str:
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
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        if trial.suggest_int("n", 1, 2) == 2:
            trial.suggest_categorical("more", ["a", "b"])
        trial.set_user_attr("record", {"channels": (6, 16), "nan": float("nan")} if number % 2 else [number])
        ours.commit()
        for step in range(1, 4):
            trial.report(number + step, step)
            trial.should_prune()
        if end == "complete":
            study.tell(trial, number / 10)
        elif end != "leave":
            study.tell(trial, state=TrialState.PRUNED if end == "prune" else TrialState.FAIL)

    seen = facts(study)

    assert facts(of(storage, name)) == seen
    assert facts(of(SingleWriterStorage(storage), name)) == seen
    assert of(storage, name).user_attrs == study.user_attrs == {"identity": {"lr": [1, 2]}}


def test_a_trial_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A driver that dies between two draws leaves no trial without its configuration."""
    ours = SingleWriterStorage(open_storage(tmp_path))
    trial = of(ours).ask()
    trial.suggest_float("x", 0, 1)
    assert of(open_storage(tmp_path)).get_trials() == []

    ours.commit()

    (written,) = of(open_storage(tmp_path)).get_trials()
    assert (written.params, written.state) == (trial.params, TrialState.RUNNING)


def test_trials_have_the_same_numbers_in_both(tmp_path: Path) -> None:
    """One that was not written yet goes before one that is queued."""
    study = of(SingleWriterStorage(open_storage(tmp_path)))
    trial = study.ask()
    study.enqueue_trial({"x": 0.5})
    study.tell(trial, 1.0)

    states = [trial.state for trial in of(open_storage(tmp_path)).get_trials()]
    assert states == [TrialState.COMPLETE, TrialState.WAITING]


def test_the_end_of_a_trial_does_not_write_another(tmp_path: Path) -> None:
    """On a full disk what runs can be told, though what was drawn last finds no room."""
    ours = SingleWriterStorage(open_storage(tmp_path))
    study = of(ours)
    running = study.ask()
    ours.commit()
    study.ask()

    study.tell(running, 1.0)

    assert [trial.state for trial in of(open_storage(tmp_path)).get_trials()] == [TrialState.COMPLETE]


def test_a_second_writer_is_noticed(tmp_path: Path) -> None:
    """Two that write would each miss what the other does."""
    ours = SingleWriterStorage(open_storage(tmp_path))
    of(ours).ask()
    of(open_storage(tmp_path)).ask()

    with pytest.raises(RuntimeError, match="trial 0 is another's: somebody else writes to this study"):
        ours.commit()


def test_what_the_storage_refused_is_not_in_memory(tmp_path: Path) -> None:
    """Memory never knows more than what a crash leaves."""
    storage = open_storage(tmp_path)
    ours = SingleWriterStorage(storage)
    trial = of(ours).ask()
    ours.commit()
    with storage.engine.connect() as connection:
        connection.exec_driver_sql("DROP TABLE trial_user_attributes")

    with pytest.raises(optuna.exceptions.StorageInternalError):
        trial.set_user_attr("a", 1)

    assert of(ours).get_trials()[0].user_attrs == {}


def test_a_study_that_is_deleted_is_gone_from_both(tmp_path: Path) -> None:
    """And its name is free."""
    ours = SingleWriterStorage(open_storage(tmp_path))
    of(ours).ask()

    optuna.delete_study(study_name="s", storage=ours)

    assert optuna.get_all_study_names(open_storage(tmp_path)) == []
    assert of(ours).get_trials() == []


def test_a_selection_is_shown_for_as_long_as_it_lasts(tmp_path: Path) -> None:
    """What a sampler looks at is no truth."""
    ours = SingleWriterStorage(open_storage(tmp_path))
    study = of(ours)
    for value in (0.1, 0.2, 0.3):
        study.tell(study.ask(), value)

    with ours.showing(lambda trials: trials[-1:]):
        assert [trial.number for trial in study.get_trials()] == [2]

    assert len(study.get_trials()) == 3

from pathlib import Path
from typing import Any

import optuna
import pytest

from lenet_exp.base.errors import ConfigError
from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.loader import parse
from lenet_exp.config.trainings import FixedTraining
from lenet_exp.study.storage import open_storage
from lenet_exp.study.study import MAX_ATTEMPTS, Study, open_study
from tests.labs.studies import read_records

SPACE = {"pooling": ["avg", "max"], "lr": {"low": 0.001, "high": 0.1, "log": True}}


def experiment(**search: Any) -> Experiment:
    space = search.pop("space", SPACE)
    return parse({"name": "study", "space": space, "search": {"trials": 5, "pruner": "none"} | search})


def epoch(number: int, accuracy: float) -> EpochResult:
    return EpochResult(number, 1.0, 0.5, 1.0, accuracy, 1000.0, 1.0)


def end_orphans(study: Study) -> list[RunKey]:
    orphans = study.orphans()
    for key in orphans:
        study.fail(key, "interrupted", retry=True, crashed=False)
    return orphans


def finish(study: Study, value: float) -> RunKey:
    attempt = study.ask()
    assert attempt is not None
    study.report(attempt.key, epoch(1, value))
    study.tell(attempt.key, "COMPLETE", value, {"train_s": 1.0})
    return attempt.key


def test_a_study_that_somebody_else_began_is_left_alone(tmp_path: Path) -> None:
    """Trials of the user's own under the same name are not continued."""
    theirs = optuna.create_study(storage=open_storage(tmp_path), study_name="x", direction="maximize")
    theirs.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.COMPLETE, value=0.5))
    mine = parse({"name": "x", "space": SPACE})

    with pytest.raises(ConfigError, match=r"study 'x' was created by another program; rename the experiment"):
        open_study(mine, tmp_path).check_fingerprint({"space": 1})

    assert len(optuna.load_study(study_name="x", storage=f"sqlite:///{tmp_path / 'study.db'}").trials) == 1


def test_what_was_told_is_there_for_the_next_driver(tmp_path: Path) -> None:
    """Value, history, configuration and facts survive the process, unchanged."""
    study = open_study(experiment(), tmp_path)
    key = finish(study, 0.75)
    told = study.record(key)

    (read,) = read_records("study", tmp_path) or []

    assert read == told
    assert (read.value, read.history, read.epochs, read.result["train_s"]) == (0.75, {1: 0.75}, 1, 1.0)
    assert open_study(experiment(), tmp_path).n_finished == 1


def test_an_optuna_that_knows_nothing_of_us_reads_the_study(tmp_path: Path) -> None:
    """The parameters, values and states are plain Optuna."""
    finish(open_study(experiment(), tmp_path), 0.75)

    study = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path / 'study.db'}")

    assert study.best_value == 0.75
    assert set(study.best_params) == {"pooling", "lr"}


def test_a_trial_of_a_dead_driver_is_tried_again_with_its_values_and_seed(tmp_path: Path) -> None:
    """What was RUNNING when the driver died is FAIL, and the next to be asked is its retry."""
    first = open_study(experiment(), tmp_path).ask()
    assert first is not None

    study = open_study(experiment(), tmp_path)
    ended = end_orphans(study)
    again = study.ask()

    assert again is not None
    assert ended == [first.key]
    assert (again.configuration, again.seed, again.key.attempt) == (first.configuration, first.seed, 2)
    assert study.n_finished == 0
    assert end_orphans(study) == [again.key]  # still RUNNING for a later start


def test_reconciling_twice_changes_nothing_the_second_time(tmp_path: Path) -> None:
    """A start that is itself cut off does no harm."""
    open_study(experiment(), tmp_path).ask()
    study = open_study(experiment(), tmp_path)

    end_orphans(study)

    assert end_orphans(study) == []
    assert study.n_waiting() == 1


def test_an_attempt_whose_process_dies_is_tried_three_times_in_all(tmp_path: Path) -> None:
    """Then it counts as a failed trial, and the budget goes on."""
    study = open_study(experiment(), tmp_path)
    tries = []
    for _ in range(MAX_ATTEMPTS):
        attempt = study.ask()
        assert attempt is not None
        tries.append((attempt.key.attempt, study.fail(attempt.key, "died", retry=True)))

    assert tries == [(1, True), (2, True), (3, False)]
    assert (study.n_finished, study.n_waiting()) == (1, 0)


def test_an_interruption_is_not_held_against_a_trial(tmp_path: Path) -> None:
    """However often a sweep is stopped, its trials are tried again."""
    study = open_study(experiment(), tmp_path)
    for _ in range(MAX_ATTEMPTS + 2):
        attempt = study.ask()
        assert attempt is not None
        assert study.fail(attempt.key, "interrupted", retry=True, crashed=False)

    assert study.n_waiting() == 1


def test_a_fixed_training_is_done_once_and_retried_when_it_died(tmp_path: Path) -> None:
    """The baseline is not asked for again once it is complete, in this or a later sweep."""
    study = open_study(experiment(), tmp_path)
    baseline = FixedTraining("baseline", "baseline", "baseline", experiment().baseline_configuration, 7)
    first = study.ask_fixed(baseline)
    assert first is not None
    study.fail(first.key, "died", retry=True)
    second = study.ask_fixed(baseline)
    assert second is not None
    assert (second.seed, second.key.attempt) == (first.seed, 2)
    study.tell(second.key, "COMPLETE", 0.5)

    assert study.ask_fixed(baseline) is None
    assert open_study(experiment(), tmp_path).ask_fixed(baseline) is None


def test_infeasible_trials_are_outside_the_budget(tmp_path: Path) -> None:
    """A configuration without a network costs no trial."""
    study = open_study(experiment(), tmp_path)
    attempt = study.ask()
    assert attempt is not None

    study.tell(attempt.key, "PRUNED", result={"reason": "infeasible: a 5x5 kernel on a 3x3 map"})

    assert study.n_finished == 0


def test_a_study_of_other_settings_is_refused_with_what_changed_and_left_alone(tmp_path: Path) -> None:
    """The difference is named as then and now, and nothing is written."""
    study = open_study(experiment(), tmp_path)
    study.check_fingerprint({"space": {"lr": [0.1, 0.2]}, "seed": 0})
    before = (tmp_path / "study.db").read_bytes()

    with pytest.raises(
        ConfigError, match=r"space.lr was \[0.1, 0.2\], is now \[0.1\]; rename the experiment"
    ):
        open_study(experiment(), tmp_path).check_fingerprint({"space": {"lr": [0.1]}, "seed": 0})

    assert (tmp_path / "study.db").read_bytes() == before


def test_a_sampler_draws_anew_at_every_resume(tmp_path: Path) -> None:
    """Points drawn before are not drawn again by a sampler that begins with the same seed."""
    first = {finish(open_study(experiment(sampler="random"), tmp_path), 0.5) for _ in range(3)}

    records = read_records("study", tmp_path) or []

    assert len(first) == 3
    assert len({record.values["lr"] for record in records}) == 3


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "qmc", "cmaes"])
def test_every_sampler_draws_from_the_space(tmp_path: Path, sampler: str) -> None:
    """Each finishes trials of its own, beyond its random start."""
    space = {"pooling": ["avg", "max"], "channels": {"low": 4, "high": 8}, "conv_layers": [1, 2]}
    study = open_study(experiment(sampler=sampler, startup_trials=2, space=space), tmp_path)

    for value in (0.1, 0.2, 0.3, 0.4, 0.5):
        finish(study, value)

    drawn = [record.values for record in study.records()]
    assert all(values["pooling"] in ("avg", "max") and 4 <= values["channels_1"] <= 8 for values in drawn)


def test_a_grid_is_drawn_once_and_then_exhausted(tmp_path: Path) -> None:
    """Also across a resume, every point is drawn exactly once."""
    grid = experiment(sampler="grid", space={"pooling": ["avg", "max"], "kernel_size_1": [3, 5]})
    study = open_study(grid, tmp_path)
    finish(study, 0.1)
    finish(study, 0.2)

    study = open_study(grid, tmp_path)
    finish(study, 0.3)
    finish(study, 0.4)

    assert study.ask() is None
    assert len({record.config for record in study.records()}) == 4


@pytest.mark.parametrize("pruner", ["hyperband", "halving", "median", "none"])
def test_every_pruner_can_be_asked_after_each_epoch_but_the_last(tmp_path: Path, pruner: str) -> None:
    """A trial is never pruned at its last epoch, when it is as good as done."""
    study = open_study(experiment(pruner=pruner), tmp_path)
    pruned = 0
    for trial in range(12):
        attempt = study.ask()
        assert attempt is not None
        for number in range(1, 11):
            if study.report(attempt.key, epoch(number, 0.9 - trial / 20)):
                pruned += 1
                assert number < 10
                study.tell(attempt.key, "PRUNED", result={"reason": "pruned"})
                break
        else:
            study.tell(attempt.key, "COMPLETE", 0.9 - trial / 20)

    assert (pruned > 0) == (pruner != "none")


def test_an_experiment_that_was_never_begun_has_no_records(tmp_path: Path) -> None:
    """Asking creates nothing."""
    assert read_records("study", tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_trial_keeps_its_number_however_many_attempts_it_took(tmp_path: Path) -> None:
    """Key, label and record of a retry name the trial; the number of Optuna's that it took is left out."""
    study = open_study(experiment(), tmp_path)
    first, second = study.ask(), study.ask()
    assert first is not None
    assert second is not None
    study.fail(first.key, "its process died", retry=True, crashed=True)

    again = study.ask()
    assert again is not None
    assert again.key == RunKey("trial", 0, 2)
    assert (again.label, again.origin, again.retry_of) == ("trial 0", first.key, first.key)
    study.tell(again.key, "COMPLETE", 0.5)
    study.tell(second.key, "COMPLETE", 0.5)
    third = study.ask()

    assert third is not None
    assert third.label == "trial 2"
    records = read_records("study", tmp_path) or []
    assert [(r.trial, r.label, r.key.attempt, r.superseded) for r in records] == [
        (0, "trial 0", 1, True),
        (1, "trial 1", 1, False),
        (0, "trial 0", 2, False),
    ]


def test_a_training_that_was_given_up_can_be_tried_again(tmp_path: Path) -> None:
    """A trial is queued with its values, a fixed training is asked for; what ended before does not count."""
    study = open_study(experiment(), tmp_path)
    baseline = FixedTraining("baseline", "baseline", "baseline", study.experiment.baseline_configuration, 0)
    fixed, trial = study.ask_fixed(baseline), study.ask()
    assert fixed is not None
    assert trial is not None
    for attempt in (fixed, trial):
        study.tell(attempt.key, "PRUNED", result={"reason": "timeout: not done after 1 s"})
    assert study.n_finished == 1

    for attempt in (fixed, trial):
        study.try_again(study.record(attempt.key))

    assert study.n_finished == 0
    again = [study.ask_fixed(baseline), study.ask()]
    assert [a and (a.key.attempt, a.seed, a.configuration) for a in again] == [
        (2, a.seed, a.configuration) for a in (fixed, trial)
    ]
    for begun in again:
        assert begun is not None
        study.tell(begun.key, "COMPLETE", 0.5)
    reopened = open_study(experiment(), tmp_path)
    assert reopened.n_finished == 1
    assert reopened.ask_fixed(baseline) is None

"""What a sweep trains again that had ended before, and what it takes as known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lenet_exp.config.loader import parse
from lenet_exp.config.trainings import FixedTraining, fixed_trainings
from lenet_exp.execution.resources import DEFAULT, Limits
from lenet_exp.study.records import Attempt
from lenet_exp.study.study import Study, open_study
from lenet_exp.sweep.agenda import Agenda

EXPERIMENT = parse({"name": "e", "space": {"lr": [0.1]}, "search": {"trials": 2, "pruner": "none"}})
BASELINE = fixed_trainings(EXPERIMENT)[0]
TIMEOUT = {"reason": "timeout: not done after 5 s", "trial_timeout_s": 5.0}
OOM = {"reason": "oom: MemoryError", "trial_memory_bytes": 10**9}
LOWER = Limits(5.0, 10**9)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study whose baseline is complete."""
    study = open_study(EXPERIMENT, tmp_path)
    study.tell(begun(study.ask_fixed(BASELINE)).key, "COMPLETE", 0.5)
    return study


def begun(attempt: Attempt | None) -> Attempt:
    """Return an attempt that there must be."""
    assert attempt is not None
    return attempt


def end_trials(study: Study, *results: dict[str, Any]) -> None:
    """End a trial for each result; without a reason it completed."""
    for result in results:
        key = begun(study.ask()).key
        if "reason" in result:
            study.tell(key, "PRUNED", result=result)
        else:
            study.tell(key, "COMPLETE", 0.75)


def test_the_position_counts_trials_and_all_that_waits(tmp_path: Path) -> None:
    """A baseline that waits, runs or has ended is no trial, but takes time; of a list, trainings count."""
    study = open_study(EXPERIMENT, tmp_path)
    agenda = Agenda(study)
    assert agenda.position([]) == (0, 2, 3)
    baseline = begun(agenda.next([]))
    trial = begun(agenda.next([baseline]))
    assert agenda.position([baseline, trial]) == (0, 2, 1)
    study.tell(baseline.key, "COMPLETE", 0.5)
    study.tell(trial.key, "COMPLETE", 0.75)
    assert agenda.position([]) == (1, 2, 1)
    assert Agenda(study).position([]) == (1, 2, 1)

    confirmed = Agenda(study, fixed=[FixedTraining("confirm a", "confirm", "a", trial.configuration, 1)])
    assert confirmed.position([]) == (0, 1, 1)
    running = begun(confirmed.next([]))
    assert confirmed.position([running]) == (0, 1, 0)
    study.tell(running.key, "COMPLETE", 0.5)
    assert confirmed.position([]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("result", "limits", "is_again"),
    [
        (TIMEOUT, DEFAULT, True),
        (TIMEOUT, Limits(5.001), True),
        (TIMEOUT, Limits(5.0), False),
        (TIMEOUT, Limits(0.1, 10**12), False),
        ({"reason": "timeout: not done after 5 s"}, Limits(6.0), True),
        ({"reason": "timeout: not done after 5 s"}, Limits(5.0), False),
        (OOM, DEFAULT, True),
        (OOM, Limits(trial_memory_bytes=2 * 10**9), True),
        (OOM, Limits(trial_memory_bytes=10**9), False),
        ({"reason": "oom: killed by the system"}, DEFAULT, False),
        ({"reason": "diverged: loss is nan", "trial_timeout_s": 5.0}, DEFAULT, False),
        ({"reason": "pruned after epoch 1", "trial_timeout_s": 5.0}, DEFAULT, False),
    ],
)
def test_what_a_limit_ended_is_tried_again_once_it_is_higher(
    study: Study, result: dict[str, Any], limits: Limits, is_again: bool
) -> None:
    """By a higher one or none; by the same or a lower one nothing is, and what ended otherwise never."""
    end_trials(study, {}, result)

    agenda = Agenda(study, limits=limits)
    attempt = agenda.next([])

    assert (agenda.n_again, study.n_finished) == ((1, 1) if is_again else (0, 2))
    assert (attempt is not None) == is_again
    if attempt:
        assert (attempt.key.attempt, agenda.next([attempt])) == (2, None)
        study.tell(attempt.key, "COMPLETE", 0.75)
    assert study.n_finished == 2
    assert agenda.is_complete


def test_a_budget_that_is_met_without_them_leaves_them_as_they_are(study: Study) -> None:
    """Nothing vanishes from the leaderboard that nobody trains again."""
    end_trials(study, {}, {}, TIMEOUT)

    assert Agenda(study).n_again == 0
    assert not any(record.superseded for record in study.records())


def test_a_result_that_a_lower_limit_cut_short_is_not_copied(study: Study) -> None:
    """A duplicate of it is trained, unless the limit is the same."""
    end_trials(study, TIMEOUT)
    again = begun(study.ask())

    assert Agenda(study, limits=LOWER).known(again) is not None
    assert Agenda(study).known(again) is None


@pytest.mark.parametrize("end", ["timeout", "oom", "failed"])
def test_the_baseline_is_trained_again_whatever_ended_it(tmp_path: Path, end: str) -> None:
    """At the same limit too, and after three crashes: without it there is no verdict."""
    study = open_study(EXPERIMENT, tmp_path)
    if end == "failed":
        while attempt := study.ask_fixed(BASELINE):
            study.fail(attempt.key, "a crash", retry=True)
    else:
        study.tell(
            begun(study.ask_fixed(BASELINE)).key, "PRUNED", result={"timeout": TIMEOUT, "oom": OOM}[end]
        )
    assert study.ask_fixed(BASELINE) is None

    attempt = begun(Agenda(study, limits=LOWER).next([]))

    assert attempt.label == "baseline"
    study.fail(attempt.key, "interrupted", retry=True, crashed=False)
    reopened = open_study(EXPERIMENT, tmp_path)
    assert begun(Agenda(reopened, limits=LOWER).next([])).key.attempt == attempt.key.attempt + 1


def test_a_baseline_that_would_end_alike_is_not_trained_again(tmp_path: Path) -> None:
    """A loss that diverged from this seed diverges again."""
    study = open_study(EXPERIMENT, tmp_path)
    attempt = begun(study.ask_fixed(BASELINE))
    study.tell(attempt.key, "PRUNED", result={"reason": "diverged: loss is nan"})

    assert Agenda(study).n_again == 0


def test_a_confirmation_tries_its_own_trainings_again(study: Study) -> None:
    """Before a reading is spent on the others, and at the same limit too."""
    training = FixedTraining("confirm", "confirm", "trial 0, seed 1", BASELINE.configuration, 1)
    study.tell(begun(study.ask_fixed(training)).key, "PRUNED", result=TIMEOUT)

    assert begun(Agenda(study, [training], LOWER).next([])).key.attempt == 2


def test_the_checkpoints_of_what_a_limit_ended_are_kept(study: Study) -> None:
    """It goes on from there once the limit is higher; those of a pruned trial are not."""
    end_trials(study, {"reason": "pruned after epoch 1"}, TIMEOUT)

    assert {origin.stem for origin in study.open_origins()} == {"trial-00001-1"}

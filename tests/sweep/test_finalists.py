import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lenet_exp.base.errors import ConfigError, NoResultError
from lenet_exp.base.layout import folder_name
from lenet_exp.base.records import RunKey
from lenet_exp.config.hyperparameters import PRESETS, configuration
from lenet_exp.config.loader import parse
from lenet_exp.study.records import TrialRecord
from lenet_exp.sweep.finalists import (
    best_finalists,
    cut_short,
    ensure_there_are_some,
    missing_result,
    on_dataset,
)

BASELINE = configuration(PRESETS["lenet"])
EXPERIMENT = parse({"name": "e", "data": {"dataset": "own", "folder": "f"}, "space": {"lr": [0.1, 0.2]}})


def trial(number: int, value: float | None, role: str = "trial", **values: Any) -> TrialRecord:
    tried = BASELINE.model_copy(update=values)
    state: Any = "PRUNED" if value is None else "COMPLETE"
    key = RunKey(role, number, 1)
    label = f"{role} {number}"
    return TrialRecord(key, state, label, tried, 1, value=value)


def test_the_best_completed_configurations_are_taken_each_once() -> None:
    """Neither a duplicate, nor one cut short, nor the baseline's own, nor a confirmation takes a place."""
    records = [
        trial(0, 0.7, lr=0.1),
        trial(1, 0.9, lr=0.2),
        trial(2, 0.9, lr=0.2),
        trial(3, None, lr=0.3),
        trial(4, 0.95),
        trial(5, 0.99, "confirm", lr=0.4),
        trial(6, 0.8, lr=0.5),
    ]

    found = best_finalists(records, BASELINE.id, top=2)

    assert [(one.label, one.val_accuracy) for one in found] == [("trial 1", 0.9), ("trial 6", 0.8)]


def test_another_data_set_is_another_experiment() -> None:
    """No file can have its name; a data set known by its name is not looked for in the user's folder."""
    moved = on_dataset(EXPERIMENT, "mnist")

    assert (moved.name, folder_name(moved.name), moved.data.dataset) == ("e@mnist", "e@mnist", "mnist")
    assert moved.data.folder is None
    assert on_dataset(EXPERIMENT, "mnist", "/mine").data.folder == "/mine"
    assert on_dataset(EXPERIMENT, "other").data.folder == "f"
    assert moved.search_space.describe() == EXPERIMENT.search_space.describe()
    assert on_dataset(EXPERIMENT, "own") is EXPERIMENT is on_dataset(EXPERIMENT, None)
    with pytest.raises(ConfigError, match=r"^e@mnist|name"):
        parse({"name": "e@mnist"})
    with pytest.raises(ConfigError, match="--dataset must be 1 to 100 letters"):
        on_dataset(EXPERIMENT, "../mnist")


def test_without_a_sweep_there_is_nothing_to_confirm(tmp_path: Path) -> None:
    """The message says what to run."""
    with pytest.raises(NoResultError, match=r"'e' was never run under .*; run 'lenet-exp sweep EXPERIMENT "):
        ensure_there_are_some(EXPERIMENT, tmp_path)


def ended(number: int, reason: str, role: str = "trial", **result: Any) -> TrialRecord:
    return replace(trial(number, None, role), result={"reason": reason, **result})


TIMEOUT = ended(1, "timeout: not done after 5 s", trial_timeout_s=5.0)
BASE = replace(trial(9, 0.5, "baseline"), label="baseline")


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([], None),
        ([BASE], None),
        ([BASE, trial(0, 0.5), TIMEOUT], None),
        ([BASE, replace(TIMEOUT, followed=True)], None),
        ([BASE, TIMEOUT], r"no trial completed: 1 timeout \(.*\); raise --trial-timeout or leave it out"),
        (
            [replace(TIMEOUT, key=RunKey("baseline", 0, 1)), TIMEOUT, ended(2, "infeasible: x")],
            r"nothing completed: 2 timeout, 1 infeasible \(the last: trial 2, inf.*; narrow the \[space\]",
        ),
        (
            [ended(0, "oom: x", "baseline", trial_memory_bytes=9), trial(0, 0.5)],
            r"the baseline is not complete, .*: 1 oom .*; raise --trial-memory or leave it out",
        ),
        (
            [BASE, ended(1, "oom: x", "run"), ended(2, "diverged: loss is nan", "ablation")],
            r"no training completed: .*; change them to smaller [^\[]*; change them in the file, [^\[]*$",
        ),
        ([BASE, replace(ended(1, "x", "run"), state="FAIL")], r"[^;]*: 1 failed \(.*\); mend .* and rename"),
        (
            [ended(0, "oom: x", "baseline"), ended(1, "infeasible: x")],
            r"nothing completed: .*; make more memory free, and run the same command again.*; narrow the",
        ),
        (
            [ended(0, "diverged: loss is nan", "baseline"), trial(0, 0.5)],
            r"the baseline is not complete, .*: 1 diverged .*; change the \[baseline\] and rename",
        ),
    ],
)
def test_a_search_without_a_result_says_how_its_trainings_ended_and_what_to_do(
    records: list[TrialRecord], expected: str | None
) -> None:
    """A result is a complete baseline, and if there was a search a complete trial."""
    told = missing_result(records)

    assert (told is None) == (expected is None)
    assert told is None or re.match(expected or "", told), told
    assert (cut_short(records) is None) == (not any(r.limited and not r.followed for r in records))

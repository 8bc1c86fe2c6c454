from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow_lab import BASELINE, STUDY_FACTS, TRIAL, Lab
from test_readings import reading

from lenet_exp import tracking
from lenet_exp.champion import elected, winner
from lenet_exp.entries import Champion
from lenet_exp.readings import Finalist


def verdict(config: str, outcome: str) -> dict[str, Any]:
    return {"config": config, "verdict": outcome, "sentence": f"{outcome}: .", "delta": 0.1, "p_value": 0.1}


@pytest.mark.parametrize(
    ("outcomes", "fresh", "expected"),
    [
        (("tie", "tie"), {"good": 0.9, "fine": 0.8}, "base"),
        (("worse", "worse"), {}, "base"),
        (("better", "tie"), {"good": 0.7, "fine": 0.8}, "good"),
        (("better", "better"), {"good": 0.7, "fine": 0.8}, "fine"),
        (("better", "better"), {}, "good"),
    ],
)
def test_the_best_validated_of_those_that_are_better_wins(
    outcomes: tuple[str, str], fresh: dict[str, float], expected: str
) -> None:
    """A tie or worse does not take the baseline's place, and the test split decides among none."""
    read = reading()
    other = Finalist("fine", "trial 5", {}, 1, 0.85)
    plan = type(read.plan)(**{**vars(read.plan), "finalists": (*read.plan.finalists, other)})
    verdicts = tuple(map(verdict, ("good", "fine"), outcomes))

    assert winner(reading_with(plan=plan, verdicts=verdicts, fresh_val_accuracy=fresh)) == expected


def reading_with(**fields: Any) -> Any:
    read = reading()
    return type(read)(**{**vars(read), **fields})


def test_each_alias_gets_the_network_of_the_first_seed_and_the_description_says_why() -> None:
    """Seeds, verdict and leaderboard are in it."""
    chosen = elected("e", "Which?", reading())
    tied = elected("e", "Which?", reading(champion="base"))

    assert chosen is not None
    assert tied is not None
    assert chosen.aliases == {"champion": "confirm-00001-1", "baseline": "confirm-00000-1"}
    assert tied.aliases == {"champion": "confirm-00000-1", "baseline": "confirm-00000-1"}
    assert chosen.description.startswith("Which?\n")
    for part in (
        "trial 3: better: by much",
        "| trial 3 (good) | 2 | 0.8125 | 0.1875 | 0.0100 | better |",
        "7, 8",
    ):
        assert part in chosen.description
    assert elected("e", "", reading(scores=())) is None


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """An experiment with two complete attempts in its spool, and nothing in MLflow."""
    monkeypatch.setattr(tracking, "RETRY_S", 0.01)
    lab = Lab(tmp_path)
    lab.spool.start_study(STUDY_FACTS)
    lab.complete(BASELINE)
    lab.complete(TRIAL)
    return lab


def aliases(lab: Lab) -> dict[str, str]:
    """Return the run behind each alias."""
    client = lab.client()
    names = client.get_registered_model("ünï exp").aliases
    return {name: str(client.get_model_version_by_alias("ünï exp", name).run_id) for name in names}


def test_the_registry_is_brought_up_to_the_spool_whenever_mlflow_answers(lab: Lab) -> None:
    """Registered once however often it is carried, by whoever carries; a later tie gives the alias back."""
    lab.spool.champion(Champion("ünï exp", {"champion": TRIAL.stem, "baseline": BASELINE.stem}, "won"))

    lab.sync()
    lab.sync()
    lab.sync(rebuild=True)

    runs = lab.opened().run_ids()
    client = lab.client()
    assert aliases(lab) == {"champion": runs[TRIAL], "baseline": runs[BASELINE]}
    assert len(client.search_model_versions("name = 'ünï exp'")) == 2
    assert client.get_registered_model("ünï exp").description == "won"

    lab.spool.champion(Champion("ünï exp", dict.fromkeys(("champion", "baseline"), BASELINE.stem), "a tie"))
    lab.sync()

    assert aliases(lab) == {"champion": runs[BASELINE], "baseline": runs[BASELINE]}
    assert len(client.search_model_versions("name = 'ünï exp'")) == 2


def test_a_model_that_is_missing_is_said_and_holds_nothing_up(lab: Lab) -> None:
    """All else is in MLflow."""
    lab.spool.champion(Champion("ünï exp", {"champion": "trial-00009-1"}, ""))
    lab.spool.end_study("COMPLETE")

    report = lab.sync()

    assert report.n_shipped == 2
    assert report.problems == (
        "study is not in MLflow: trial-00009-1: no model to register as ünï exp@champion",
    )
    run_id = lab.opened().run_id("study")
    assert run_id is not None
    assert lab.client().get_run(run_id).info.status == "FINISHED"

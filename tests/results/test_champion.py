from __future__ import annotations

from typing import Any

import pytest

from lenet_exp.results.champion import elected, winner
from lenet_exp.results.evaluation import Finalist
from tests.labs.readings import BASE, GOOD, LENET, reading

FINE = Finalist(LENET.model_copy(update={"lr": 0.2}), "trial 5", 0.85)


def verdict(config: str, outcome: str) -> dict[str, Any]:
    return {"config": config, "verdict": outcome, "sentence": f"{outcome}: .", "delta": 0.1, "p_value": 0.1}


@pytest.mark.parametrize(
    ("outcomes", "fresh", "expected"),
    [
        (("tie", "tie"), {GOOD: 0.9, FINE.config: 0.8}, BASE),
        (("worse", "worse"), {}, BASE),
        (("better", "tie"), {GOOD: 0.7, FINE.config: 0.8}, GOOD),
        (("better", "better"), {GOOD: 0.7, FINE.config: 0.8}, FINE.config),
        (("better", "better"), {}, GOOD),
    ],
)
def test_the_best_validated_of_those_that_are_better_wins(
    outcomes: tuple[str, str], fresh: dict[str, float], expected: str
) -> None:
    """A tie or worse does not take the baseline's place, and the test split decides among none."""
    read = reading()
    plan = type(read.plan)(**{**vars(read.plan), "finalists": (*read.plan.finalists, FINE)})
    verdicts = tuple(map(verdict, (GOOD, FINE.config), outcomes))

    assert winner(reading_with(plan=plan, verdicts=verdicts, fresh_val_accuracy=fresh)) == expected


def reading_with(**fields: Any) -> Any:
    read = reading()
    return type(read)(**{**vars(read), **fields})


def test_each_alias_gets_the_network_of_the_first_seed_and_the_description_says_why() -> None:
    """Seeds, verdict and leaderboard are in it."""
    chosen = elected("e", "Which?", reading())
    tied = elected("e", "Which?", reading(champion=BASE))

    assert chosen is not None
    assert tied is not None
    assert chosen.aliases == {"champion": "confirm-00001-1", "baseline": "confirm-00000-1"}
    assert tied.aliases == {"champion": "confirm-00000-1", "baseline": "confirm-00000-1"}
    assert chosen.description.startswith("Which?\n")
    for part in (
        "trial 3: better: by much",
        f"| trial 3 ({GOOD}) | 2 | 0.8125 | 0.1875 | 0.0100 | better |",
        "7, 8",
    ):
        assert part in chosen.description
    assert elected("e", "", reading(scores=())) is None

from typing import Any

import pytest

from lenet_exp.config.hyperparameters import PRESETS, configuration
from lenet_exp.results.evaluation import (
    NOT_CONFIRMED,
    ConfirmationPlan,
    Evaluation,
    Finalist,
    Score,
    confirmation_summary,
)

LENET = configuration(PRESETS["lenet"])
BASELINE = Finalist(LENET, "baseline", None)
BETTER = Finalist(LENET.model_copy(update={"lr": 0.1}), "trial 3", 0.9)
BASE, GOOD = BASELINE.config, BETTER.config


def reading(number: int = 1, completed: str | None = "then", **fields: Any) -> Evaluation:
    plan = ConfirmationPlan("now", (BETTER,), BASELINE, (7, 8), "train", 0.05, 4)
    scores = tuple(
        Score(f"confirm-0000{i}-1", config, seed, accuracy, 0.5)
        for i, (config, seed, accuracy) in enumerate(
            [(BASE, 7, 0.5), (GOOD, 7, 0.75), (BASE, 8, 0.75), (GOOD, 8, 0.875)]
        )
    )
    verdict = {
        **{"config": GOOD, "verdict": "better", "sentence": "better: by much", "delta": 0.1875},
        **{"delta_low": float("nan"), "delta_high": 0.3, "p_value": 0.01, "permutation_p": 0.5},
        **{"mcnemar_p": 0.02, "seeds_to_settle": None},
    }
    given = {"scores": scores, "verdicts": (verdict,), "champion": GOOD} | fields
    return Evaluation(number, plan, "mini", "0.1", number > 1, ("now",), completed, **given)


def test_the_findings_are_those_of_the_last_complete_reading() -> None:
    """Each configuration has its means; what is not a number is not known; one under way changes nothing."""
    kept = [
        reading(fresh_val_accuracy={GOOD: 0.8}).to_dict(),
        reading(2, None, scores=(), verdicts=()).to_dict(),
    ]

    found = confirmation_summary(kept, {GOOD: 1234.0})

    base, good = found.cells[BASE], found.cells[GOOD]
    assert (base["n_seeds"], base["test_accuracy"], base["delta"]) == (2, 0.625, 0.0)
    assert base["test_accuracy_sem"] == pytest.approx(0.125)
    assert "verdict" not in base
    assert "examples_per_s" not in base
    assert (good["test_accuracy"], good["verdict"], good["delta_low"]) == (0.8125, "better", None)
    assert (good["examples_per_s"], good["fresh_val_accuracy"]) == (1234.0, 0.8)
    assert found.sentences == ("trial 3: better: by much", "champion: trial 3")
    assert confirmation_summary(None, None) == confirmation_summary(kept[1:], None) == NOT_CONFIRMED


def test_a_reading_is_one_line_for_people() -> None:
    """When, which and how many, and whether it was the first."""
    again = reading(2, None)

    assert reading().as_text() == "1: started now, completed then: baseline, trial 3, 2 seeds"
    assert again.as_text() == "2 (again): started now, not completed: baseline, trial 3, 2 seeds"


def test_a_reading_without_the_baseline_has_no_verdict_and_no_champion() -> None:
    """Be it on one seed only: those made before November 2026 called the baseline champion."""
    lacking = reading()
    lacking = reading(scores=lacking.scores[:2] + lacking.scores[3:])

    summary = confirmation_summary([lacking.to_dict()], None)

    assert not lacking.has_baseline
    assert summary.sentences == (
        "no verdict and no champion: the test split was read without a complete baseline",
    )
    assert "verdict" not in summary.cells[GOOD]
    assert summary.cells[GOOD]["delta"] is None
    assert summary.cells[GOOD]["test_accuracy"] == 0.8125

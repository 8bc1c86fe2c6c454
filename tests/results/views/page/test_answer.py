from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lenet_exp.base.records import RunKey
from lenet_exp.config import loader
from lenet_exp.results.conclusion import NOT_CONFIRMED
from lenet_exp.results.evaluation import ConfirmationPlan, Evaluation, Finalist, Score
from lenet_exp.results.lookup import ExperimentResults, read_results
from lenet_exp.results.views.page.answer import answer_of
from tests.labs import charts
from tests.labs.charts import STUDY, record
from tests.labs.swept import Swept


@pytest.fixture
def results(swept_once: Swept) -> ExperimentResults:
    """What the sweep recorded, with the records of a study of our own, and without a confirmation."""
    recorded = read_results(loader.load(swept_once.file), swept_once.root)
    return replace(recorded, confirmation=NOT_CONFIRMED, records=STUDY)


def confirmed(results: ExperimentResults, *verdicts: tuple[str, float]) -> ExperimentResults:
    """Return results with a confirmation of ``trial 1``, ``trial 2`` and so on, given as (outcome, delta)."""
    networks = [record(number, 0.8, lr=0.01 * (number + 2)).configuration for number in range(len(verdicts))]
    finalists = tuple(Finalist(each, f"trial {i}", None) for i, each in enumerate(networks, 1))
    baseline = Finalist(STUDY[0].configuration, "baseline", None)
    plan = ConfirmationPlan("", finalists, baseline, (1, 2), "train", 0.05, 4)
    judged: list[dict[str, Any]] = [
        {
            **{"config": finalist.config, "verdict": outcome, "sentence": outcome, "n_seeds": 2},
            **{"mean": 0.85 + delta, "baseline_mean": 0.85, "delta": delta, "p_value": 0.001},
            **{"delta_low": delta - 0.02, "delta_high": delta + 0.02, "delta_low_other_images": delta - 0.04},
        }
        for finalist, (outcome, delta) in zip(finalists, verdicts, strict=True)
    ]
    champion = next((v["config"] for v in judged if v["verdict"] == "better"), baseline.config)
    scores = tuple(Score("", each.config, seed, 0.85, 0.1) for each in plan.everyone for seed in plan.seeds)
    evaluation = Evaluation(
        *(1, plan, "mnist", "0", False, ()),
        completed="now",
        scores=scores,
        verdicts=tuple(judged),
        spent=0.04,
        champion=champion,
    )
    summary = replace(NOT_CONFIRMED, evaluation=evaluation, sentences=("x: y", "champion: z"))
    return replace(results, confirmation=replace(summary, next_steps=("look",)))


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (
            [("better", 0.03)],
            "trial 1 is better than the baseline: test accuracy 0.8800 against 0.8500, +0.0300.",
        ),
        (
            [("better", 0.03), ("better", 0.02), ("tie", 0.0), ("better", 0.01)],
            "trial 1 is better than the baseline: test accuracy 0.8800 against 0.8500, +0.0300; trial 2 and"
            " trial 4 are better too.",
        ),
        (
            [("tie", 0.01)],
            "Undecided: trial 1 is not shown to be better than the baseline, which stays champion (test"
            " accuracy 0.8600 against 0.8500, +0.0100).",
        ),
        (
            [("worse", -0.05), ("tie", -0.01), ("tie", 0.01)],
            "Undecided: none of 3 finalists is shown to be better than the baseline, which stays champion;"
            " the nearest is trial 3 (test accuracy 0.8600 against 0.8500, +0.0100).",
        ),
        (
            [("worse", -0.05), ("worse", -0.03)],
            "The baseline wins: all 2 finalists are worse; the nearest is trial 2 (test accuracy 0.8200"
            " against 0.8500, -0.0300).",
        ),
    ],
)
def test_a_confirmed_answer_says_what_won_and_by_how_much(
    results: ExperimentResults, verdicts: list[tuple[str, float]], said: str
) -> None:
    """One sentence whatever the outcomes are; the conclusion's own sentences are there in full."""
    answered = answer_of(confirmed(results, *verdicts))

    assert answered.verdict == said
    assert len(answered.sentences) == 2
    assert answered.next_steps == ("next: look",)
    assert answered.in_full == ("x: y",)


def test_a_confirmed_answer_says_how_sure_it_is(results: ExperimentResults) -> None:
    """On which images, within which range, and whether other images or seeds may turn it round."""
    better, tie = (answer_of(confirmed(results, each)) for each in (("better", 0.03), ("tie", 0.01)))

    assert better.sentences[1] == (
        "how sure: on the 0 test images of mnist the true difference lies between +0.0100 and +0.0500"
        " (2 seeds, p 0.001). The chance of a wrong verdict is at most 0.05; on other images like these it is"
        " open."
    )
    assert tie.sentences[1].endswith("+0.0300 (2 seeds, p 0.001). Other seeds may turn it round.")


def test_an_unconfirmed_answer_says_so(results: ExperimentResults) -> None:
    """The best and its difference in one sentence; then how sure that is, and what to do next."""
    answered = answer_of(results)

    assert answered.verdict == (
        "The best so far is trial 2 with validation accuracy 0.8800, 0.0300 above the baseline's 0.8500."
    )
    what, sure = answered.sentences
    assert what == (
        "what it is: trial 2 has activation tanh, lr 0.1, else the baseline's values; 4,000 parameters"
        " (baseline 1,000); 9,800 training examples/s (baseline 10,100)."
    )
    assert sure.startswith("how sure: this is not confirmed")
    assert answered.next_steps == ("next: 'lenet-exp confirm swept.toml'",)
    stopped = answer_of(replace(results, records=STUDY[:3]))
    assert stopped.sentences[2:] == ("how far: 2 of 3 trials have ended.",)
    assert stopped.next_steps == (
        "next: 'lenet-exp sweep swept.toml' trains the others, then confirms the best",
    )
    nothing = answer_of(replace(results, records=[]))
    assert nothing.verdict == "No trial or listed run is complete yet."
    assert (nothing.sentences, nothing.next_steps) == ((), ("next: 'lenet-exp sweep swept.toml'",))
    assert answer_of(replace(results, records=[record(0, 0.8)])).verdict.endswith("baseline is not complete.")


def test_an_ablation_that_was_trained_with_other_settings_says_why_it_is_empty(tmp_path: Path) -> None:
    """Its records are there, but of configurations that the file alone does not name."""
    other = replace(record(1, 0.8, epochs=7), key=RunKey("ablation", 0, 1))

    answered = answer_of(charts.results([STUDY[0], other], tmp_path, ablate={"activation": ["tanh"]}))

    assert answered.sentences == (
        "how far: 1 training of alternatives ended; if the sweep had '--set', so must 'lenet-exp report'.",
    )

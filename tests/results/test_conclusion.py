from dataclasses import replace
from pathlib import Path

import pytest

from lenet_exp.config import loader
from lenet_exp.config.experiment import MAX_CONFIRM_SEEDS, Confirm
from lenet_exp.results.conclusion import NOT_CONFIRMED, ConfirmationSummary, confirmation_summary
from lenet_exp.results.evaluation import READINGS, SPEEDS, Evaluation, FirstStage
from tests.labs.readings import BASE, GOOD, judged, reading

TIE = [0.004, -0.003, 0.005, 0.002, -0.001]


def summary(
    *evaluations: Evaluation,
    speeds: dict[str, float] | None = None,
    margin: float = 0.005,
    n_finished: int = 4,
) -> ConfirmationSummary:
    experiment = loader.parse({"name": "e", "space": {"lr": [0.1, 0.2]}, "confirm": {"margin": margin}})
    kept = {READINGS: [evaluation.to_dict() for evaluation in evaluations], SPEEDS: speeds}
    return confirmation_summary(kept, experiment, Path("my runs"), n_finished)


def test_the_summary_is_that_of_the_last_complete_reading() -> None:
    """Each configuration has its means; what is not a number is not known; one under way changes nothing."""
    under_way = reading(2, None, scores=(), verdicts=())

    found = summary(reading(fresh_val_accuracy={GOOD: 0.8}), under_way, speeds={GOOD: 1234.0})

    base, good = found.cells[BASE], found.cells[GOOD]
    assert (base["n_seeds"], base["test_accuracy"], base["delta"]) == (2, 0.625, 0.0)
    assert base["test_accuracy_sem"] == pytest.approx(0.125)
    assert "verdict" not in base
    assert "examples_per_s" not in base
    assert (good["test_accuracy"], good["verdict"], good["delta_low"]) == (0.8125, "better", None)
    assert (good["examples_per_s"], good["fresh_val_accuracy"]) == (1234.0, 0.8)
    assert found.sentences[1] == "trial 3: better: by much"
    assert found.sentences[-1] == "champion: trial 3"
    assert found.next_steps == ("use 'models:/e@champion' of MLflow, trial 3's network of the first seed",)
    assert summary() == summary(under_way) == NOT_CONFIRMED


def test_a_reading_without_the_baseline_has_no_verdict_and_no_champion() -> None:
    """Be it on one seed only: those made before November 2026 called the baseline champion."""
    lacking = reading()
    lacking = reading(scores=lacking.scores[:2] + lacking.scores[3:])

    found = summary(lacking)

    assert not lacking.has_baseline
    assert found.sentences == (
        "no verdict and no champion: the test split was read without a complete baseline",
    )
    assert found.next_steps == ()
    assert "verdict" not in found.cells[GOOD]
    assert found.cells[GOOD]["delta"] is None
    assert found.cells[GOOD]["test_accuracy"] == 0.8125


def test_what_was_spent_is_said_with_the_question() -> None:
    """A reading from before the level was divided has spent all of it."""
    second = judged(TIE, 0.005, spent_before=0.04)

    said = [" ".join(summary(found).sentences) for found in (judged(TIE), second, reading())]

    assert "is at most 0.05, even if others do differ; 0.04 of it is used by now, 0.04 by this" in said[0]
    assert "0.045 of it is used by now, 0.005 by this reading" in said[1]
    assert "0.05 of it is used by now, 0.05 by this reading" in said[2]


@pytest.mark.parametrize(("spent_before", "most"), [(0.0, "0.05"), (0.16, "0.17"), (1.1, "1")])
def test_how_sure_holds_for_the_readings_to_come(spent_before: float, most: str) -> None:
    """Earlier ones may have had a larger level, and the next ones add their share to what is spent."""
    read = judged(TIE, 0.005, spent_before=spent_before)

    said = " ".join(summary(replace(read, number=2)).sentences)

    assert f"is at most {most}, even if others do differ" in said


def test_no_brackets_are_told_of_where_there_are_none() -> None:
    """A single seed has no interval."""
    assert "The first brackets" in " ".join(summary(judged(TIE)).sentences)
    assert "The first brackets" not in " ".join(summary(judged([0.004])).sentences)


def test_a_tie_is_told_what_would_settle_it_for_a_difference_that_matters() -> None:
    """Not for the measured one; the command asks for the larger number of seeds."""
    found = summary(judged(TIE))
    cells = found.cells[GOOD]

    low, high = cells["seeds_to_settle_low"], cells["seeds_to_settle_high"]
    assert found.next_steps == (
        f"trial 3: to show a difference of 0.005 (confirm.margin) takes {low} to {high} seeds in all",
        f"if trial 3 is worth {high} seeds to you: 'lenet-exp confirm EXPERIMENT --again --set confirm.top=1"
        f" --set confirm.seeds={high} --root 'my runs'', which keeps the seeds there are, needs p at most"
        " 0.005, and only checks what is settled",
    )
    # Measured means a little larger or smaller change nothing.
    assert summary(judged([value + 0.0005 for value in TIE])).next_steps == found.next_steps


@pytest.mark.parametrize(
    ("margin", "step"),
    [
        (0.02, "trial 3: not better by 0.02 or more (confirm.margin), so it needs no more seeds"),
        (1e-4, "trial 3: to show a difference of 0.0001 (confirm.margin) takes more than 200 seeds"),
    ],
)
def test_a_tie_that_needs_no_seeds_or_too_many_is_left_for_other_trials(margin: float, step: str) -> None:
    """What is excluded already need not be looked for; what nobody would train is not advised."""
    search_on = (
        "to look for others: 'lenet-exp sweep EXPERIMENT --trials 120 --root 'my runs'', then 'lenet-exp"
        " confirm EXPERIMENT --again --set confirm.top=1 --root 'my runs''"
    )

    assert list(summary(judged(TIE), margin=margin).next_steps) == [step, search_on]


def test_what_is_recorded_for_a_margin_is_what_is_shown_for_it() -> None:
    """Another margin, or another reading since, is computed anew."""
    first = summary(judged(TIE))
    other = summary(judged(TIE), margin=0.01)
    later = summary(judged(TIE), reading(2, None, scores=(), verdicts=()))

    highs = [found.cells[GOOD]["seeds_to_settle_high"] for found in (other, first, later)]
    assert highs == sorted(highs)
    assert len(set(highs)) == 3


def test_the_command_for_another_reading_asks_the_same_question() -> None:
    """What was set by a flag is set again; what the file says is not repeated."""
    read = judged(TIE)
    read = replace(read, plan=replace(read.plan, train_on="train, resampled", level=0.1))
    experiment = loader.parse({"name": "e", "space": {"lr": [0.1, 0.2]}})
    experiment.keep_source("[confirm]\ntop = 1\nlevel = 0.1\n", "e.toml")

    found = confirmation_summary({READINGS: [read.to_dict()]}, experiment, Path("mlruns"), 4).next_steps

    assert "'lenet-exp confirm e.toml --again --set confirm.resample=true --set confirm.seeds=" in found[-1]

    experiment.keep_source("[confirm]\ntop = 1\nlevel = 0.1\nresample = true\nmargin = 0.02\n", "e.toml")
    undecided = replace(judged([*TIE, *TIE]), plan=replace(read.plan, seeds=tuple(range(10))))
    staged = replace(read, plan=replace(read.plan, first_stage=FirstStage(8, 0.01, 30, {GOOD: 0.01}, 5)))
    wide = experiment.model_copy(update={"confirm": Confirm(margin=0.02)})
    for other, flags in ((undecided, "seeds=10"), (staged, "seeds=auto --set confirm.precision=0.01")):
        kept = {READINGS: [other.to_dict()]}
        found = confirmation_summary(kept, wide, Path("mlruns"), 4).next_steps
        assert found[-1].endswith(f"'lenet-exp confirm e.toml --again --set confirm.{flags}'")


def test_an_older_reading_does_not_contradict_the_next_steps() -> None:
    """Its sentence named a number of seeds, for the measured difference as if that were the true one."""
    verdict = {**judged(TIE).verdicts[0], "sentence": "tie: +0.1 on 5 paired seeds, p 0.90"}
    for end in ("about 36 seeds would settle it", "more than 200 seeds would be needed to settle it"):
        older = replace(judged(TIE), verdicts=({**verdict, "sentence": f"{verdict['sentence']}; {end}"},))

        assert summary(older).sentences[1] == f"trial 3: {verdict['sentence']}"


def test_after_auto_seeds_none_is_lost_and_others_are_looked_for_alike() -> None:
    """A given number counts those that were read, and not those that told the number."""
    first = FirstStage(8, 0.002, 40, {GOOD: 0.004}, 5)

    def last_step(differences: list[float]) -> str:
        read = judged(differences)
        scores = tuple(replace(score, seed=8 + score.seed) for score in read.scores)
        plan = replace(read.plan, seeds=tuple(range(8, 8 + len(differences))), first_stage=first)
        return summary(replace(read, plan=plan, scores=scores), margin=0.02).next_steps[-1]

    auto = "--set confirm.seeds=auto --set confirm.precision=0.002 --set confirm.max_seeds=40"
    assert "--set confirm.seeds=10 " in last_step([0.004] * 5)
    assert f"EXPERIMENT --again --set confirm.top=1 {auto} --root" in last_step(TIE)


@pytest.mark.parametrize(
    ("differences", "seeds"),
    [([0.004, 0.004], 5), ([0.004], 5), ([0.004] * 4, 8), ([0.0] * 600, MAX_CONFIRM_SEEDS)],
)
def test_where_no_spread_is_seen_more_seeds_are_advised(differences: list[float], seeds: int) -> None:
    """Equal differences on a few seeds are chance, and do not tell how many seeds would settle it."""
    found = summary(judged(differences))

    assert found.cells[GOOD]["seeds_to_settle_low"] is None
    assert found.next_steps[0] == "trial 3: more seeds would show how they vary"
    assert f"--set confirm.seeds={seeds} " in found.next_steps[1]


def test_others_are_looked_for_beyond_the_trials_there_are() -> None:
    """A number that is met already would train nothing; what has ended since the reading comes first."""
    read = judged(TIE)
    many = replace(read, plan=replace(read.plan, n_finished=200))

    assert (
        "'lenet-exp sweep EXPERIMENT --trials 400 "
        in summary(many, margin=1e-4, n_finished=200).next_steps[1]
    )
    assert (
        summary(read, margin=1e-4, n_finished=5).next_steps[1].startswith("1 trial later than this reading: ")
    )

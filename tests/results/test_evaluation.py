from dataclasses import replace

from lenet_exp.results.evaluation import settled_by
from lenet_exp.results.verdicts.judging import Settled
from tests.labs.readings import GOOD, reading


def test_a_reading_is_one_line_for_people() -> None:
    """When, which and how many, and whether it was the first."""
    again = reading(2, None)

    assert reading().as_text() == "1: started now, completed then: baseline, trial 3, 2 seeds, level 0.05"
    assert again.as_text() == "2 (again): started now, not completed: baseline, trial 3, 2 seeds, level 0.05"


def test_what_is_settled_is_what_the_last_reading_of_the_same_question_says() -> None:
    """A verdict is carried on with the level that it was reached at, until a reading no longer finds it."""
    verdict = dict(reading().verdicts[0])
    old = reading()  # from before the level was divided
    first = reading(spent=0.04, verdicts=({**verdict, "level": 0.04, "settled_by": None},))
    second = reading(2, spent=0.005, verdicts=({**verdict, "level": 0.04, "settled_by": 1},))
    withdrawn = reading(3, verdicts=({**verdict, "verdict": "tie", "level": 0.04},))
    cut_off = reading(3, None, verdicts=())
    lacking = reading(3, verdicts=({**verdict, "verdict": "tie", "level": 0.04, "p_value": None},))

    assert settled_by([old], old.plan) == {GOOD: Settled("better", 1, 0.05)}
    assert settled_by([first, second, cut_off], old.plan) == {GOOD: Settled("better", 1, 0.04)}
    assert settled_by([first, second, withdrawn], old.plan) == {}
    # A reading that could not test it, as a training failed, takes nothing away.
    assert settled_by([first, second, lacking], old.plan) == {GOOD: Settled("better", 1, 0.04)}
    assert settled_by([first], replace(old.plan, train_on="train+validation")) == {}

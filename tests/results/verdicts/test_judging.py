"""Verdicts against scipy, and against their own promises."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lenet_exp.results.verdicts.judging import Sample, Settled, Verdict, verdicts, winners_curse
from lenet_exp.results.verdicts.statistics import Floats

SEEDS = (11, 12, 13, 14, 15)
BASELINE = Sample("baseline", (0.891, 0.896, 0.893, 0.894, 0.890), SEEDS)


def shifted(config: str, *differences: float) -> Sample:
    pairs = zip(BASELINE.test_accuracy, differences, strict=False)
    return Sample(config, tuple(base + delta for base, delta in pairs), SEEDS[: len(differences)])


def samples(accuracy: Floats) -> tuple[list[Sample], Sample]:
    """Return the finalists and the baseline, which is row 0 of ``(configurations, seeds)``."""
    rows = [Sample(f"c{i}", tuple(row), tuple(range(len(row)))) for i, row in enumerate(accuracy.tolist())]
    return rows[1:], rows[0]


BETTER = shifted("better", 0.011, 0.014, 0.010, 0.013, 0.012)
WORSE = shifted("worse", -0.021, -0.024, -0.020, -0.023, -0.022)
TIE = shifted("tie", 0.004, -0.003, 0.005, 0.002, -0.001)


def test_the_verdict_is_that_of_scipy_s_tests_after_holm() -> None:
    """Three finalists get the paired t-test's p values, times three, two and one."""
    finalists = [TIE, BETTER, WORSE]
    raw = [stats.ttest_rel(one.test_accuracy, BASELINE.test_accuracy).pvalue for one in finalists]

    found = verdicts(finalists, BASELINE)

    assert [one.verdict for one in found] == ["tie", "better", "worse"]
    assert [one.p_value for one in found] == pytest.approx([raw[0], 2 * raw[1], 3 * raw[2]], rel=1e-6)
    assert [one.permutation_p for one in found] == [14 / 32, 2 / 32, 2 / 32]


def test_a_verdict_s_numbers_are_those_of_its_seeds() -> None:
    """Means, their difference and its interval, which is wider for two finalists than for one."""
    differences = np.subtract(BETTER.test_accuracy, BASELINE.test_accuracy)
    half = stats.t.isf(0.0125, 4) * stats.sem(differences)

    found = verdicts([BETTER, TIE], BASELINE)[0]

    assert (found.config, found.n_seeds) == ("better", 5)
    assert found.mean == pytest.approx(np.mean(BETTER.test_accuracy))
    assert found.sem == pytest.approx(stats.sem(BETTER.test_accuracy))
    assert found.baseline_mean == pytest.approx(np.mean(BASELINE.test_accuracy))
    assert found.delta == pytest.approx(found.mean - found.baseline_mean)
    assert (found.delta_low, found.delta_high) == pytest.approx((0.012 - half, 0.012 + half))


@pytest.mark.parametrize(
    ("finalist", "sentence"),
    [
        (BETTER, "better: +0.0120 [+0.0100, +0.0140] in mean test accuracy over 5 paired seeds, p < 0.0001"),
        (WORSE, "worse: -0.0220 [-0.0240, -0.0200] in mean test accuracy over 5 paired seeds, p < 0.0001"),
        (
            TIE,
            "tie: undecided, +0.0014 [-0.0028, +0.0056] in mean test accuracy over 5 paired seeds, p 0.40 (at"
            " most 0.05 is needed); if there is a difference, it is between 0.0028 worse and 0.0056 better",
        ),
        (
            shifted("wide", 0.3, -0.3),
            "tie: undecided, +0.0000 [-3.8119, +3.8119] in mean test accuracy over 2 paired seeds, p 1.00"
            " (at most 0.05 is needed); so few seeds exclude no difference",
        ),
        (
            shifted("same", 0, 0, 0, 0, 0),
            "tie: undecided, +0.0000 [+0.0000, +0.0000] in mean test accuracy over 5 paired seeds, p 1.00"
            " (at most 0.05 is needed); the accuracy is the baseline's on every seed",
        ),
        (
            shifted("flat", 0.005, 0.005),
            "tie: undecided, +0.0050 in mean test accuracy over 2 paired seeds, p 0.50 (at most 0.05 is"
            " needed); the difference is the same on every seed, so nothing shows how seeds vary",
        ),
        (
            shifted("one", 0.02),
            "tie: undecided, +0.0200 in mean test accuracy on 1 paired seed, too few to see how seeds vary",
        ),
        (
            shifted("lost", 0.02, math.nan, 0.02, 0.02, math.inf),
            "tie: not tested, as 2 of 5 paired seeds have no test accuracy",
        ),
        (
            Sample("other", (0.95,), (99,)),
            "tie: not tested, as no seed is shared with the baseline; train both on the same seeds",
        ),
    ],
    ids=lambda value: value.config if isinstance(value, Sample) else "",
)
def test_a_verdict_says_in_plain_words_what_is_known(finalist: Sample, sentence: str) -> None:
    """Whatever the data, there is one sentence, and what is not known decides nothing."""
    found = verdicts([finalist], BASELINE)[0]

    assert found.sentence in (sentence, f"{sentence} (at most 0.05 is needed)")
    assert found.verdict == sentence.partition(":")[0]


def test_seeds_are_paired_by_name_and_unpaired_ones_left_out() -> None:
    """The order of seeds, and seeds of one side alone, change nothing."""
    mixed = Sample("better", (0.1, *BETTER.test_accuracy[::-1]), (99, *SEEDS[::-1]))

    assert verdicts([mixed], BASELINE) == verdicts([BETTER], BASELINE)


def test_without_a_spread_of_seeds_other_images_have_no_interval_either() -> None:
    """It asks about other seeds too, so it can not know more than the interval for these images."""
    right = np.zeros((2, 5, 100), bool)
    right[0, :, :90] = right[1, :, :92] = True

    base, finalist = (
        Sample(name, tuple(correct.mean(axis=1).tolist()), SEEDS, correct)
        for name, correct in zip(("a", "b"), right, strict=True)
    )

    found = verdicts([finalist], base, level=0.04)[0]

    assert math.isnan(found.delta_low)
    assert math.isnan(found.delta_low_other_images)
    assert math.isnan(found.delta_high_other_images)


def test_predictions_of_unpaired_seeds_are_left_out_too() -> None:
    """McNemar's test sees the rows of the seeds that both have; without predictions there is no such p."""
    right = np.random.default_rng(0).random((2, 5, 300)) < [[[0.7]], [[0.85]]]
    base = Sample("baseline", BASELINE.test_accuracy, SEEDS, right[0])
    finalist = Sample("better", BETTER.test_accuracy, SEEDS, right[1])
    one_more = Sample(
        "better", (0.0, *BETTER.test_accuracy), (99, *SEEDS), np.insert(right[1], 0, False, axis=0)
    )

    found, again = (verdicts([one], base)[0].mcnemar_p for one in (finalist, one_more))

    assert found == again < 1e-6
    assert math.isnan(verdicts([BETTER], base)[0].mcnemar_p)


def test_no_finalists_have_no_verdicts() -> None:
    """A baseline alone is nothing to compare."""
    assert verdicts([], BASELINE) == []


@pytest.mark.parametrize(
    ("accuracy", "seeds", "images", "match"),
    [
        ((0.9,), (1, 2), None, "1 accuracies for seeds 1, 2"),
        ((0.9, 0.8), (1, 1), None, "no seed twice; found 2 accuracies for seeds 1, 1"),
        ((0.9, 0.8), (1, 2), (3, 10), r"found shape \(3, 10\)"),
    ],
)
def test_a_sample_s_parts_belong_together(
    accuracy: tuple[float, ...], seeds: tuple[int, ...], images: tuple[int, int] | None, match: str
) -> None:
    """A lost or repeated seed would pair the wrong trainings."""
    with pytest.raises(ValueError, match=match):
        Sample("a", accuracy, seeds, None if images is None else np.ones(images, bool))


def agrees(found: Verdict) -> bool:
    """Whether interval and verdict point the same way."""
    if math.isnan(found.delta_low):
        return math.isnan(found.delta_high)
    sides = {"better": found.delta_low >= 0, "worse": found.delta_high <= 0}
    return sides.get(found.verdict, found.delta_low <= 0 <= found.delta_high)


@settings(max_examples=200)
@given(
    st.tuples(st.integers(2, 6), st.integers(2, 6)).flatmap(
        lambda shape: st.lists(
            st.lists(st.integers(170, 180), min_size=shape[1], max_size=shape[1]),
            min_size=shape[0],
            max_size=shape[0],
        )
    )
)
def test_interval_and_verdict_agree(right: list[list[int]]) -> None:
    """On few test images, where ties and equal differences are common, no answer contradicts itself."""
    for found in verdicts(*samples(np.array(right) / 200)):
        assert agrees(found)
        assert (found.verdict == "tie") == (found.p_value > 0.05)
        assert found.verdict == "tie" or (found.delta > 0) == (found.verdict == "better")


def test_holm_decides_where_the_joint_interval_alone_would_not() -> None:
    """The second of two finalists is tested at the whole level, and its interval ends at zero."""
    second = shifted("second", 0.008, 0.002, 0.012, 0.003, 0.005)
    alone = stats.ttest_rel(second.test_accuracy, BASELINE.test_accuracy).pvalue

    found = verdicts([BETTER, second], BASELINE)[1]

    assert 0.025 < alone < 0.05
    assert (found.verdict, found.delta_low) == ("better", 0.0)


def test_the_best_of_sixty_equal_trials_is_not_called_better() -> None:
    """On 200 test images: the search picks by noise and is flattered, and fresh seeds do not confirm it."""
    stream = np.random.default_rng(3)
    sweeps, false, optimism = 200, 0, 0.0
    for _ in range(sweeps):
        search = np.sort(stream.normal(0.9, 0.005, 60))[::-1]
        fresh = stream.normal(0.9, 0.005, (4, 5))
        false += any(one.verdict == "better" for one in verdicts(*samples(np.round(fresh * 200) / 200)))
        optimism += _flattered(float(search[0]), stream.normal(0.9, 0.005, 5).tolist())[0] / sweeps

    assert false / sweeps <= 0.05
    # The best of sixty normal values is 2.32 deviations above their mean.
    assert optimism == pytest.approx(2.32 * 0.005, rel=0.1)


def test_the_winner_s_curse_has_its_interval_and_its_words() -> None:
    """The interval is that of the fresh mean, turned round; one fresh seed has none, and none is said so."""
    fresh = [0.915, 0.9172, 0.9164]
    half = stats.t.isf(0.025, 2) * stats.sem(fresh)

    optimism = 0.921 - np.mean(fresh)
    expected = [optimism, optimism - half, optimism + half]

    assert _flattered(0.921, fresh) == pytest.approx(expected, abs=6e-5)
    assert winners_curse(0.92, [0.91]).endswith("0.9100 on 1 fresh seed: the search flattered it by +0.0100")
    assert winners_curse(0.92, []) == "val_accuracy 0.9200 in the search, unknown on fresh seeds"


def _flattered(search: float, fresh: list[float]) -> list[float]:
    """Return the numbers that the sentence tells of: the optimism and the ends of its interval."""
    said = winners_curse(search, fresh).partition("flattered it by ")[2]
    return [float(number) for number in re.findall(r"[+-]\d\.\d+", said)]


def test_what_a_reading_settled_is_checked_at_its_level_and_the_rest_tested_at_the_new_one() -> None:
    """A second look can not take away what the first has found, unless the seeds no longer show it."""
    earlier = Settled("better", 1, 0.04)
    held = shifted("held", 0.011, 0.003, 0.012, 0.004, 0.008)
    unsettled = shifted("unsettled", 0.012, 0.004, 0.008, 0.003, 0.006)
    both = [held, unsettled]
    p_held, p_open = (stats.ttest_rel(one.test_accuracy, BASELINE.test_accuracy).pvalue for one in both)
    assert 0.005 < p_open < 0.04
    assert 0.005 < 2 * p_held < 0.04

    known = {"held": earlier, "tie": earlier, "absent": earlier}
    found = verdicts([unsettled, held, TIE], BASELINE, 0.005, known)

    assert [(one.verdict, one.level, one.settled_by) for one in found] == [
        ("tie", 0.005, None),
        ("better", 0.04, 1),
        ("tie", 0.04, None),
    ]
    # Two are checked at the first reading's level, one is tested at the second's.
    assert found[0].p_value == pytest.approx(p_open)
    assert found[1].p_value == pytest.approx(2 * p_held)
    assert "(at most 0.005 is needed)" in found[0].sentence
    rule = "(corrected for 2 finalists; at most 0.04 is needed, the level of reading 1"
    assert found[1].sentence.endswith(f"{rule}, which settled it)")
    assert f"{rule}); " in found[2].sentence
    assert found[2].sentence.endswith("; reading 1 called it better, which these seeds do not confirm")

    lacking = verdicts([shifted("held", 0.011, math.nan)], BASELINE, 0.005, known)[0]
    assert lacking.settled_by is None
    assert lacking.sentence.endswith(
        "have no test accuracy; reading 1 called it better, which is not checked here"
    )


@pytest.mark.parametrize(
    ("hard", "accuracy", "ends"),
    [(0, 0.85, "on other images like these ["), (0.6, 0.73, "so there it is open")],
)
def test_a_verdict_says_whether_it_holds_for_other_images(hard: float, accuracy: float, ends: str) -> None:
    """Few images that suit one network by chance decide on themselves, and not on others like them."""
    stream = np.random.default_rng(0)
    suits = hard * stream.normal(size=200)
    right = stream.random((2, 5, 200)) < np.stack([0.7 - suits, accuracy + suits])[:, None]
    base, finalist = (
        Sample(name, tuple(correct.mean(axis=1).tolist()), SEEDS, correct)
        for name, correct in zip(("a", "b"), right, strict=True)
    )

    found = verdicts([finalist], base)[0]

    assert found.verdict == "better"
    assert ends in found.sentence
    assert (
        found.delta_low_other_images <= found.delta_low <= found.delta_high <= found.delta_high_other_images
    )

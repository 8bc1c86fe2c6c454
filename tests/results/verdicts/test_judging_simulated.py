"""Verdicts on simulated sweeps whose truth is known, and the published tables that come of these."""

import numpy as np
import pytest
from scipy import stats

from lenet_exp.results.verdicts.judging import Outcome, Sample, Settled, verdicts
from lenet_exp.results.verdicts.statistics import Floats, reading_level
from tests.labs.documents import STATISTICS, rows, section
from tests.labs.looks import looks
from tests.labs.noise import NOISES, differences
from tests.labs.simulated_questions import image_coverage, settled
from tests.labs.simulated_tables import (
    FINALISTS,
    IN_TABLES,
    SEEDS,
    SWEEPS,
    Key,
    auto_row,
    coverage_text,
    false_text,
    power_text,
    settled_row,
    share,
    violations,
)
from tests.labs.simulation import LEVEL, PRECISION, auto, cell, lower_bound
from tests.labs.stubborn import stubborn

NUMBERS = (3, 6, 9, 12)


def read_again_and_again(values: Floats) -> list[list[tuple[Outcome, float, float]]]:
    """Return each reading's verdicts and intervals, as the product gives them.

    Args:
        values: ``(finalists, seeds)``, differences from the baseline.
    """
    known: dict[str, Settled] = {}
    readings = []
    for reading, n in enumerate(NUMBERS, start=1):
        seeds = tuple(range(n))
        finalists = [Sample(str(i), tuple(row[:n].tolist()), seeds) for i, row in enumerate(values)]
        level = reading_level(LEVEL, reading)
        judged = verdicts(finalists, Sample("base", (0.0,) * n, seeds), level, known)
        readings.append([(each.verdict, each.delta_low, each.delta_high) for each in judged])
        known = {
            each.config: known.get(each.config, Settled(each.verdict, reading, level))
            for each in judged
            if each.verdict != "tie"
        }
    return readings


@pytest.mark.parametrize("noise", ["normal", "collapsing"])
def test_the_product_judges_as_the_simulated_plan(noise: str) -> None:
    """In 60 sweeps of three finalists, four readings give the same verdicts and intervals."""
    shifts = np.asarray([0.0, 1.0, -1.5])[:, None]
    values = differences(noise, 7, 60, 3, NUMBERS[-1]) + shifts
    expected = list(looks(values, NUMBERS, LEVEL))
    # All that can happen is among them: settled late, settled early, withdrawn.
    by = np.asarray([look.settled for look in expected])
    assert {1, 2, 3} <= set(by.ravel())
    assert ((by[:-1] > 0) & (by[1:] == 0)).any()

    for sweep, own in enumerate(values):
        for look, reading in zip(expected, read_again_and_again(own), strict=True):
            words = np.where(look.better[sweep], "better", np.where(look.worse[sweep], "worse", "tie"))
            assert [verdict for verdict, *_ in reading] == words.tolist()
            assert [low for _, low, _ in reading] == pytest.approx(look.low[sweep].tolist(), abs=1e-9)
            assert [high for *_, high in reading] == pytest.approx(look.high[sweep].tolist(), abs=1e-9)


def published(heading: str, key: Key) -> str:
    """Return a cell of the document's table below a heading, the first there."""
    noise, finalists, seeds = key
    row = IN_TABLES.index(noise) * len(FINALISTS) + FINALISTS.index(finalists)
    return rows(section(STATISTICS, heading))[row][2 + SEEDS.index(seeds)]


@pytest.mark.parametrize("key", [("normal", 3, 3), ("collapsing", 1, 5), ("skewed", 1, None)])
def test_the_published_tables_are_what_the_simulation_gives(key: Key) -> None:
    """To the last digit, in cells that take no time; `nox -s statistics` writes all of them anew."""
    result = cell(*key, SWEEPS)

    assert published("Where nothing differs", key) == false_text(result)
    assert published("Where finalists are better", key) == power_text(result)
    assert published("Whether the intervals hold", key) == coverage_text(result)


def test_the_published_numbers_of_seeds_are_what_the_simulation_gives() -> None:
    """Those of `auto`, and those that settle a tie: a row of each."""
    planned, named = auto(8, 3, PRECISION, SWEEPS), settled(10, 2.0, 3, SWEEPS)

    assert rows(section(STATISTICS, "What `auto` costs"))[6][1:] == auto_row(8, planned)
    assert rows(section(STATISTICS, "Whether the seeds named settle a tie"))[8][1:] == settled_row(2.0, named)
    # With a few sweeps, none of them undecided, the command still writes its tables.
    assert len(settled_row(2.0, settled(10, 2.0, 3, 100))) == 6


def test_the_level_is_kept_in_every_published_cell() -> None:
    """No rate of false *better* is above the level, nor is its lower bound."""
    cells = [text for row in rows(section(STATISTICS, "Where nothing differs")) for text in row[2:]]
    rates = [float(rate) for text in cells for rate in text.partition("(")[0].split()]

    assert len(rates) == len(IN_TABLES) * len(FINALISTS) * len(SEEDS) * 4
    assert max(rates) <= LEVEL


def test_a_level_that_is_not_kept_is_named() -> None:
    """By its cell, if chance cannot explain it."""
    lines = violations({"normal, 3 finalists, 5 seeds": 65, "skewed, 1 finalist, auto": 90}, 1000)

    bound = f"{lower_bound(90, 1000):.4f}"
    assert lines == [f"skewed, 1 finalist, auto: false better in more than {bound} of sweeps, level 0.05"]


def test_who_reads_until_something_is_better_keeps_the_level() -> None:
    """Here with one finalist and ten seeds at first, and as often as is published."""
    better, wrong = stubborn(10, 1, 0, SWEEPS)

    assert better < wrong <= LEVEL * SWEEPS
    shown = rows(section(STATISTICS, "Who reads until something is better"))[0][-1]
    assert shown == f"{share(better / SWEEPS)} {share(wrong / SWEEPS)}"


@pytest.mark.parametrize(("count", "of"), [(0, 20), (3, 20), (1060, 20_000)])
def test_the_lower_bound_is_that_of_scipy(count: int, of: int) -> None:
    """Clopper and Pearson's, of one side."""
    expected = stats.binomtest(count, of, alternative="greater").proportion_ci(0.99, "exact").low

    assert lower_bound(count, of) == pytest.approx(expected)


@pytest.mark.parametrize("noise", NOISES)
def test_the_simulated_differences_have_no_mean_and_a_deviation_of_one(noise: str) -> None:
    """So true differences are in deviations for any noise, and finalists share the baseline's trainings."""
    first, second = differences(noise, 1, 40_000, 2, 5).transpose(1, 0, 2).reshape(2, -1)

    assert first.mean() == pytest.approx(0, abs=0.02)
    # The fourth moment of the heavy-tailed noise is infinite.
    assert first.std() == pytest.approx(1, abs=0.05)
    assert np.corrcoef(first, second)[0, 1] > 0.05


def test_the_interval_for_other_images_holds_where_the_other_does_not() -> None:
    """Where the images decide more than the seeds, seeds alone promise too much."""
    other_images, these_images = image_coverage(5, 3.0, 400)

    assert other_images >= 0.94
    assert these_images < 0.7

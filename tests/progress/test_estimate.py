from __future__ import annotations

import random

import pytest

from lenet_exp.progress.estimate import Duration, Waiting, in_words, time_left
from lenet_exp.progress.state import Running, TimeLeft


def test_nothing_is_said_before_an_epoch_has_ended() -> None:
    """A guess would be worse than none."""
    assert time_left([], [Running("baseline", 10, ran_s=5.0)], Waiting(9), 2) is None


def test_the_first_epoch_of_the_first_training_says_much() -> None:
    """With one worker, nine trainings of 20 s and the 18 s that are left of the first."""
    running = [Running("baseline", 10, ran_s=2.0, trained_s=2.0, epoch=1)]

    left = time_left([], running, Waiting(9), 1)

    assert left is not None
    assert left.middle_s == pytest.approx(198)
    assert left.low_s < 150
    assert left.high_s > 250


def test_a_confirmation_counts_as_trainings_that_are_not_pruned() -> None:
    """The searched ones were ended after two of ten epochs; four that are confirmed get all of them."""
    ended = [Duration(2.0, 2, 10)] * 5

    search, both = (time_left(ended, [], Waiting(5, n), 1) for n in (0, 4))

    assert search is not None
    assert both is not None
    assert [search.middle_s, both.middle_s] == pytest.approx([10, 50])


@pytest.mark.parametrize(("workers", "pruned"), [(1, 0.0), (2, 0.5), (4, 0.3)])
def test_the_interval_holds_as_often_as_it_says(workers: int, pruned: float) -> None:
    """In four cases of five, or more often where nothing else runs on the machine, without being wide."""
    draw, holds, looks = random.Random(0), 0, 0
    for _ in range(60):
        free, ended = [0.0] * workers, []
        for _ in range(30):
            full_s = draw.lognormvariate(3, 0.4)
            epochs = draw.randint(1, 9) if draw.random() < pruned else 10
            begin = min(free)
            free[free.index(begin)] = begin + full_s * epochs / 10
            ended.append((begin, begin + full_s * epochs / 10, Duration(full_s * epochs / 10, epochs, 10)))
        for now in (ended[8][1], ended[20][1]):
            known = [d for _, end, d in sorted(ended, key=lambda each: each[1]) if end <= now]
            running = [
                Running("a", d.of_epochs, "", now - begin) for begin, end, d in ended if begin <= now < end
            ]
            left = time_left(known, running, Waiting(sum(begin > now for begin, _, _ in ended)), workers)
            assert left is not None
            holds += left.low_s <= max(free) - now <= left.high_s
            looks += 1
            assert left.high_s < 4 * left.low_s

    assert holds / looks >= 0.75


def test_a_sweep_that_is_done_takes_no_time() -> None:
    """Nothing runs and nothing waits."""
    assert time_left([Duration(2.0, 1, 1)], [], Waiting(), 2) == TimeLeft(0.0, 0.0, 0.0)


def test_times_are_told_in_one_unit_and_without_an_interval_that_says_nothing() -> None:
    """Seconds, minutes or hours, as one would say it."""
    assert in_words(TimeLeft(35, 44, 60)) == "about 44 s (35 to 60)"
    assert in_words(TimeLeft(0.4, 0.5, 0.9)) == "about 1 s"
    assert in_words(TimeLeft(20 * 3600, 30 * 3600, 50 * 3600)) == "about 30 h (20 to 50)"

from pathlib import Path

import pytest

from lenet_exp.base.errors import NoResultError
from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.cli.overhead import read_harness, small_sweep
from lenet_exp.tracking.events import End, RunLog


def attempt(number: int, start_s: float, end_s: float, train_s: float, evaluation_s: float) -> RunLog:
    result = EpochResult(1, 1.0, 0.5, 1.0, 0.5, 1000.0, train_s, evaluation_s)
    end = End(round(end_s * 1000), "COMPLETE", "", None)
    return RunLog(
        RunKey("trial", number, 1), {}, round(start_s * 1000), (result,), (round(end_s * 1000) - 100,), end
    )


def test_the_harness_is_what_is_left_of_a_place_s_time() -> None:
    """From the end of the trial before it to its own, less training and evaluation."""
    records = [
        attempt(0, 10.0, 14.0, train_s=2.0, evaluation_s=0.5),
        attempt(1, 10.0, 15.0, train_s=2.5, evaluation_s=0.5),
        attempt(2, 14.2, 18.0, train_s=3.0, evaluation_s=0.5),  # 4.0 s from 14.0
        attempt(3, 15.3, 20.0, train_s=4.0, evaluation_s=0.3),  # 5.0 s from 15.0
    ]

    harness = read_harness(records, workers=2, began=8.0)

    assert harness.trial_s == pytest.approx((0.5 + 0.7) / 2)
    # The epoch of the first was told at 13.9 and took 2.5 s.
    assert harness.first_step_s == pytest.approx(13.9 - 2.5 - 8.0)


def test_trials_that_waited_for_nobody_count_if_there_are_no_others() -> None:
    """One trial alone has a harness too."""
    alone = attempt(0, 10.0, 14.0, train_s=2.0, evaluation_s=0.5)

    assert read_harness([alone], workers=2, began=8.0).trial_s == pytest.approx(1.5)


def test_a_sweep_that_fails_is_named(tmp_path: Path, data_cache: Path) -> None:
    """Its last line is the reason."""
    path = tmp_path / "bad.toml"
    path.write_text('name = "bad"\n[data]\ndataset = "nothing"\n')

    with pytest.raises(NoResultError, match=r"ended with exit code 2: error: unknown data set 'nothing'"):
        small_sweep(path, [], workers=1, device="cpu")

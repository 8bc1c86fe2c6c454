from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from lenet_exp.base.errors import SweepInterruptedError
from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.hyperparameters import PRESETS, configuration
from lenet_exp.config.loader import parse
from lenet_exp.progress.reporter import PAGE_S, TIMING_S, Ending, Reporter, distinguishing
from lenet_exp.progress.state import Counts, Incumbent, Progress
from lenet_exp.study.records import Attempt


@pytest.fixture
def experiment() -> Experiment:
    space = {"lr": {"low": 0.001, "high": 0.1, "log": True}}
    return parse({"name": "e", "space": space, "search": {"trials": 4}, "training": {"epochs": 4}})


def attempt(experiment: Experiment, number: int, label: str) -> Attempt:
    key = RunKey("baseline" if label == "baseline" else "trial", number, 1)
    return Attempt(key, experiment.baseline_configuration, 0, label, key)


def test_it_knows_what_runs_what_is_best_and_how_attempts_have_ended(experiment: Experiment) -> None:
    """The incumbent's delta is known once the baseline has ended; a pruned training is never the best."""
    reporter = Reporter()
    reporter.begin_experiment(experiment, 2, [])
    reporter.search(is_confirmed=False)
    ends: list[tuple[str, Ending, float | None]] = [
        ("trial 0", "complete", 0.875),
        ("baseline", "complete", 0.75),
        ("trial 1", "pruned", 0.9),
        ("trial 2", "failed", None),
    ]
    for number, (label, ended, value) in enumerate(ends):
        run = attempt(experiment, number, label)
        reporter.begin(run)
        reporter.epoch(run.key, EpochResult(1, 1.0, 0.5, 1.0, value or 0.1, 1000.0, 1.0))
        reporter.end(run.key, label, ended, value)
    last = attempt(experiment, 9, "trial 3")
    reporter.begin(last)
    reporter.epoch(last.key, EpochResult(2, 1.0, 0.5, 1.0, 0.625, 2000.0, 1.0))
    reporter.position(3, 4, 0)

    progress = reporter.progress()

    assert progress.counts == Counts(complete=2, pruned=1, failed=1)
    assert progress.incumbent == Incumbent("trial 0", 0.875, 0.125)
    (running,) = progress.running
    assert (running.label, running.epoch, running.epochs) == ("trial 3", 2, 4)
    assert (running.accuracy, running.examples_per_s) == (0.625, 2000.0)
    assert (progress.phase, progress.n_done, progress.n_total) == ("search", 3, 4)
    assert progress.left is not None


def test_an_ablation_has_no_incumbent() -> None:
    """The best of its trainings is one lucky seed, which says nothing about an alternative."""
    reporter = Reporter()
    reporter.begin_experiment(parse({"name": "e", "ablate": {"pooling": ["avg"]}}), 2, [])

    reporter.end(RunKey("ablation", 1, 1), "pooling avg, seed 1", "complete", 0.9)

    progress = reporter.progress()
    assert (progress.counts.complete, progress.incumbent) == (1, None)


def test_the_time_left_counts_what_follows_the_last_training(experiment: Experiment) -> None:
    """Each finalist's timing, the test split and the page: in a short sweep they take as long as it."""
    lefts = []
    for is_confirmed in (False, True):
        reporter = Reporter()
        reporter.begin_experiment(experiment, 1, [])
        reporter.search(is_confirmed=is_confirmed)
        run = attempt(experiment, 1, "trial 1")
        reporter.begin(run)
        reporter.epoch(run.key, EpochResult(4, 1.0, 0.5, 1.0, 0.5, 1000.0, 1.0))
        lefts.append(reporter.progress().left)
        reporter.phase("timing", "trial 1")
        assert reporter.progress().left is None

    without, confirmed = lefts
    assert without is not None
    assert confirmed is not None
    assert PAGE_S <= without.middle_s < PAGE_S + 1
    assert confirmed.middle_s >= PAGE_S + TIMING_S * (experiment.confirm.top + 1)
    assert confirmed.low_s < confirmed.middle_s < confirmed.high_s


def test_a_plain_line_says_how_far_the_sweep_is(experiment: Experiment) -> None:
    """Where a board shows that, the line is as it is."""
    reporter = Reporter()
    reporter.begin_experiment(experiment, 2, [])
    reporter.search(is_confirmed=True)
    reporter.position(3, 4, 1)

    assert reporter.with_position("trial 2: 0.5") == "trial 2: 0.5"
    reporter.is_plain = True
    assert reporter.with_position("trial 2: 0.5") == "trial 2: 0.5; 3 of 4 trials"
    reporter.phase("confirmation", n_seeds=2)
    reporter.position(3, 4, 1)
    assert reporter.with_position("seed 1: 0.5") == "seed 1: 0.5; 3 of 4 trainings, 1 of 2 seeds"


def test_the_file_says_how_a_sweep_stands_and_how_it_ended(tmp_path: Path) -> None:
    """After an interruption too, with its reason."""
    file = tmp_path / "progress.json"
    reporter = Reporter()

    with pytest.raises(SweepInterruptedError, match="stopped"), reporter.recording(file):
        raise SweepInterruptedError("stopped by somebody", 130)
    assert (Progress.from_json(file.read_text()).phase, list(tmp_path.iterdir())) == ("interrupted", [file])

    with Reporter().recording(file):
        pass
    assert Progress.from_json(file.read_text()).phase == "done"


def test_how_a_sweep_stands_is_told_without_asking_anybody(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler asks too, which may have interrupted who holds a lock; a thread asks MLflow."""
    monkeypatch.setattr("lenet_exp.progress.reporter.WRITE_EVERY_S", 0.01)
    reporter, asking, end = Reporter(), set[str](), time.monotonic() + 5

    def tracking() -> str:
        asking.add(threading.current_thread().name)
        return "live"

    with reporter.recording(tmp_path / "progress.json"):
        reporter.begin_experiment(experiment, 2, [], tracking)
        while reporter.progress().tracking != "live" and time.monotonic() < end:
            reporter.phase("search")
            time.sleep(0.01)

    assert reporter.progress().tracking == "live"
    assert asking == {"progress"}


def test_a_file_that_cannot_be_written_disturbs_nothing(tmp_path: Path) -> None:
    """Its folder is gone, or something else has its place."""
    for place in (tmp_path / "gone" / "progress.json", tmp_path):
        with Reporter().recording(place):
            pass

    assert list(tmp_path.iterdir()) == []


def test_what_distinguishes_a_configuration_is_short(experiment: Experiment) -> None:
    """As in the tables, with the values of all layers in one."""
    other = configuration(PRESETS["lenet"] | {"lr": 0.00312, "channels": [4, 31, 31], "activation": "gelu"})

    assert distinguishing(experiment.baseline_configuration, experiment) == ""
    assert distinguishing(other, experiment) == "c4-31 gelu lr 0.00312"

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lenet_exp.base.errors import NoResultError, SweepInterruptedError
from lenet_exp.base.layout import Layout
from lenet_exp.base.records import EpochResult
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.loader import parse
from lenet_exp.config.trainings import FixedTraining
from lenet_exp.data.images import ImageSet
from lenet_exp.execution import checkpoint
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.execution.protocol import Conditions, Machine
from lenet_exp.execution.resources import DEFAULT, Limits, WorkerPlan
from lenet_exp.progress.state import Counts
from lenet_exp.study.records import TrialRecord
from lenet_exp.study.study import open_study
from lenet_exp.sweep.agenda import MAX_SAME_FAILURES, Failures
from lenet_exp.sweep.driver import MAX_INFEASIBLE, Driver
from lenet_exp.sweep.recovery import reconcile
from lenet_exp.sweep.salvage import damage
from lenet_exp.sweep.writer import Writer
from lenet_exp.tracking.spool import STUDY, Spool
from tests.labs.studies import read_records

MACHINE = Machine(("cpu",), "test", "float32", "2")
SMALL = {"channels": 4, "fc_layers": 1, "precision": "float32"}


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    executor = LocalExecutor()
    yield executor
    executor.close()


MakeDriver = Callable[..., Driver]


@pytest.fixture
def driver(executor: LocalExecutor, mini: ImageSet, tmp_path: Path) -> MakeDriver:
    def make(
        experiment: Experiment,
        fixed: list[FixedTraining] | None = None,
        when_spare: Callable[[], object] = lambda: None,
        timeout_s: float | None = None,
        workers: int = 2,
        limits: Limits = DEFAULT,
        root: Path = tmp_path,
        announce: Callable[[str], None] | None = None,
    ) -> Driver:
        layout = Layout.of(root, "e")
        layout.home.mkdir(parents=True, exist_ok=True)
        study = open_study(experiment, root)
        spool = Spool(layout.spool)
        reconcile(study, spool, layout)
        plan = WorkerPlan(workers, 1, "as asked")
        return Driver(
            Conditions(experiment, mini, MACHINE, layout, plan, limits),
            study,
            executor,
            Writer(study, spool, layout),
            fixed=fixed,
            timeout_s=timeout_s,
            announce=announce or said.append,
            when_spare=when_spare,
        )

    said: list[str] = []
    return make


def experiment(space: dict[str, Any], trials: int = 3, **parts: Any) -> Experiment:
    data = {
        "name": "e",
        "data": {"validation": 100, "limit": 100},
        "baseline": SMALL,
        "training": {"epochs": 2},
    }
    search = {"search": {"trials": trials, "pruner": "none", "startup_trials": 2}} if space else {}
    return parse(data | {"space": space} | search | parts)


def records(folder: Path, role: str = "trial") -> list[TrialRecord]:
    return [record for record in read_records("e", folder) or [] if record.key.role == role]


def kill_first(patch: pytest.MonkeyPatch, executor: LocalExecutor, role: str, after_s: float = 0.0) -> None:
    submit = executor.submit
    killed: list[int] = []

    def submit_and_kill_once(task: Any) -> None:
        submit(task)
        if task.key.role == role and not killed:
            time.sleep(after_s)
            killed.append(executor.processes[task.key])
            os.kill(killed[0], signal.SIGKILL)

    patch.setattr(executor, "submit", submit_and_kill_once)


LR = {"lr": {"low": 0.001, "high": 0.1, "log": True}}


def test_a_sweep_finishes_the_baseline_and_exactly_as_many_trials_as_asked(
    driver: MakeDriver, tmp_path: Path
) -> None:
    """Study, spool and CSV have the same values, row by row."""
    driver(experiment(LR, 3)).run()

    trials = records(tmp_path)
    table = pd.read_csv(tmp_path / "e" / "leaderboard.csv")
    assert [record.state for record in trials] == ["COMPLETE"] * 3
    assert len(records(tmp_path, "baseline")) == 1
    assert len(table) == 4
    spool = Spool(tmp_path / "e" / "spool")
    for record in trials:
        row = table[(table["role"] == "trial") & (table["trial"] == record.key.trial)].iloc[0]
        spooled = spool.read(record.key)
        assert spooled is not None
        assert row["val_accuracy"] == record.value == spooled.epochs[-1].val_accuracy
        assert (row["lr"], row["epochs"], row["config"]) == (record.values["lr"], 2, record.config)


def test_a_spare_worker_is_told_while_the_last_attempt_runs(
    driver: MakeDriver, executor: LocalExecutor
) -> None:
    """So that what comes after the sweep can be prepared; not while there is something to begin."""
    running: list[int] = []

    # Two trials and the baseline: an odd number for two workers, so the last runs alone.
    driver(experiment(LR, 2), when_spare=lambda: running.append(executor.running)).run()

    assert running
    assert set(running) == {1}


def test_a_finished_sweep_run_again_does_nothing(driver: MakeDriver, tmp_path: Path) -> None:
    """Neither another trial nor another baseline; a larger budget goes on from there."""
    driver(experiment(LR, 2)).run()
    before = read_records("e", tmp_path)

    driver(experiment(LR, 2)).run()
    assert read_records("e", tmp_path) == before

    driver(experiment(LR, 1)).run()
    assert read_records("e", tmp_path) == before

    driver(experiment(LR, 3)).run()
    assert len(records(tmp_path)) == 3


def test_a_configuration_is_trained_once_and_its_duplicates_are_told_its_value(
    driver: MakeDriver, tmp_path: Path
) -> None:
    """Six trials of a space with two points train twice; the others point to the original."""
    driver(experiment({"pooling": ["avg", "max"]}, 6)).run()

    trials = records(tmp_path)
    originals = {record.key.trial: record for record in trials if "duplicate_of" not in record.result}
    assert len(trials) == 6
    assert len(originals) == len({record.config for record in trials})
    for record in trials:
        if "duplicate_of" in record.result:
            original = originals[record.result["duplicate_of"]]
            assert (record.value, record.history, record.config) == (
                original.value,
                original.history,
                original.config,
            )
    assert damage(trials, Spool(tmp_path / "e" / "spool"), "e", "").keys() == {STUDY}  # never started here
    assert not any(record.is_edited for record in trials)


def test_infeasible_configurations_are_told_apart_and_cost_no_trial(
    driver: MakeDriver, tmp_path: Path
) -> None:
    """They are PRUNED with the reason, and three others are trained."""
    driver(experiment({"padding": 0, "kernel_size_2": [3, 13]} | LR, 3)).run()

    trials = records(tmp_path)
    infeasible = [record for record in trials if record.infeasible]
    assert len(trials) - len(infeasible) == 3
    assert all(record.state == "PRUNED" and record.values["kernel_size_2"] == 13 for record in infeasible)


def test_a_space_without_any_network_is_given_up(driver: MakeDriver, tmp_path: Path) -> None:
    """The sweep ends without a result, with the reason."""
    with pytest.raises(
        NoResultError, match=f"{MAX_INFEASIBLE} configurations in a row have no network.*13x13 map"
    ):
        driver(experiment({"kernel_size_1": 3, "padding_1": 0, "kernel_size_2": [15, 16]} | LR, 2)).run()


def test_a_diverged_trial_is_pruned_with_the_reason_and_never_the_best(
    driver: MakeDriver, tmp_path: Path
) -> None:
    """NaN reaches neither study nor CSV."""
    space = {"lr": [100.0], "optimizer": ["sgd"], "loss": ["mse"], "batch_size": [4]}
    driver(experiment(space, 1)).run()

    (record,) = records(tmp_path)
    assert (record.state, record.value) == ("PRUNED", None)
    assert record.reason.startswith("diverged: loss is")
    assert pd.read_csv(tmp_path / "e" / "leaderboard.csv")["rank"].notna().sum() == 1


def test_a_worker_that_dies_costs_its_attempt_which_is_tried_again(
    driver: MakeDriver, executor: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep goes on, and the trial has the value it would have had."""
    sweep = driver(experiment(LR, 2), workers=1)
    kill_first(monkeypatch, executor, "trial")
    sweep.run()

    trials = records(tmp_path)
    assert [record.state for record in trials].count("FAIL") == 1
    failed = next(record for record in trials if record.state == "FAIL")
    retried = next(record for record in trials if record.config == failed.config and record is not failed)
    assert failed.reason == "its process died with SIGKILL"
    assert (retried.state, retried.seed, retried.key.attempt) == ("COMPLETE", failed.seed, 2)
    assert [record.state for record in trials].count("COMPLETE") == 2


def test_an_interrupted_sweep_goes_on_to_the_same_end(driver: MakeDriver, tmp_path: Path) -> None:
    """Ctrl-C ends it with 130; run again it meets the budget, and nothing is left RUNNING or lost."""
    sweep = driver(experiment(LR, 3))
    sweep.interrupt()
    with pytest.raises(SweepInterruptedError, match="run the same command again"):
        sweep.run()

    driver(experiment(LR, 3)).run()

    finished = [record for record in records(tmp_path) if not record.superseded]
    assert [record.state for record in finished] == ["COMPLETE"] * 3


def test_with_one_worker_a_seed_says_which_trials_are_drawn_and_what_they_achieve(
    driver: MakeDriver, tmp_path: Path
) -> None:
    """Also once the sampler learns; with several workers it depends on the order in which trainings end."""
    first, second = tmp_path / "first", tmp_path / "second"
    for root in (first, second):
        driver(experiment(LR, 5), workers=1, root=root).run()

    drawn = [
        [(record.key.trial, record.config, record.value) for record in records(root)]
        for root in (first, second)
    ]
    assert len(drawn[0]) == 5
    assert drawn[0] == drawn[1]


def test_an_interruption_says_at_once_which_epochs_it_waits_for(
    driver: MakeDriver, executor: LocalExecutor
) -> None:
    """And that a second one drops them, which is not told again."""
    said: list[str] = []
    sweep = driver(experiment(LR, 3, training={"epochs": 1000}), announce=said.append)

    def interrupt_twice() -> None:
        while executor.running < 2:
            time.sleep(0.01)
        sweep.interrupt()
        sweep.interrupt()

    threading.Thread(target=interrupt_twice).start()
    with pytest.raises(SweepInterruptedError, match="run the same command again"):
        sweep.run()

    assert said == ["finishing the running epochs of baseline and trial 0; Ctrl-C again drops them"]


def test_a_sweep_whose_time_is_over_begins_no_trial_and_finishes_those_it_has(
    driver: MakeDriver, tmp_path: Path
) -> None:
    """What was begun counts; the rest is for the next call."""
    driver(experiment(LR, 50), timeout_s=0.01, workers=1).run()

    assert len(records(tmp_path)) + len(records(tmp_path, "baseline")) <= 1


def test_what_dies_when_the_time_is_over_is_not_said_to_be_tried_again_now(
    driver: MakeDriver, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it counted as retried: the next call does that."""
    said: list[str] = []
    endless = experiment(LR, 2, training={"epochs": 10_000})
    sweep = driver(endless, timeout_s=0.2, workers=1, announce=said.append)
    kill_first(monkeypatch, executor, "baseline", after_s=0.2)
    sweep.run()

    assert said == ["baseline: its process died with SIGKILL; the same command tries it again"]
    assert sweep._reporter.progress().counts == Counts()


def test_what_a_limit_ended_has_the_limit_on_record_and_is_trained_when_it_is_gone(
    driver: MakeDriver, tmp_path: Path
) -> None:
    """From its checkpoint, if it has one; the budget is met exactly."""
    driver(experiment(LR, 1), limits=Limits(trial_timeout_s=1e-6)).run()
    (cut,) = records(tmp_path)
    assert (cut.state, cut.result["trial_timeout_s"]) == ("PRUNED", 1e-6)
    checkpoint.save(
        tmp_path / "e" / "checkpoints" / "trial-00000-1", [EpochResult(1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)], b""
    )

    driver(experiment(LR, 1), limits=Limits(trial_timeout_s=1e-6)).run()
    assert records(tmp_path) == [cut]
    assert (tmp_path / "e" / "checkpoints" / "trial-00000-1").is_dir()
    checkpoint.discard(tmp_path / "e" / "checkpoints" / "trial-00000-1")
    driver(experiment(LR, 1)).run()

    (again,) = (record for record in records(tmp_path) if not record.superseded)
    assert (again.state, again.epochs, again.seed) == ("COMPLETE", 2, cut.seed)


def test_a_list_of_runs_is_trained_beside_the_baseline(driver: MakeDriver, tmp_path: Path) -> None:
    """Each once, with its label."""
    driver(experiment({}, run=[{"pooling": "avg", "name": "mean"}, {"activation": "tanh"}])).run()

    assert [record.label for record in records(tmp_path, "run")] == ["mean", "run 2"]
    assert {record.state for record in records(tmp_path, "run")} == {"COMPLETE"}


def test_given_jobs_are_trained_instead_of_a_search(driver: MakeDriver, tmp_path: Path) -> None:
    """On the images they name: with those of the validation joined there is nothing to validate on."""
    made = experiment(LR, 3)
    joined = FixedTraining("a", "confirm", "joined", made.baseline_configuration, 1, "train+validation")
    sweep = driver(made, fixed=[joined, replace(joined, name="b", label="alone", train_on="train")])

    sweep.run()

    assert sweep.is_complete
    assert {record.key.role for record in read_records("e", tmp_path) or []} == {"confirm"}
    spool = Spool(tmp_path / "e" / "spool")
    by_label = {record.label: record for record in records(tmp_path, "confirm")}
    assert by_label["joined"].value is None
    assert (by_label["joined"].epochs, by_label["joined"].state) == (2, "COMPLETE")
    assert "val_accuracy" not in by_label["joined"].result
    assert by_label["alone"].value == by_label["alone"].result["val_accuracy"]
    spooled = {label: spool.read(record.key) for label, record in by_label.items()}
    seen = {
        label: one and (one.epochs[-1].train_loss, one.metadata["tags"]) for label, one in spooled.items()
    }
    assert seen["joined"][0] != seen["alone"][0]  # type: ignore[index] # both were trained
    assert seen["joined"][1]["lenet_exp.train_on"] == "train+validation"  # type: ignore[index] # likewise


def test_a_sweep_that_was_cut_short_is_not_complete(driver: MakeDriver, tmp_path: Path) -> None:
    """What follows a search can tell whether it has ended."""
    short = driver(experiment(LR, 2), timeout_s=0.0)
    short.run()
    whole = driver(experiment(LR, 2))
    whole.run()

    assert (short.is_complete, whole.is_complete) == (False, True)


def test_a_bug_in_every_attempt_ends_the_sweep(driver: MakeDriver, tmp_path: Path) -> None:
    """Five equal tracebacks are enough; the traceback is kept for whoever mends it."""
    (tmp_path / "e").mkdir(exist_ok=True)
    (tmp_path / "e" / "checkpoints").write_text("a file where a folder should be")

    with pytest.raises(
        NoResultError, match=r"5 attempts in a row failed with the same error: .*traceback.txt"
    ):
        driver(experiment(LR, 20)).run()

    assert "Traceback" in (tmp_path / "e" / "traceback.txt").read_text()
    assert all(record.state == "FAIL" for record in records(tmp_path))


def test_the_same_bug_in_a_row_stops_and_its_traceback_is_kept(tmp_path: Path) -> None:
    """Numbers that differ, such as a trial's, do not make it another bug."""
    failures = Failures(tmp_path / "traceback.txt")
    for number in range(MAX_SAME_FAILURES - 1):
        failures.note("ValueError: no", f"line {number}: ValueError")

    with pytest.raises(
        NoResultError,
        match=r"5 attempts in a row failed with the same error: ValueError: no; .*traceback\.txt",
    ):
        failures.note("ValueError: no", "line 9: ValueError")

    assert (tmp_path / "traceback.txt").read_text() == "line 0: ValueError"


def test_a_success_or_another_bug_in_between_goes_on(tmp_path: Path) -> None:
    """Only a row of the same is hopeless."""
    failures = Failures(tmp_path / "traceback.txt")

    for _ in range(2 * MAX_SAME_FAILURES):
        failures.note("ValueError: a", "a")
        failures.note("ValueError: b", "b")
    failures.forget()
    for _ in range(MAX_SAME_FAILURES - 1):
        failures.note("ValueError: a", "a")

"""Crashes of worker and driver, at every place between two writes and at random instants.

Epochs are played (`fake_trainer`); processes, pipes, files, study and MLflow are the real ones.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_harness import Round
from crash_lab import Zygote

from lenet_exp.record import TrialRecord
from lenet_exp.study import read_records


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """What starts the commands of this module."""
    zygote = Zygote(
        LENET_EXP_TRAINER="fake_trainer",
        LENET_EXP_DATA=str(tmp_path_factory.mktemp("data")),
        FAKE_TRAINER_EPOCH_S="0.005",
        OMP_NUM_THREADS="1",
    )
    yield zygote
    zygote.close()


def records(folder: Path) -> list[TrialRecord]:
    return read_records("harness", folder / "root") or []


@pytest.mark.parametrize(
    ("fault", "whose"),
    [
        ("after_ask:3", "driver"),
        ("spool:2", "driver"),
        ("spool:12", "driver"),
        ("before_tell:2", "driver"),
        ("in_tell:2", "driver"),
        ("after_tell:2", "driver"),
        ("in_csv:3", "driver"),
        ("after_mlflow:2", "driver"),
        ("epoch:2", "worker"),
        ("checkpoint:2", "worker"),
        ("before_send:3", "worker"),
        ("completed", "worker"),
    ],
)
def test_a_kill_between_any_two_writes_loses_and_doubles_nothing(
    zygote: Zygote, tmp_path: Path, fault: str, whose: str
) -> None:
    """Run again, the sweep ends as it would have: all that the harness judges holds."""
    study = Round(zygote, tmp_path, trials=4)

    command = study.start(LENET_EXP_FAULT=f"{fault}:kill", LENET_EXP_FAULT_ONCE=str(tmp_path / "marker"))
    command.wait()

    assert (tmp_path / "marker").exists()
    assert command.code == (-signal.SIGKILL if whose == "driver" else 0), command.err
    study.settle(command)
    study.finish()
    died = [r.reason for r in records(tmp_path) if r.state == "FAIL"]
    assert died == (["its process died with SIGKILL"] if whose == "worker" else died)


def test_a_result_that_was_whole_when_the_driver_died_is_not_computed_again(
    zygote: Zygote, tmp_path: Path
) -> None:
    """The spool had it, and the study was not told any more: it is told at the next start."""
    study = Round(zygote, tmp_path, trials=3)

    command = study.start(LENET_EXP_FAULT="before_tell:2:kill", LENET_EXP_FAULT_ONCE=str(tmp_path / "marker"))
    command.wait()
    told = {record.key for record in records(tmp_path)}
    study.finish()

    assert len(told) == 1
    spooled = (tmp_path / "root" / "harness" / "spool").glob("*-1.jsonl")
    ended = {file.stem for file in spooled if '"COMPLETE"' in file.read_text()}
    complete = {record.key.stem for record in records(tmp_path) if record.state == "COMPLETE"}
    assert ended <= complete
    assert len(ended - {key.stem for key in told}) >= 1


def test_a_retry_that_was_queued_before_the_driver_died_is_queued_once(
    zygote: Zygote, tmp_path: Path
) -> None:
    """Killed between queueing it and telling the failure, the driver finds it in the queue."""
    study = Round(zygote, tmp_path, trials=3)
    command = study.start(
        LENET_EXP_FAULT="after_retry:kill",
        LENET_EXP_FAULT_ONCE=str(tmp_path / "marker"),
        FAKE_TRAINER_EPOCH_S="0.5",
    )
    spool = tmp_path / "root" / "harness" / "spool"
    from crash_lab import kill, until

    until(lambda: any(spool.glob("trial-*")), command)
    kill(command.pid, signal.SIGINT)
    assert command.wait() == -signal.SIGKILL

    study.finish()


def test_kills_at_random_instants_lose_and_double_nothing(zygote: Zygote, tmp_path: Path) -> None:
    """A dozen and more, of workers and drivers, on a schedule of its own; `nox -s crash` has many more."""
    Round(zygote, tmp_path, seed=1).run(15)

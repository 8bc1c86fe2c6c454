"""Crashes of worker and driver, at every place between two writes and at random instants.

Epochs are played (`fake_trainer`); processes, pipes, files, study and MLflow are the real ones.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lenet_exp.study.records import TrialRecord
from tests.crash.kills import Round
from tests.labs.crash_lab import Command, Zygote, kill, session, until
from tests.labs.studies import read_records


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """What starts the commands of this module."""
    zygote = Zygote(
        LENET_EXP_TRAINER="tests.labs.fake_trainer",
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
        ("spool:12", "driver"),
        ("in_tell:2", "driver"),
        ("after_tell:2", "driver"),
        ("in_csv:3", "driver"),
        ("after_mlflow:2", "driver"),
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
    until(lambda: any(spool.glob("trial-*")), command)
    kill(command.pid, signal.SIGINT)
    assert command.wait() == -signal.SIGKILL

    study.finish()


@pytest.mark.slow
def test_kills_at_random_instants_lose_and_double_nothing(zygote: Zygote, tmp_path: Path) -> None:
    """A dozen and more, of workers and drivers, on a schedule of its own; `nox -s crash` has many more."""
    Round(zygote, tmp_path, seed=1).run(15)


def in_training(study: Round, folder: Path, **environment: str) -> Command:
    """Start the command, and return it once a trial has trained an epoch."""
    command = study.start(**environment)
    spool = folder / "root" / "harness" / "spool"
    until(lambda: any('"epoch"' in file.read_text() for file in spool.glob("trial-*")), command)
    return command


def test_ctrl_c_lets_the_epochs_end_and_the_next_start_goes_on_behind_them(
    zygote: Zygote, tmp_path: Path
) -> None:
    """Exit code 130, a checkpoint of each trial, and after the next start nothing was trained twice."""
    study = Round(zygote, tmp_path, trials=2)
    command = in_training(study, tmp_path, FAKE_TRAINER_EPOCH_S="0.4")

    os.killpg(command.pid, signal.SIGINT)

    assert command.wait() == 130
    assert command.err.endswith("error: interrupted; run the same command again to go on\n")
    study.settle(command)
    cut = [record for record in records(tmp_path) if record.reason == "interrupted"]
    home = tmp_path / "root" / "harness"
    assert cut
    for record in cut:
        assert (home / "checkpoints" / record.key.stem / f"epoch-{record.epochs:05d}.state").exists()
    study.finish()
    for record in cut:
        # A resumed training in this trainer says how long its epochs took when they were trained.
        again = next(file for file in (home / "spool").glob("*-2.jsonl") if record.key.role in file.name)
        assert f'"train_s":{0.4 * record.epochs}' in again.read_text()


def test_ctrl_c_twice_drops_the_epochs(zygote: Zygote, tmp_path: Path) -> None:
    """However long they are; what was finished before stays."""
    study = Round(zygote, tmp_path, trials=1)
    command = study.start(FAKE_TRAINER_EPOCH_S="600")
    until(lambda: bool(command.workers()), command)

    began = time.monotonic()
    for _ in range(2):
        kill(command.pid, signal.SIGINT)
        time.sleep(0.5)

    assert command.wait() == 130
    assert time.monotonic() - began < 15
    study.finish()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "epoch_s"), [(signal.SIGTERM, 600), (signal.SIGUSR1, 0.3)])
def test_what_a_cluster_sends_ends_the_sweep_within_25_seconds(
    zygote: Zygote, tmp_path: Path, number: signal.Signals, epoch_s: float
) -> None:
    """With exit code 143, in the middle of a long epoch, or sent to all processes at once."""
    study = Round(zygote, tmp_path, trials=1)
    command = study.start(FAKE_TRAINER_EPOCH_S=str(epoch_s))
    until(lambda: bool(command.workers()), command)

    began = time.monotonic()
    if number == signal.SIGTERM:
        kill(command.pid, number)
    else:
        for pid in session(command.pid):
            kill(pid, number)

    assert command.wait() == 143
    assert time.monotonic() - began < 25
    study.finish()


def test_a_full_disk_ends_the_sweep_and_keeps_what_was_told(zygote: Zygote, tmp_path: Path) -> None:
    """Exit code 5; the same command goes on when there is room."""
    study = Round(zygote, tmp_path, trials=4)

    command = study.start(LENET_EXP_FAULT="spool:20:enospc", LENET_EXP_FAULT_ONCE=str(tmp_path / "marker"))

    assert command.wait() == 5
    assert re.search(r"^error: .*no space left on its disk; make room and run", command.err, re.M)
    study.settle(command)
    study.finish()


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_is_really_full_ends_the_sweep_and_keeps_what_was_told(
    zygote: Zygote, tmp_path: Path
) -> None:
    """Wherever it was met: spool, study, MLflow or CSV."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no mounting here, in a container for example")
    try:
        study = Round(zygote, disk, trials=60)
        command = study.start("--min-free", "0")
        code = command.wait()
        assert code == 5, command.err
        assert "Traceback" not in command.err
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        study.settle(command)
        study.finish("--min-free", "0")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_sweep_stops_before_the_disk_is_full(zygote: Zygote, tmp_path: Path) -> None:
    """Exit code 5, with what there is and what it takes."""
    command = Round(zygote, tmp_path).start("--min-free", "999T")

    assert command.wait() == 5
    assert re.search(r"no space: [\d,]+ MB are free on its disk, and a sweep needs [\d,]+ MB;", command.err)


def test_a_checkpoint_that_cannot_be_written_costs_a_warning(zygote: Zygote, tmp_path: Path) -> None:
    """The trial goes on, and so does the sweep."""
    study = Round(zygote, tmp_path, trials=2)

    command = study.start(
        LENET_EXP_FAULT="checkpoint:2:enospc", LENET_EXP_FAULT_ONCE=str(tmp_path / "marker")
    )

    assert command.wait() == 0
    assert re.search(r"^warning: \S+-1: no checkpoint: .*no space left", command.err, re.M)
    study.settle(command)
    study.judge()


@pytest.mark.slow
def test_a_trial_that_hangs_is_ended_by_its_time_limit(zygote: Zygote, tmp_path: Path) -> None:
    """As pruned, with the reason; the others go on."""
    study = Round(zygote, tmp_path, trials=3)

    command = study.start(
        "--trial-timeout", "2s", LENET_EXP_FAULT="epoch:2:hang", LENET_EXP_FAULT_ONCE=str(tmp_path / "marker")
    )

    # It may be the baseline, without which there is no result.
    assert command.wait() == (3 if "error: the baseline is not complete" in command.err else 0)
    ended = [(record.state, record.reason) for record in records(tmp_path) if "timeout" in record.reason]
    assert ended == [("PRUNED", "timeout: not done after 2 s")]
    command = study.start()
    assert command.wait() == 0
    assert "trying again what a limit or a failure ended before: 1 training" in command.err
    study.settle(command)
    study.judge()


def test_a_trial_without_memory_is_tried_once_more_alone_and_then_pruned(
    zygote: Zygote, tmp_path: Path
) -> None:
    """It is told apart from a bug, and does not end the sweep; as nothing completed, it has no result."""
    study = Round(zygote, tmp_path, trials=2)

    command = study.start("--trial-memory", "500M", FAKE_TRAINER_ALLOCATES="3000000000")

    assert command.wait() == 3, command.err
    assert "error: nothing completed: 3 oom" in command.err
    tried = sorted((r.key.role, r.state, r.reason.partition(":")[0]) for r in records(tmp_path))
    assert tried == sorted(
        [("baseline", "FAIL", "MemoryError"), ("baseline", "PRUNED", "oom")]
        + [("trial", "FAIL", "MemoryError"), ("trial", "PRUNED", "oom")] * 2
    )
    again = [file.read_text() for file in (tmp_path / "root" / "harness" / "spool").glob("*-2.jsonl")]
    assert all('"lenet_exp.co_runners":"0"' in text for text in again)
    assert command.err.count("; trying again alone") == 3
    command = study.start()
    assert command.wait() == 0
    study.settle(command)
    study.judge()

import os
import signal
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from lenet_exp.base.errors import DeviceError
from lenet_exp.base.records import RunKey
from lenet_exp.config.hyperparameters import PRESETS, configuration, overlay
from lenet_exp.data.images import ImageSet
from lenet_exp.execution.executor import LocalExecutor, _exit
from lenet_exp.execution.protocol import Ended, Epoch, Event, Task
from lenet_exp.execution.resources import OomKills
from tests.labs import tasks


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    executor = LocalExecutor()
    yield executor
    executor.close()


@pytest.fixture
def task(mini: ImageSet, tmp_path: Path) -> Task:
    return make_task(mini, tmp_path)


def make_task(images: ImageSet, root: Path, number: int = 0, device: str = "cpu", **values: object) -> Task:
    small = {"channels": 4, "fc_layers": 1, "epochs": 2, "precision": "float32"}
    made = configuration(overlay(PRESETS["lenet"], small | values))
    return tasks.make_task(images, root, made, limit=200, number=number, device=device)


def until_ended(executor: LocalExecutor, attempts: int = 1) -> list[Event]:
    events: list[Event] = []
    while sum(isinstance(event, Ended) for event in events) < attempts:
        events += executor.events(timeout_s=60)
    return events


def test_an_attempt_streams_its_epochs_and_leaves_its_weights(executor: LocalExecutor, task: Task) -> None:
    """Each epoch comes in order, then the end, and the weights lie where they were asked for."""
    executor.submit(task)

    *epochs, end = until_ended(executor)

    assert [event.result.epoch for event in epochs if isinstance(event, Epoch)] == [1, 2]
    assert isinstance(end, Ended)
    assert (end.key, end.how) == (task.key, "completed")
    assert task.conditions.layout.weights(task.key).exists()
    assert executor.running == 0


def test_a_signal_without_a_name_has_its_number() -> None:
    """Real-time signals are numbers, of which Python names two."""
    reasons = [_exit(-number) for number in (signal.SIGSEGV, signal.SIGRTMIN + 3)]

    assert reasons == ["SIGSEGV", f"signal {signal.SIGRTMIN + 3}"]
    assert _exit(7) == "exit code 7"


def test_attempts_side_by_side_give_what_they_give_alone(
    executor: LocalExecutor, mini: ImageSet, tmp_path: Path
) -> None:
    """Two at once have the numbers of one, bit for bit, on as many threads each."""
    for number in range(2):
        executor.submit(make_task(mini, tmp_path, number))
    together = [event for event in until_ended(executor, 2) if isinstance(event, Epoch)]
    executor.submit(make_task(mini, tmp_path, 2))
    alone = [event for event in until_ended(executor) if isinstance(event, Epoch)]

    for number in range(2):
        mine = [event.result.val_loss for event in together if event.key.trial == number]
        assert mine == [event.result.val_loss for event in alone]


def test_a_killed_process_is_seen_at_once_and_named(
    executor: LocalExecutor, mini: ImageSet, tmp_path: Path
) -> None:
    """Its end of file is the event; the others go on."""
    doomed = make_task(mini, tmp_path, 0, epochs=10_000)
    executor.submit(doomed)
    executor.submit(make_task(mini, tmp_path, 1))
    os.kill(executor.processes[doomed.key], signal.SIGKILL)

    ends = {event.key: event for event in until_ended(executor, 2) if isinstance(event, Ended)}

    assert (ends[doomed.key].how, ends[doomed.key].reason) == ("died", "its process died with SIGKILL")
    assert ends[RunKey("trial", 1, 1)].how == "completed"


def test_what_is_watched_comes_with_each_epoch_and_changes_nothing(
    executor: LocalExecutor, mini: ImageSet, tmp_path: Path
) -> None:
    """Test curve and diagnostics stand beside the same training, number by number."""
    plain = make_task(mini, tmp_path, 0)
    made = plain.attempt.configuration
    watch = {"diagnostics": True}
    watched = tasks.make_task(mini, tmp_path, made, limit=200, number=1, test_images=mini, watch=watch)
    executor.submit(plain)
    executor.submit(watched)

    epochs = [event for event in until_ended(executor, 2) if isinstance(event, Epoch)]

    one, other = ([e.result for e in epochs if e.key == task.key] for task in (plain, watched))
    assert [(r.epoch, r.train_loss, r.val_loss) for r in one] == [
        (r.epoch, r.train_loss, r.val_loss) for r in other
    ]
    assert [r.watched for r in one] == [{}, {}]
    assert {"test_loss", "test_accuracy", "dead_share_conv1", "grad_norm_conv1"} <= set(other[0].watched)
    assert other[0].watched != other[1].watched


def test_an_attempt_that_is_told_to_stops_after_the_epoch_it_is_in(
    executor: LocalExecutor, mini: ImageSet, tmp_path: Path
) -> None:
    """What it had trained is whole epochs, and it ends as stopped."""
    task = make_task(mini, tmp_path, epochs=10_000)
    executor.submit(task)
    assert list(executor.events(timeout_s=60))

    executor.finish_epoch(task.key)

    end = until_ended(executor)[-1]
    assert isinstance(end, Ended)
    assert end.how == "stopped"


def test_an_attempt_that_is_stopped_is_gone_and_says_nothing_more(
    executor: LocalExecutor, mini: ImageSet, tmp_path: Path
) -> None:
    """A pruned trial costs nothing from then on."""
    task = make_task(mini, tmp_path, epochs=10_000)
    executor.submit(task)
    pid = executor.processes[task.key]

    executor.stop(task.key)
    executor.stop(task.key)

    assert list(executor.events(timeout_s=0)) == []
    assert executor.running == 0
    with pytest.raises(ProcessLookupError, match="No such process"):
        os.kill(pid, 0)


def test_a_loss_that_is_not_finite_ends_as_diverged(
    executor: LocalExecutor, mini: ImageSet, tmp_path: Path
) -> None:
    """It is told apart from a bug."""
    executor.submit(make_task(mini, tmp_path, optimizer="sgd", lr=100.0, loss="mse", epochs=20, batch_size=8))

    end = until_ended(executor)[-1]

    assert isinstance(end, Ended)
    assert end.how == "diverged"
    assert end.reason.startswith("diverged: loss is")


def test_a_bug_ends_as_failed_with_its_traceback(
    executor: LocalExecutor, mini: ImageSet, tmp_path: Path
) -> None:
    """One line for people, the rest for whoever mends it."""
    task = make_task(mini, tmp_path)
    task.conditions.layout.root.mkdir(exist_ok=True)
    task.conditions.layout.home.write_text("a file where the folder should be")
    executor.submit(task)

    end = until_ended(executor)[-1]

    assert isinstance(end, Ended)
    assert end.how == "failed"
    assert end.reason.startswith("DiskError")
    assert "Traceback" in end.details


def test_waking_ends_the_waiting(executor: LocalExecutor) -> None:
    """A signal handler can make a driver look up."""
    executor.wake()

    assert list(executor.events(timeout_s=None)) == []


def test_probing_says_what_a_device_is_or_why_not(executor: LocalExecutor) -> None:
    """A device is tried in a process of its own, before any training."""
    machine = executor.probe("cpu")

    assert machine.devices == ("cpu",)
    assert machine.precision in ("float32", "bfloat16")
    with pytest.raises(DeviceError, match="'cuda:99' cannot be used"):
        executor.probe("cuda:99")


def test_a_process_that_the_system_killed_for_its_memory_is_told_apart(
    mini: ImageSet, tmp_path: Path
) -> None:
    """The kernel counts its kills; the same signal from anybody else is a death like others."""
    counter = tmp_path / "memory.events"
    counter.write_text("oom_kill 0\n")
    executor = LocalExecutor(oom_kills=OomKills(counter))
    ends = []
    for number, kills in ((0, 1), (1, 1)):
        task = make_task(mini, tmp_path, number, epochs=10_000)
        executor.submit(task)
        counter.write_text(f"oom_kill {kills}\n")
        os.kill(executor.processes[task.key], signal.SIGKILL)
        ends += [event for event in until_ended(executor) if isinstance(event, Ended)]
    executor.close()

    assert [end.how for end in ends] == ["oom", "died"]


def test_an_attempt_whose_time_is_over_is_terminated(
    executor: LocalExecutor, mini: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By SIGTERM; where that does not help, by SIGKILL after a while."""
    monkeypatch.setattr("lenet_exp.execution.executor.GRACE_S", 0.2)
    for number, is_deaf in ((0, False), (1, True)):
        task = make_task(mini, tmp_path, number, epochs=10_000)
        executor.submit(task)
        assert list(executor.events(timeout_s=60))
        if is_deaf:
            monkeypatch.setattr(ForkServerProcess, "terminate", lambda _: None)
        executor.terminate(task.key)

        end = until_ended(executor)[-1]

        assert isinstance(end, Ended)
        assert (end.how, end.reason) == (
            "died",
            f"its process died with {'SIGKILL' if is_deaf else 'SIGTERM'}",
        )

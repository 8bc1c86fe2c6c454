from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lenet_exp.base import failpoints
from lenet_exp.base.records import RunKey
from lenet_exp.config.hyperparameters import PRESETS, configuration
from lenet_exp.data.images import ImageSet
from lenet_exp.execution import checkpoint
from lenet_exp.execution.protocol import Ended, Epoch, Event, Task, Warned
from lenet_exp.execution.worker import attempt
from tests.labs import fake_trainer
from tests.labs.tasks import make_task


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm(None)


@pytest.fixture
def task(mini: ImageSet, tmp_path: Path) -> Task:
    made = make_task(mini, tmp_path, configuration(PRESETS["lenet"] | {"epochs": 4}), limit=100)
    return replace(made, checkpoints=True)


def run(task: Task, stop_after: int = 99) -> list[Event]:
    events: list[Event] = []
    ended = attempt(task, fake_trainer, events.append, lambda: len(events) >= stop_after)
    return [*events, ended]


def test_an_attempt_that_is_stopped_goes_on_in_the_next(task: Task) -> None:
    """The next one sends the epochs as they were, and trains what is left: the end is the same."""
    whole = run(replace(task, checkpoints=False))

    *first, stopped = run(task, stop_after=2)
    *second, ended = run(replace(task, attempt=replace(task.attempt, key=RunKey("trial", 7, 2))))

    assert stopped == Ended(task.key, "stopped", "interrupted")
    assert [e.replayed for e in second if isinstance(e, Epoch)] == [True, True, False, False]
    assert [e.result for e in second if isinstance(e, Epoch)] == [
        e.result for e in whole if isinstance(e, Epoch)
    ]
    assert len(first) == 2
    assert isinstance(ended, Ended)
    assert ended.how == "completed"


def test_an_attempt_that_died_after_its_last_epoch_trains_nothing_again(task: Task) -> None:
    """All epochs are behind its checkpoint."""
    run(task)

    *epochs, ended = run(task)

    assert [e.replayed for e in epochs if isinstance(e, Epoch)] == [True] * 4
    assert ended == Ended(task.key, "completed")


def test_without_room_for_a_checkpoint_the_attempt_goes_on_and_warns_once(task: Task) -> None:
    """The older one stays, and is gone on from if it comes to that."""
    run(task, stop_after=1)
    failpoints.arm("checkpoint:1:enospc")

    events = run(task)

    assert [type(event) for event in events] == [Epoch, Warned, Epoch, Epoch, Epoch, Ended]
    found = checkpoint.newest(task.conditions.layout.training(task.attempt.origin))
    assert found is not None
    assert found.history[-1].epoch == 4

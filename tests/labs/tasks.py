"""A task as a driver would hand it to a process."""

from pathlib import Path
from typing import Any

from lenet_exp.base.layout import Layout
from lenet_exp.base.records import RunKey, TrainOn
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.config.loader import parse
from lenet_exp.data.images import ImageSet
from lenet_exp.execution.protocol import Conditions, Machine, Task
from lenet_exp.execution.resources import WorkerPlan
from lenet_exp.study.records import Attempt


def make_task(
    images: ImageSet,
    root: Path,
    configuration: Configuration,
    *,
    limit: int,
    number: int = 0,
    device: str = "cpu",
    train_on: TrainOn = "train",
    test_images: ImageSet | None = None,
    **parts: Any,
) -> Task:
    """Return the task of training a configuration from seed 1, 100 of the images kept for validation."""
    experiment = parse(
        {"name": "e", "data": {"validation": 100, "limit": limit}, "run": [{"lr": 0.1}], **parts}
    )
    machine, plan = Machine((device,), "test", "float32", "2"), WorkerPlan(1, 1, "as asked")
    layout = Layout.of(root, "e")
    conditions = Conditions(experiment, images, machine, layout, plan, test_images=test_images)
    key = RunKey("trial", number, 1)
    attempt = Attempt(key, configuration, seed=1, label=f"trial {number}", origin=key, train_on=train_on)
    return Task(attempt, conditions, device, checkpoints=False)

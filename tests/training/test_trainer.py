import pickle
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lenet_exp.base.records import EpochResult
from lenet_exp.base.seeding import derive_seed
from lenet_exp.config.hyperparameters import PRESETS, configuration, overlay
from lenet_exp.data.images import ImageSet
from lenet_exp.data.split import validation_split
from lenet_exp.execution.protocol import Task
from lenet_exp.training import loop, trainer
from tests.labs.tasks import make_task

SMALL = {"channels": 4, "fc_layers": 1, "epochs": 3, "precision": "float32"}


def task(images: ImageSet, root: Path, **others: Any) -> Task:
    return make_task(images, root, configuration(overlay(PRESETS["lenet"], SMALL)), limit=300, **others)


def numbers(results: list[EpochResult]) -> list[tuple[float, ...]]:
    return [(r.train_loss, r.train_accuracy, r.val_loss, r.val_accuracy) for r in results]


def test_a_task_is_trained_and_its_weights_are_left(mini: ImageSet, tmp_path: Path) -> None:
    """Every epoch says how long its evaluation took; nothing is watched unless it was asked for."""
    training = trainer.begin(task(mini, tmp_path))

    results = list(training.epochs())
    training.save_weights(tmp_path / "weights.safetensors")

    assert [result.epoch for result in results] == [1, 2, 3]
    assert all(result.evaluation_s > 0 and not result.watched for result in results)
    assert set(load_file(tmp_path / "weights.safetensors")) >= {"features.0.weight", "classifier.1.weight"}


def test_another_process_goes_on_from_a_snapshot(mini: ImageSet, tmp_path: Path) -> None:
    """It ends with the numbers of one that never stopped, bit for bit."""
    whole = list(trainer.begin(task(mini, tmp_path)).epochs())
    cut = trainer.begin(task(mini, tmp_path))
    before = list(islice(cut.epochs(), 1))

    second = trainer.begin(task(mini, tmp_path))
    second.restore(cut.snapshot(), before[-1])

    assert numbers([*before, *second.epochs()]) == numbers(whole)


def test_what_is_watched_is_measured_after_each_epoch(mini: ImageSet, tmp_path: Path) -> None:
    """On other images, and layer by layer."""
    watched = trainer.begin(task(mini, tmp_path, test_images=mini, watch={"diagnostics": True}))

    (result, *_) = watched.epochs()

    assert {"test_loss", "test_accuracy", "grad_norm_conv1", "dead_share_conv1"} <= set(result.watched)
    assert 0 <= result.watched["test_accuracy"] <= 1


def test_what_a_training_uses_is_measured_if_asked_for(mini: ImageSet, tmp_path: Path) -> None:
    """Each epoch has its processor time and its peak of memory; the training is the same bit for bit."""
    plain = list(trainer.begin(task(mini, tmp_path)).epochs())

    results = list(trainer.begin(task(mini, tmp_path, watch={"system_metrics": True})).epochs())

    names = ["system/cpu_utilization_percentage", "system/memory_peak_megabytes"]
    assert [list(result.watched) for result in results] == [names] * 3
    assert all(0 < result.watched[names[0]] <= 400 for result in results)  # the tests' own threads count too
    assert all(50 < result.watched[names[1]] < 50_000 for result in results)
    assert numbers(results) == numbers(plain)


def test_joined_images_leave_none_to_validate_on(mini: ImageSet, tmp_path: Path) -> None:
    """As a confirmation may ask for; the accuracy is then no number."""
    (result, *_) = trainer.begin(task(mini, tmp_path, train_on="train+validation")).epochs()

    assert result.val_accuracy != result.val_accuracy


def test_a_resampled_training_is_that_of_the_division_of_its_seed(mini: ImageSet, tmp_path: Path) -> None:
    """Whoever knows the seed repeats it, bit for bit, and so does what goes on from a snapshot."""
    resampled = task(mini, tmp_path, train_on="train, resampled")
    pixels, labels = loop.load(mini, torch.device("cpu"))
    split = validation_split(labels.numpy(), 100, derive_seed(1, "division"), 300)
    train, validation = (
        loop.Images(pixels, labels, torch.from_numpy(i)) for i in (split.train, split.validation)
    )
    state = loop.begin(resampled.attempt.configuration, seed=1)
    cut = trainer.begin(resampled)
    before = list(islice(cut.epochs(), 1))

    second = trainer.begin(resampled)
    second.restore(cut.snapshot(), before[-1])

    assert numbers([*before, *second.epochs()]) == numbers(list(loop.fit(state, train, validation)))


def test_a_machine_is_what_computed_something() -> None:
    """Its device and what auto means there."""
    machine = trainer.probe("cpu")

    assert machine.devices == ("cpu",)
    assert machine.torch == torch.__version__


def test_what_a_machine_is_can_be_read_without_torch() -> None:
    """The driver, which never computes, is spared the two seconds that torch takes to load."""
    answer = pickle.dumps(trainer.probe("cpu"))
    read = f"import pickle, sys; pickle.loads({answer!r}); print('torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"

"""What must hold on a CUDA device, as plain functions: for pytest, and for ``tests/gpu.py``, which has none.

A check of a card is a function here, in `CHECKS`, and a test marked ``cuda`` of the same name that calls it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest

import torch

from lenet_exp.base.records import EpochResult
from lenet_exp.config.experiment import Training
from lenet_exp.config.hyperparameters import PRESETS, Configuration, configuration, overlay
from lenet_exp.data.images import ImageSet
from lenet_exp.training.loop import DEFAULT_TRAINING, Images, begin, fit, load

#: From labelled images on the CPU, and the device, to an `AssertionError` if it does not hold.
Check = Callable[[Images, torch.device], None]

#: Relative difference of a loss, and difference of an accuracy, that rounding explains. cuDNN multiplies in
#: TF32, ten bits of mantissa; the same rounding, imitated on a CPU, moved the losses by up to 0.0014.
LOSS_TOLERANCE, ACCURACY_TOLERANCE = 0.005, 0.02


def whole(images: ImageSet) -> Images:
    """Return all images of a data set, on the CPU."""
    pixels, labels = load(images, torch.device("cpu"))
    return Images(pixels, labels, torch.arange(images.count))


def small_network() -> Configuration:
    """Return what the checks train: rounding grows in training, less so at a small learning rate."""
    small = {"channels": 4, "fc_layers": 1, "epochs": 3, "batch_size": 32, "lr": 0.001}
    return configuration(overlay(PRESETS["lenet"], small | {"precision": "float32"}))


def trained(images: Images, device: torch.device, training: Training = DEFAULT_TRAINING) -> list[EpochResult]:
    """Return the epochs of `small_network` from seed 1, measured on the images that it learned from.

    Args:
        images: What is learned from; moved to the device.
        device: Where it is trained.
        training: The way to compute a step.
    """
    there = Images(*(part.to(device) for part in (images.pixels, images.labels, images.index)))
    return list(fit(begin(small_network(), seed=1, device=device, training=training), there, there))


def agree(ones: Sequence[EpochResult], others: Sequence[EpochResult]) -> None:
    """Make sure that two trainings gave the same numbers but for rounding, and learned something.

    Args:
        ones: The epochs of one training.
        others: The epochs of the other.

    Raises:
        AssertionError: With the first number that differs.
    """
    for one, other in zip_longest(ones, others):
        if one is None or other is None:
            raise AssertionError(f"{len(ones)} epochs against {len(others)}")
        if not math.isclose(one.train_loss, other.train_loss, rel_tol=LOSS_TOLERANCE):
            raise AssertionError(f"train_loss of epoch {one.epoch}: {one.train_loss}, {other.train_loss}")
        if not math.isclose(one.val_accuracy, other.val_accuracy, abs_tol=ACCURACY_TOLERANCE):
            raise AssertionError(
                f"val_accuracy of epoch {one.epoch}: {one.val_accuracy}, {other.val_accuracy}"
            )
    if not ones[-1].train_loss < ones[0].train_loss:
        raise AssertionError(
            f"nothing was learned: train_loss {ones[0].train_loss}, then {ones[-1].train_loss}"
        )


def cuda_graphs_train_as_the_plain_step_does(images: Images, device: torch.device) -> None:
    """Three epochs, the last batch smaller than the others, give the same numbers but for rounding.

    Args:
        images: Labelled images, not a multiple of the batch.
        device: The CUDA device.
    """
    assert len(images) % small_network().batch_size
    plain, compiled = (trained(images, device, Training(compile=compile)) for compile in (False, True))
    agree(plain, compiled)


def a_cuda_device_trains_what_a_cpu_trains(images: Images, device: torch.device) -> None:
    """The same configuration and seed give the same numbers but for rounding.

    Args:
        images: Labelled images.
        device: The CUDA device.
    """
    agree(trained(images, torch.device("cpu")), trained(images, device))


def a_training_repeats_its_bits(images: Images, device: torch.device) -> None:
    """The same configuration and seed give the same numbers to the last bit, in either precision.

    Args:
        images: Labelled images.
        device: The CUDA device.
    """
    there = Images(*(part.to(device) for part in (images.pixels, images.labels, images.index)))
    for precision in ("float32", "bfloat16"):
        # The baseline at its batch size, as a smaller network may be given other kernels.
        chosen = configuration(overlay(PRESETS["lenet"], {"precision": precision, "epochs": 2}))
        once, again = (
            [replace(result, train_s=0.0, examples_per_s=0.0) for result in fit(state, there, there)]
            for state in (begin(chosen, seed=1, device=device) for _ in range(2))
        )
        assert once == again, f"{precision}: {once[-1]}, then {again[-1]}"


#: All of them, in the order in which they are run: the quick ones first.
CHECKS: tuple[Check, ...] = (
    a_cuda_device_trains_what_a_cpu_trains,
    a_training_repeats_its_bits,
    cuda_graphs_train_as_the_plain_step_does,
)

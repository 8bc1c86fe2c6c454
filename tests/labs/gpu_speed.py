"""Today's loop against the usual loop, in turn, on the device of ``tests/gpu.py``."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lenet_exp.cli.usual_loop import READERS, Pictures, throughput
from lenet_exp.config.experiment import Training
from lenet_exp.config.hyperparameters import PRESETS, Precision, configuration, overlay
from lenet_exp.data.images import ImageSet
from lenet_exp.execution.processes import keep_freed_memory
from lenet_exp.training.loop import Images, begin, fit, load
from tests.labs.gpu_bench import Bench
from tests.labs.gpu_report import Row, spread

#: Batches of an epoch at most, on an accelerator and on a CPU; all full, as each size is compiled by itself.
_MANY, _FEW = 200, 8


@dataclass(frozen=True)
class Way:
    """How a step of ours is computed."""

    precision: Precision
    compiled: bool = False

    def __str__(self) -> str:
        """Return it as people say it."""
        return f"{self.precision}, {'compiled' if self.compiled else 'eager'}"


class Ours:
    """Our loop on a bench, which goes on for as long as it is asked."""

    def __init__(self, bench: Bench, way: Way) -> None:
        """Load the images and build the network.

        Args:
            bench: The device and the images.
            way: The way to compute a step.
        """
        endless = configuration(overlay(PRESETS["lenet"], {"precision": way.precision, "epochs": 10_000}))
        pixels, labels = load(bench.images, bench.device)
        index = torch.arange(bench.images.count, device=bench.device)
        most = _FEW if bench.device.type == "cpu" else _MANY
        count = endless.batch_size * min(most, max(1, bench.images.count // endless.batch_size))
        train, nothing = (Images(pixels, labels, part) for part in (index[:count], index[:0]))
        training = Training(compile=way.compiled)
        state = begin(
            endless, seed=1, device=bench.device, image_size=bench.images.image_size, training=training
        )
        self._epochs = fit(state, train, nothing)
        self._examples = len(train)

    def first_epoch(self) -> float:
        """Train an epoch, in which memory is had and kernels are chosen or compiled; return its seconds."""
        began = time.perf_counter()
        next(self._epochs)
        return time.perf_counter() - began

    def rate(self, for_s: float) -> float:
        """Return the training examples per second of training passes that last some seconds together."""
        examples, seconds = 0, 0.0
        while seconds < for_s:
            examples += self._examples
            seconds += self._examples / next(self._epochs).examples_per_s
        return examples / seconds


class Bytes(Dataset[tuple[Tensor, int]]):
    """Labelled images one by one, as ``ToTensor`` gives them, where there is neither PIL nor torchvision."""

    def __init__(self, images: ImageSet) -> None:
        """Map the images."""
        self._pixels, self._labels = map(np.asarray, images.open())

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self._labels)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        """Return an image, ``(1, size, size)`` float32 in [0, 1], and its class."""
        return torch.from_numpy(self._pixels[number][None].copy()).float().div(255), int(self._labels[number])


def reader(images: ImageSet) -> tuple[Callable[[ImageSet], Dataset[tuple[Tensor, int]]], str]:
    """Return how the usual loop reads the images on this machine, and what that is called."""
    processes = f"in {READERS} processes of a DataLoader"
    try:
        Pictures(images)
    except (ImportError, OSError, RuntimeError):  # a torchvision that is not for this torch raises the last
        return Bytes, f"bytes to float {processes}; no PIL and torchvision here"
    return Pictures, f"PIL images through ToTensor {processes}"


def rates(bench: Bench, ways: Sequence[Way]) -> Generator[Row]:
    """Measure the usual loop and ours in turn, on one device, in one process.

    Args:
        bench: The device, the images and the time.
        ways: Ways in which ours computes a step, one after the other in each round.
    """
    keep_freed_memory()  # as an attempt's process does; the usual loop gains by it too
    pictures, reads = reader(bench.images)
    ours = {}
    for way in ways:
        bench.say(f"ours, {way}: the first epoch")
        ours[way] = Ours(bench, way)
        first_s = ours[way].first_epoch()
        if way.compiled:
            yield Row(f"first epoch, {way}", f"{first_s:.1f} s", "the compiling of both passes included")
    usual: list[float] = []
    found: dict[Way, list[float]] = {way: [] for way in ways}
    plain = configuration(PRESETS["lenet"])
    for number in range(1, bench.rounds + 1):
        usual.append(
            throughput(plain, bench.images, for_s=bench.for_s, device=bench.device, pictures=pictures)
        )
        for way in ways:
            found[way].append(ours[way].rate(bench.for_s))
        latest = {"usual": usual[-1], **{str(way): rate[-1] for way, rate in found.items()}}
        said = "; ".join(f"{name} {rate:,.0f}" for name, rate in latest.items())
        bench.say(f"round {number} of {bench.rounds}, in examples/s: {said}")
    beside = " and ".join(map(str, ways))
    quantity, how = f"`usual_examples_per_s`, beside {beside}", f"usual loop by the wall, float32: {reads}"
    yield Row(quantity, spread(usual), how)
    repeated = f"{bench.rounds} rounds of {bench.for_s:g} s"
    how = f"training passes of one training, batch {plain.batch_size}, {repeated}"
    for way, rate in found.items():
        yield Row(f"`examples_per_s`, {way}", spread(rate), how)
        ratios = [one / other for one, other in zip(rate, usual, strict=True)]
        yield Row(f"`speedup`, {way}", spread(ratios, ".1f"), "ours over the usual loop, round by round")

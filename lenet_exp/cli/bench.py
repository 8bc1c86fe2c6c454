"""Measures this machine: training in the usual loop and in ours, its peak rate, and a sweep's overhead."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lenet_exp import __version__
from lenet_exp.base.errors import NoResultError
from lenet_exp.base.layout import Layout
from lenet_exp.base.messages import say, step
from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.cli.overhead import small_sweep
from lenet_exp.cli.peak import matrix_peak, training_flops
from lenet_exp.cli.usual_loop import throughput
from lenet_exp.config.experiment import Data, Experiment
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.data.images import ImageSet, training_images
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.execution.protocol import Conditions, Ended, Epoch, Machine, Task
from lenet_exp.execution.resources import Capacity, WorkerPlan, measure, plan
from lenet_exp.execution.signals import unwinding
from lenet_exp.results.views.console import Column, print_table
from lenet_exp.study.records import Attempt

#: Length of a short trial, in seconds, with which ``harness_s`` is compared.
TRIAL_S = 10.0

#: Images of an epoch, and of its evaluation, while throughput is measured: few enough for several epochs in
#: the four seconds of a measurement.
_EPOCH_IMAGES = 20_000
_VALIDATION_IMAGES = 1_000


@dataclass(frozen=True)
class Question:
    """Settings of the benchmark that compares this project's training speed with the usual loop's.

    Attributes:
        path: Experiment file whose baseline is trained.
        experiment: Experiment in ``path``, with ``overrides`` applied.
        overrides: The overrides as texts ``section.key=value``, for the small sweep that is measured too.
        for_s: Seconds that each measurement takes.
        rounds: Number of rounds, each of which takes every measurement once; medians are reported.
        device: Device to train on: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    """

    path: Path
    experiment: Experiment
    overrides: Sequence[str] = ()
    for_s: float = 4.0
    rounds: int = 3
    device: str = "auto"


@dataclass(frozen=True)
class Setting:
    """A way to share the cores among workers.

    Attributes:
        workers: Number of trials that run at once.
        threads: Number of threads of each trial.
    """

    workers: int
    threads: int

    def __str__(self) -> str:
        """Return a phrase such as ``2 x 1 thread``."""
        return f"{self.workers} x {self.threads} thread{'s' if self.threads > 1 else ''}"


def run_bench(question: Question, announce: Callable[[str], None]) -> dict[str, Any]:
    """Measure the speed of this machine, one thing after the other.

    Args:
        question: Network, device, and length of the measurements.
        announce: Function that gets a line of text for the user at each step.

    Returns:
        Results by name, ready for JSON; rates are medians over the rounds.

        - ``usual_examples_per_s``: training examples of the usual loop per second of wall time;
          ``usual_threads`` is the number of threads that torch chose for it.
        - ``examples_per_s``: training examples per second of our loop, all workers together, evaluations left
          out, in the best of ``settings``: ``workers`` trials with ``threads`` threads each. ``why`` compares
          it with the other settings; ``speedup`` is this rate divided by the usual loop's.
        - ``peak_gflops``: rate of ``torch.mm`` in float32 with all cores, or on the accelerator;
          ``share_of_peak`` is ``examples_per_s`` times ``flops_per_example``, divided by that rate.
        - ``harness_s``: median seconds of a trial outside training and evaluation; ``harness_share`` is that
          divided by `TRIAL_S`. ``first_step_s``: seconds from the command to the first training step.
        - ``precision``: precision of our loop; the usual loop always computes in float32.
        - ``load``: mean number of processes that wanted to run in the minute before.

    Raises:
        LenetExpError: If data or device cannot be used, the network cannot be trained, or the user presses
            Ctrl-C.
    """
    with unwinding("interrupted; nothing was recorded"):
        return _measure(question, announce)


def _measure(question: Question, announce: Callable[[str], None]) -> dict[str, Any]:
    load = os.getloadavg()[0]
    executor = LocalExecutor()
    try:
        images = training_images(question.experiment.data)
        with step("starting a process that trains"):
            machine = executor.probe(question.device)
        device = machine.devices[0]  # only the first of several accelerators is measured
        capacity = measure(0 if device == "cpu" else 1)
        announce(f"{machine.name}, {capacity.cores} cores, on {device}; the load before was {load:.1f}")
        configuration = question.experiment.with_precision(machine.precision).baseline_configuration
        usual, ours, peak = _in_turn(question, executor, images, configuration, device, capacity, announce)
    finally:
        executor.close()
    best = max(ours, key=ours.__getitem__)
    announce(f"a small sweep, {best.workers} trials at once")
    limit = min(_EPOCH_IMAGES, images.count - question.experiment.data.validation)
    epochs = max(1, round(ours[best] / best.workers * question.for_s / limit))
    overrides = [*question.overrides, f"data.limit={limit}", f"training.epochs={epochs}"]
    harness = small_sweep(question.path, overrides, workers=best.workers, device=device)
    flops = training_flops(configuration, images.image_size)
    return {
        "usual_examples_per_s": usual,
        "examples_per_s": ours[best],
        "speedup": ours[best] / usual,
        "peak_gflops": peak,
        "share_of_peak": ours[best] * flops / 1e9 / peak,
        "harness_share": harness.trial_s / TRIAL_S,
        "first_step_s": harness.first_step_s,
        "workers": best.workers,
        "threads": best.threads,
        "precision": configuration.precision,
        "device": device,
        "machine": machine.name,
        "cores": capacity.cores,
        "load": load,
        "settings": {str(setting): rate for setting, rate in ours.items()},
        "why": _why(best, ours),
        "flops_per_example": flops,
        "harness_s": harness.trial_s,
        "usual_threads": torch.get_num_threads(),
        "rounds": question.rounds,
        "seconds": question.for_s,
        "versions": {"lenet_exp": __version__, "python": platform.python_version()}
        | {library: version(library) for library in ("torch", "optuna", "mlflow")},
    }


def settings(capacity: Capacity) -> list[Setting]:
    """Return the settings to measure: the one that a sweep would choose, half its workers, and one worker.

    Example:
        >>> [str(setting) for setting in settings(Capacity(cores=8))]
        ['8 x 1 thread', '4 x 2 threads', '1 x 8 threads']
        >>> [str(setting) for setting in settings(Capacity(cores=16, accelerators=1))]
        ['4 x 4 threads', '2 x 8 threads', '1 x 16 threads']
    """
    most = plan(capacity).workers
    return list(dict.fromkeys(Setting(n, capacity.cores // n) for n in (most, most // 2 or 1, 1)))


def _in_turn(
    question: Question,
    executor: LocalExecutor,
    images: ImageSet,
    configuration: Configuration,
    device: str,
    capacity: Capacity,
    announce: Callable[[str], None],
) -> tuple[float, dict[Setting, float], float]:
    """Measure in rounds; return the medians of the usual loop's rate, of ours by setting, and of the peak."""
    torch_device = torch.device(device)
    usual: list[float] = []
    ours: defaultdict[Setting, list[float]] = defaultdict(list)
    peaks: list[float] = []
    for number in range(1, question.rounds + 1):
        announce(f"round {number} of {question.rounds}: the usual loop")
        usual.append(throughput(configuration, images, for_s=question.for_s, device=torch_device))
        for setting in settings(capacity):
            announce(f"round {number} of {question.rounds}: ours, {setting}")
            rate = sweep_throughput(
                executor, configuration, images, setting, for_s=question.for_s, device=device
            )
            ours[setting].append(rate)
        announce(f"round {number} of {question.rounds}: matrix products")
        peaks.append(matrix_peak(for_s=question.for_s / 2, threads=capacity.cores, device=torch_device))
    return median(usual), {setting: median(rates) for setting, rates in ours.items()}, median(peaks)


def sweep_throughput(
    executor: LocalExecutor,
    configuration: Configuration,
    images: ImageSet,
    setting: Setting,
    *,
    for_s: float,
    device: str = "cpu",
) -> float:
    """Train in all workers at once, as a sweep does, and return their training examples per second, summed.

    The first epoch of each worker is not counted, because it allocates memory and chooses kernels.

    Args:
        executor: Executor that is running no attempt.
        configuration: Configuration that every worker trains.
        images: Training images, of which at most `_EPOCH_IMAGES` are trained on.
        setting: Number of workers, and of threads of each.
        for_s: Seconds to measure, after the first epoch of every worker.
        device: Torch's name of the device to train on.

    Raises:
        NoResultError: If a training ends before the measurement does.
    """
    validation = max(1, min(_VALIDATION_IMAGES, images.count // 5))
    count = min(_EPOCH_IMAGES, images.count - validation)
    endless = configuration.model_copy(update={"epochs": 10_000})
    results: dict[RunKey, list[EpochResult]] = {
        RunKey("trial", number, 1): [] for number in range(setting.workers)
    }
    try:
        with tempfile.TemporaryDirectory() as folder:
            conditions = Conditions(
                Experiment(name="bench", data=Data(validation=validation, limit=count)),
                images,
                Machine((device,), device, configuration.precision, str(torch.__version__)),
                Layout(Path(folder), "bench"),
                WorkerPlan(setting.workers, setting.threads, "as measured"),
            )
            for key in results:
                attempt = Attempt(key, endless, seed=key.trial, label=key.stem, origin=key)
                executor.submit(Task(attempt, conditions, device, checkpoints=False))
            _collect(executor, results, for_s)
    finally:
        for key in results:
            executor.stop(key)
    return sum(
        count * (epochs[-1].epoch - epochs[0].epoch) / (epochs[-1].train_s - epochs[0].train_s)
        for epochs in results.values()
    )


def _collect(executor: LocalExecutor, results: dict[RunKey, list[EpochResult]], for_s: float) -> None:
    """Add epochs to ``results`` for ``for_s`` seconds after each worker's first, and until each has two."""
    deadline = float("inf")
    while True:
        for event in executor.events():
            if isinstance(event, Ended):
                raise NoResultError(f"the speed cannot be measured: a training {event.how}: {event.reason}")
            if isinstance(event, Epoch):
                results[event.key].append(event.result)
        if all(results.values()):
            deadline = min(deadline, time.monotonic() + for_s)
        if time.monotonic() >= deadline and all(len(epochs) > 1 for epochs in results.values()):
            return


def _why(best: Setting, ours: dict[Setting, float]) -> str:
    """Return a phrase that compares the best setting with the others."""
    others = ", ".join(f"{setting} {rate:,.0f}" for setting, rate in ours.items() if setting != best)
    if not others:
        return "there is one core"
    return f"{best} trained {ours[best]:,.0f} examples/s together; {others}"


def print_bench(answer: Mapping[str, Any]) -> None:
    """Print the results of `run_bench`, each number with an explanation."""
    rows = [
        (
            "usual_examples_per_s",
            f"{answer['usual_examples_per_s']:,.0f}",
            f"the usual loop: DataLoader, float32, {answer['usual_threads']} threads and 2 reading processes",
        ),
        ("examples_per_s", f"{answer['examples_per_s']:,.0f}", f"this package, in {answer['precision']}"),
        ("speedup", f"{answer['speedup']:.2f}", ""),
        ("peak_gflops", f"{answer['peak_gflops']:,.0f}", "float32 matrix products of torch.mm, GFLOP/s"),
        (
            "share_of_peak",
            f"{answer['share_of_peak']:.3f}",
            f"examples_per_s x {answer['flops_per_example'] / 1e6:.2f} MFLOP per example, over peak_gflops",
        ),
        (
            "harness_share",
            f"{answer['harness_share']:.4f}",
            f"{answer['harness_s']:.2f} s outside training and evaluation, as a share of a trial of 10 s",
        ),
        ("first_step_s", f"{answer['first_step_s']:.2f}", "from the command to the first training step"),
        ("workers", str(answer["workers"]), answer["why"]),
        ("threads", str(answer["threads"]), "per worker"),
        ("precision", answer["precision"], "of the sweep's arithmetic"),
    ]
    title = f"{answer['machine']}, {answer['cores']} cores, on {answer['device']}"
    names, values, meanings = zip(*rows, strict=True)
    print_table(
        title, [Column("", names), Column("", values, right=True), Column("", meanings, is_text=True)]
    )
    if answer["load"] > answer["cores"] / 4:
        text = f"warning: this machine was busy (load {answer['load']:.1f}): measure again when it is quiet"
        say(text)

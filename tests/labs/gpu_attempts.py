"""Time and memory of whole attempts, on the device of ``tests/gpu.py``."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping

import torch

from lenet_exp.base.errors import NoResultError
from lenet_exp.base.layout import Layout
from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.hyperparameters import PRESETS, configuration, overlay
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.execution.protocol import Conditions, Ended, Epoch, Machine, Task
from lenet_exp.execution.resources import WorkerPlan, measure, plan
from lenet_exp.study.records import Attempt
from lenet_exp.training.device import resolve_precision
from tests.labs import watched_trainer
from tests.labs.gpu_bench import Bench, device_name
from tests.labs.gpu_report import Row, spread

#: Attempts after the first, and the epochs of each.
_ATTEMPTS, _EPOCHS = 3, 3


def attempts(bench: Bench) -> Generator[Row]:
    """Measure time and memory of attempts that the executor runs, as in a sweep, one after the other."""
    on_card = bench.device.type == "cuda"
    free = torch.cuda.mem_get_info(bench.device)[0] if on_card else 0
    outside: list[float] = []
    first_extra: list[float] = []
    began = time.perf_counter()
    executor = LocalExecutor(watched_trainer.NAME)
    try:
        for task in _tasks(bench):
            results = _run(executor, task)
            inside = results[-1].train_s + sum(result.evaluation_s for result in results)
            outside.append(time.perf_counter() - began - inside)
            first_extra.append(results[0].train_s - (results[-1].train_s - results[-2].train_s))
            bench.say(f"an attempt: {inside:.2f} s of passes, {outside[-1]:.2f} s outside them")
            began = time.perf_counter()
    finally:
        executor.close()
    does = "a process, its device, images and network, a checkpoint after each epoch, weights, the end"
    quantity = "an attempt outside its training and evaluation passes"
    first = f"starting the fork server, which imports; {does}"
    yield Row(f"{quantity}, the first", f"{outside[0]:.2f} s", first)
    yield Row(f"{quantity}, later ones", f"{spread(outside[1:], '.2f')} s", f"from the fork server: {does}")
    how = f"training pass of an attempt's first epoch, less that of its last; {len(first_extra)} attempts"
    yield Row("what a first epoch takes more", f"{spread(first_extra, '.2f')} s", how)
    yield from _memory_rows(results[-1].watched, free, bench)


def _tasks(bench: Bench) -> Iterator[Task]:
    """Yield the tasks of equal attempts at the baseline, on all of the images."""
    chosen = configuration(overlay(PRESETS["lenet"], {"epochs": _EPOCHS}))
    device, precision = str(bench.device), resolve_precision("auto", bench.device)
    machine = Machine((device,), device_name(bench.device), precision, str(torch.__version__))
    threads = plan(measure(int(bench.device.type != "cpu"))).threads  # as in a sweep
    conditions = Conditions(
        Experiment(name="gpu", data=bench.data),
        bench.images,
        machine,
        Layout(bench.folder, "gpu"),
        WorkerPlan(1, threads, "one at a time"),
    )
    for number in range(1 + _ATTEMPTS):
        key = RunKey("trial", number, 1)
        yield Task(Attempt(key, chosen, seed=1, label=key.stem, origin=key), conditions, device)


def _run(executor: LocalExecutor, task: Task) -> list[EpochResult]:
    """Return what the epochs of an attempt gave.

    Args:
        executor: An executor that has nothing running.
        task: The attempt.

    Raises:
        NoResultError: If it does not complete.
    """
    results = []
    executor.submit(task)
    while True:
        for event in executor.events(timeout_s=1.0):
            if isinstance(event, Epoch):
                results.append(event.result)
            elif isinstance(event, Ended):
                if event.how == "completed":
                    return results
                raise NoResultError(f"an attempt {event.how}: {event.reason}\n{event.details}")


def _memory_rows(found: Mapping[str, float], free: int, bench: Bench) -> Iterator[Row]:
    """Yield what an attempt's process took.

    Args:
        found: The answer of `watched_trainer.memory` after its last epoch.
        free: Bytes that the driver had free before it.
        bench: The device, and the images that it trained on.
    """
    name = "memory of an attempt, {}".format
    if bench.device.type == "cuda":
        yield Row(name("allocated"), _mb(found["allocated"]), "`torch.cuda.max_memory_allocated`")
        yield Row(name("reserved"), _mb(found["reserved"]), "`torch.cuda.max_memory_reserved`")
        how = "what the driver has less free than before it, context included; others on the card show too"
        yield Row(name("on the card"), _mb(free - found["free"]), how)
    else:
        yield Row(name("on the card"), "not measured: no CUDA device", "as torch and the driver have it")
    how = f"peak resident memory of its process, shared libraries included; {bench.images.count:,} images"
    yield Row(name("on the host"), _mb(found["peak_rss"]), how)


def _mb(size: float) -> str:
    """Return a size in bytes as people say it."""
    return f"{size / 1e6:,.0f} MB"

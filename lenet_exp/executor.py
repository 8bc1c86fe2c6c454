"""One process for each attempt, and the stream of what happens in it.

Processes come from a fork server that has torch loaded, so a new one computes after some 20 ms. A
crash, a leak or an out-of-memory error ends one attempt and nothing else. Nothing here imports torch
in the caller's process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lenet_exp import environment
from lenet_exp.config import Configuration, Precision
from lenet_exp.data import ImageSet, validation_split
from lenet_exp.errors import DeviceError
from lenet_exp.record import EpochResult, RunKey, TrainOn

if TYPE_CHECKING:
    from lenet_exp.train import Images, TrainingState

#: Training images that diagnostics look at.
DIAGNOSED = 1_000

#: Loaded once by the fork server, for all its children. torch's optimizers import ``torch._dynamo`` when the
#: first one is made, which takes a second; a child imports the caller's main module, which may be the CLI.
_PRELOAD = ["lenet_exp.train", "torch._dynamo", "lenet_exp.cli"]


@dataclass(frozen=True)
class Task:
    """All that a process needs to train one attempt.

    Attributes:
        key: The attempt.
        configuration: What to train.
        seed: Root of its random streams.
        images: The training images; validation images are among them.
        validation: How many of them are kept for validation.
        split_seed: Of the division.
        limit: How many of the rest are trained on; None for all.
        device: As the user named it.
        threads: For torch's operations.
        folder: Where the process leaves its weights, as ``weights.safetensors``.
        compiled: Whether an accelerator runs a step as one compiled graph.
        test_images: What ``test_loss`` and ``test_accuracy`` are measured on after each epoch; None for not
            at all, as in every search.
        diagnostics: Whether `lenet_exp.diagnostics` looks at the network after each epoch.
        train_on: The images to learn from.
    """

    key: RunKey
    configuration: Configuration
    seed: int
    images: ImageSet
    validation: int
    split_seed: int
    limit: int | None
    device: str
    threads: int
    folder: Path
    compiled: bool = False
    test_images: ImageSet | None = None
    diagnostics: bool = False
    train_on: TrainOn = "train"


@dataclass(frozen=True)
class Machine:
    """What an attempt would run on.

    Attributes:
        devices: As torch names them, such as ``cpu``, or ``cuda:0`` and ``cuda:1``, which share the attempts.
        name: The processor's or accelerator's own name.
        precision: What ``auto`` means there.
        torch: torch's version.
    """

    devices: tuple[str, ...]
    name: str
    precision: Precision
    torch: str

    def facts(self, *, threads: int, compiled: bool) -> dict[str, str | int]:
        """Return what is kept with the result of a training here."""
        return environment.facts(
            device=self.devices[0],
            device_name=self.name,
            torch=self.torch,
            threads=threads,
            compiled=compiled and self.devices[0] != "cpu",
        )


@dataclass(frozen=True)
class Epoch:
    """An attempt finished an epoch."""

    key: RunKey
    result: EpochResult


@dataclass(frozen=True)
class Ended:
    """An attempt is over.

    Attributes:
        key: The attempt.
        how: ``completed`` all epochs; the loss ``diverged``; it ``stopped`` when told to; it raised
            (``failed``) or its process ``died``.
        reason: One line; empty if it completed.
        details: The traceback, where there is one.
    """

    key: RunKey
    how: Literal["completed", "diverged", "stopped", "failed", "died"]
    reason: str = ""
    details: str = ""


Event = Epoch | Ended


@dataclass
class _Worker:
    process: ForkServerProcess
    pipe: Connection


class LocalExecutor:
    """Runs attempts on this machine, as many at once as `submit` is called for."""

    def __init__(self) -> None:
        """Start the fork server; it loads torch while the caller goes on."""
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOAD)
        self._workers: dict[RunKey, _Worker] = {}
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        # Blocked in the fork server and so in all its children: Ctrl-C is for the driver alone.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            from multiprocessing.forkserver import ensure_running

            ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def running(self) -> int:
        """How many attempts have not ended."""
        return len(self._workers)

    @property
    def processes(self) -> dict[RunKey, int]:
        """The process of each attempt that has not ended."""
        return {key: worker.process.pid for key, worker in self._workers.items() if worker.process.pid}

    def probe(self, device: str) -> Machine:
        """Return what ``device`` means here, after it has computed something.

        Raises:
            DeviceError: If it cannot be used.
        """
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_probe, args=(theirs, device), daemon=True)
        process.start()
        theirs.close()
        try:
            found = ours.recv()
        except EOFError:
            process.join()
            raise DeviceError(
                f"device {device!r} cannot be used: its process died with {process.exitcode}"
            ) from None
        process.join()
        ours.close()
        if not isinstance(found, Machine):
            raise DeviceError(found)
        return found

    def submit(self, task: Task) -> None:
        """Start ``task`` in a process of its own."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, task), daemon=True, name=task.key.stem)
        process.start()
        theirs.close()
        self._workers[task.key] = _Worker(process, ours)

    def stop(self, key: RunKey) -> None:
        """End an attempt now; no event follows. One that has ended already is left alone."""
        worker = self._workers.pop(key, None)
        if worker is not None:
            worker.process.kill()
            _release(worker)

    def finish_epoch(self, key: RunKey) -> None:
        """Ask an attempt to stop after the epoch it is in; an `Ended` event follows."""
        # It may have ended meanwhile, which the next events tell.
        with contextlib.suppress(KeyError, OSError):
            self._workers[key].pipe.send("finish epoch")

    def wake(self) -> None:
        """Make `events` return at once; safe in a signal handler."""
        with contextlib.suppress(BlockingIOError):  # it has enough to wake up for
            os.write(self._wake_writer, b"!")

    def events(self, timeout_s: float | None = None) -> Iterator[Event]:
        """Wait until something happens, then yield all that has.

        Args:
            timeout_s: Seconds to wait at most; None waits for ever.
        """
        pipes = {worker.pipe: key for key, worker in self._workers.items()}
        for ready in connection.wait([*pipes, self._wake_reader], timeout_s):
            if ready == self._wake_reader:
                os.read(self._wake_reader, 4096)
                continue
            assert isinstance(ready, Connection)
            key = pipes[ready]
            if key in self._workers:  # the caller may have stopped it between two events
                yield from self._receive(key)

    def _receive(self, key: RunKey) -> Iterator[Event]:
        worker = self._workers[key]
        try:
            event: Event = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            event = Ended(key, "died", f"its process died with {_exit(worker.process.exitcode)}")
        if isinstance(event, Ended):
            del self._workers[key]
            _release(worker)
        yield event

    def close(self) -> None:
        """End every attempt that still runs."""
        for key in list(self._workers):
            self.stop(key)
        os.close(self._wake_reader)
        os.close(self._wake_writer)


def _release(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.join()
    worker.process.close()


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _probe(pipe: Connection, device: str) -> None:
    import torch

    from lenet_exp.train import resolve_device, resolve_precision

    try:
        found = [resolve_device(device)]
        if found[0].type == "cuda" and found[0].index is None:  # any of them will do, so all of them do
            found = [resolve_device(f"cuda:{index}") for index in range(torch.cuda.device_count())]
        name = torch.cuda.get_device_name(found[0]) if found[0].type == "cuda" else environment.processor()
        devices = tuple(str(device) for device in found)
        pipe.send(Machine(devices, name, resolve_precision("auto", found[0]), torch.__version__))
    except DeviceError as error:
        pipe.send(str(error))


def _work(pipe: Connection, task: Task) -> None:
    """Train ``task`` and stream its epochs; the body of an attempt's process."""
    # A group of its own, so that a signal to the driver's group does not reach it.
    os.setpgid(0, 0)
    finish = threading.Event()
    threading.Thread(target=_listen, args=(pipe, finish), daemon=True).start()
    try:
        ended = _train(pipe, task, finish)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        ended = Ended(task.key, "failed", reason, traceback.format_exc())
    pipe.send(ended)


def _listen(pipe: Connection, finish: threading.Event) -> None:
    """Obey the driver, and end with it: a worker whose driver is gone trains for nobody."""
    try:
        while pipe.recv() == "finish epoch":
            finish.set()
    except (EOFError, OSError):
        os._exit(1)


def _train(pipe: Connection, task: Task, finish: threading.Event) -> Ended:
    import torch

    from lenet_exp import kernels, train

    kernels.keep_freed_memory()
    torch.set_num_threads(task.threads)
    device = train.resolve_device(task.device)
    pixels, labels = train.load(task.images, device)
    split = validation_split(labels.cpu().numpy(), task.validation, task.split_seed, task.limit)
    if task.train_on == "train+validation":
        split = split.joined()
    training, validation = (
        train.Images(pixels, labels, torch.from_numpy(index).to(device))
        for index in (split.train, split.validation)
    )
    state = train.begin(
        task.configuration,
        seed=task.seed,
        device=device,
        image_size=task.images.image_size,
        compiled=task.compiled,
    )
    watched = _watcher(task, state, training)
    began, trained_s = time.perf_counter(), state.train_s
    try:
        for result in train.fit(state, training, validation):
            # What an epoch takes beyond its training pass is its evaluation.
            evaluation_s = time.perf_counter() - began - (result.train_s - trained_s)
            pipe.send(Epoch(task.key, replace(result, watched=watched(), evaluation_s=evaluation_s)))
            if finish.is_set() and result.epoch < task.configuration.epochs:
                return Ended(task.key, "stopped", "interrupted")
            began, trained_s = time.perf_counter(), result.train_s
    except train.DivergedError as error:
        return Ended(task.key, "diverged", f"diverged: {error}")
    train.save_weights(state.model, task.folder / "weights.safetensors")
    return Ended(task.key, "completed")


def _watcher(task: Task, state: TrainingState, training: Images) -> Callable[[], dict[str, float]]:
    """Return what measures, after an epoch, all that the task watches besides."""
    import torch

    from lenet_exp import diagnostics, train

    test: Images | None = None
    if task.test_images is not None:
        pixels, labels = train.load(task.test_images, state.device)
        test = train.Images(pixels, labels, torch.arange(len(labels), device=state.device))
    loss = state.configuration.loss
    looked_at = training.index[: DIAGNOSED if task.diagnostics else 0]
    sample, sample_labels = train.as_input(training.pixels[looked_at]), training.labels[looked_at]

    def watched() -> dict[str, float]:
        found: dict[str, float] = {}
        if test is not None:
            found["test_loss"], found["test_accuracy"] = train.evaluate(state.model, test, loss)
        if task.diagnostics:
            found |= diagnostics.measure(
                state.model, sample, lambda logits: train.criterion(logits, sample_labels, loss)
            )
        return found

    return watched

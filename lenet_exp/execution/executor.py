"""Runs each attempt in a process of its own, and yields what happens in it as events.

The processes come from a fork server that has torch loaded, so a new one starts training after some 20 ms. A
crash, a leak or an out-of-memory error ends one attempt and nothing else. The caller does not load torch.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

from lenet_exp.base.errors import DeviceError, NoResultError
from lenet_exp.base.records import RunKey
from lenet_exp.execution import resources
from lenet_exp.execution.calls import run_in_process
from lenet_exp.execution.processes import TRAINER, main_module_hidden, start_fork_server
from lenet_exp.execution.protocol import Ended, Event, Machine, Task
from lenet_exp.execution.worker import probe, work

#: Seconds between SIGTERM and SIGKILL.
GRACE_S = 10.0
#: Seconds between one SIGTERM and the next.
_TERM_EVERY_S = 0.1


@dataclass
class _Worker:
    process: ForkServerProcess
    pipe: Connection
    kill_at: float | None = None


class LocalExecutor:
    """Trains attempts on this machine: `submit` starts one, and `events` yields what happens in all."""

    def __init__(self, trainer: str = TRAINER, oom_kills: resources.OomKills | None = None) -> None:
        """Start the fork server unless it is running.

        Args:
            trainer: Dotted name of the module that trains; see `lenet_exp.execution.protocol.Trainer`.
            oom_kills: Detector of the kernel's out-of-memory kills; None for the one of this container.
        """
        self._trainer = trainer
        self._oom_kills = oom_kills or resources.OomKills()
        self._context = multiprocessing.get_context("forkserver")
        start_fork_server(trainer)
        self._workers: dict[RunKey, _Worker] = {}
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)

    @property
    def running(self) -> int:
        """The number of attempts that have not ended."""
        return len(self._workers)

    @property
    def processes(self) -> dict[RunKey, int]:
        """The process id of each attempt that has not ended."""
        return {key: worker.process.pid for key, worker in self._workers.items() if worker.process.pid}

    def probe(self, device: str) -> Machine:
        """Try ``device`` with a small computation, and return what its name stands for on this machine.

        Raises:
            DeviceError: If the device cannot be used.
        """
        try:
            return run_in_process(probe, self._trainer, device)
        except NoResultError as error:
            raise DeviceError(f"device {device!r} cannot be used: {error}") from None

    def submit(self, task: Task) -> None:
        """Start to train the attempt of ``task`` in a process of its own."""
        our_end, its_end = self._context.Pipe()
        arguments = (its_end, self._trainer, task)
        process = self._context.Process(target=work, args=arguments, daemon=True, name=task.key.stem)
        with main_module_hidden():
            process.start()
        its_end.close()
        self._workers[task.key] = _Worker(process, our_end)

    def stop(self, key: RunKey) -> None:
        """Kill an attempt's process; no event follows. Does nothing if the attempt has ended."""
        worker = self._workers.pop(key, None)
        if worker is not None:
            worker.process.kill()
            _release(worker)

    def terminate(self, key: RunKey) -> None:
        """Send SIGTERM to an attempt's process, and SIGKILL `GRACE_S` later; an `Ended` event follows."""
        worker = self._workers.get(key)
        if worker is not None and worker.kill_at is None:
            worker.process.terminate()
            worker.kill_at = time.monotonic() + GRACE_S

    def finish_epoch(self, key: RunKey) -> None:
        """Ask an attempt to stop after its current epoch; an `Ended` event follows."""
        # The attempt may have ended just now; `events` will say so.
        with contextlib.suppress(KeyError, OSError):
            self._workers[key].pipe.send("finish epoch")

    def wake(self) -> None:
        """Make `events` return immediately; safe in a signal handler."""
        with contextlib.suppress(BlockingIOError):  # the pipe is full, which wakes `events` too
            os.write(self._wake_writer, b"!")

    def events(self, timeout_s: float | None = None) -> Iterator[Event]:
        """Wait until something happens, then yield every event that has arrived.

        Args:
            timeout_s: Longest wait in seconds; None to wait until something happens.
        """
        pipes = {worker.pipe: key for key, worker in self._workers.items()}
        for ready in connection.wait([*pipes, self._wake_reader], self._next_wait(timeout_s)):
            if ready == self._wake_reader:
                os.read(self._wake_reader, 4096)
                continue
            assert isinstance(ready, Connection)
            key = pipes[ready]
            if key in self._workers:  # the caller may have stopped the attempt between two events
                yield from self._receive(key)

    def _next_wait(self, timeout_s: float | None) -> float | None:
        """End the processes that were terminated, and say how long `events` may wait.

        Returns:
            Seconds until the next signal to one, or ``timeout_s`` if that is less; None for no limit.
        """
        due = {key: worker.kill_at for key, worker in self._workers.items() if worker.kill_at is not None}
        now = time.monotonic()
        for key, kill_at in due.items():
            process = self._workers[key].process
            # A process that is just starting drops SIGTERM, so it is sent again until its time is over.
            process.terminate() if now < kill_at else process.kill()
        waits = [min(_TERM_EVERY_S, kill_at - now) for kill_at in due.values() if kill_at > now]
        return min([*waits, *([] if timeout_s is None else [timeout_s])], default=None)

    def _receive(self, key: RunKey) -> Iterator[Event]:
        worker = self._workers[key]
        try:
            event: Event = worker.pipe.recv()
        except (EOFError, OSError):  # the process died, perhaps in the middle of a message
            worker.process.join()
            code = worker.process.exitcode
            if code == -signal.SIGKILL and self._oom_kills.noticed():
                event = Ended(key, "oom", "the system killed its process because memory ran out")
            else:
                event = Ended(key, "died", f"its process died with {_exit(code)}")
        if isinstance(event, Ended):
            del self._workers[key]
            _release(worker)
        yield event

    def close(self) -> None:
        """Kill the processes of all attempts that have not ended; the executor cannot be used afterwards."""
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
        # Real-time signals have no names but for the first and the last.
        return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"exit code {code}"

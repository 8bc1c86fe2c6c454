"""Starts the command line in processes that can be killed, many times a minute.

A process that has imported everything, `Zygote`, forks one for each start, which then runs the command
line as a process of its own would, in a session of its own. Run as a script, this is the zygote.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.labs.places import PROJECT

#: Seconds after which a command that has not ended never will.
PATIENCE_S = 120.0


class Zygote:
    """Starts commands quickly; to be closed."""

    def __init__(self, **environment: str) -> None:
        """Import everything, in a process of its own.

        Args:
            environment: Of the zygote and all that it starts.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.labs.crash_lab"],
            env=os.environ | {"PYTHONPATH": str(PROJECT)} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *arguments: str | Path, folder: Path, **environment: str) -> Command:
        """Start ``lenet-exp`` with these arguments.

        Args:
            arguments: Of the command line.
            folder: Working folder; output goes to files in it.
            environment: On top of the zygote's.
        """
        request = {"arguments": [str(argument) for argument in arguments], "folder": str(folder)}
        return Command(self, self._ask(request | {"environment": environment}), folder)

    def poll(self, pid: int) -> int | None:
        """Return a command's exit code, negative for a signal; None while it runs."""
        code: int | None = self._ask({"poll": pid})
        return code

    def close(self) -> None:
        """End the zygote."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@dataclass
class Command:
    """A command that was started; its session has its number."""

    zygote: Zygote
    pid: int
    folder: Path
    code: int | None = None

    @property
    def out(self) -> str:
        """What it has printed."""
        return self._said("out")

    @property
    def err(self) -> str:
        """What it has said on standard error."""
        return self._said("err")

    def _said(self, suffix: str) -> str:
        file = self.folder / f"{self.pid}.{suffix}"
        return file.read_text() if file.exists() else ""  # it was killed before it could open it

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        if self.code is None:
            self.code = self.zygote.poll(self.pid)
        return self.code

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """Return the exit code, once it and every process that it started are gone."""
        until(lambda: self.poll() is not None and not session(self.pid), self, patience_s)
        assert self.code is not None
        return self.code

    def workers(self) -> list[int]:
        """Return the processes in which attempts are trained."""
        return [pid for pid, group in session(self.pid).items() if group == pid != self.pid]


def until(condition: Callable[[], bool], command: Command, patience_s: float = PATIENCE_S) -> None:
    """Wait until ``condition`` holds."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            left = session(command.pid)
            for pid in left:
                kill(pid)
            raise TimeoutError(f"{command.code=} {left=}\n{command.err}")
        time.sleep(0.005)


def session(leader: int) -> dict[int, int]:
    """Return the living processes of a session, each with its process group."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                stat = Path(entry.path, "stat").read_text()
            except OSError:
                continue
            state, _, group, leading = stat.rpartition(")")[2].split()[:4]
            if int(leading) == leader and state not in "ZX":
                found[int(entry.name)] = int(group)
    return found


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal; return whether there was anybody to send it to."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _preload() -> None:
    """Import what a sweep imports, and connect to nothing."""
    for name in (
        "mlflow.data",
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.tracking",
        "optuna.storages",
        "pandas",
        "plotly.express",
        "lenet_exp.cli.program",
        "lenet_exp.results.views.console",
        "lenet_exp.results.views.page.report",
        "lenet_exp.sweep.driver",
        "lenet_exp.sweep.recovery",
        "lenet_exp.sweep.run",
        "lenet_exp.tracking.uploader",
    ):
        import_module(name)


def _serve() -> None:
    from lenet_exp.tracking import store

    store.prepare_environment()
    _preload()
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                _become(request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _become(request: dict[str, Any]) -> None:
    """Be the command, to the end."""
    os.setsid()
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    for descriptor, name in ((0, os.devnull), (1, f"{os.getpid()}.out"), (2, f"{os.getpid()}.err")):
        flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(name, flags, 0o644), descriptor)
    from lenet_exp.base import failpoints
    from lenet_exp.cli import program
    from lenet_exp.execution.signals import own_process

    own_process()
    once = os.environ.get("LENET_EXP_FAULT_ONCE")
    failpoints.arm(os.environ.get("LENET_EXP_FAULT"), Path(once) if once else None)
    program.main(_texts(request["arguments"]))


def _texts(values: Sequence[Any]) -> list[str]:
    return [str(value) for value in values]


if __name__ == "__main__":
    _serve()

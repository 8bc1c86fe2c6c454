import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lenet_exp.base.errors import SweepInterruptedError, UnreachableError
from lenet_exp.execution.signals import EPOCH_PATIENCE_S, PATIENCE_S, signals_to, terminable, unwinding
from tests.labs.crash_lab import session
from tests.labs.places import PROJECT
from tests.labs.studies import read_records
from tests.labs.swept import SWEPT


@pytest.mark.parametrize(
    ("number", "exit_code", "patience_s"),
    [
        (signal.SIGINT, 130, None),
        (signal.SIGTERM, 143, EPOCH_PATIENCE_S),
        (signal.SIGUSR1, 143, EPOCH_PATIENCE_S),
    ],
)
def test_signals_ask_the_driver_to_stop(
    number: signal.Signals, exit_code: int, patience_s: float | None
) -> None:
    """Each is passed on with its exit code and its patience, and afterwards the handlers are as before."""
    asked: list[tuple[int, float | None]] = []
    before = signal.getsignal(number)

    with signals_to(lambda code, patience: asked.append((code, patience))):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)

    assert asked == [(exit_code, patience_s)] * 2
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_what_terminates_is_an_interruption_where_nothing_runs_yet(number: signal.Signals) -> None:
    """The command ends as it does later: one line, and 143."""
    before = signal.getsignal(number)

    with pytest.raises(SweepInterruptedError, match="run the same command again") as stop, terminable():
        os.kill(os.getpid(), number)

    assert stop.value.exit_code == 143
    assert signal.getsignal(number) == before


def test_a_cluster_has_its_machine_back_within_25_seconds() -> None:
    """The epoch is dropped with time left for the rest."""
    assert EPOCH_PATIENCE_S + 5 < PATIENCE_S < 22


def test_the_third_signal_is_not_ours_any_more() -> None:
    """Whoever presses Ctrl-C three times has the process ended, whatever it is doing."""
    code = """
import os, signal
from lenet_exp.execution.signals import signals_to
with signals_to(lambda *_: print("asked", flush=True)):
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGINT)
print("still there")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.split()) == (-signal.SIGINT, ["asked", "asked"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_ends_with_all_that_it_started_wherever_a_signal_meets_it(
    number: signal.Signals, code: int
) -> None:
    """Here it meets code that catches every exception, and a child that does not listen.

    What is drawn on the terminal is removed before the last line.
    """
    program = """
import subprocess, sys, time
from lenet_exp.execution.signals import own_process, when_ending
own_process()
when_ending(lambda: print("the terminal is free", file=sys.stderr, flush=True))
subprocess.Popen(["sh", "-c", "trap '' INT TERM; sleep 60; true"])
print("ready", flush=True)
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
"""
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"

    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=20)

    freed, error = err.splitlines()
    assert (process.returncode, freed) == (code, "the terminal is free")
    assert error == "error: interrupted; run the same command again to go on"
    assert _left(process) == {}


def test_an_interruption_that_a_library_swallowed_or_turned_into_another_error_is_still_one() -> None:
    """The block ends with the exit code of the signal, and with our line."""
    program = """
import os, signal, sys
from lenet_exp.base.errors import SweepInterruptedError
from lenet_exp.execution.signals import own_process, unwinding
own_process()
try:
    with unwinding("our line"):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException as error:
            if "turn" in sys.argv:
                raise ImportError("a library cannot be loaded") from error
except SweepInterruptedError as error:
    sys.exit(f"{error} {error.exit_code}")
"""
    for words in ((), ("turn",)):
        command = [sys.executable, "-c", program, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr == "our line 143\n"


def test_where_the_process_is_not_ours_an_interruption_is_an_exception() -> None:
    """A notebook lives on, and may be interrupted again."""
    for _ in range(2):
        with pytest.raises(SweepInterruptedError, match="it was") as stop, unwinding("it was"):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.value.exit_code == 130


@pytest.mark.parametrize("problem", [RuntimeError, UnreachableError])
def test_there_too_it_stays_one_whatever_a_library_makes_of_it(problem: type[Exception]) -> None:
    """A database says that its transaction is closed; somebody else catches everything."""

    def interrupted_library() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException as error:
            raise problem("closed") from error

    with pytest.raises(SweepInterruptedError, match="it was") as stop, unwinding("it was"):
        interrupted_library()
    assert stop.value.exit_code == 143

    with pytest.raises(SweepInterruptedError), unwinding(), suppress(BaseException):
        os.kill(os.getpid(), signal.SIGINT)


def test_files_do_not_get_the_numbers_of_streams_that_the_caller_has_closed(tmp_path: Path) -> None:
    """What is said of an interruption would be written into a store."""
    program = """
import os, signal, sys
from lenet_exp.execution.signals import own_process
own_process()
store = open(sys.argv[1], "w")
print("a result", flush=True)
print("a warning", file=sys.stderr)
os.kill(os.getpid(), signal.SIGTERM)
"""
    store = tmp_path / "store"
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]

    done = subprocess.run([*shell, sys.executable, "-c", program, store], check=False)

    assert (done.returncode, store.read_bytes()) == (143, b"")


def test_a_command_ends_with_its_exit_code_whatever_its_threads_are_doing() -> None:
    """A thread that is in C++ code while the interpreter is torn down aborts the process."""
    program = """
import atexit, threading
import torch
from lenet_exp.execution.signals import exit_command, own_process
own_process()
atexit.register(print, "exit functions are called")

def in_cpp():
    while True:
        torch.ones(8, requires_grad=True).sum().backward()

for _ in range(4):
    threading.Thread(target=in_cpp, daemon=True).start()
exit_command(5)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (5, "exit functions are called\n", "")


@pytest.mark.slow
def test_ctrl_c_at_any_instant_is_one_line_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal sends it to all processes at once, while they load, train, confirm, or write the page."""
    monkeypatch.setenv("LENET_EXP_DATA", str(tmp_path / "data"))
    file = tmp_path / "swept.toml"
    # What a grid draws does not depend on when a sweep was cut off.
    grid = re.sub(r"lr = .*", "lr = [0.003, 0.01]", SWEPT.replace('"none"', '"none"\nsampler = "grid"'))
    file.write_text(f"{grid}\n[confirm]\nseeds = 2\n")
    began = time.monotonic()
    assert _completes(_sweep(file, "undisturbed"))
    took_s = time.monotonic() - began

    # The later instants are those of what the calls before have left to do.
    for share in (0.1, 0.3, 0.5, 0.3, 0.6):
        process = _sweep(file, "root")
        time.sleep(0.3 + share * took_s)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=120)
        told = [line for line in err.splitlines() if "interrupted" in line]
        assert (process.returncode, len(told)) in {(130, 1), (0, 0)}, err  # 0: it had ended already
        assert "Traceback" not in err
        assert "ignored" not in err
        assert _left(process) == {}

    assert _completes(_sweep(file, "root"))
    assert _values(file, "root") == _values(file, "undisturbed")


def _sweep(file: Path, root: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lenet_exp", "sweep", str(file), "--root", root, "--workers", "1"]
    return subprocess.Popen(
        command,
        cwd=file.parent,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _left(process: subprocess.Popen[str]) -> dict[int, int]:
    """Return what is left of a command that has ended; what was killed may take a moment to end."""
    gone_by = time.monotonic() + 2
    while session(process.pid) and time.monotonic() < gone_by:
        time.sleep(0.02)
    return session(process.pid)


def _completes(process: subprocess.Popen[str]) -> bool:
    process.communicate(timeout=300)
    return process.returncode == 0


def _values(file: Path, root: str) -> list[tuple[str, str, float | None]]:
    """Return the trainings that have ended, by configuration, and what each achieved."""
    records = read_records("swept", file.parent / root) or []
    return sorted(
        (record.configuration.id, record.key.role, record.value)
        for record in records
        if record.state != "FAIL"
    )

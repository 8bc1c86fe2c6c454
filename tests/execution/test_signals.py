import os
import signal
import subprocess
import sys

import pytest

from lenet_exp.base.errors import SweepInterruptedError
from lenet_exp.execution.signals import EPOCH_PATIENCE_S, PATIENCE_S, signals_to, terminable


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

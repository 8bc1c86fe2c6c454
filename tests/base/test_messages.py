from __future__ import annotations

import io
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from lenet_exp.base import messages
from lenet_exp.base.messages import say, step


def test_a_line_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters are shown, not obeyed; letters of any script stay."""
    say("größer\x1b[2J\n")

    assert capsys.readouterr().err == "größer\\x1b[2J\\n\n"


def test_a_closed_stream_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one that is not there at all."""
    closed = io.StringIO()
    closed.close()

    for stream in (closed, None):
        monkeypatch.setattr(sys, "stderr", stream)
        say("nobody reads this")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2> >(true)"])
def test_a_process_whose_lines_go_nowhere_ends_well(redirection: str) -> None:
    """Standard error closed from the start, full, or without a reader: the exit code is that of the work."""
    code = (
        "import time; time.sleep(0.2); from lenet_exp.base.messages import say; say('a'); say('b'); print(1)"
    )
    command = ["bash", "-c", f'"$0" -c "$1" {redirection}', sys.executable, code]

    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "1\n")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a step told after hundredths of a second."""
    monkeypatch.setattr(messages, "TOLD_AFTER_S", 0.02)
    monkeypatch.setattr(messages, "TOLD_EVERY_S", 0.02)


def test_a_step_is_told_once_it_takes_long(soon: None, capsys: pytest.CaptureFixture[str]) -> None:
    """A short one is not; a long one is, and then ever more rarely with its time; nothing after its end."""
    with step("short"):
        pass
    with suppress(ValueError), step("writing the page"):
        time.sleep(0.3)
        raise ValueError
    time.sleep(0.05)

    told = capsys.readouterr().err.splitlines()
    assert told[0] == "writing the page"
    assert told[1:] == ["writing the page, 0 s so far"] * (len(told) - 1)
    assert 1 <= len(told[1:]) <= 3


def test_a_step_that_counts_tells_how_far_it_is(soon: None, capsys: pytest.CaptureFixture[str]) -> None:
    """With the number that is done and the number of all."""
    with step("reading") as progress:
        for done in (1, 2):
            progress.at(done, 2_000, "run")
            time.sleep(0.1)

    told = [line for line in capsys.readouterr().err.splitlines() if "so far" not in line]
    assert told == ["reading: 1 of 2,000 runs", "reading: 2 of 2,000 runs"]

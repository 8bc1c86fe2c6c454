from __future__ import annotations

import io
import subprocess
import sys

import pytest

from lenet_exp.base.messages import say


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

"""The board of a whole sweep in a terminal, from its first frame to what is left when it has ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.labs.cli_lab import EXPERIMENT
from tests.labs.places import PROJECT
from tests.labs.terminals import Terminal

#: What may stand above a board, or be left of one.
LINE = (
    r"mini: 90 trials|(baseline|trial \d+): |finishing the running|uploading to MLflow|error: interrupted; "
)


def until(what: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_sweep_that_is_resized_and_interrupted_leaves_whole_lines_and_a_usable_terminal(
    tmp_path: Path, mini_folder: Path
) -> None:
    """Narrower, then wider and higher while it runs; then Ctrl-C, until it has ended."""
    file = tmp_path / "mini.toml"
    space = "lr = { low = 0.001, high = 0.1, log = true }"
    text = EXPERIMENT.format(folder=mini_folder).replace("lr = [0.001, 0.01, 0.1]", space)
    file.write_text(text.replace("trials = 3", "trials = 90"))
    settings = {"LENET_EXP_TRAINER": "tests.labs.fake_trainer", "FAKE_TRAINER_EPOCH_S": "0.05"}
    places = {"LENET_EXP_DATA": str(tmp_path / "data"), "PYTHONPATH": str(PROJECT), "TERM": "xterm-256color"}
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR")}
    terminal = Terminal(80, 24)
    command = [sys.executable, "-m", "lenet_exp", "sweep", str(file), "--root", str(tmp_path), "--no-confirm"]
    sweep = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment | settings | places,
        stdin=terminal.file,
        stdout=terminal.file,
        stderr=terminal.file,
        start_new_session=True,
    )

    def board_says(words: str) -> Callable[[], bool]:
        return lambda: any(re.search(words, row) for row in terminal.rows())

    try:
        until(board_says("sweep  loading"))
        until(board_says("best "))
        assert sum("of 90 trials" in row for row in terminal.rows()) == 1
        terminal.resize(60, 24)
        until(board_says(r"epoch +acc\."))
        terminal.resize(100, 40)
        until(board_says("differs in"))
        os.killpg(sweep.pid, signal.SIGINT)  # as a terminal does
        until(lambda: board_says("uploading to MLflow")() or sweep.poll() is not None)
        if sweep.poll() is None:
            os.killpg(sweep.pid, signal.SIGINT)
        until(lambda: bool(terminal.rows()) and sweep.poll() is not None)
    finally:
        if sweep.poll() is None:
            os.killpg(sweep.pid, signal.SIGKILL)
        sweep.wait()

    left = [*terminal.scrolled_away(), *terminal.rows()]
    assert sweep.returncode == 130
    assert [line for line in left if line and not re.match(LINE, line)] == []
    assert sum(line.startswith("baseline: val_accuracy") for line in left) == 1
    assert left[-1] == "error: interrupted; run the same command again to go on"
    assert terminal.is_usable()
    terminal.close()

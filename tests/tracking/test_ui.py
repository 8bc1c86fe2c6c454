from __future__ import annotations

import http.client
import os
import signal
import socket
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from lenet_exp.base.errors import PortError, StoreError, UnreachableError
from lenet_exp.tracking import ui
from tests.labs.mlflow_lab import STUDY_METADATA, Lab


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str, host: str) -> tuple[int, bytes]:
    """Return the status and body of a page asked for under the name ``host``."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read()


def processes_of(text: str) -> list[str]:
    """Return the command lines of the processes that have ``text`` in theirs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if text in command and int(process.name) != os.getpid():
            found.append(command)
    return found


def test_the_ui_serves_until_it_is_stopped(tmp_path: Path, port: int) -> None:
    """The address is that of the runs, told to this machine's names only; after Ctrl-C no process is left."""
    lab = Lab(tmp_path)
    lab.spool.start_study(STUDY_METADATA)
    lab.sync()
    seen: dict[str, object] = {}

    def look(address: str) -> None:
        seen["address"] = address
        seen["page"] = get(port, "/", f"localhost:{port}")[0]
        seen["stranger"] = get(port, "/", "10.1.2.3")[0]
        seen["experiment"] = (
            b"Default" in get(port, "/api/2.0/mlflow/experiments/get?experiment_id=0", f"127.0.0.1:{port}")[1]
        )
        seen["processes"] = len(processes_of(lab.uri)) > 0
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    ui.open_ui(tmp_path, port, on_ready=look)

    assert seen == {
        "address": f"http://127.0.0.1:{port}/#/experiments/1/runs?workflowType=machine_learning"
        "&compareRunsMode=CHART&viewStateShareKey=lenet_exp",
        "page": 200,
        "stranger": 403,
        "experiment": True,
        "processes": True,
    }
    assert processes_of(lab.uri) == []
    assert processes_of(f"--port {port}") == []
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("environment", "is_terminal", "is_shown"),
    [
        ({"DISPLAY": ":0"}, True, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True, True),
        ({}, True, False),
        ({"DISPLAY": ":0"}, False, False),
        ({"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, True, False),
        ({"DISPLAY": ":99", "CI": "true"}, True, False),
    ],
)
def test_a_browser_is_opened_only_where_it_is_seen(
    environment: dict[str, str], is_terminal: bool, is_shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is in a terminal on a machine with a display: not in CI, over ssh, or in a pipe."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    for name in ("CI", "SSH_CONNECTION", "SSH_TTY", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert ui.shows_windows() == is_shown


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    """A port that another program listens on is an error that names the program, and nothing is made."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(
            PortError, match=rf"port {port} is in use by .* \(pid {os.getpid()}\); choose another"
        ):
            ui.open_ui(tmp_path, port)

    assert list(tmp_path.iterdir()) == []


def test_a_port_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    """A port that does not exist is an error that says so."""
    with pytest.raises(PortError, match=r"port 70000 cannot be used on 127\.0\.0\.1: .*; choose another"):
        ui.open_ui(tmp_path, 70_000)


def test_a_damaged_store_is_told(tmp_path: Path, port: int) -> None:
    """A store that cannot be shown is an error before any server starts."""
    (tmp_path / "mlflow.db").write_text("not a database" * 100)

    with pytest.raises(StoreError, match="is damaged"):
        ui.open_ui(tmp_path, port)


def test_a_server_that_ends_at_once_is_told(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When MLflow's server ends before it answers, its last words are in the error."""
    Lab(tmp_path)
    broken = tmp_path / "mlflow"
    broken.mkdir()
    (broken / "__init__.py").touch()
    (broken / "__main__.py").write_text("print('first')\nraise SystemExit('no such thing\\n')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with pytest.raises(UnreachableError, match="MLflow's server ended before it answered: no such thing"):
        ui.open_ui(tmp_path, port)


def test_a_signal_while_it_starts_stops_it(tmp_path: Path, port: int) -> None:
    """SIGTERM before the page answers ends the server, without an error and without a page."""
    lab = Lab(tmp_path)
    pages: list[str] = []

    def interrupt() -> None:
        while not processes_of(lab.uri):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    ui.open_ui(tmp_path, port, on_ready=pages.append)

    assert pages == []
    assert processes_of(lab.uri) == []

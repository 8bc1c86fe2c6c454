"""Serves MLflow's own pages about the runs below a root folder, to this machine alone, until stopped.

The page that opens has the learning curves of the latest experiment's ten best runs; its table, a click away,
is sorted by accuracy and begins with the columns that matter. MLflow itself would open a page about traces,
and a table without a metric. It keeps such a *view* as a tag of its experiment, which the address names.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from lenet_exp.base.errors import PortError, UnreachableError, mask_url
from lenet_exp.base.layout import artifacts
from lenet_exp.tracking import store
from lenet_exp.tracking.events import StudyMetadata

#: Tag of MLflow's experiment, with the columns and the order of the table of runs.
VIEW = "mlflow.sharedViewState.lenet_exp"
# What MLflow calls the column with the names of the runs.
_NAME = "attributes.`Run Name`"
# Names that MLflow gives to the two groups of charts.
_SECTIONS = ("Model metrics", "System metrics")
#: Address that the server listens on. Whoever reaches the server can read, change and delete the runs.
HOST = "127.0.0.1"
#: Seconds that the server may take until it answers.
START_S = 60.0
#: Seconds that the server may take to end before it is killed.
STOP_S = 10.0


def open_ui(root: Path, port: int = 5000, on_ready: Callable[[str], None] = print) -> None:
    """Serve MLflow's pages about the runs below ``root`` until SIGINT or SIGTERM, or until the server ends.

    This must be called in the main thread. A store that does not exist is created.

    Args:
        root: Folder of everything that runs write.
        port: Port to listen on, 1 to 65535.
        on_ready: Function that is called once the server answers, with the address of the runs of the
            experiment whose run is the latest.

    Raises:
        PortError: If the port is in use, or may not be used.
        StoreError: If the store is damaged, not MLflow's, or of another version.
        UnreachableError: If the server ends before it answers, or does not answer in time.
    """
    _probe(port)
    store.prepare(store.local_uri(root), artifacts(root))
    with _signals() as stopped, tempfile.TemporaryFile() as output, _server(root, port, output) as server:
        if _wait_until_ready(server, port, output, stopped):
            on_ready(f"http://{HOST}:{port}{_page(port)}")
            while server.poll() is None and not stopped.wait(0.2):
                pass


def shows_windows() -> bool:
    """Return True if whoever runs this command in a terminal would see a browser that it opens."""
    if not sys.stdout.isatty() or any(map(os.environ.get, ("CI", "SSH_CONNECTION", "SSH_TTY"))):
        return False
    return sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def experiment_tags(metadata: StudyMetadata) -> dict[str, str]:
    """Return the tags that tell MLflow's pages what an experiment is, and how to show its runs.

    Args:
        metadata: Metadata of a study of the experiment.
    """
    # What differs by layer would take a column each; the runs' names have it.
    baseline = metadata.fingerprint.get("baseline", {})
    params = [
        name for name in metadata.fingerprint.get("space", {}) if name in baseline and name[-1].isalpha()
    ]
    columns = [
        *(f"metrics.`{name}`" for name in ("val_accuracy", "val_delta", "test_accuracy")),
        *(f"params.`{name}`" for name in params),
        *(f"tags.`lenet_exp.{name}`" for name in ("verdict", "role", "state")),
    ]
    view = {
        "searchFilter": "",
        # Only what is complete has a delta, so the others do not stand between.
        "orderByKey": "metrics.`val_delta`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": ["attributes.`Duration`", *columns],
        # By itself MLflow orders them by the alphabet, and shows the beginning of a name.
        "columnOrder": [_NAME, *columns],
        "columnWidths": {_NAME: 340},
        # MLflow appends a chart for each other metric; by itself it would show the speed first.
        "compareRunCharts": [
            {
                "type": "LINE",
                "uuid": name,
                "metricSectionId": _SECTIONS[0],
                "metricKey": name,
                "isGenerated": True,
                "deleted": False,
                "runsCountToCompare": 10,
                "xAxisKey": "step",
                "lineSmoothness": 0,
            }
            for name in ("val_accuracy", "val_loss", "train_loss", "train_accuracy")
        ],
        "compareRunSections": [
            {"uuid": name, "name": name, "display": True, "isReordered": True, "isGenerated": True}
            for name in _SECTIONS
        ],
    }
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.note.content": (
            f"{metadata.tags.get('mlflow.note.content', '')}\n\n"
            "The run named like the study has the verdict in its description, and the page (`report.html`)"
            " among its *Artifacts*. Each other run is a training; `val_delta` is its `val_accuracy` less the"
            " baseline's. What was interrupted is *killed*, and so is a pruned trial."
        ).strip(),
        VIEW: json.dumps(view),
    }


def _page(port: int) -> str:
    """Return what follows the server's name in the address of the latest experiment's runs."""
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError, LookupError):
        experiments = _ask(port, "experiments/search", max_results=1000)["experiments"]
        ids = [each["experiment_id"] for each in experiments]
        latest = {"experiment_ids": ids, "order_by": ["attributes.start_time DESC"], "max_results": 1}
        run = _ask(port, "runs/search", **latest)["runs"][0]
        experiment_id = run["info"]["experiment_id"]
        tags = next(each.get("tags", []) for each in experiments if each["experiment_id"] == experiment_id)
        has_view = any(tag["key"] == VIEW for tag in tags)
        order = "orderByKey=metrics.%60val_accuracy%60&orderByAsc=false"  # no sweep since December 2026
        shown = f"viewStateShareKey={VIEW.rpartition('.')[2]}" if has_view else order
        curves = "workflowType=machine_learning&compareRunsMode=CHART"
        return f"/#/experiments/{experiment_id}/runs?{curves}&{shown}"
    return ""  # there is no run yet


def _ask(port: int, method: str, **request: Any) -> Mapping[str, Any]:
    """Return the server's answer to a call of MLflow's REST API.

    Args:
        port: Port that the server listens on.
        method: Name of the call, such as ``runs/search``.
        **request: Arguments of the call.
    """
    with contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=10)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"/api/2.0/mlflow/{method}", json.dumps(request), headers)
        answer: Mapping[str, Any] = json.loads(connection.getresponse().read())
        return answer


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """Context manager: SIGINT and SIGTERM set the event that it yields, instead of ending this process."""
    stopped = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _probe(port: int) -> None:
    """Check that the port is free, as MLflow's server ends without an error if it is not.

    Raises:
        PortError: If the port is in use, or may not be used.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # Without this option the port of a server that has just ended would seem to be in use.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            problem = f"is in use by {_listener(port) or 'another program'}"
        else:
            problem = f"cannot be used on {HOST}: {getattr(error, 'strerror', None) or error}"
        raise PortError(f"port {port} {problem}; choose another with --port") from error


def _listener(port: int) -> str | None:
    """Return name and id of the process that listens on ``port``; None if the system does not tell them."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:  # 0A: LISTEN
                    sockets.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended, or belongs to another user
            if any(str(file.readlink()) in sockets for file in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return None


@contextlib.contextmanager
def _server(root: Path, port: int, output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Context manager: run MLflow's server for the length of the ``with`` block, then end its processes."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    command += ["--workers", "1"]
    command += ["--backend-store-uri", store.local_uri(root)]
    command += ["--artifacts-destination", artifacts(root).resolve().as_uri()]
    command += ["--allowed-hosts", f"{HOST}:{port},localhost:{port}"]
    command += ["--uvicorn-opts", "--log-level warning"]
    environment = {**store.ENVIRONMENT, **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment["PYTHONSAFEPATH"] = "1"  # so that no file in the root folder is imported as a module
    # A session of its own, so that its processes can be ended together, and Ctrl-C reaches only this process.
    server = subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )

    try:
        yield server
    finally:
        _end(server)


def _wait_until_ready(
    server: subprocess.Popen[bytes], port: int, output: IO[bytes], stopped: threading.Event
) -> bool:
    """Wait until the server answers, and return True; return False if ``stopped`` is set first.

    Raises:
        UnreachableError: If the server ends before it answers, or takes too long.
    """
    deadline = time.monotonic() + START_S
    while not stopped.wait(0.1):
        if time.monotonic() > deadline:
            raise UnreachableError(
                f"MLflow's server did not answer within {START_S:g} s: {_last_line(output)}"
            )
        if server.poll() is not None:
            raise UnreachableError(f"MLflow's server ended before it answered: {_last_line(output)}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(HOST, port, timeout=2)
            with contextlib.closing(connection):
                connection.request("GET", "/health")
                if connection.getresponse().status == http.client.OK:
                    return True
    return False


def _last_line(output: IO[bytes]) -> str:
    output.seek(0)
    lines = output.read().decode(errors="replace").split("\n")
    return mask_url(next((line.strip() for line in reversed(lines) if line.strip()), "no output"))


def _end(server: subprocess.Popen[bytes]) -> None:
    """End all of the server's processes."""
    _signal(server, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while _signal(server, 0) and time.monotonic() < deadline:
        server.poll()
        time.sleep(0.02)
    _signal(server, signal.SIGKILL)
    server.wait()


def _signal(server: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to all of the server's processes; return False if there are none."""
    try:
        os.killpg(server.pid, number)
    except ProcessLookupError:
        return False
    return True

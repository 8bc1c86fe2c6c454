"""A real tracking server, and a line to it that can be cut, fall silent, or lose an answer."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Literal

from lenet_exp.tracking import store
from tests.labs.mlflow_lab import empty_store

#: Longest wait for anything, in seconds.
LIMIT_S = 60.0


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(root: Path, port: int) -> subprocess.Popen[bytes]:
    """Start a tracking server, in a process group of its own, over the store in ``root``."""
    if not (root / "mlflow.db").exists():
        (root / "mlflow.db").write_bytes(empty_store())
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store.local_uri(root)]
    command += ["--artifacts-destination", str(root / "files")]
    environment = {**os.environ, **store.ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (root / "log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def wait_until_healthy(port: int) -> None:
    """Return once the server on ``port`` answers."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        with (
            suppress(OSError),
            closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection,
        ):
            connection.request("GET", "/health")
            if connection.getresponse().status == http.client.OK:
                return
        time.sleep(0.05)
    raise TimeoutError("the tracking server did not start")


class Line:
    """The line to the server, which can be cut, fall silent, or lose an answer."""

    def __init__(self, port: int) -> None:
        """Lay a line to ``port`` on this machine."""
        self.state: Literal["up", "cut", "silent"] = "up"
        #: The answer to the next request that has one of these in it is lost, once for each.
        self.lose_answers_to: set[bytes] = set()
        self._target = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def uri(self) -> str:
        """The server's address by this line."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def switch(self, state: Literal["up", "cut", "silent"]) -> None:
        """Change what the line does; connections that stand end."""
        self.state = state
        self.close_connections()

    def close_connections(self) -> None:
        """End the connections that stand."""
        while self._open:
            with suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take the line down."""
        self._socket.close()
        self.close_connections()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as target:
            for end in (client, target):
                # Otherwise the kernel holds back small pieces for 40 ms.
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.append(end)
            if self.state == "cut":
                return
            loses = threading.Event()
            answers = threading.Thread(target=self._answer, args=(client, target, loses), daemon=True)
            answers.start()
            while request := client.recv(1 << 16):
                if found := {text for text in self.lose_answers_to if text in request}:
                    self.lose_answers_to -= found
                    loses.set()
                if self.state == "up":
                    target.sendall(request)
            target.shutdown(socket.SHUT_RDWR)
            answers.join()

    def _answer(self, client: socket.socket, target: socket.socket, loses: threading.Event) -> None:
        with suppress(OSError):
            while answer := target.recv(1 << 16):
                if loses.is_set():
                    break
                client.sendall(answer)
            client.shutdown(socket.SHUT_RDWR)

"""A study in a real PostgreSQL, which is refused, killed and started anew."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import psycopg
import pytest

from lenet_exp.base.errors import ConfigError, LockedError, UnreachableError
from lenet_exp.base.records import EpochResult
from lenet_exp.config.loader import load, parse
from lenet_exp.results import lookup, read
from lenet_exp.study import postgres
from lenet_exp.study.postgres import AdvisoryLock, PatientStorage, connect
from lenet_exp.study.rdb import TrialStorage
from lenet_exp.study.study import open_study
from lenet_exp.sweep import finalists, run
from lenet_exp.tracking import store
from tests.labs.mlflow_lab import everything
from tests.labs.places import PROJECT
from tests.labs.studies import read_records
from tests.sweep.test_recovery_sync import EXPERIMENT, command

pytestmark = pytest.mark.postgres

_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), reverse=True)
PG_CTL = shutil.which("pg_ctl") or (str(_PROGRAMS[0]) if _PROGRAMS else None)


class Server:
    """A PostgreSQL of our own."""

    def __init__(self, folder: Path) -> None:
        """Make it, in a folder that its user can reach; it refuses to run as root."""
        assert PG_CTL is not None
        self._folder = folder
        self._user = "postgres" if os.getuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        self.port = free_port()
        (folder / "password").write_text("s3cret")
        self._run(
            "initdb", "-U", "ann", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync"
        )
        self.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"postgresql://ann:s3cret@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and return when it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder}"
        self._run("start", "-w", "-o", options, "-l", str(self._folder / "log"))

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._run("stop", "-m", "immediate")

    def _run(self, action: str, *arguments: str) -> None:
        program = [str(PG_CTL), "initdb", "-o", " ".join(arguments)] if action == "initdb" else None
        command = program or [str(PG_CTL), action, *arguments]
        subprocess.run(
            [*command, "-D", str(self._folder / "data")],
            user=self._user,
            cwd=self._folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """A server for this module."""
    if PG_CTL is None:
        pytest.skip("PostgreSQL's server programs are not installed")
    folder = Path(tempfile.mkdtemp(prefix="lenet-exp-postgres-"))
    server = Server(folder)
    yield server
    server.kill()
    shutil.rmtree(folder)


@pytest.fixture
def server(running: Server) -> Server:
    """The server, without any study."""
    with psycopg.connect(running.url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return running


STUDY = parse({"name": "größe", "space": {"lr": [0.1, 0.2, 0.3]}, "search": {"pruner": "none", "trials": 5}})


def test_a_study_is_kept_and_continued(server: Server, tmp_path: Path, way: str) -> None:
    """What was told is read back by the next driver, and nothing is written below the root."""
    study = open_study(STUDY, tmp_path, server.url)
    study.check_fingerprint({"a": 1})
    attempt = study.ask()
    assert attempt is not None
    study.report(attempt.key, EpochResult(1, 1.0, 0.5, 1.0, 0.75, 1000.0, 1.0))
    study.tell(attempt.key, "COMPLETE", 0.75, {"train_s": 1.0})

    (record,) = read_records("größe", tmp_path, server.url) or []

    assert record == study.record(attempt.key)
    assert open_study(STUDY, tmp_path, server.url).n_finished == 1
    with pytest.raises(ConfigError, match="a was 1, is now 2"):
        open_study(STUDY, tmp_path, server.url).check_fingerprint({"a": 2})
    assert list(tmp_path.iterdir()) == []


def test_a_study_is_held_by_one_driver(server: Server) -> None:
    """The second is told who holds it; another study is free; a lock goes with its session."""
    with closing(AdvisoryLock(server.url, "a")):
        with pytest.raises(
            LockedError, match=rf"study 'a' is in use by pid {os.getpid()} on host .* since 20"
        ):
            AdvisoryLock(server.url, "a")
        with closing(AdvisoryLock(server.url, "b")):
            pass
    with closing(AdvisoryLock(server.url, "a")):
        pass


def test_a_lock_that_a_restart_has_lost_is_taken_again_unless_somebody_else_was_quicker(
    server: Server,
) -> None:
    """`hold` makes sure; whoever lost it to another driver is told so."""
    with closing(AdvisoryLock(server.url, "a")) as lock:
        server.kill()
        with pytest.raises(UnreachableError, match="does not answer"):
            lock.hold()
        server.start()
        lock.hold()
        with pytest.raises(LockedError):
            AdvisoryLock(server.url, "a")
        server.kill()
        server.start()
        with closing(AdvisoryLock(server.url, "a")), pytest.raises(LockedError, match="in use by pid"):
            lock.hold()


def pid_of_lock(server: Server) -> int | None:
    """Return the process of the server's end of the session that has an advisory lock."""
    with psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT pid FROM pg_locks WHERE locktype = 'advisory'").fetchone()
    return int(row[0]) if row else None


def end_session(server: Server, pid: int | None) -> None:
    """End a session, as an administrator would."""
    with psycopg.connect(server.url) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def test_a_lock_outlives_idle_sessions_and_is_taken_again_when_its_session_ends(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to ask: a thread takes it again, also from a session that only the server believes in."""
    monkeypatch.setattr(postgres, "PING_S", 0.05)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("ALTER ROLE ann SET idle_session_timeout = '500ms'")
    try:
        with closing(AdvisoryLock(server.url, "a")) as lock:
            first = pid_of_lock(server)
            time.sleep(0.6)
            assert pid_of_lock(server) == first
            end_session(server, first)
            for _ in range(200):
                if second := pid_of_lock(server):
                    break
                time.sleep(0.02)
            assert second not in (None, first)
            ghost = lock._connection
            assert ghost is not None
            lock._connection = None  # the network died, and the server does not know
            lock.hold()
            assert pid_of_lock(server) not in (None, second)
            ghost.close()
    finally:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("ALTER ROLE ann RESET idle_session_timeout")


def test_a_study_whose_lock_another_sweep_has_got_is_left_alone(server: Server, tmp_path: Path) -> None:
    """Whoever lost the lock begins, tells and keeps nothing any more, and is told who has it."""
    study = open_study(STUDY, tmp_path, server.url)
    told: list[str] = []
    with closing(AdvisoryLock(server.url, "a")) as lock:
        study.when_gone(told.append, lock.hold)
        attempt = study.ask()
        assert attempt is not None
        lock._closed.set()  # too slow to take it again
        end_session(server, pid_of_lock(server))
        with closing(AdvisoryLock(server.url, "a")):
            for write in (
                study.ask,
                lambda: study.tell(attempt.key, "COMPLETE", 0.5),
                lambda: study.fail(attempt.key, "interrupted", retry=True),
                lambda: study.keep("x", 1),
            ):
                with pytest.raises(LockedError, match=r"study 'a' is in use by pid \d+ on host"):
                    write()
    assert study.lost
    assert study.kept("x") is None
    trials = optuna.load_study(study_name="größe", storage=connect(server.url)).trials
    assert [trial.state.name for trial in trials] == ["RUNNING"]
    assert not told


@pytest.mark.parametrize(
    ("mode", "message"),
    [("transaction", "is a pooler that gives each .* name the server itself"), ("session", None)],
)
def test_a_pooler_that_lends_sessions_cannot_hold_a_lock(
    server: Server, tmp_path: Path, mode: str, message: str | None
) -> None:
    """It is refused before a lock is left in a session of the pool, which nobody would release."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed")
    folder, port = Path(tempfile.mkdtemp(prefix="lenet-exp-pooler-")), free_port()
    (folder / "users").write_text('"ann" "s3cret"\n')
    (folder / "settings").write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port} password=s3cret\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = plain\nauth_file = {folder / 'users'}\npool_mode = {mode}\n"
    )
    user = "postgres" if os.getuid() == 0 else None
    for path in (folder, *folder.iterdir()):
        if user:
            shutil.chown(path, user)
    pooler = subprocess.Popen([program, "-q", folder / "settings"], user=user, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        url = server.url.replace(str(server.port), str(port))
        if message:
            with pytest.raises(ConfigError, match=message):
                AdvisoryLock(url, "a")
            assert pid_of_lock(server) is None
        else:
            with closing(AdvisoryLock(url, "a")):
                assert pid_of_lock(server)
    finally:
        pooler.kill()
        pooler.wait()
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("url", "code", "message"),
    [
        (
            "postgresql://ann:wr0ng@127.0.0.1:{port}/postgres",
            7,
            r"postgresql://\*\*\*@127.* does not answer: .*password",
        ),
        (
            "postgresql://ann:wr0ng@127.0.0.1:1/postgres",
            7,
            r"postgresql://\*\*\*@127.* does not answer: .*refused",
        ),
        ("postgresql://ann:s3cret@127.0.0.1:{port}/nowhere", 7, r"database .?nowhere.? does not exist"),
        (
            "postgresql://ann:wr0ng@127.0.0.1:{silent}/postgres",
            7,
            r"does not answer: .*(timeout|timed out|expired)",
        ),
        ("mysql://ann:wr0ng@127.0.0.1/x", 2, r"--storage must be a postgresql:// URL, found mysql://\*\*\*@"),
        ("postgresql://ann:wr0ng@127.0.0.1:port/x", 2, "--storage must be a URL such as postgresql://"),
        ("wr0ng", 2, "--storage must be a URL such as postgresql://"),
    ],
)
def test_a_storage_that_cannot_be_had_is_one_line(
    server: Server, tmp_path: Path, url: str, code: int, message: str
) -> None:
    """Exit code 7 or 2 within 15 seconds, without the password."""
    (tmp_path / "mini.toml").write_text(EXPERIMENT)
    before = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        given = url.format(port=server.port, silent=silent.getsockname()[1])

        found = command(
            "sweep", str(tmp_path / "mini.toml"), "--root", str(tmp_path / "runs"), "--storage", given
        )

    assert time.monotonic() - before < 13
    assert (found[0], found[1]) == (code, "")
    assert re.fullmatch(rf"error: [^\n]*{message}[^\n]*\n", found[2]), found[2]
    assert "wr0ng" not in found[2].replace("found wr0ng", "")


def test_what_was_done_though_its_answer_was_lost_is_not_done_twice(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Each operation, and each step of one, fails once after it was done: no trial is made twice.

    And what was told is told.
    """
    monkeypatch.setattr(postgres, "BACKOFF_S", (0.001, 0.001))
    said: list[str] = []
    lost: set[str] = set()
    ever: set[str] = set()

    steps = {
        "create_new_trial",
        "set_trial_param",
        "set_trial_user_attr",
        "set_trial_intermediate_value",
        "set_trial_state_values",
    }
    for name in (*postgres._OPERATIONS.split(), *steps):
        original = getattr(TrialStorage, name)

        def answer_lost(self: Any, *args: Any, _o: Any = original, _n: str = name, **options: Any) -> Any:
            result = _o(self, *args, **options)
            if armed and _n not in lost:
                lost.add(_n)
                ever.add(_n)
                raise optuna.exceptions.StorageInternalError from psycopg.OperationalError("gone")
            return result

        patched = answer_lost if name in steps else retried(name, answer_lost)
        monkeypatch.setattr(PatientStorage, name, patched)
    armed = False
    study = open_study(STUDY, tmp_path, server.url)
    study.when_gone(said.append, lambda: None)
    armed = True
    keys = []
    for value in (0.25, 0.5, 0.75):
        lost.clear()
        attempt = study.ask()
        assert attempt is not None
        study.report(attempt.key, EpochResult(1, 1.0, 0.5, 1.0, value, 1000.0, 1.0))
        if value == 0.5:  # one is to be tried again, by a trial that waits
            assert study.fail(attempt.key, "died", retry=True)
        else:
            study.tell(attempt.key, "COMPLETE", value, {"train_s": 1.0})
        keys.append(attempt.key)
    armed = False

    assert "write_trial" in ever
    assert ever & steps == (steps if way == "methods" else set())
    records = read_records("größe", tmp_path, server.url) or []
    assert [(record.key, record.value) for record in records] == list(
        zip(keys, [0.25, None, 0.75], strict=True)
    )
    assert keys[2].attempt == 2
    assert study.n_waiting() == 0
    trials = optuna.load_study(study_name="größe", storage=connect(server.url)).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert any("waiting for" in line for line in said)


def retried(name: str, operation: Any) -> Any:
    """Return an operation of `PatientStorage` with another one at its heart."""
    return lambda self, *args, **options: self._until_answered(name, operation, *args, **options)


def test_a_storage_that_stays_away_ends_the_sweep(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Patience has an end, and what is asked after that is refused at once."""
    monkeypatch.setattr(postgres, "PATIENCE_S", 0.3)
    study = open_study(STUDY, tmp_path, server.url)
    server.kill()
    try:
        with pytest.raises(UnreachableError, match=r"has been gone for .*; run the same command again"):
            study.ask()
        before = time.monotonic()
        with pytest.raises(UnreachableError):
            study.ask()
        assert time.monotonic() - before < 1
    finally:
        server.start()


@pytest.mark.slow
def test_what_a_sweep_reads_at_its_end_waits_for_the_server_too(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Finalists, results and the printed leaderboard are read anew; each connection fails once."""
    asked: list[str] = []

    def failing_once(module: Any, name: str) -> None:
        original = getattr(module, name)

        def fails_once(*args: Any, **options: Any) -> Any:
            asked.append(name)
            if asked.count(name) == 1:
                raise UnreachableError("gone")
            return original(*args, **options)

        monkeypatch.setattr(module, name, fails_once)

    failing_once(finalists, "chosen")
    failing_once(lookup, "read_results")
    failing_once(read, "show_leaderboard")
    text = f"{EXPERIMENT}[confirm]\ntop = 1\nseeds = 2\n".replace("epochs = 2", "epochs = 1")

    (tmp_path / "mini.toml").write_text(text)

    run.run_main_job(run.Request(load(tmp_path / "mini.toml"), tmp_path, device="cpu", storage=server.url))

    # The third time, the printed leaderboard reads the results.
    assert Counter(asked) == {"chosen": 2, "read_results": 3, "show_leaderboard": 2}
    assert "champion: " in capsys.readouterr().out


@pytest.mark.slow
def test_a_restart_in_mid_sweep_loses_nothing(server: Server, tmp_path: Path) -> None:
    """Killed twice while trials train: exit code 0, the budget met exactly, all in study, CSV and MLflow."""
    text = EXPERIMENT.replace("epochs = 2", "epochs = 6").replace("trials = 2", "trials = 3")
    (tmp_path / "mini.toml").write_text(text.replace("[space]\n", "[space]\nbatch_size = [4]\n"))
    log = tmp_path / "log"
    with log.open("wb") as output:
        sweep = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "lenet_exp.sweep",
                "mini.toml",
                "--root",
                "runs",
                "--device",
                "cpu",
                "--no-confirm",
            ],
            cwd=tmp_path,
            env=os.environ
            | {
                "PYTHONPATH": str(PROJECT),
                "LENET_EXP_DATA": str(tmp_path / "data"),
                "LENET_EXP_STORAGE": server.url,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    spool = tmp_path / "runs" / "mini" / "spool"

    def epochs() -> int:
        return sum(path.read_text().count('"event":"epoch"') for path in spool.glob("trial-*.jsonl"))

    for goal in (2, 7):
        while epochs() < goal and sweep.poll() is None:
            time.sleep(0.05)
        assert sweep.poll() is None, log.read_text()
        server.kill()
        time.sleep(1)
        server.start()
    assert sweep.wait(timeout=120) == 0, log.read_text()

    assert "waiting for the study's storage" in log.read_text()
    assert "s3cret" not in log.read_text()
    records = read_records("mini", tmp_path / "runs", server.url) or []
    assert sorted((record.key.role, record.state, record.epochs) for record in records) == [
        ("baseline", "COMPLETE", 6),
        *[("trial", "COMPLETE", 6)] * 3,
    ]
    study = optuna.load_study(study_name="mini", storage=connect(server.url))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    seen = everything(store.connect(store.local_uri(tmp_path / "runs")), "mini")
    assert {seen[name]["info"][0] for name in seen if name != "models"} == {"FINISHED"}
    kept = b"".join(path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file())
    assert b"s3cret" not in kept
    assert not (tmp_path / "runs" / "study.db").exists()

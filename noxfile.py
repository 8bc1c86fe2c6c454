"""The checks: ``nox -s tests proofs lint types smoke``, and others by name: ``browser``, ``crash``, ``gpu``.

``nox -l`` lists them. All but ``smoke`` share one environment, ``.venv``, which is the README's own: torch
alone is several gigabytes. With ``--no-venv`` they run in the environment that nox is in, and install
nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.sessions = ["tests", "lint", "types"]

PROJECT = nox.project.load_toml("pyproject.toml")
SHARED = Path(".venv").absolute()


def _python(session: nox.Session, *groups: str) -> str:
    """Return the shared environment's Python, the dependency groups installed."""
    if "--no-venv" in sys.argv:
        return sys.executable
    python = str(SHARED / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
    if not Path(python).exists():
        session.run(sys.executable, "-m", "venv", str(SHARED), external=True)
    requirements = [line for group in groups for line in nox.project.dependency_groups(PROJECT, group)]
    session.run(python, "-m", "pip", "install", "--quiet", "--editable", ".", *requirements, external=True)
    return python


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """Run the test suite but for its slow proofs; arguments go to pytest (``-n 0``: one after the other)."""
    # A file's tests stay together, as they share what takes long to make.
    at_once = ["-n", str(min(4, os.cpu_count() or 1)), "--dist", "loadfile", "-m", "not slow and not browser"]
    session.run(_python(session, "tests"), "-m", "pytest", *at_once, *session.posargs, external=True)


@nox.session(python=False)
def proofs(session: nox.Session) -> None:
    """Run the slow tests: outages, kills, full disks and restarts in the middle of real sweeps."""
    session.run(_python(session, "tests"), "-m", "pytest", "-m", "slow", *session.posargs, external=True)


@nox.session(python=False)
def browser(session: nox.Session) -> None:
    """Look at MLflow's pages and at the report in the system's Chromium, without a window."""
    python = _python(session, "tests", "browser")
    session.run(python, "-m", "pytest", "-m", "browser", "tests/browser", *session.posargs, external=True)


@nox.session(python=False)
def crash(session: nox.Session) -> None:
    """Kill workers and drivers 2,000 times, or ``--kills``, and hold what is left against a ledger."""
    python = _python(session, "tests")
    session.run(python, "-m", "tests.crash.kills", *session.posargs, external=True, env={"PYTHONPATH": "."})


@nox.session(python=False)
def statistics(session: nox.Session) -> None:
    """Simulate 20,000 sweeps a cell, or ``--sweeps``, and write the tables of experiments/STATISTICS.md."""
    command = ["-m", "tests.labs.simulated_tables", *session.posargs]
    session.run(_python(session, "tests"), *command, external=True, env={"PYTHONPATH": "."})


@nox.session(python=False)
def lint(session: nox.Session) -> None:
    """Check format and style."""
    python = _python(session, "lint")
    session.run(python, "-m", "ruff", "format", "--check", ".", external=True)
    session.run(python, "-m", "ruff", "check", ".", external=True)


@nox.session(python=False)
def types(session: nox.Session) -> None:
    """Check the types, strictly."""
    session.run(_python(session, "tests", "types", "browser"), "-m", "mypy", external=True)


@nox.session(reuse_venv=True)
def smoke(session: nox.Session) -> None:
    """Install as a user does, without development dependencies, and ask every command for its help."""
    session.install(".")
    ask = "from lenet_exp.cli.program import commands; print(*commands())"
    commands = session.run("python", "-c", ask, silent=True)
    assert isinstance(commands, str)
    session.run("lenet-exp", "--version")
    for command in commands.split():
        session.run("lenet-exp", command, "--help", silent=True)
    session.run("python", "-m", "lenet_exp.sweep", "--help", silent=True)


@nox.session(reuse_venv=True)
def bench(session: nox.Session) -> None:
    """Measure this machine, and ours against Optuna's and Ray Tune's usual loops; arguments go to compare.py.

    The table is printed, and written to mlruns/bench.md.
    """
    python = _python(session)
    if "--no-venv" not in sys.argv:
        # Only the contenders' own packages are installed here, on top of the shared environment's.
        place = "import sysconfig; print(sysconfig.get_path('purelib'))"
        shared, own = (
            str(session.run(interpreter, "-c", place, silent=True, external=True)).strip()
            for interpreter in (python, "python")
        )
        Path(own, "shared.pth").write_text(f"import site; site.addsitedir({shared!r})\n")
        session.install("ray[tune]", "optuna-integration")
    # Absolute, because the contenders run in folders of their own.
    environment = {"PYTHONPATH": str(Path().absolute())}
    compare = ["python", "-m", "tests.benchmarks.compare", "--output", "mlruns/bench.md"]
    session.run(*compare, *session.posargs, env=environment)


@nox.session(python=False)
def gpu(session: nox.Session) -> None:
    """Check and measure this machine's card, in less than six minutes; arguments go to tests/gpu.py.

    Where only PyTorch, NumPy, pydantic and safetensors are installed, ``python tests/gpu.py`` does it.
    """
    session.run(_python(session), "tests/gpu.py", *session.posargs, external=True)

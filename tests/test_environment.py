from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lenet_exp import environment
from lenet_exp.environment import CAUSES, CODE, facts


def test_the_facts_are_what_the_libraries_say() -> None:
    """Versions are found without importing anything, and are those that would be imported."""
    found = facts(device="cuda:1", device_name="H200", torch=torch.__version__, threads=2, compiled=True)

    assert set(CAUSES) <= found.keys()
    assert found["numpy"] == np.__version__
    assert found["python"] == platform.python_version()
    assert (found["device"], found["device_type"], found["threads"]) == ("H200", "cuda", 2)
    assert found["cpu"]


def test_the_code_s_digest_sees_every_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One character of one of the modules changes it; line ends do not."""
    before = environment.code.__wrapped__()
    folder = Path(environment.__file__).parent
    for name in CODE:
        source = (folder / f"{name}.py").read_bytes()
        (tmp_path / f"{name}.py").write_bytes(source.replace(b"\n", b"\r\n"))
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))

    assert environment.code.__wrapped__() == before

    train = tmp_path / "train.py"
    train.write_bytes(train.read_bytes() + b"#")
    assert environment.code.__wrapped__() != before


def test_all_modules_that_a_training_goes_through_count() -> None:
    """What `lenet_exp.train` imports and computes with is in the digest."""
    code = "import sys, lenet_exp.train; print(*[n for n in sys.modules if n.startswith('lenet_exp.')])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    plain = {"archives", "cache", "download", "errors", "faults", "files", "idx", "record", "sources"}

    assert {name.partition(".")[2] for name in loaded.split()} - plain <= set(CODE)

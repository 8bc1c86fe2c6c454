from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from lenet_exp.base import environment
from lenet_exp.base.environment import CAUSES, CODE, metadata


def test_the_facts_are_what_the_libraries_say() -> None:
    """Versions are found without importing anything, and are those that would be imported."""
    found = metadata(
        device="cuda:1",
        device_name="H200",
        torch=torch.__version__,
        threads=2,
        compiled=True,
        kernels="torch",
    )

    assert set(CAUSES) <= found.keys()
    assert found["numpy"] == np.__version__
    assert found["optuna"] == version("optuna")
    assert found["python"] == platform.python_version()
    assert (found["device"], found["device_type"], found["threads"]) == ("H200", "cuda", 2)
    assert found["cpu"]


def test_the_code_s_digest_sees_every_edit(tmp_path: Path) -> None:
    """One character of one of the modules changes it; line ends do not."""
    package = Path(environment.__file__).parent.parent
    files = [Path(f"{name.replace('.', '/')}.py") for name in CODE]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes((package / file).read_bytes().replace(b"\n", b"\r\n"))

    assert environment.code.__wrapped__(tmp_path) == environment.code()

    for file in files:
        before = environment.code.__wrapped__(tmp_path)
        (tmp_path / file).write_bytes((tmp_path / file).read_bytes() + b"#")
        assert environment.code.__wrapped__(tmp_path) != before


def test_all_modules_that_a_training_goes_through_count() -> None:
    """What `lenet_exp.training.loop` imports and computes with is in the digest."""
    code = (
        "import sys, lenet_exp.training.loop\n"
        "ours = {n: m for n, m in sys.modules.items() if n.startswith('lenet_exp.')}\n"
        "print(*[n for n, module in ours.items() if not hasattr(module, '__path__')])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    plain = {f"base.{name}" for name in ("errors", "faces", "failpoints", "files", "messages", "records")}
    # What a file says is in the configuration by then.
    plain |= {f"config.{name}" for name in ("ablation", "experiment", "refusals", "space")}
    plain |= {f"data.{name}" for name in ("cache", "datasets", "download", "idx", "sources")}

    assert {name.partition(".")[2] for name in loaded.split()} - plain <= set(CODE)

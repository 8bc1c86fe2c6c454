"""What a training ran in: versions, processor and code, so that a later one can be compared with it.

Nothing is imported to find out a version.
"""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lenet_exp import __version__

#: The modules that a training's numbers go through; a change to one of them may change the numbers.
CODE = (
    "base.seeding",
    "config.architecture",
    "config.hyperparameters",
    "data.images",
    "data.split",
    "training.cpu.convolution",
    "training.cpu.gradients",
    "training.cpu.ops",
    "training.loop",
    "training.network",
    "training.optimizers",
)

#: What can make the same training give other numbers, in the order in which it is told.
CAUSES = (
    "code",
    "lenet_exp",
    "torch",
    "numpy",
    "python",
    "device",
    "cpu",
    "system",
    "threads",
    "compiled",
    "kernels",
)


def metadata(
    *, device: str, device_name: str, torch: str, threads: int, compiled: bool, kernels: str
) -> dict[str, str | int]:
    """Return what is kept with the result of a training.

    Args:
        device: As torch names it, such as ``cpu`` or ``cuda:0``.
        device_name: The processor's or accelerator's own name.
        torch: torch's version.
        threads: Of the training's process.
        compiled: Whether the step was a compiled graph.
        kernels: Whose layers computed the step: ``fast``, this project's own, or ``torch``.
    """
    return {
        "device": device_name,
        "device_type": device.partition(":")[0],
        "torch": torch,
        "threads": threads,
        "compiled": compiled,
        "kernels": kernels,
        "cpu": processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        **version_of_code(),
    }


def version_of_code() -> dict[str, str | int]:
    """Return which code trains: the package's version, and a digest of what decides a number."""
    return {"lenet_exp": __version__, "code": code()}


@functools.cache
def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@functools.cache
def code(package: Path = Path(__file__).parent.parent) -> str:
    """Return a digest of `CODE`, 12 hexadecimal digits: it needs no repository and sees every edit."""
    digest = hashlib.sha256()
    for name in CODE:
        # Line ends do not matter, and a checkout may change them.
        digest.update((package / f"{name.replace('.', '/')}.py").read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

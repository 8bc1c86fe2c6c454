"""The environment of a training: versions, processor and code, for comparison with that of a later training.

Versions are read without importing the packages.
"""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib.util import find_spec
from pathlib import Path

from lenet_exp import __version__
from lenet_exp.base.errors import DeviceError

#: The modules that compute the results of a training; a change to one of them may change the results.
CODE = (
    "base.seeding",
    "config.architecture",
    "config.hyperparameters",
    "data.images",
    "data.split",
    "training.cpu.convolution",
    "training.cpu.gradients",
    "training.cpu.ops",
    "training.device",
    "training.loop",
    "training.network",
    "training.optimizers",
)

#: The entries of `metadata` that can change the results of a training, in the order in which
#: ``lenet-exp replay`` lists them.
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
    """Return the description of a training's environment that is recorded with its result.

    Args:
        device: Torch's name for the device, such as ``cpu`` or ``cuda:0``; only its type is recorded.
        device_name: Manufacturer's name of the processor or accelerator.
        torch: Version of torch.
        threads: Number of threads that the training's process computes with.
        compiled: True if the training step ran as a compiled graph.
        kernels: Implementation of the layers: ``fast`` for this project's own, ``torch`` for PyTorch's.
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
        # They change no result of a training, but its reader asks what drew and recorded it.
        "optuna": _version("optuna"),
        "mlflow": _version("mlflow"),
        **version_of_code(),
    }


def check_system() -> None:
    """Check that the operating system is one that this package can run on.

    Raises:
        DeviceError: If the system has no ``fcntl``, as is the case for Windows.
    """
    if find_spec("fcntl") is None:
        system = platform.system() or "another system"
        raise DeviceError(f"lenet_exp needs Linux or macOS (it uses fcntl and fork), found {system}; use WSL")


def version_of_code() -> dict[str, str | int]:
    """Return the package's version and the digest of the modules in `CODE`, as entries of `metadata`."""
    return {"lenet_exp": __version__, "code": code()}


@functools.cache
def processor() -> str:
    """Return the model name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@functools.cache
def code(package: Path = Path(__file__).parent.parent) -> str:
    """Return a digest of the source files of `CODE`: 12 hexadecimal digits, computed without git."""
    digest = hashlib.sha256()
    for name in CODE:
        # A checkout may change line endings, which changes no result.
        digest.update((package / f"{name.replace('.', '/')}.py").read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()[:12]


@functools.cache
def _version(package: str) -> str:
    # Imported here because it takes 15 ms, which every command would otherwise spend.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

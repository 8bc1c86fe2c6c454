"""The device, the images and the machine of ``tests/gpu.py``."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from lenet_exp.base import environment
from lenet_exp.config.experiment import Data
from lenet_exp.data import idx
from lenet_exp.data.images import ImageSet, training_images
from lenet_exp.execution.resources import measure
from lenet_exp.training.device import resolve_device
from tests.labs.places import MINI_FOLDER, PROJECT

#: Images of random bytes, on an accelerator and on a CPU.
_MANY, _FEW = 60_000, 6_000
#: Images that an attempt trains on at most, on a CPU.
_FEW_OF_ATTEMPT = 2_000


@dataclass(frozen=True)
class Bench:
    """What is measured, and with what.

    Attributes:
        device: The best one of this machine.
        images: The images that are trained on for speed and memory.
        data: The ``[data]`` of an experiment on them.
        fixture: A piece of Fashion-MNIST, for what has to come out right.
        folder: Place for files, to be removed at the end.
        for_s: Seconds of each measurement of speed.
        rounds: Repetitions of each, in turn.
        say: Called with a line for people.
    """

    device: torch.device
    images: ImageSet
    data: Data
    fixture: ImageSet
    folder: Path
    for_s: float
    rounds: int
    say: Callable[[str], None]


def prepare(
    data: Path | None, folder: Path, for_s: float | None, rounds: int, say: Callable[[str], None]
) -> Bench:
    """Return the best device of this machine, with its images.

    Args:
        data: A folder of IDX files; None for random bytes.
        folder: Place for files, to be removed at the end.
        for_s: Seconds of each measurement of speed; None for what suits the device.
        rounds: Repetitions of each.
        say: Called with a line for people.

    Raises:
        DataError: If the files are not there or damaged.
    """
    device = resolve_device("auto")
    small = device.type == "cpu"
    source = data or random_images(folder / "random", _FEW if small else _MANY)
    section = Data(dataset="own" if data else "random", folder=str(source.absolute()))
    images = training_images(section)
    kept = min(section.validation, images.count // 6)
    limit = min(_FEW_OF_ATTEMPT, images.count - kept) if small else None
    fixture = Data(dataset="fixture", folder=str(MINI_FOLDER), validation=200)
    return Bench(
        device=device,
        images=images,
        data=section.model_copy(update={"validation": kept, "limit": limit}),
        fixture=training_images(fixture),
        folder=folder,
        for_s=for_s if for_s is not None else (0.5 if small else 3.0),
        rounds=rounds,
        say=say,
    )


def random_images(folder: Path, count: int) -> Path:
    """Write IDX files of random bytes and classes, and return their folder, which is made.

    Args:
        folder: To be made.
        count: The number of images.
    """
    folder.mkdir()
    stream = np.random.default_rng(0)
    for name, shape, values in (("images-idx3", (count, 28, 28), 256), ("labels-idx1", (count,), 10)):
        content = stream.integers(0, values, shape, dtype=np.uint8)
        (folder / f"train-{name}-ubyte").write_bytes(idx.header(shape) + content.tobytes())
    return folder


def no_cuda(bench: Bench) -> str:
    """Return why nothing can be measured that needs a CUDA device; empty if there is one."""
    return "" if bench.device.type == "cuda" else "no CUDA device"


def device_name(device: torch.device) -> str:
    """Return the card's own name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return environment.processor() if device.type == "cpu" else f"{device.type} of {environment.processor()}"


def metadata(bench: Bench) -> dict[str, str]:
    """Return what the numbers depend on, by name."""
    cuda = str(torch.version.cuda or "none")
    if bench.device.type == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]  # torch has no types
        cuda += f", cuDNN {cudnn}, driver {driver()}"
    cores, count = measure().cores, f"{bench.images.count:,}"
    return {
        "device": f"{bench.device} ({device_name(bench.device)}); {cores} cores of {environment.processor()}",
        "torch": f"{torch.__version__}, CUDA {cuda}",
        "python": f"{platform.python_version()}, numpy {np.__version__}",
        "commit": f"{commit()}, code {environment.code()}",
        "images": f"{count}, {'random bytes' if bench.images.name == 'random' else 'from the given folder'}",
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def driver() -> str:
    """Return the version of the NVIDIA driver, ``unknown`` if nothing tells."""
    try:
        found = re.search(r"Kernel Module.*?(\d+\.[\d.]+)", Path("/proc/driver/nvidia/version").read_text())
    except OSError:
        found = None
    return found[1] if found else _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


def commit() -> str:
    """Return the commit that is checked out, ``unknown`` where there is no repository."""
    name = _said("git", "rev-parse", "--short", "HEAD")
    changed = name != "unknown" and _said("git", "status", "--porcelain", "--untracked-files=no") != "unknown"
    return f"{name}, with changes" if changed else name


def _said(*command: str) -> str:
    """Return the first line that a command prints, ``unknown`` if there is none."""
    if not shutil.which(command[0]):
        return "unknown"
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=20, check=False)
    lines = [] if done.returncode else done.stdout.strip().splitlines()
    return lines[0] if lines else "unknown"

"""Which code trained: the package's version and a hash of what decides a result."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from lenet_exp import __version__

#: The modules that a training's numbers depend on.
DECISIVE = ("architecture", "config", "data", "fast", "kernels", "model", "seeding", "train")


@functools.cache
def code_version() -> str:
    """Return the version that is stored with every trial, as in ``0.1.0+3fa9c2d1``."""
    digest = hashlib.sha256()
    for module in DECISIVE:
        digest.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"

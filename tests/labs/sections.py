"""The ``[data]`` of an experiment, for the tests of what takes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lenet_exp.config.experiment import Data


def section(dataset: str, folder: Path | None = None, **settings: Any) -> Data:
    """Return a section that names a data set and the folder of its files."""
    return Data(dataset=dataset, folder=None if folder is None else str(folder), **settings)

"""The paths of all files that runs write, below one root folder; no other module spells them.

::

    <root>/
      study.db, mlflow.db, artifacts/      stores that all experiments share
      <experiment>/                        `Layout.home`
        .lock, experiment.toml, leaderboard.csv, report.html, overview.png, traceback.txt
        ablation.csv, curves.csv, curves.png
        spool/                             the log of each attempt, a file of JSON lines
        checkpoints/<attempt>/             weights.safetensors; before it, the training's checkpoints
        confirm/                           readings.json, and each network's predictions for the test images
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from lenet_exp.base.errors import ConfigError
from lenet_exp.base.records import RunKey

#: Names that no experiment's folder may have: the stores beside it have them, or Windows reserves them.
_RESERVED = {"artifacts", "mlflow.db", "study.db", "con", "prn", "aux", "nul"}
_RESERVED |= {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}


def study_db(root: Path) -> Path:
    """Return the path of the studies' SQLite file below ``root``; it may not exist."""
    return root / "study.db"


def mlflow_db(root: Path) -> Path:
    """Return the path of MLflow's SQLite file below ``root``; it may not exist."""
    return root / "mlflow.db"


def artifacts(root: Path) -> Path:
    """Return the path of MLflow's artifact folder below ``root``; it may not exist."""
    return root / "artifacts"


def layouts(root: Path) -> list[Layout]:
    """Return the layout of every experiment below ``root`` that has a spool, by name."""
    spools = sorted(path for path in root.glob("*/spool") if path.is_dir() and not path.is_symlink())
    return [Layout(root, path.parent.name) for path in spools]


def folder_name(name: str) -> str:
    """Return the name of an experiment's folder: valid on every file system, different for different names.

    Example:
        >>> folder_name("fashion-mnist")
        'fashion-mnist'
        >>> folder_name("Größe 5")
        'gr-e-5-d0f0d442'
    """
    if re.fullmatch(r"[a-z0-9][a-z0-9_@-]*", name) and name not in _RESERVED:
        return name
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "experiment"
    return f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


class Below:
    """A path in an experiment's folder, as an attribute of its `Layout`.

    Args:
        name: Path relative to the experiment's folder.
        text: Docstring of the attribute.
    """

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self.__doc__ = text

    def __get__(self, layout: Layout, _: type[Layout] | None = None) -> Path:
        return layout.home / self._name


@dataclass(frozen=True)
class Layout:
    """The paths of one experiment; asking for one creates nothing.

    Attributes:
        root: Folder of all files that runs write, shared by all experiments.
        folder: Name of the experiment's folder below the root.
    """

    root: Path
    folder: str

    @classmethod
    def of(cls, root: Path, name: str) -> Layout:
        """Return the layout of an experiment.

        Args:
            root: Folder of all files that runs write; it is made absolute.
            name: Name of the experiment, as its file writes it.
        """
        return cls(root.absolute(), folder_name(name))

    @property
    def home(self) -> Path:
        """The experiment's folder."""
        return self.root / self.folder

    lock = Below(".lock", "Lock file, held by the process that works on the experiment.")
    experiment_file = Below("experiment.toml", "Copy of the experiment file, without secrets.")
    leaderboard = Below("leaderboard.csv", "Table of the configurations tried, ranked.")
    report = Below("report.html", "HTML page of the results.")
    overview = Below("overview.png", "Picture of the trials, learning curves and fronts.")
    ablation = Below("ablation.csv", "Table of an ablation.")
    curves = Below("curves.csv", "Table of every epoch of a list of runs.")
    curves_picture = Below("curves.png", "Picture of the epochs of a list of runs.")
    traceback = Below("traceback.txt", "Newest traceback of an attempt that raised an exception.")
    spool = Below("spool", "Folder of the attempts' logs.")
    checkpoints = Below("checkpoints", "Folder of weights and checkpoints, with a folder for each attempt.")
    readings = Below("confirm/readings.json", "Evaluations of the test split, as JSON.")

    def training(self, first: RunKey) -> Path:
        """Return the folder of a training's checkpoints, which all its attempts share; ``first`` names it."""
        return self.checkpoints / first.stem

    def weights(self, key: RunKey) -> Path:
        """Return the path of the weights that an attempt leaves when it completes."""
        return self.checkpoints / key.stem / "weights.safetensors"

    def predictions(self, key: RunKey) -> Path:
        """Return the path of a confirmed network's predictions for the test images."""
        return self.home / "confirm" / f"{key.stem}.npz"

    def relative(self, path: Path) -> str:
        """Return ``path`` as records keep it: relative to the experiment's folder, with forward slashes."""
        return path.relative_to(self.home).as_posix()

    def kept_weights(self, key: RunKey) -> str | None:
        """Return the path of an attempt's weights as `relative` gives it, or None if it left none."""
        return self.relative(self.weights(key)) if self.weights(key).is_file() else None

    def check_links(self) -> None:
        """Check that no symbolic link has the experiment's files written outside the root.

        Raises:
            ConfigError: If a link leads out of the root.
        """
        for path in (self.home, self.spool, self.checkpoints):
            if not path.resolve().is_relative_to(self.root.resolve()):
                raise ConfigError(
                    f"{path} is a link that leads out of {self.root}; remove it,"
                    f" or make {self.root} itself a link"
                )

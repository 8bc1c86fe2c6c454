"""Where everything that runs write lies below the root: the one place that spells a path.

::

    <root>/
      study.db, mlflow.db, artifacts/      the stores that all experiments share
      <experiment>/                        `Layout.home`
        .lock, experiment.toml, leaderboard.csv, report.html, overview.png, traceback.txt
        ablation.csv, curves.csv, curves.png
        spool/                             a file of JSON lines for each attempt
        checkpoints/<attempt>/             weights.safetensors, and the checkpoints of what is under way
        confirm/                           readings.json, and what each network said of the test images
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from lenet_exp.base.errors import ConfigError
from lenet_exp.base.records import RunKey

#: Taken by the stores beside the experiments' folders, or by Windows.
_RESERVED = {"artifacts", "mlflow.db", "study.db", "con", "prn", "aux", "nul"}
_RESERVED |= {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}


def study_db(root: Path) -> Path:
    """Return the SQLite file of the studies below ``root``, whether it exists or not."""
    return root / "study.db"


def mlflow_db(root: Path) -> Path:
    """Return the SQLite file of MLflow's store below ``root``, whether it exists or not."""
    return root / "mlflow.db"


def artifacts(root: Path) -> Path:
    """Return the folder of the files that runs have in MLflow's store below ``root``."""
    return root / "artifacts"


def layouts(root: Path) -> list[Layout]:
    """Return the layout of every experiment that has recorded anything below ``root``."""
    spools = sorted(path for path in root.glob("*/spool") if path.is_dir() and not path.is_symlink())
    return [Layout(root, path.parent.name) for path in spools]


def folder_name(name: str) -> str:
    """Return a folder's name for an experiment's, safe on every file system; two names never share one.

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
    """A path in an experiment's folder, as an attribute of its `Layout`."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self.__doc__ = text

    def __get__(self, layout: Layout, _: type[Layout] | None = None) -> Path:
        return layout.home / self._name


@dataclass(frozen=True)
class Layout:
    """The paths of one experiment; nothing is made by asking for one.

    Attributes:
        root: Folder of everything that runs write.
        folder: Name of the experiment's folder in it.
    """

    root: Path
    folder: str

    @classmethod
    def of(cls, root: Path, name: str) -> Layout:
        """Return the layout of the experiment called ``name``, its root made absolute."""
        return cls(root.absolute(), folder_name(name))

    @property
    def home(self) -> Path:
        """The experiment's folder."""
        return self.root / self.folder

    lock = Below(".lock", "Held by whoever works on the experiment.")
    experiment_file = Below("experiment.toml", "A copy of the experiment file, without secrets.")
    leaderboard = Below("leaderboard.csv", "The leaderboard.")
    report = Below("report.html", "The HTML page.")
    overview = Below("overview.png", "The picture beside the page.")
    ablation = Below("ablation.csv", "The table of an ablation.")
    curves = Below("curves.csv", "Every epoch of a list of runs.")
    curves_picture = Below("curves.png", "The same as a picture.")
    traceback = Below("traceback.txt", "The newest traceback of an attempt that raised.")
    spool = Below("spool", "Folder of what every attempt did.")
    checkpoints = Below("checkpoints", "Folder of weights and checkpoints, a folder for each attempt.")
    readings = Below("confirm/readings.json", "What was read of the test split.")

    def training(self, first: RunKey) -> Path:
        """Return the folder of a training's checkpoints, named after the ``first`` attempt at it."""
        return self.checkpoints / first.stem

    def weights(self, key: RunKey) -> Path:
        """Return the weights that an attempt leaves when it is complete."""
        return self.checkpoints / key.stem / "weights.safetensors"

    def predictions(self, key: RunKey) -> Path:
        """Return what a confirmed network said of each test image."""
        return self.home / "confirm" / f"{key.stem}.npz"

    def relative(self, path: Path) -> str:
        """Return a path in the experiment's folder as it is written down, relative to that folder."""
        return path.relative_to(self.home).as_posix()

    def kept_weights(self, key: RunKey) -> str | None:
        """Return an attempt's weights relative to the experiment's folder; None if it left none."""
        return self.relative(self.weights(key)) if self.weights(key).is_file() else None

    def check_links(self) -> None:
        """Make sure that what is written below the root stays there.

        Raises:
            ConfigError: If a link leads out of the root.
        """
        for path in (self.home, self.spool, self.checkpoints):
            if not path.resolve().is_relative_to(self.root.resolve()):
                raise ConfigError(
                    f"{path} is a link that leads out of {self.root}; remove it, or link {self.root} itself"
                )

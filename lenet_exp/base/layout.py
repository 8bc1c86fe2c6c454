"""The paths of everything that a sweep records, below one root folder; no other module spells them.

::

    <root>/
      study.db, mlflow.db, artifacts/      stores that all experiments share
      <experiment>/                        `Layout.home`
        .lock, experiment.toml, leaderboard.csv, report.html, traceback.txt
        ablation.csv, curves.csv, curves.png
        figures/                           a picture of each figure, as PNG
        spool/                             a JSON-lines file for each attempt, and one for the study
        checkpoints/<attempt>/             checkpoints while it trains, then weights.safetensors
        confirm/                           readings.json, and each network's predictions on the test images
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lenet_exp.base.files import (
    check_database,
    check_file,
    check_folder,
    disk_error,
    make_folder,
    refuse_link_out,
    refuse_second_name,
)
from lenet_exp.base.records import RunKey

#: Names that no experiment's folder may have: they belong to the stores beside it, or Windows reserves them.
_RESERVED = {"artifacts", "mlflow.db", "study.db", "con", "prn", "aux", "nul"}
_RESERVED |= {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}


def study_db(root: Path) -> Path:
    """Return the path of the SQLite file with all studies below ``root``; the file need not exist."""
    return root / "study.db"


def mlflow_db(root: Path) -> Path:
    """Return the path of MLflow's SQLite file below ``root``; the file need not exist."""
    return root / "mlflow.db"


def artifacts(root: Path) -> Path:
    """Return the path of MLflow's artifact folder below ``root``; the folder need not exist."""
    return root / "artifacts"


def layouts(root: Path) -> list[Layout]:
    """Return a `Layout` for each experiment below ``root``, sorted by folder name.

    Its spool may be lost, or no folder: see `Layout.check_links`.
    """
    if not root.is_dir():
        return []
    every = [Layout(root, path.name) for path in sorted(root.iterdir())]
    return [each for each in every if any(map(os.path.lexists, (each.spool, each.experiment_file)))]


def folder_name(name: str) -> str:
    """Return the folder name for the experiment ``name``: unique, and valid on every file system.

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
    """Descriptor for an attribute of `Layout`: a path in the experiment's folder.

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
    """The paths of one experiment. Nothing is created when a path is read.

    Attributes:
        root: Root folder, which all experiments share.
        folder: Name of the experiment's folder in the root.
    """

    root: Path
    folder: str

    @classmethod
    def of(cls, root: Path, name: str) -> Layout:
        """Return the layout of an experiment.

        Args:
            root: Root folder, which all experiments share; it is made absolute.
            name: Name of the experiment, as in its file.
        """
        return cls(root.absolute(), folder_name(name))

    @property
    def home(self) -> Path:
        """The experiment's folder."""
        return self.root / self.folder

    lock = Below(".lock", "Lock file; the process that works on the experiment holds its lock.")
    experiment_file = Below("experiment.toml", "Copy of the experiment file, without secrets.")
    leaderboard = Below("leaderboard.csv", "Ranking of all configurations, as CSV.")
    report = Below("report.html", "HTML page of the results.")
    figures = Below("figures", "Folder of the pictures of all figures.")
    overview = Below("overview.png", "Picture that was written until November 2026; a sweep removes it.")
    ablation = Below("ablation.csv", "Results of an ablation, as CSV.")
    curves = Below("curves.csv", "Every epoch of a list of runs, as CSV.")
    curves_picture = Below("curves.png", "Learning curves of a list of runs, as PNG.")
    traceback = Below("traceback.txt", "Traceback of the latest attempt that raised an exception.")
    spool = Below("spool", "Folder of the spool's files: one for each attempt, and one for the study.")
    checkpoints = Below(
        "checkpoints", "Folder of checkpoints and weights, with a subfolder for each attempt."
    )
    readings = Below("confirm/readings.json", "Evaluations of the test split, as JSON.")

    def training(self, first: RunKey) -> Path:
        """Return the checkpoint folder that all attempts at a training share, named after the ``first``."""
        return self.checkpoints / first.stem

    def weights(self, key: RunKey) -> Path:
        """Return the path where an attempt saves its weights when it completes."""
        return self.checkpoints / key.stem / "weights.safetensors"

    def predictions(self, key: RunKey) -> Path:
        """Return the path of the predictions that the network of attempt ``key`` made on the test images."""
        return self.home / "confirm" / f"{key.stem}.npz"

    def figure(self, key: str) -> Path:
        """Return the path of a figure's picture, as PNG."""
        return self.figures / f"{key}.png"

    def relative(self, path: Path) -> str:
        """Return ``path`` as it is recorded: relative to the experiment's folder, with forward slashes."""
        return path.relative_to(self.home).as_posix()

    def kept_weights(self, key: RunKey) -> str | None:
        """Return the `relative` path of an attempt's weights, or None if the attempt saved none."""
        return self.relative(self.weights(key)) if self.weights(key).is_file() else None

    def check_stores(self) -> None:
        """Check that stores and folders are where they belong, quickly: a sweep does so before each write.

        Raises:
            ConfigError: If a link leads out of the root, or is in the place of a store.
            StoreError: If something else is in the place of a store or a folder.
            DiskError: If the root is no folder.
        """
        if os.path.lexists(self.root):
            make_folder(self.root)  # which tells if it is no folder
        folders = (self.home, self.spool, self.checkpoints, self.readings.parent, self.figures)
        for folder in (*folders, artifacts(self.root)):
            check_folder(folder, self.root)
        for database in (study_db(self.root), mlflow_db(self.root)):
            check_database(database)

    def check_links(self) -> None:
        """Check all files and folders too, and that no link below the root leads out of it.

        Raises:
            ConfigError: If a link leads out of the root, or is in the place of a file.
            StoreError: If something else is in the place of a file or a folder.
            DiskError: If a folder cannot be read.
        """
        self.check_stores()
        for database in (study_db(self.root), mlflow_db(self.root)):
            refuse_second_name(database)
        files = (
            *(self.lock, self.experiment_file, self.leaderboard, self.report, self.overview),
            *(self.ablation, self.curves, self.curves_picture, self.traceback, self.readings),
        )
        for path in files:
            check_file(path)
        for folder in (self.home, artifacts(self.root)):
            for link in _links(folder):
                refuse_link_out(link, self.root)
                # What was moved aside is not used any more.
                if not link.is_dir() and ".damaged-" not in link.name:
                    check_file(link)


def _links(folder: Path) -> Iterator[Path]:
    """Yield all links below ``folder``, without following them; no file is opened."""
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        yield Path(entry.path)
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise disk_error(folder, error) from None

"""A root that commit 0a32863 wrote: a search with its confirmation and a trial cut off, a list, an ablation.

Beside it in the archive are the three experiment files. Models and pages were left out.
"""

from __future__ import annotations

import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

from lenet_exp.base.layout import artifacts, mlflow_db
from tests.labs.places import FIXTURES, MINI_FOLDER

ARCHIVE = FIXTURES / "root-0a32863.tar.xz"
#: MLflow writes absolute paths down; this is where the root was.
WAS_AT = "file:///tmp/fx/mlruns/artifacts"
NAMES = ("search", "list", "ablation")


def unpacked(folder: Path) -> dict[str, Path]:
    """Unpack the archive; return the experiment files by kind. The root is ``folder / "root"``."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    root = folder / "root"
    with closing(sqlite3.connect(mlflow_db(root))) as connection, connection:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
        ):
            now = artifacts(root).as_uri()
            connection.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", [WAS_AT, now])
    files = {name: folder / f"{name}.toml" for name in NAMES}
    for file in files.values():
        file.write_text(file.read_text().replace('"fashion-mnist"', f'"{MINI_FOLDER}"'))
    return files

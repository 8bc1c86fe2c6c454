import ast
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lenet_exp.base.errors import ConfigError, StoreError
from lenet_exp.base.files import move_aside
from lenet_exp.base.layout import Below, Layout, artifacts, folder_name, layouts, mlflow_db, study_db
from lenet_exp.base.records import RunKey
from lenet_exp.config.loader import parse
from tests.labs.places import PROJECT

#: Names that a path is made of; files whose names are shown to people are among them.
NAMES = ("weights.safetensors", "study.db", "mlflow.db", "leaderboard.csv", "experiment.toml", ".lock")
FOLDERS = ("spool", "checkpoints", "artifacts")


def test_every_path_is_below_the_root_and_no_two_are_one(tmp_path: Path) -> None:
    """What two experiments write never meets."""
    key = RunKey("trial", 3, 1)
    paths = [study_db(tmp_path), mlflow_db(tmp_path), artifacts(tmp_path)]
    for name in ("e", "E", "Größe 5"):
        layout = Layout.of(tmp_path, name)
        paths += [getattr(layout, own) for own, value in vars(Layout).items() if isinstance(value, Below)]
        paths += [layout.weights(key), layout.training(key), layout.predictions(key)]

    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to(tmp_path) for path in paths)


def test_what_was_recorded_below_a_root_is_found_again(tmp_path: Path) -> None:
    """Each experiment with a spool is listed, also one whose spool is a link: its check tells."""
    Layout.of(tmp_path, "Größe 5").spool.mkdir(parents=True)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "spool").symlink_to(tmp_path / "nowhere")
    (tmp_path / "none").mkdir()

    assert layouts(tmp_path) == [Layout.of(tmp_path, "Größe 5"), Layout.of(tmp_path, "linked")]


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    """One that stays below the root is not."""
    layout = Layout.of(tmp_path / "root", "e")
    layout.home.mkdir(parents=True)
    (layout.root / "elsewhere").mkdir()
    layout.checkpoints.symlink_to(layout.root / "elsewhere")
    layout.check_links()
    layout.spool.symlink_to(tmp_path)

    with pytest.raises(ConfigError, match="spool is a link that leads out of"):
        layout.check_links()


def test_no_other_room_spells_a_path() -> None:
    """A name that is written in two places is changed in one."""
    spelled = []
    for path in (PROJECT / "lenet_exp").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
        divided = [
            node.right for node in nodes if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
        ]
        joined = {node.value for node in divided if isinstance(node, ast.Constant)}
        if path.name != "layout.py":
            spelled += [(path.name, name) for name in NAMES if name in texts]
            spelled += [(path.name, name) for name in FOLDERS if name in joined]

    assert spelled == []


@given(st.text(min_size=1, max_size=100))
def test_a_folder_s_name_is_safe_whatever_the_experiment_is_called(name: str) -> None:
    """The folder is a lower-case name, with @ as in fashion-mnist@mnist, and none of the stores' own."""
    folder = folder_name(name)

    assert folder not in {"artifacts", "mlflow.db", "study.db", "con"}
    assert folder == folder.lower()
    assert re.fullmatch(r"[a-z0-9][a-z0-9_@-]*", folder)


@pytest.mark.parametrize(
    "name", ["CON", "nul", "com1", "LPT9", "artifacts", "mlflow.db", "study.db", "con.txt"]
)
def test_a_name_that_means_something_to_the_system_gets_another_folder(name: str) -> None:
    """The experiment may be called so; its folder is not."""
    assert folder_name(parse({"name": name}).name) != name.lower()


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=2, unique=True))
def test_two_experiments_never_share_a_folder(names: list[str]) -> None:
    """Names that look alike keep apart."""
    one, other = names

    assert folder_name(one) != folder_name(other)


LINKS = (
    *(".lock", "leaderboard.csv.part", "experiment.toml", "spool/trial-00000-1.jsonl", "spool/index.jsonl"),
    *("checkpoints/trial-00000-1", "checkpoints/trial-00000-1/weights.safetensors", "confirm/readings.json"),
    *("../study.db", "../study.db-wal", "../mlflow.db", "../artifacts/1", "confirm"),
)


@pytest.mark.parametrize("name", LINKS)
def test_no_link_below_the_root_leads_out_of_it(tmp_path: Path, name: str) -> None:
    """Wherever it is, and whether it leads to something or not."""
    layout = Layout.of(tmp_path / "root", "e")
    link = layout.home / name
    layout.home.mkdir(parents=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    layout.check_links()
    link.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ConfigError, match="is a link"):
        layout.check_links()


@pytest.mark.parametrize("name", ["leaderboard.csv", "../study.db", "spool", "../artifacts"])
def test_what_is_neither_file_nor_folder_is_told(tmp_path: Path, name: str) -> None:
    """A FIFO would stop a sweep for good."""
    layout = Layout.of(tmp_path, "e")
    layout.home.mkdir()
    os.mkfifo(layout.home / name)

    with pytest.raises(StoreError, match=r"is a FIFO where a f(ile|older) belongs; move it away"):
        layout.check_links()


def test_a_link_that_was_moved_aside_is_in_nobodys_way(tmp_path: Path) -> None:
    """A link in a file's place is refused, but not once doctor has moved it aside."""
    layout = Layout.of(tmp_path, "e")
    weights = layout.weights(RunKey("trial", 0, 1))
    weights.parent.mkdir(parents=True)
    weights.symlink_to(layout.leaderboard)
    with pytest.raises(ConfigError, match="is a link"):
        layout.check_links()

    move_aside(weights)

    layout.check_links()

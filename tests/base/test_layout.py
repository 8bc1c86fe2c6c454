import ast
from pathlib import Path

import pytest

from lenet_exp.base.errors import ConfigError
from lenet_exp.base.layout import Below, Layout, artifacts, layouts, mlflow_db, study_db
from lenet_exp.base.records import RunKey
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
    """Each experiment with a spool is listed; a link is none of ours."""
    Layout.of(tmp_path, "Größe 5").spool.mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "spool").symlink_to(tmp_path)

    assert layouts(tmp_path) == [Layout.of(tmp_path, "Größe 5")]


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

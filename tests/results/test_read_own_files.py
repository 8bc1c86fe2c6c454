"""An ablation and a list of runs from the file to MLflow, and what they leave on the way."""

import contextlib
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from lenet_exp.base.errors import DataError
from lenet_exp.base.layout import folder_name
from lenet_exp.config import loader
from lenet_exp.results.read import show_leaderboard
from lenet_exp.sweep.run import Request, run_main_job
from lenet_exp.tracking.store import local_uri
from tests.labs.places import MINI_FOLDER
from tests.labs.studies import read_records

DATA = """
[data]
dataset = "fashion-mnist-mini"
folder = "{folder}"
validation = 200
limit = 100

[baseline]
channels = 4
fc_layers = 1

[training]
epochs = 2
"""
ABLATION = (
    'name = "ablation"'
    + DATA
    + """
[ablate]
seeds = 2
pooling = ["avg"]
epochs = [1]
"""
)
LIST = (
    'name = "list"'
    + DATA
    + """
[watch]
test_split = true
diagnostics = true

[[run]]
name = "sgd"
optimizer = "sgd"
"""
)


@dataclass(frozen=True)
class Ran:
    """A sweep that ran to its end, and what it said."""

    path: Path
    root: Path
    out: str
    err: str

    @property
    def folder(self) -> Path:
        """The experiment's folder."""
        return self.root / folder_name(loader.load(self.path).name)

    def uploaded(self) -> set[str]:
        """Return the files on the study's own run."""
        return {path.name for path in self.root.glob("artifacts/*/artifacts/*") if path.is_file()}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of data sets for this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENET_EXP_DATA", str(tmp_path_factory.mktemp("data")))
        yield


def run(path: Path, root: Path, *overrides: str) -> Ran:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        run_main_job(Request(loader.load(path, overrides), root, workers=2, device="cpu"))
    return Ran(path, root, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """An ablation, run in a folder that has no test images at all."""
    folder = tmp_path_factory.mktemp("blind")
    for file in MINI_FOLDER.glob("train*"):
        shutil.copy(file, folder)
    path = folder / "ablation.toml"
    path.write_text(ABLATION.format(folder=folder))
    return run(path, tmp_path_factory.mktemp("ablation"))


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A list of one run that shows the test split."""
    path = tmp_path_factory.mktemp("list") / "list.toml"
    path.write_text(LIST.format(folder=MINI_FOLDER))
    return run(path, path.parent)


def test_an_ablation_needs_no_test_images_and_ends_in_its_table(ablation: Ran) -> None:
    """In a file, on the terminal and on the study's run; the leaderboard has one row a configuration."""
    table = pd.read_csv(ablation.folder / "ablation.csv")
    board = pd.read_csv(ablation.folder / "leaderboard.csv")

    assert table["factor"].tolist() == ["baseline", "pooling", "epochs"]
    assert table["n_seeds"].tolist() == [2, 2, 2]
    assert table["epochs"].tolist() == [2, 2, 1]
    assert "ablation: 6 trainings, 2 at once" in ablation.err
    assert "val_delta interval" in ablation.out
    assert f"ablation: {ablation.folder / 'ablation.csv'}\n" in ablation.out
    assert board["n_seeds"].tolist() == [2, 2, 2]
    assert sorted(board["val_accuracy"]) == sorted(table["val_accuracy"])
    assert {"ablation.csv", "leaderboard.csv"} <= ablation.uploaded()


def test_an_ablation_goes_on_with_more_seeds_and_keeps_what_it_has(
    ablation: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the third seed is trained; the command that shows the table reads it from the study."""
    root = tmp_path / "root"
    shutil.copytree(ablation.root, root)
    before = read_records("ablation", root) or []

    more = run(ablation.path, root, "ablate.seeds=3")

    after = read_records("ablation", root) or []
    assert after[: len(before)] == before
    assert len(after) == 9
    assert "seed 3: val_accuracy" in more.err
    assert "seed 2: val_accuracy" not in more.err
    show_leaderboard(loader.load(ablation.path), root, csv=None, style="csv", top=1)
    assert capsys.readouterr().out.splitlines()[1].startswith("baseline,,")


def test_a_list_has_its_curves_in_files_and_in_mlflow(listed: Ran) -> None:
    """Epoch by epoch the same test accuracy, and the leaderboard has the last."""
    from mlflow import MlflowClient

    curves = pd.read_csv(listed.folder / "curves.csv")
    board = pd.read_csv(listed.folder / "leaderboard.csv").set_index("role")

    assert curves["label"].tolist() == ["baseline"] * 2 + ["sgd"] * 2
    own = curves[curves["label"] == "sgd"]
    run_id = board.loc["run", "mlflow_run_id"]
    history = MlflowClient(local_uri(listed.root)).get_metric_history(str(run_id), "test_accuracy")
    assert [(point.step, point.value) for point in history] == list(
        zip(own["epoch"], own["test_accuracy"], strict=True)
    )
    assert board.loc["run", "test_accuracy"] == own["test_accuracy"].iloc[-1]
    assert {"grad_norm_conv1", "dead_share_conv2"} <= set(curves.columns)
    assert {"curves.csv", "curves.png"} <= listed.uploaded()


def test_a_list_without_its_test_images_says_so_before_it_trains(ablation: Ran, tmp_path: Path) -> None:
    """Not after an hour."""
    path = tmp_path / "list.toml"
    path.write_text(LIST.replace("fashion-mnist-mini", "blind").format(folder=ablation.path.parent))

    with pytest.raises(DataError, match="t10k-images-idx3-ubyte"):
        run(path, tmp_path)

    assert read_records("list", tmp_path) is None

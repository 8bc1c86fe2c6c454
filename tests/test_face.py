"""The public face, as a notebook and a script use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import lenet_exp
from lenet_exp.base.errors import ConfigError, NoResultError
from lenet_exp.results.leaderboard import COLUMNS
from tests.labs.places import MINI_FOLDER
from tests.labs.swept import SWEPT, Swept

#: No ``if __name__ == "__main__"``, as in a notebook.
CODE = """
import lenet_exp

print("begun")
changes = {"search.trials": 2, "training.epochs": 1, "confirm.top": 1, "confirm.seeds": 2}
results = lenet_exp.run_sweep(
    lenet_exp.load_experiment("small.toml", changes), root="runs", workers=2, device="cpu"
)
print(len(results.leaderboard), len(results.verdicts), type(results.champion).__name__, len(results.curves))
"""


def run(code: str | None, *arguments: str, cwd: Path) -> str:
    """Return what a Python of its own prints that is given the code."""
    done = subprocess.run(
        [sys.executable, *arguments], input=code, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_script_without_a_guard_and_a_session_run_a_sweep(tmp_path: Path, data_cache: Path) -> None:
    """Its lines run once, whatever processes the sweep starts, and again it has nothing left to train."""
    (tmp_path / "small.toml").write_text(SWEPT)
    (tmp_path / "script.py").write_text(CODE)

    of_script = run(None, "script.py", cwd=tmp_path)
    of_session = run(CODE, "-", cwd=tmp_path)

    # Baseline and two trials of one epoch each, and two seeds of the confirmed and the baseline.
    assert of_script == of_session == "begun\n3 1 LeNet 7\n"


def test_what_was_recorded_is_opened(swept_once: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames with typed columns, curves of every training, and networks ready to be used."""
    results = lenet_exp.open_results(str(swept_once.file), str(swept_once.root))

    table, curves = results.leaderboard, results.curves
    assert tuple(table.columns) == COLUMNS
    pd.testing.assert_frame_equal(table, lenet_exp.read_leaderboard(results.folder / "leaderboard.csv"))
    searched = curves[curves["role"] != "confirm"]
    assert sorted(searched["label"].unique()) == ["baseline", "trial 0", "trial 1", "trial 2"]
    last = searched.groupby("label").tail(1).set_index("config")["val_accuracy"]
    assert last.to_dict() == table.set_index("config")["val_accuracy"].to_dict()
    assert (curves["role"] == "confirm").sum() == 2 * 5 * (1 + len(results.verdicts))
    logits = results.champion(torch.zeros(3, 1, 28, 28))
    assert logits.shape == (3, 10)
    assert not results.network("baseline").training
    assert not results.network(1).training
    by_config = table.set_index("config")["delta"]
    assert all(by_config[verdict.config] == verdict.delta for verdict in results.verdicts)
    assert [verdict.sentence in "\n".join(results.sentences) for verdict in results.verdicts] == [True] * 3
    assert repr(results).startswith("<Results of 'swept': 24 complete trainings, champion: ")
    monkeypatch.setenv("LENET_EXP_ROOT", str(swept_once.root))
    assert lenet_exp.open_results(swept_once.file).folder == results.folder


def test_the_face_is_small_and_loads_nothing() -> None:
    """``dir`` shows what there is, no name hides a module, and importing it takes no library along."""
    code = "import sys, lenet_exp; print(*dir(lenet_exp)); print(*sys.modules)"
    names, modules = (set(line.split()) for line in run(None, "-c", code, cwd=Path()).splitlines())

    package = Path(lenet_exp.__file__).parent
    assert names == set(lenet_exp.__all__)
    assert not names & {path.stem for path in package.iterdir()}
    assert not modules & {"torch", "pandas", "numpy", "optuna", "mlflow", "pydantic", "typer", "rich"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"experiment": "no_such"}, "no experiment called 'no_such', and no such file; known are "),
        ({"experiment": "quik"}, "no experiment called 'quik', and no such file; did you mean 'quick'"),
        ({"experiment": Path("no_such.toml")}, r"no_such\.toml: no such experiment file"),
        ({"experiment": None}, "name_or_path must be a file, or a name such as 'quick', found None"),
        ({"workers": 0}, "workers must be a whole number above zero or None, found 0"),
        ({"workers": True}, "workers must be a whole number above zero or None, found True"),
        (
            {"timeout_s": -1.0},
            "timeout_s must be a number of seconds above zero and .*, a year, or None, found -1.0",
        ),
        ({"timeout_s": "30m"}, "timeout_s must be a number of seconds .* or None, found '30m'"),
        ({"timeout_s": 10**400}, "timeout_s must be a number of seconds .* at most 31,536,000, a year"),
        ({"confirm": "no"}, "confirm must be True or False, found 'no'"),
        ({"device": None}, "device must be auto, cpu, cuda, cuda:1 or mps, found None"),
        ({"storage": 3}, "storage must be a URL or None, found 3"),
        ({"tracking_uri": b"x"}, "tracking_uri must be a URI or None, found b'x'"),
        ({"root": 3}, "root must be a folder or None, found 3"),
        ({"root": ""}, "root must be a folder or None, found ''"),
    ],
)
def test_a_mistake_raises_what_the_command_line_prints(
    arguments: dict[str, object], message: str, tmp_path: Path
) -> None:
    """Before anything runs."""
    with pytest.raises(ConfigError, match=message):
        lenet_exp.run_sweep(**{"experiment": "quick", "root": tmp_path} | arguments)  # type: ignore[arg-type]  # on purpose
    assert list(tmp_path.iterdir()) == []


def test_overrides_are_values_or_texts(tmp_path: Path) -> None:
    """As a dictionary, or as ``--set`` takes them; a wrong one is refused in the same words."""
    (file := tmp_path / "small.toml").write_text(SWEPT)

    by_key = lenet_exp.load_experiment(
        file, {"search.trials": 3, "search.sampler": "random", "data.limit": None}
    )
    by_text = lenet_exp.load_experiment(str(file), ["search.trials=3", "search.sampler=random"])

    assert by_key == by_text
    assert (by_key.search.trials, by_key.search.sampler, by_key.data.limit) == (3, "random", 300)
    for wrong in ({"search.trials": -3}, ["search.trials=-3"], "search.trials=-3"):
        with pytest.raises(lenet_exp.LenetExpError, match=r"--set: search\.trials: must be .*, found -3"):
            lenet_exp.load_experiment(file, wrong)
    for strange in ({3: 8}, [3], [("search.trials", 8)]):
        with pytest.raises(ConfigError, match=r"--set takes section\.key=value, found"):
            lenet_exp.load_experiment(file, strange)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ConfigError, match=r"overrides must be a mapping .*, found 3"):
        lenet_exp.load_experiment(file, 3)  # type: ignore[arg-type]  # on purpose


def test_values_that_python_has_and_toml_has_not_are_taken(tmp_path: Path) -> None:
    """A path, a tuple, a number of NumPy's."""
    (file := tmp_path / "small.toml").write_text(SWEPT)
    values = {"data.folder": MINI_FOLDER, "data.limit": np.int64(100), "space.lr": (0.1, np.float64(0.5))}

    experiment = lenet_exp.load_experiment(file, values)

    assert (experiment.data.folder, experiment.data.limit) == (str(MINI_FOLDER), 100)
    assert experiment.space["lr"] == [0.1, 0.5]


def test_what_never_ran_has_no_results(tmp_path: Path) -> None:
    """One line, and what to do."""
    with pytest.raises(
        NoResultError, match=r"'quick' was never run under .*; run 'lenet-exp sweep .*quick.toml --root "
    ):
        lenet_exp.open_results("quick", tmp_path)

"""What commit 0a32863 wrote is read, gone on with, and rebuilt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lenet_exp.base.layout import Layout, study_db
from lenet_exp.base.records import RunKey
from lenet_exp.config import loader
from lenet_exp.results.leaderboard import read_leaderboard
from lenet_exp.results.lookup import read_results
from lenet_exp.study.records import DIGEST, TrialRecord
from lenet_exp.study.storage import open_storage
from lenet_exp.study.trials import read_study
from lenet_exp.sweep.recovery import rebuild_study
from lenet_exp.sweep.run import Request, run_main_job
from lenet_exp.tracking.spool import Spool
from tests.labs.old_root import NAMES, unpacked

#: Columns of the leaderboard.
COMPARED = (
    *("rank", "trial", "config", "state", "n_seeds", "val_accuracy", "val_delta"),
    *("test_accuracy", "delta", "delta_low", "p_value", "verdict", "lr", "mlflow_run_id"),
)


@pytest.fixture
def files(tmp_path: Path, data_cache: Path) -> dict[str, Path]:
    """The three experiment files beside their root."""
    return unpacked(tmp_path)


def test_what_it_recorded_is_read_as_it_was(files: dict[str, Path], tmp_path: Path) -> None:
    """Every number of its leaderboards is there again."""
    for name in NAMES:
        experiment = loader.load(files[name])
        layout = Layout.of(tmp_path / "root", experiment.name)

        then = read_leaderboard(layout.leaderboard)
        now = read_results(experiment, layout.root).leaderboard.frame()

        for column in COMPARED:
            before, after = then[column].tolist(), now[column].tolist()
            if column == "verdict" and name != "search":
                before = [None] * len(after)  # then "not confirmed" of what is never confirmed
            assert [None if pd.isna(cell) else cell for cell in after] == [
                None if pd.isna(cell) else cell for cell in before
            ], (name, column)


@pytest.mark.slow
def test_its_sweep_is_gone_on_with(files: dict[str, Path], tmp_path: Path) -> None:
    """The trial that was cut off goes on from its checkpoint, and what had ended stays as it was."""
    experiment = loader.load(files["search"], flags={"search.trials": 6})
    layout = Layout.of(tmp_path / "root", experiment.name)
    cut_off = Spool(layout.spool).read(RunKey("trial", 4, 1))
    assert cut_off is not None
    before = read_study(experiment.name, layout.root)
    assert before is not None

    run_main_job(Request(experiment, layout.root, workers=1, device="cpu"))

    after = read_study(experiment.name, layout.root)
    assert after is not None
    records = {record.key: record for record in after.records}
    assert all(records[record.key] == record for record in before.records)
    assert after.kept == before.kept  # the confirmation is not made again
    assert records[RunKey("trial", 4, 1)].superseded
    retried = Spool(layout.spool).read(RunKey("trial", 4, 2))
    assert retried is not None
    assert retried.epochs[0] == cut_off.epochs[0]
    assert [result.epoch for result in retried.epochs] == [1, 2, 3]
    table = pd.read_csv(layout.leaderboard)
    finished = table[(table["role"] == "trial") & table["trial"].notna()]
    assert len(finished) == 6
    assert finished["mlflow_run_id"].notna().all(), finished


@pytest.mark.parametrize("name", NAMES)
def test_its_study_is_rebuilt_from_its_spool(files: dict[str, Path], tmp_path: Path, name: str) -> None:
    """Trial for trial, from lines that say the configuration three times."""
    experiment = loader.load(files[name])
    layout = Layout.of(tmp_path / "root", experiment.name)
    before = read_study(experiment.name, layout.root)
    assert before is not None
    new = tmp_path / "new"
    new.mkdir()

    rebuild_study(Spool(layout.spool), open_storage(new), experiment.name)

    after = read_study(experiment.name, new)
    assert study_db(new).exists()
    assert after is not None
    assert {record.key: record for record in before.records}.items() <= {
        record.key: _without_digest(record) for record in after.records
    }.items()
    assert json.dumps(after.kept, sort_keys=True) == json.dumps(before.kept, sort_keys=True)


def _without_digest(record: TrialRecord) -> TrialRecord:
    """Return the record as it was before November 2026."""
    assert not record.is_edited
    return replace(record, result={name: v for name, v in record.result.items() if name != DIGEST})

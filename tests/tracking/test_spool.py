from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lenet_exp.base.errors import DataError
from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.tracking.events import DatasetMetadata, End, StudyMetadata
from lenet_exp.tracking.spool import STUDY, Spool

KEY = RunKey("trial", 12, 1)
METADATA = {"params": {"lr": 0.1, "channels_3": None}, "seed": 0, "config": "abc", "tags": {"device": "cpu"}}


def clock() -> itertools.count[int]:
    """Count the seconds from 1."""
    return itertools.count(1)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty spool whose clock ticks once a line."""
    return Spool(tmp_path / "exp" / "spool", clock=clock().__next__)


def epoch(number: int, val_loss: float = 0.5) -> EpochResult:
    """Return what an epoch could give."""
    return EpochResult(number, 0.6, 0.7, val_loss, 0.8, 9000.0, 1.5 * number)


def test_an_attempt_is_read_back(spool: Spool) -> None:
    """What the driver noted about an attempt is there for another process, with the times of it."""
    spool.start(KEY, METADATA)
    spool.epoch(KEY, epoch(1))
    spool.epoch(KEY, epoch(2))
    spool.end(KEY, "COMPLETE", weights="checkpoints/weights.safetensors")

    run_log = Spool(spool.folder).read(KEY)

    assert run_log is not None
    assert run_log.metadata == METADATA
    assert run_log.epochs == (epoch(1), epoch(2))
    assert (run_log.start_ms, run_log.epoch_ms) == (1000, (2000, 3000))
    assert run_log.end == End(4000, "COMPLETE", None, "checkpoints/weights.safetensors")


def test_losses_that_are_not_finite_survive(spool: Spool) -> None:
    """A diverged epoch is read back as it was."""
    spool.start(KEY, METADATA)
    spool.epoch(KEY, epoch(1, val_loss=math.nan))
    spool.epoch(KEY, epoch(2, val_loss=-math.inf))

    run_log = spool.read(KEY)

    assert run_log is not None
    assert math.isnan(run_log.epochs[0].val_loss)
    assert run_log.epochs[1].val_loss == -math.inf


def test_of_an_epoch_noted_twice_the_first_stays(spool: Spool) -> None:
    """An attempt that goes on from a checkpoint may repeat an epoch; there is one point for it."""
    spool.start(KEY, METADATA)
    for number in (1, 2, 2, 3):
        spool.epoch(KEY, epoch(number))

    run_log = spool.read(KEY)

    assert run_log is not None
    assert [result.epoch for result in run_log.epochs] == [1, 2, 3]
    assert run_log.epoch_ms == (2000, 3000, 5000)


def test_an_attempt_begun_again_is_not_ended(spool: Spool) -> None:
    """A new start undoes the end before it and keeps the epochs."""
    spool.start(KEY, METADATA)
    spool.epoch(KEY, epoch(1))
    spool.end(KEY, "FAIL", "interrupted")
    spool.start(KEY, METADATA)

    run_log = spool.read(KEY)

    assert run_log is not None
    assert run_log.end is None
    assert len(run_log.epochs) == 1


def test_a_crash_in_a_line_costs_that_line_only(spool: Spool) -> None:
    """Half a line is not read, and the next driver writes on after the last whole one."""
    spool.start(KEY, METADATA)
    spool.epoch(KEY, epoch(1))
    with spool.path(KEY.stem).open("ab") as file:
        file.write(b'{"time_ms":3000,"event":"ep')

    again = Spool(spool.folder)
    again.epoch(KEY, epoch(2))

    run_log = again.read(KEY)
    assert run_log is not None
    assert run_log.epochs == (epoch(1), epoch(2))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(label=st.text(), value=st.none() | st.booleans() | st.integers() | st.text())
def test_any_text_survives(tmp_path: Path, label: str, value: object) -> None:
    """Labels and values of any script, and with any control character, are read back as they were."""
    spool = Spool(tmp_path / "any")
    metadata = {"label": label, "params": {"x": value}}

    spool.start(KEY, metadata)

    run_log = spool.read(KEY)
    assert run_log is not None
    assert run_log.metadata == metadata


def test_records_come_in_order_whatever_else_lies_there(spool: Spool) -> None:
    """All attempts are read, by role and number, and other files in the folder are no attempts."""
    keys = [
        RunKey("baseline", 0, 1),
        RunKey("trial", 2, 1),
        RunKey("trial", 2, 2),
        RunKey("trial", 100_000, 1),
    ]
    spool.start_study(StudyMetadata("exp-1", "exp"))
    for key in reversed(keys):
        spool.start(key, METADATA)
    spool.record_run_id(keys[0].stem, "run")
    (spool.folder / "notes.txt").touch()
    (spool.folder / "trial-1.jsonl").touch()

    assert [run_log.key for run_log in spool.run_logs()] == keys


def test_a_study_is_read_back(spool: Spool) -> None:
    """The study's metadata are those of its last start, its beginning that of the first."""
    data = DatasetMetadata("mnist", "0123", "/data")
    spool.start_study(StudyMetadata("exp-1", "exp", params={"trials": 3}))
    spool.end_study("PRUNED", "interrupted")
    last = StudyMetadata("exp-1", "exp", {"trials": 4}, {"a": "b"}, data, ("leaderboard.csv",), 32)
    spool.start_study(last)

    study = Spool(spool.folder).study()

    assert study is not None
    assert (study.metadata, study.start_ms, study.end) == (last, 1000, None)


def test_a_study_ends(spool: Spool) -> None:
    """How the driver ended is kept, with the reason."""
    spool.start_study(StudyMetadata("exp-1", "exp"))
    spool.end_study("FAIL", "no space")

    study = spool.study()

    assert study is not None
    assert study.end == End(2000, "FAIL", "no space")


def test_what_was_not_uploaded_is_pending(spool: Spool) -> None:
    """Pending is what has lines that are not in MLflow, in this process or the next; the study is last."""
    other = RunKey("baseline", 0, 1)
    spool.start_study(StudyMetadata("exp-1", "exp"))
    spool.start(KEY, METADATA)
    spool.start(other, METADATA)
    assert spool.pending() == [other.stem, KEY.stem, STUDY]

    spool.record_uploaded(KEY.stem, spool.path(KEY.stem).stat().st_size)
    spool.record_uploaded(other.stem, spool.path(other.stem).stat().st_size)
    spool.end(other, "FAIL")

    assert spool.pending() == [other.stem, STUDY]
    assert Spool(spool.folder).pending() == [other.stem, STUDY]


def test_lines_written_while_uploading_stay_pending(spool: Spool) -> None:
    """What the driver writes after tracking has read the file is not taken for uploaded."""
    spool.start(KEY, METADATA)
    offset = spool.path(KEY.stem).stat().st_size
    spool.epoch(KEY, epoch(1))

    spool.record_uploaded(KEY.stem, offset)

    assert spool.pending() == [KEY.stem]


def test_run_ids_outlive_the_process(spool: Spool) -> None:
    """The runs of all attempts are known without MLflow, and the study's is not among them."""
    spool.start(KEY, METADATA)
    spool.record_run_id(KEY.stem, "a1")
    spool.record_run_id(STUDY, "b2")

    again = Spool(spool.folder)

    assert again.run_ids() == {KEY: "a1"}
    assert again.run_id(STUDY) == "b2"


def test_what_was_uploaded_can_be_forgotten(spool: Spool) -> None:
    """After forgetting, all is pending again and no run is known, in the next process too."""
    spool.start(KEY, METADATA)
    spool.record_run_id(KEY.stem, "a1")
    spool.record_uploaded(KEY.stem, spool.path(KEY.stem).stat().st_size)

    spool.forget_uploaded()

    for each in (spool, Spool(spool.folder)):
        assert each.pending() == [KEY.stem]
        assert each.run_ids() == {}


def test_a_damaged_index_is_forgotten(spool: Spool) -> None:
    """The index can be had again, so damage to it stops nobody."""
    spool.start(KEY, METADATA)
    spool.record_run_id(KEY.stem, "a1")
    index = spool.folder / "index.jsonl"
    index.write_bytes(b"#\n" + index.read_bytes())

    again = Spool(spool.folder)

    assert again.run_ids() == {}
    assert again.pending() == [KEY.stem]


def test_unfinished_attempts_are_found(spool: Spool) -> None:
    """Attempts without an end are what a dead driver left behind."""
    done = RunKey("trial", 1, 1)
    for key in (KEY, done):
        spool.start(key, METADATA)
    spool.end(done, "COMPLETE")

    assert [run_log.key for run_log in Spool(spool.folder).unfinished()] == [KEY]


@pytest.mark.parametrize("role", ["../../trial", "a/b", ""])
def test_no_key_leads_out_of_the_folder(spool: Spool, role: str) -> None:
    """A key that is no plain name has no file."""
    with pytest.raises(ValueError, match="not the name of an attempt"):
        spool.start(RunKey(role, 1, 1), METADATA)


@pytest.mark.parametrize("path", ["../other", "/etc/passwd", "link/secret"])
def test_no_file_outside_the_experiment_is_taken(spool: Spool, path: str, tmp_path: Path) -> None:
    """Weights are only taken from below the experiment's folder, links followed."""
    spool.home.mkdir()
    (spool.home / "link").symlink_to(tmp_path)

    with pytest.raises(DataError, match="leads out of"):
        spool.inside(path)

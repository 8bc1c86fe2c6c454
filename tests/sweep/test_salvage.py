"""Damaged files of the spool, of attempts that ended and of those that a crash cut off."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lenet_exp.base.errors import StoreError
from lenet_exp.base.layout import Layout
from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.config.loader import parse
from lenet_exp.study.records import TrialRecord
from lenet_exp.study.storage import close, open_storage
from lenet_exp.study.study import Study, open_study
from lenet_exp.study.trials import read_study
from lenet_exp.sweep.recovery import rebuild_study, reconcile
from lenet_exp.sweep.salvage import damage, salvage
from lenet_exp.sweep.writer import Writer
from lenet_exp.tracking.events import StudyMetadata
from lenet_exp.tracking.spool import STUDY, Spool

EXPERIMENT = parse({"name": "e", "space": {"lr": {"low": 0.001, "high": 0.1}}, "training": {"epochs": 3}})
HURT, OTHER, CUT_OFF = (RunKey("trial", number, 1) for number in range(3))
Damage = Callable[[Path], object]


def edited(number: int, **values: object) -> Damage:
    """Return what gives a line other values."""

    def edit(path: Path) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        lines[number] = json.dumps({**json.loads(lines[number]), **values}).encode() + b"\n"
        path.write_bytes(b"".join(lines))

    return edit


def rubbish(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"#\n", *lines[3:]]))


def nuls(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def another_attempt(path: Path) -> None:
    path.write_bytes(path.with_name(f"{OTHER.stem}.jsonl").read_bytes())


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Damage] = {
    "rubbish": rubbish,
    "no time": edited(1, time_ms=None),
    "a list": edited(1, result=[1]),
    "a text": edited(2, result={"epoch": "2"}),
    "unknown state": edited(-1, state="DONE"),
    "another accuracy": edited(2, result=EpochResult(2, 1.0, 0.5, 1.0, 0.99, 1000.0, 1.0).to_dict()),
    "another result": edited(-1, result={"train_s": 77.0}),
    "another attempt": another_attempt,
    "nuls": nuls,
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "gone": Path.unlink,
    "fifo": fifo,
    "folder": folder,
}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study of two complete trials and one RUNNING, with its spool, in ``tmp_path``."""
    layout = Layout.of(tmp_path, "e")
    layout.home.mkdir()
    study, spool = open_study(EXPERIMENT, tmp_path), Spool(layout.spool)
    study.when_kept(spool.keep)
    spool.start_study(StudyMetadata("e-1", "e", fingerprint={"space": {}}))
    study.keep("plan", {"seeds": [1]})
    writer = Writer(study, spool, layout)
    for key in (HURT, OTHER, CUT_OFF):
        attempt = study.ask()
        assert attempt is not None
        assert attempt.key == key
        writer.begin(attempt, {})
        for number in range(1, 4 if key != CUT_OFF else 2):
            accuracy = (number + key.trial) / 10
            writer.epoch(key, EpochResult(number, 1.0, 0.5, 1.0, accuracy, 1000.0, 1.0))
        if key != CUT_OFF:
            writer.end(key, "COMPLETE", accuracy, {"train_s": 1.0})
    return study


def restored(root: Path) -> Spool:
    """Open study and spool as another process would, restore what is damaged, and return the spool."""
    study, layout = open_study(EXPERIMENT, root), Layout.of(root, "e")
    spool = Spool(layout.spool)
    salvage(study, spool, layout, damage(study.records(), spool, "e", study.lineage.id))
    return spool


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_restored_from_the_study(study: Study, tmp_path: Path, name: str) -> None:
    """Accuracies and end are as before, and a lost study can be rebuilt from the file."""
    before = Spool(tmp_path / "e" / "spool").read(HURT)
    assert before is not None
    path = tmp_path / "e" / "spool" / f"{HURT.stem}.jsonl"
    DAMAGES[name](path)
    spool = Spool(path.parent)
    assert set(damage(study.records(), spool, "e", study.lineage.id)) == {HURT.stem}

    after = restored(tmp_path).read(HURT)

    assert after is not None
    assert [epoch.val_accuracy for epoch in after.epochs] == [0.1, 0.2, 0.3]
    assert after.end is not None
    assert before.end is not None
    assert (after.end.state, after.end.result) == ("COMPLETE", before.end.result)
    assert after.metadata["study"] == before.metadata["study"]
    assert damage(study.records(), Spool(path.parent), "e", study.lineage.id) == {}
    rebuilt = open_storage(tmp_path / "e")
    rebuild_study(Spool(path.parent), rebuilt, "e")
    close(rebuilt)
    assert [r for r in _records(tmp_path / "e") if r.key != CUT_OFF] == study.records()


def _records(root: Path) -> list[TrialRecord]:
    content = read_study("e", root)
    assert content is not None
    return list(content.records)


def test_whole_lines_are_kept_and_the_damaged_file_too(study: Study, tmp_path: Path) -> None:
    """Only the metrics in the line that was damaged are lost, and they are in the file that is put aside."""
    path = tmp_path / "e" / "spool" / f"{HURT.stem}.jsonl"
    before = Spool(path.parent).read(HURT)
    rubbish(path)
    damaged = path.read_bytes()

    after = restored(tmp_path).read(HURT)

    assert before is not None
    assert after is not None
    assert (after.epochs[0], after.epochs[2]) == (before.epochs[0], before.epochs[2])
    assert after.end == before.end
    assert [file.read_bytes() for file in path.parent.glob("*.damaged-*")] == [damaged]


@pytest.mark.parametrize("name", ["rubbish", "no time", "another attempt", "fifo"])
def test_what_was_cut_off_with_a_damaged_file_is_tried_again(study: Study, tmp_path: Path, name: str) -> None:
    """It fails as interrupted, is queued, and its file is whole again."""
    path = tmp_path / "e" / "spool" / f"{CUT_OFF.stem}.jsonl"
    with path.open("ab") as file:  # a line to damage that is not the last
        file.write(path.read_bytes().splitlines(keepends=True)[-1] * 2)
    DAMAGES[name](path)

    again = open_study(EXPERIMENT, tmp_path)
    reconcile(again, Spool(path.parent), Layout.of(tmp_path, "e"))

    assert again.record(CUT_OFF).reason == "interrupted"
    assert again.n_waiting() == 1
    log = Spool(path.parent).read(CUT_OFF)
    assert log is not None
    assert log.end is not None
    assert log.end.state == "FAIL"
    assert damage(again.records(), Spool(path.parent), "e", again.lineage.id) == {}


@pytest.mark.parametrize("name", ["gone", "nuls", "fifo", "folder"])
def test_the_study_s_file_is_made_anew(study: Study, tmp_path: Path, name: str) -> None:
    """What the study keeps is in it again."""
    DAMAGES[name](tmp_path / "e" / "spool" / f"{STUDY}.jsonl")

    log = restored(tmp_path).study()

    assert log is not None
    assert (log.metadata.experiment, log.kept["plan"]) == ("e", {"seeds": [1]})


def test_study_and_spool_of_two_sweeps_are_told(study: Study, tmp_path: Path) -> None:
    """If most attempts differ, nobody can say which is right, so nothing is changed."""
    spool = Spool(tmp_path / "e" / "spool")
    for key in (HURT, OTHER):
        DAMAGES["another accuracy"](spool.path(key.stem))

    with pytest.raises(StoreError, match=r"study and spool differ in 2 of 2 attempts"):
        damage(study.records(), spool, "e", study.lineage.id)


def test_with_the_study_lost_too_what_cannot_be_restored_is_told(study: Study, tmp_path: Path) -> None:
    """The remedy works: with the file moved away, the rest is rebuilt."""
    path = tmp_path / "e" / "spool" / f"{HURT.stem}.jsonl"
    rubbish(path)
    rebuilt = open_storage(tmp_path / "e")

    with pytest.raises(StoreError, match="the study is lost too; move it away, and its training is repeated"):
        rebuild_study(Spool(path.parent), rebuilt, "e")

    path.rename(tmp_path / "away")
    assert rebuild_study(Spool(path.parent), rebuilt, "e") == (2, None)


def test_a_superfluous_line_costs_nothing_though_the_study_is_lost(study: Study, tmp_path: Path) -> None:
    """The whole lines suffice for a rebuild."""
    path = tmp_path / "e" / "spool" / f"{HURT.stem}.jsonl"
    path.write_bytes(b"#\n" + path.read_bytes())

    assert rebuild_study(Spool(path.parent), open_storage(tmp_path / "e"), "e") == (3, None)

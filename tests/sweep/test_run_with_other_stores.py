"""A study that was deleted, emptied, replaced or put back from a backup is noticed in time."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from lenet_exp.base.errors import LockedError, StoreError
from lenet_exp.base.layout import Layout, study_db
from lenet_exp.base.records import RunKey
from lenet_exp.cli.doctor import examine
from lenet_exp.config import loader
from lenet_exp.config.experiment import Experiment
from lenet_exp.results.lookup import read_results
from lenet_exp.study.study import open_study
from lenet_exp.sweep import writer
from lenet_exp.sweep.recovery import sync_experiment
from lenet_exp.sweep.run import Request, run_main_job
from lenet_exp.tracking.spool import Spool
from tests.labs.studies import read_kept, read_records
from tests.labs.swept import Swept


def remove(root: Path, _: Path) -> None:
    for file in root.glob("study.db*"):
        file.unlink()


def empty(root: Path, _: Path) -> None:
    remove(root, root)
    study_db(root).touch()


def replace_by_another_roots(root: Path, other: Path) -> None:
    remove(root, root)
    shutil.copyfile(study_db(other), study_db(root))


def overwrite_in_place(root: Path, other: Path) -> None:
    study_db(root).write_bytes(study_db(other).read_bytes())


def put_back_a_backup(root: Path, _: Path) -> None:
    """Leave a file that lacks the last trial, as one from before it does."""
    with closing(sqlite3.connect(study_db(root))) as database, database:
        (last,) = database.execute("SELECT max(trial_id) FROM trials").fetchone()
        for table in ("trial_params", "trial_values", "trial_user_attributes", "trials"):
            database.execute(f"DELETE FROM {table} WHERE trial_id = ?", [last])


def edited(*statements: str) -> Callable[[Path, Path], None]:
    """Return a function that edits the study by hand."""

    def edit(root: Path, _: Path) -> None:
        with closing(sqlite3.connect(study_db(root))) as database, database:
            for statement in statements:
                assert database.execute(statement).rowcount

    return edit


pytestmark = pytest.mark.slow
WRONGS = [remove, empty, replace_by_another_roots, overwrite_in_place, put_back_a_backup]
LAST = "WHERE trial_id = (SELECT max(trial_id) FROM trials)"
GARBLED_MARK = edited("UPDATE study_user_attributes SET value_json = '[1' WHERE key = 'lenet_exp.mark'")
#: Else the next sweep would train it again.
WAITING = edited(f"UPDATE trials SET state = 'WAITING' {LAST}")
LOST_PARAMETERS = edited("UPDATE trial_params SET distribution_json = '{}'")
EDITS = [
    pytest.param(edited("DELETE FROM trial_values"), id="values lost"),
    pytest.param(
        edited("DELETE FROM trial_user_attributes WHERE key = 'lenet_exp.result'"), id="results lost"
    ),
    pytest.param(
        edited("UPDATE trial_user_attributes SET value_json = '{}' WHERE key = 'lenet_exp.record'"),
        id="records garbled",
    ),
    pytest.param(WAITING, id="waiting"),
    pytest.param(edited(f"UPDATE trials SET state = 'FAIL' {LAST}"), id="failed"),
    pytest.param(edited("DELETE FROM study_user_attributes WHERE key = 'lenet_exp.mark'"), id="mark lost"),
    pytest.param(GARBLED_MARK, id="mark garbled"),
    pytest.param(edited("DELETE FROM trial_intermediate_values WHERE step = 1"), id="epochs lost"),
    pytest.param(
        edited(
            f"UPDATE trial_values SET value = 0.99 {LAST}",
            f"UPDATE trial_intermediate_values SET intermediate_value = 0.99 {LAST} AND step = 2",
        ),
        id="value edited in both places",
    ),
]


def request(swept: Swept, root: Path | None = None) -> Request:
    experiment = loader.load(swept.file)
    return Request(experiment, root or swept.root, workers=2, device="cpu", confirm=False, prints=False)


@pytest.fixture
def other(swept: Swept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another root with the same experiment, as long as the sweep's own."""
    monkeypatch.setenv("LENET_EXP_TRAINER", "tests.labs.fake_trainer")
    root = tmp_path / "other"
    run_main_job(replace(request(swept, root), trainer="tests.labs.fake_trainer"))
    return root


def spooled(layout: Layout) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in layout.spool.iterdir()}


@pytest.mark.parametrize("wrong", [*WRONGS, *EDITS])
def test_a_wrong_study_is_told_and_restored(
    swept: Swept, other: Path, wrong: Callable[[Path, Path], None]
) -> None:
    """Nothing is trained or appended; every command says so; doctor --repair restores what there was."""
    experiment = loader.load(swept.file)
    layout = Layout.of(swept.root, experiment.name)
    before, spool = read_records(experiment.name, swept.root), spooled(layout)
    wrong(swept.root, other)

    for command in (
        lambda: run_main_job(request(swept)),
        lambda: read_results(experiment, swept.root),
        lambda: sync_experiment(experiment, swept.root),
    ):
        with pytest.raises(StoreError, match=f"study.*doctor --repair --root {swept.root}"):
            command()

    assert spooled(layout) == spool
    assert _wrong(swept.root, repair=False)
    assert not _wrong(swept.root, repair=True)
    assert not _wrong(swept.root, repair=False)
    assert read_records(experiment.name, swept.root) == before


def test_a_study_that_optuna_cannot_load_is_told_and_restored(swept: Swept) -> None:
    """What only Optuna reads can be damaged too."""
    name = loader.load(swept.file).name
    before = read_records(name, swept.root)
    LOST_PARAMETERS(swept.root, swept.root)

    with pytest.raises(StoreError, match=f"study.*damaged.*doctor --repair --root {swept.root}"):
        run_main_job(request(swept))

    assert not _wrong(swept.root, repair=True)
    run_main_job(request(swept))
    assert read_records(name, swept.root) == before


def test_a_kept_value_that_was_deleted_comes_back(swept: Swept) -> None:
    """A plan or a reading is never deleted, so nothing is shown as not confirmed or read a second time."""
    experiment = loader.load(swept.file)
    study, spool = open_study(experiment, swept.root), Spool(Layout.of(swept.root, experiment.name).spool)
    study.when_kept(spool.keep)
    study.keep("note", [1])
    study.close()
    edited("DELETE FROM study_user_attributes WHERE key = 'lenet_exp.note'")(swept.root, swept.root)

    assert "the study lacks note" in _wrong(swept.root, repair=False)[0]
    assert not _wrong(swept.root, repair=True)
    assert read_kept(experiment.name, swept.root)["note"] == [1]


def test_a_lost_experiment_file_does_not_keep_the_study_from_being_restored(
    swept: Swept, other: Path
) -> None:
    """Doctor says where to put it, and restores the study once it is there."""
    experiment = loader.load(swept.file)
    before, copy = read_records(experiment.name, swept.root), Layout.of(swept.root, "swept").experiment_file
    remove(swept.root, other)

    for content in (swept.file.read_text().replace('name = "swept"', 'name = "another"'), None):
        copy.unlink() if content is None else copy.write_text(content)
        assert all("copy the experiment's file to that place" in t for t in _wrong(swept.root, repair=True))

    shutil.copyfile(swept.file, copy)
    assert not _wrong(swept.root, repair=True)
    assert read_records(experiment.name, swept.root) == before


def _wrong(root: Path, *, repair: bool) -> list[str]:
    checks = examine(root, repair=repair)
    return [check.text for check in checks if check.exit_code and check.name in ("study", "swept")]


@pytest.mark.parametrize("wrong", [*WRONGS, WAITING, GARBLED_MARK])
def test_a_study_that_is_replaced_in_mid_sweep_stops_it(
    swept: Swept, other: Path, wrong: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep stops before it begins or ends another trial, and leaves the foreign file alone."""
    experiment = loader.load(swept.file)
    more = experiment.model_copy(
        update={"search": experiment.search.model_copy(update={"trials": experiment.trials + 3})}
    )
    write = writer.Writer.end
    replaced: list[bytes] = []

    def end(self: writer.Writer, *arguments: object, **options: object) -> object:
        record = write(self, *arguments, **options)  # type: ignore[arg-type]  # passes on what it got
        if not replaced:
            wrong(swept.root, other)
            replaced.append(study_db(swept.root).read_bytes() if study_db(swept.root).exists() else b"")
        return record

    monkeypatch.setattr(writer.Writer, "end", end)

    told = r"while the sweep was at work; nothing is lost.*doctor --repair|begun or ended by another process"
    with pytest.raises((StoreError, LockedError), match=told):
        run_main_job(replace(request(swept), experiment=more))

    monkeypatch.undo()
    acknowledged = _complete(more, swept.root)
    assert not _wrong(swept.root, repair=True)
    run_main_job(replace(request(swept), experiment=more))
    ended = {record.key: record for record in read_records(more.name, swept.root) or []}
    assert all(ended[key].value == value for key, value in acknowledged.items())
    assert sum(r.key.role == "trial" and not r.superseded for r in ended.values()) == more.trials


def _complete(experiment: Experiment, root: Path) -> dict[RunKey, float]:
    """Return the values of the attempts that the spool has as complete."""
    logs = Spool(Layout.of(root, experiment.name).spool).run_logs()
    return {log.key: log.epochs[-1].val_accuracy for log in logs if log.end and log.end.state == "COMPLETE"}

"""A study that was deleted, emptied, replaced or put back from a backup is noticed in time."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from lenet_exp.base.errors import StoreError
from lenet_exp.base.layout import Layout, study_db
from lenet_exp.cli.doctor import examine
from lenet_exp.config import loader
from lenet_exp.config.experiment import Experiment
from lenet_exp.results.lookup import read_results
from lenet_exp.sweep import writer
from lenet_exp.sweep.recovery import sync_experiment
from lenet_exp.sweep.run import Request, run_main_job
from tests.labs.studies import read_records
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


def edit_a_value(root: Path, _: Path) -> None:
    with closing(sqlite3.connect(study_db(root))) as database, database:
        database.execute(
            "UPDATE trial_values SET value = 0.99 WHERE trial_id = (SELECT max(trial_id) FROM trials)"
        )


pytestmark = pytest.mark.slow
WRONGS = [remove, empty, replace_by_another_roots, overwrite_in_place, put_back_a_backup]


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


@pytest.mark.parametrize("wrong", [*WRONGS, edit_a_value])
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


def _wrong(root: Path, *, repair: bool) -> list[str]:
    checks = examine(root, repair=repair)
    return [check.text for check in checks if check.exit_code and check.name in ("study", "swept")]


@pytest.mark.parametrize("wrong", WRONGS)
def test_a_study_that_is_replaced_in_mid_sweep_stops_it(
    swept: Swept, other: Path, wrong: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep stops before it begins or ends another trial, and leaves the foreign file alone."""
    experiment = loader.load(swept.file)
    more = experiment.model_copy(
        update={"search": experiment.search.model_copy(update={"trials": experiment.trials + 3})}
    )
    write, replaced = writer.Writer.end, []

    def end(self: writer.Writer, *arguments: object, **options: object) -> object:
        record = write(self, *arguments, **options)  # type: ignore[arg-type]
        if not replaced:
            wrong(swept.root, other)
            replaced.append(study_db(swept.root).read_bytes() if study_db(swept.root).exists() else b"")
        return record

    monkeypatch.setattr(writer.Writer, "end", end)

    with pytest.raises(StoreError, match=r"while the sweep was at work; nothing is lost.*doctor --repair"):
        run_main_job(replace(request(swept), experiment=more))

    monkeypatch.undo()
    acknowledged = _complete(more, swept.root)
    assert not _wrong(swept.root, repair=True)
    run_main_job(replace(request(swept), experiment=more))
    ended = {record.key: record for record in read_records(more.name, swept.root) or []}
    assert all(ended[key].value == value for key, value in acknowledged.items())
    assert sum(r.key.role == "trial" and not r.superseded for r in ended.values()) == more.trials


def _complete(experiment: Experiment, root: Path) -> dict[object, float]:
    """Return the values of the attempts that the spool has as complete."""
    from lenet_exp.tracking.spool import Spool

    logs = Spool(Layout.of(root, experiment.name).spool).run_logs()
    return {log.key: log.epochs[-1].val_accuracy for log in logs if log.end and log.end.state == "COMPLETE"}

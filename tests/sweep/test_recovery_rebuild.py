from __future__ import annotations

import math
from pathlib import Path

import pytest

from lenet_exp.base.errors import StoreError
from lenet_exp.base.layout import Layout
from lenet_exp.base.records import EpochResult
from lenet_exp.config.loader import parse
from lenet_exp.config.trainings import FixedTraining
from lenet_exp.results.leaderboard import ranked
from lenet_exp.results.table import to_csv
from lenet_exp.study.records import Attempt
from lenet_exp.study.storage import open_storage
from lenet_exp.study.study import MAX_ATTEMPTS, Study, open_study
from lenet_exp.sweep.recovery import rebuild_study
from lenet_exp.sweep.writer import Writer
from lenet_exp.tracking.events import StudyMetadata
from lenet_exp.tracking.spool import Spool
from tests.labs.studies import read_records

EXPERIMENT = parse(
    {
        "name": "e",
        "space": {
            "lr": {"low": 0.001, "high": 0.1, "log": True},
            "channels": {"low": 4, "high": 64, "step": 4},
            "pooling": ["avg", "max"],
            "conv_layers": {"low": 1, "high": 3},
        },
        "search": {"pruner": "none"},
    }
)
FINGERPRINT = {"space": EXPERIMENT.search_space.describe(), "n": 1.5}


def begun(root: Path) -> tuple[Study, Spool, Writer]:
    """Return the study of a sweep that begins, with all that writes it down."""
    (root / "e").mkdir(parents=True, exist_ok=True)
    study, spool = open_study(EXPERIMENT, root), Spool(root / "e" / "spool")
    study.check_fingerprint(FINGERPRINT)
    study.when_kept(spool.keep)
    study.begin_sweep(spool.lineage())
    lineage = study.lineage
    spool.start_study(StudyMetadata(lineage.id, "e", fingerprint=FINGERPRINT, sweeps=lineage.sweeps))
    return study, spool, Writer(study, spool, Layout.of(root, "e"))


def trained(recorder: Writer, attempt: Attempt | None, *accuracies: float) -> Attempt:
    """Train it for some epochs."""
    assert attempt is not None
    recorder.begin(attempt, {})
    for number, accuracy in enumerate(accuracies, start=1):
        recorder.epoch(attempt.key, EpochResult(number, 1.0, 0.5, 1.0, accuracy, 1000.0, 1.0 * number))
    return attempt


def busy(root: Path) -> tuple[Study, Spool, Writer]:
    """Return what a sweep had that did a bit of everything."""
    study, spool, recorder = begun(root)
    asked = FixedTraining("baseline", "baseline", "baseline", EXPERIMENT.baseline_configuration, 3)
    fixed = study.ask_fixed(asked)
    failed = trained(recorder, fixed, 0.5)
    assert recorder.fail(failed.key, "its process died", retry=True, crashed=True)
    fixed = study.ask_fixed(asked)
    baseline = trained(recorder, fixed, 0.5, 0.625)
    recorder.end(baseline.key, "COMPLETE", 0.625, {"train_s": 2.0, "n_parameters": 7})
    complete = trained(recorder, study.ask(), 0.25, 0.75)
    recorder.end(complete.key, "COMPLETE", 0.75, {"train_s": 2.0, "examples_per_s": 1000.0, "macs": 9})
    study.ask()  # and the driver was killed before it wrote that down
    study.keep("plan", {"finalists": [1]})
    study.keep("plan", {"finalists": [2], "level": 0.05})
    for seed in (1, 2):  # one job on two seeds, and without any validation
        confirm = FixedTraining("confirm c", "confirm", "c", EXPERIMENT.baseline_configuration, seed)
        confirmed = trained(recorder, study.ask_fixed(confirm), 0.5, math.nan)
        recorder.end(confirmed.key, "COMPLETE", math.nan, {"train_s": 2.0})
    pruned = trained(recorder, study.ask(), 0.125)
    recorder.end(pruned.key, "PRUNED", None, {"reason": "pruned after epoch 1"})
    infeasible = trained(recorder, study.ask())
    recorder.end(infeasible.key, "PRUNED", None, {"reason": "infeasible: too small"})
    buggy = trained(recorder, study.ask(), 0.25)
    assert not recorder.fail(buggy.key, "ValueError", retry=False, crashed=True)
    died = trained(recorder, study.ask(), 0.25)
    assert recorder.fail(died.key, "its process died", retry=True, crashed=True)
    return study, spool, recorder


def shown(study: Study) -> list[str]:
    """Return the study's records as text, in which NaN equals NaN."""
    return [repr(record) for record in sorted(study.records(), key=lambda record: record.key)]


def test_what_is_rebuilt_is_what_was_told(tmp_path: Path) -> None:
    """Records, leaderboard, budget, identity and the queue of retries are as before."""
    study, spool, _ = busy(tmp_path / "old")
    (tmp_path / "new").mkdir()

    assert rebuild_study(spool, open_storage(tmp_path / "new"), "e") == (9, None)

    records = study.records()
    again = open_study(EXPERIMENT, tmp_path / "new")
    again.check_fingerprint(FINGERPRINT)
    assert again.kept("plan") == {"finalists": [2], "level": 0.05}
    assert shown(again) == shown(study)
    assert to_csv(ranked(again.records(), {})) == to_csv(ranked(records, {}))
    assert (again.n_finished, again.n_waiting()) == (study.n_finished, study.n_waiting()) == (3, 1)
    then, now = study.ask(), again.ask()
    assert then is not None
    assert now == then


def test_a_retry_that_was_begun_is_not_queued_twice(tmp_path: Path) -> None:
    """The first attempt is superseded by the second, which goes on until there were enough."""
    study, spool, recorder = busy(tmp_path / "old")
    for attempt in range(2, MAX_ATTEMPTS + 1):
        again = trained(recorder, study.ask(), 0.25)
        assert again.key.attempt == attempt
        recorder.fail(again.key, "its process died", retry=True, crashed=True)
    (tmp_path / "new").mkdir()

    rebuild_study(spool, open_storage(tmp_path / "new"), "e")

    rebuilt = open_study(EXPERIMENT, tmp_path / "new")
    assert rebuilt.n_waiting() == 0
    assert rebuilt.n_finished == study.n_finished
    assert shown(rebuilt) == shown(study)


def test_what_was_cut_off_is_tried_again(tmp_path: Path) -> None:
    """An attempt without an end has failed as interrupted, and its values and seed are queued."""
    study, spool, recorder = begun(tmp_path / "old")
    cut = trained(recorder, study.ask(), 0.25)
    (tmp_path / "new").mkdir()

    rebuild_study(spool, open_storage(tmp_path / "new"), "e")

    (record,) = read_records("e", tmp_path / "new") or []
    assert (record.state, record.reason, record.superseded) == ("FAIL", "interrupted", True)
    again = open_study(EXPERIMENT, tmp_path / "new").ask()
    assert again is not None
    assert (again.configuration, again.seed, again.key.attempt) == (cut.configuration, cut.seed, 2)


def test_a_spool_that_cannot_tell_is_refused(tmp_path: Path) -> None:
    """What was not written down cannot be made up."""
    _, spool, _ = busy(tmp_path / "old")
    path = spool.path("trial-00000-1")
    path.write_text(path.read_text().replace('"study":', '"nothing":'))
    (tmp_path / "new").mkdir()

    with pytest.raises(StoreError, match="too old to rebuild a study from"):
        rebuild_study(spool, open_storage(tmp_path / "new"), "e")

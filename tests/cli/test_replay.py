from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest

from lenet_exp.base import environment
from lenet_exp.base.errors import NoResultError
from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.cli import program
from lenet_exp.cli.replay import Replay, compare, replay, show, verdict
from lenet_exp.config import loader
from lenet_exp.config.hyperparameters import PRESETS, configuration
from lenet_exp.results.lookup import ExperimentResults, read_results
from lenet_exp.study.records import TrialRecord
from lenet_exp.study.trials import StudyContent, read_study
from tests.labs.swept import Swept

ONE = EpochResult(1, 0.5, 0.8, 0.4, 0.9, 1000.0, 2.0)
RECORD = TrialRecord(
    RunKey("trial", 3, 1), "COMPLETE", "trial 3", configuration(PRESETS["lenet"] | {"epochs": 2}), 0
)


def again(swept: Swept, trial: str, **options: Any) -> Replay:
    """Replay without a word."""
    return replay(loader.load(swept.file), swept.root, trial, say=lambda _: None, **options)


def rewrite_epochs(swept: Swept, stem: str, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change what the spool says of each epoch."""
    path = swept.home / "spool" / f"{stem}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["event"] == "epoch":
            edit(line["result"])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_trial_is_identical_on_the_same_machine(
    swept: Swept, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ends with 0 and says so, and leaves all that was recorded as it was."""
    before = {path: path.read_bytes() for path in swept.home.rglob("*") if path.is_file()}

    with pytest.raises(SystemExit, match=r"^0$"):
        program.main(["replay", "1", "--experiment", str(swept.file), "--root", str(swept.root)])

    shown = capsys.readouterr()
    assert shown.out == "trial 1 is identical in 2 epochs, bit for bit\n"
    assert shown.err.splitlines()[1:] == ["epoch 1: as recorded", "epoch 2: as recorded"]
    assert {path: path.read_bytes() for path in swept.home.rglob("*") if path.is_file()} == before


def test_every_record_keeps_what_could_explain_a_difference(swept_once: Swept) -> None:
    """Versions, code, processor, device and threads are in the study with each result."""
    for record in read_results(loader.load(swept_once.file), swept_once.root).records:
        assert set(environment.CAUSES) <= record.result.keys()
        assert record.result["threads"] == 1


def test_the_last_bit_counts(swept: Swept, capsys: pytest.CaptureFixture[str]) -> None:
    """A number that differs in its last place is found, told with its epoch, and ends with 3."""

    def nudge(result: dict[str, Any]) -> None:
        if result["epoch"] == 2:
            result["val_loss"] = result["val_loss"] * (1 + 2**-52)

    rewrite_epochs(swept, "baseline-00000-1", nudge)

    done = again(swept, "baseline")

    assert [(d.epoch, d.metric) for d in done.differences] == [(2, "val_loss")]
    with pytest.raises(
        NoResultError, match="from epoch 2 on, val_loss first: nothing explains it, as data"
    ) as end:
        show(done)
    assert end.value.exit_code == 3
    assert "1 of 8 metrics differ" in capsys.readouterr().out


def test_what_has_changed_is_told(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads, code and data that are not as recorded can explain differences."""
    rewrite_epochs(swept, "trial-00000-1", lambda result: result.update(train_loss=9.0))
    monkeypatch.setattr(environment, "code", lambda: "edited")

    def other_data(name: str, root: Path, _: str | None) -> StudyContent:
        found = read_study(name, root)
        assert found is not None
        data = {**found.fingerprint["data"], "digest": "otherwise"}
        return found._replace(fingerprint={**found.fingerprint, "data": data})

    monkeypatch.setattr("lenet_exp.results.lookup.read_study", other_data)

    done = again(swept, "trial 0", threads=2)

    assert {name: now for name, _, now in done.changes}.keys() == {"data", "code", "threads"}
    assert "threads was 1 and is 2, which can explain it" in verdict(done)


def test_a_pruned_trial_is_trained_as_far_as_it_was(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the epochs that were recorded are repeated."""
    path = swept.home / "spool" / "trial-00000-1.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if '"epoch":2' not in line))
    find = ExperimentResults.find
    monkeypatch.setattr(ExperimentResults, "find", lambda *given: changed(find(*given), state="PRUNED"))

    done = again(swept, "trial 0")

    assert (done.n_compared, done.identical) == (1, True)


def test_a_duplicate_is_replayed_as_what_was_trained(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own seed was never used, so the training behind it is repeated."""
    told: list[str] = []
    find = ExperimentResults.find

    def twin(self: ExperimentResults, *given: Any) -> TrialRecord:
        return changed(find(self, "1"), label="trial 9", seed=1, result={"duplicate_of": 0})

    monkeypatch.setattr(ExperimentResults, "find", twin)

    done = replay(loader.load(swept.file), swept.root, "9", say=told.append)

    assert done.record.label == "trial 0"
    assert done.identical
    assert told[0] == "trial 9 is a duplicate of trial 0, which was trained; replaying that"


def test_what_has_no_epochs_cannot_be_replayed(swept_once: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told before anything is trained."""
    find = ExperimentResults.find
    change: dict[str, Any] = {"key": RunKey("trial", 77, 1), "state": "PRUNED"}
    change["result"] = {"reason": "infeasible: no map"}
    monkeypatch.setattr(ExperimentResults, "find", lambda self, _: changed(find(self, "0"), **change))

    with pytest.raises(NoResultError, match="has no epoch to compare: infeasible: no map"):
        again(swept_once, "0")


def test_a_missing_epoch_is_a_difference() -> None:
    """A training that ended earlier is not identical."""
    two = changed(ONE, epoch=2)

    assert [d.epoch for d in compare([ONE, two], [ONE])] == [2] * 4
    assert compare([], []) == ()


def test_times_are_not_compared_and_no_number_equals_itself() -> None:
    """A faster run is the same run, and NaN is NaN."""
    nan = changed(ONE, val_loss=float("nan"))

    assert compare([nan], [changed(nan, train_s=9.0, examples_per_s=1.0)]) == ()
    assert len(compare([nan], [ONE])) == 1


def test_the_verdict_says_what_it_knows() -> None:
    """A record of an older version says less, and that is told."""
    different = compare([ONE], [changed(ONE, train_loss=1.0)])
    unknown = Replay(RECORD, different, 1, (), ("code", "cpu"))

    assert verdict(unknown).endswith("but the record does not have: code, cpu")
    assert verdict(changed(unknown, differences=())) == "trial 3 is identical in 1 epoch, bit for bit"
    diverged = changed(unknown, differences=(), n_compared=0)
    assert verdict(diverged) == "trial 3 diverged in its first epoch, as recorded"

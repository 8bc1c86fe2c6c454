from pathlib import Path
from typing import Any

import pytest

from lenet_exp.base.layout import Layout
from lenet_exp.base.records import EpochResult
from lenet_exp.config.loader import parse
from lenet_exp.execution import checkpoint
from lenet_exp.study.records import Attempt
from lenet_exp.study.study import Study, open_study
from lenet_exp.sweep.recovery import reconcile
from lenet_exp.sweep.writer import Writer
from lenet_exp.tracking.spool import Spool

EXPERIMENT = parse({"name": "e", "space": {"lr": {"low": 0.001, "high": 0.1}}, "search": {"pruner": "none"}})


def result(number: int) -> EpochResult:
    return EpochResult(number, 1.0, 0.5, 1.0, number / 10, 1000.0, 1.0)


class Dead:
    """A driver that dies when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = Spool(folder / "e" / "spool")
        self.study = open_study(EXPERIMENT, folder)
        self.layout = Layout.of(folder, "e")
        self.recorder = Writer(self.study, self.spool, self.layout)

    def begin(self, epochs: int) -> Attempt:
        """Leave an attempt RUNNING after so many epochs, with a checkpoint."""
        attempt = self.study.ask()
        assert attempt is not None
        self.recorder.begin(attempt, {})
        for number in range(1, epochs + 1):
            history = [result(n) for n in range(1, number + 1)]
            checkpoint.save(self.layout.training(attempt.origin), history, b"state")
            self.recorder.epoch(attempt.key, result(number))
        return attempt

    def next_start(self) -> Study:
        """Repair, as another process would."""
        study = open_study(EXPERIMENT, self.folder)
        reconcile(study, Spool(self.spool.folder), self.layout)
        return study


@pytest.fixture
def dead(tmp_path: Path) -> Dead:
    (tmp_path / "e").mkdir()
    return Dead(tmp_path)


def state(folder: Path) -> dict[str, Any]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and ".db" not in file.name
    }


def test_what_was_cut_off_failed_and_is_tried_again_from_its_checkpoint(dead: Dead, tmp_path: Path) -> None:
    """Study and spool say so, the checkpoint stays, and doing it twice changes nothing."""
    attempt = dead.begin(epochs=2)

    study = dead.next_start()

    assert (study.record(attempt.key).state, study.record(attempt.key).reason) == ("FAIL", "interrupted")
    assert study.n_waiting() == 1
    spooled = Spool(dead.spool.folder).read(attempt.key)
    assert spooled is not None
    assert spooled.end is not None
    assert spooled.end.state == "FAIL"
    before = state(tmp_path)
    again = dead.next_start()
    assert state(tmp_path) == before
    assert again.n_waiting() == 1
    retry = again.ask()
    assert retry is not None
    assert (retry.origin, retry.retry_of, retry.seed) == (attempt.key, attempt.key, attempt.seed)
    assert (tmp_path / "e" / "checkpoints" / retry.origin.stem / "epoch-00002.state").exists()


@pytest.mark.parametrize("outcome", ["COMPLETE", "PRUNED"])
def test_what_the_spool_has_whole_is_told_and_not_done_again(
    dead: Dead, tmp_path: Path, outcome: Any
) -> None:
    """Value, history and facts are those of the driver that died before it told them."""
    attempt = dead.begin(epochs=2)
    metadata = {"reason": "", "train_s": 1.0}
    dead.spool.end(attempt.key, outcome, "", result=metadata)

    study = dead.next_start()

    record = study.record(attempt.key)
    assert (record.state, record.value) == (outcome, 0.2 if outcome == "COMPLETE" else None)
    assert (record.history, record.result["train_s"]) == ({1: 0.1, 2: 0.2}, 1.0)
    assert study.n_waiting() == 0
    assert study.n_finished == 1
    assert not (tmp_path / "e" / "checkpoints" / attempt.key.stem).exists()


def test_an_epoch_that_was_spooled_and_not_reported_is_in_the_history(dead: Dead) -> None:
    """The driver may have died between the two."""
    attempt = dead.begin(epochs=1)
    dead.spool.epoch(attempt.key, result(2))
    dead.spool.end(attempt.key, "COMPLETE", "", result={"train_s": 1.0})

    assert dead.next_start().record(attempt.key).history == {1: 0.1, 2: 0.2}


def test_a_result_without_its_weights_is_not_taken_for_whole(dead: Dead) -> None:
    """It is tried again, and its checkpoint makes that cheap."""
    attempt = dead.begin(epochs=2)
    dead.spool.end(attempt.key, "COMPLETE", "", weights="checkpoints/gone", result={"train_s": 1.0})

    assert dead.next_start().record(attempt.key).state == "FAIL"


def test_a_retry_that_was_taken_and_not_recorded_is_queued_again(dead: Dead) -> None:
    """Killed in that instant, the driver leaves a trial of which nothing is known but what it retries."""
    attempt = dead.begin(epochs=1)
    study = dead.next_start()
    study._search.ask()

    study = dead.next_start()
    dead.next_start()

    assert study.n_waiting() == 1
    retry = study.ask()
    assert retry is not None
    assert (retry.origin, retry.configuration) == (attempt.key, attempt.configuration)


def test_an_end_that_found_no_room_in_the_spool_is_taken_from_the_study(dead: Dead) -> None:
    """What was told stays told, and MLflow hears of it too."""
    attempt = dead.begin(epochs=2)
    dead.study.tell(attempt.key, "COMPLETE", 0.2, {"train_s": 1.0})

    dead.next_start()

    spooled = Spool(dead.spool.folder).read(attempt.key)
    assert spooled is not None
    assert spooled.end is not None
    assert spooled.end.state == "COMPLETE"

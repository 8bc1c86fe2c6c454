import time
from pathlib import Path

import pandas as pd
import pytest

from lenet_exp.base.layout import Layout
from lenet_exp.base.records import EpochResult
from lenet_exp.config.loader import parse
from lenet_exp.study.study import Study, open_study
from lenet_exp.sweep.writer import Writer
from lenet_exp.tracking.spool import Spool

EXPERIMENT = parse({"name": "e", "space": {"lr": [0.1, 0.2]}, "search": {"pruner": "none"}})


def epoch(number: int, accuracy: float) -> EpochResult:
    return EpochResult(number, 1.0, 0.5, 1.0, accuracy, 1000.0, 1.0)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    (tmp_path / "e").mkdir()
    return open_study(EXPERIMENT, tmp_path)


def test_an_attempt_is_in_the_spool_the_study_and_the_table(tmp_path: Path, study: Study) -> None:
    """All three say the same of it."""
    spool, news = Spool(tmp_path / "e" / "spool"), list[int]()
    recorder = Writer(study, spool, Layout.of(tmp_path, "e"), notify=lambda: news.append(1))
    attempt = study.ask()
    assert attempt is not None

    recorder.begin(attempt, {"lenet_exp.co_runners": "0"})
    recorder.epoch(attempt.key, epoch(1, 0.75))
    weights = Layout.of(tmp_path, "e").weights(attempt.key)
    weights.parent.mkdir(parents=True)
    weights.touch()
    recorder.end(attempt.key, "COMPLETE", 0.75, {"train_s": 1.0})

    spooled = spool.read(attempt.key)
    assert spooled is not None
    assert spooled.end is not None
    assert (spooled.end.state, spooled.end.weights) == (
        "COMPLETE",
        f"checkpoints/{attempt.key.stem}/weights.safetensors",
    )
    assert study.record(attempt.key).value == 0.75
    table = pd.read_csv(tmp_path / "e" / "leaderboard.csv")
    assert table["val_accuracy"].tolist() == [0.75]
    assert len(news) == 3


def test_a_result_is_in_the_spool_before_it_is_told(
    tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever dies in between can find it there."""
    spool = Spool(tmp_path / "e" / "spool")
    recorder = Writer(study, spool, Layout.of(tmp_path, "e"))
    attempt = study.ask()
    assert attempt is not None
    recorder.begin(attempt, {})
    recorder.epoch(attempt.key, epoch(1, 0.75))
    monkeypatch.delattr(Study, "tell")

    with pytest.raises(AttributeError, match="tell"):
        recorder.end(attempt.key, "COMPLETE", 0.75, {})

    spooled = spool.read(attempt.key)
    assert spooled is not None
    assert spooled.end is not None
    assert spooled.end.state == "COMPLETE"


def test_the_table_of_a_large_study_is_not_written_after_each_trial(
    tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a hundredth of the time at most while trials end; once they have, the driver asks for it."""
    writer = Writer(study, Spool(tmp_path / "e" / "spool"), Layout.of(tmp_path, "e"))
    clock = iter([0.0, 1.0, 100.5, 101.0, 101.25, 110.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    writer.write_leaderboard()  # takes a second, so that the next is due at 100

    rows = []
    for _ in range(2):
        attempt = study.ask()
        assert attempt is not None
        writer.begin(attempt, {})
        writer.epoch(attempt.key, epoch(1, 0.75))
        writer.end(attempt.key, "COMPLETE", 0.75, {})
        rows.append(len(pd.read_csv(tmp_path / "e" / "leaderboard.csv")))

    assert rows == [1, 1]

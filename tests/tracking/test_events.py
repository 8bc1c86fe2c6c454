from typing import Any

from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.tracking.events import extended_run_log, extended_study_log

KEY = RunKey("trial", 3, 1)


def lines(*events: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"time_ms": number, **event} for number, event in enumerate(events)]


def epoch(number: int) -> dict[str, Any]:
    return {"event": "epoch", "result": EpochResult(number, 1.0, 0.5, 1.0, number / 10, 9.0, 1.0).to_dict()}


END: dict[str, Any] = {
    "event": "end",
    "state": "COMPLETE",
    "reason": None,
    "weights": None,
    "result": {"train_s": 1.0},
}


def test_lines_read_in_pieces_say_what_they_say_together() -> None:
    """Tracking reads a file as it grows."""
    whole = lines({"event": "start", "metadata": {"seed": 1}}, epoch(1), epoch(2), END)

    together = extended_run_log(None, KEY, whole)
    in_pieces = None
    for line in whole:
        in_pieces = extended_run_log(in_pieces, KEY, [line])

    assert in_pieces == together
    assert together is not None
    assert [result.epoch for result in together.epochs] == [1, 2]
    assert together.end is not None
    assert together.end.result == {"train_s": 1.0}


def test_lines_of_before_november_2026_are_read_as_today_s() -> None:
    """They said "facts" for metadata and for a result, and "identity" for a hash and for a fingerprint."""
    then = {name: value for name, value in END.items() if name != "result"} | {"facts": END["result"]}
    of_study: dict[str, Any] = {
        "study": "s",
        "experiment": "e",
        "dataset": None,
        "files": [],
        "identity": {"space": {}},
    }

    attempt = extended_run_log(None, KEY, lines({"event": "start", "facts": {"identity": "a1"}}, then))
    study = extended_study_log(None, lines({"event": "start", "facts": of_study}))

    assert attempt == extended_run_log(
        None, KEY, lines({"event": "start", "metadata": {"config": "a1"}}, END)
    )
    assert study is not None
    assert study.metadata.fingerprint == {"space": {}}


def test_of_an_epoch_noted_twice_the_first_stays() -> None:
    """What a retry repeats is not counted again."""
    run_log = extended_run_log(
        None, KEY, lines({"event": "start", "metadata": {}}, epoch(1), epoch(1), epoch(2))
    )

    assert run_log is not None
    assert run_log.epoch_ms == (1, 3)


def test_an_attempt_that_is_begun_again_has_not_ended() -> None:
    """Whatever ended it before is undone."""
    start = {"event": "start", "metadata": {}}

    run_log = extended_run_log(None, KEY, lines(start, END, start))

    assert run_log is not None
    assert run_log.end is None


def test_nothing_says_nothing() -> None:
    """A file that is still empty has no log."""
    assert extended_run_log(None, KEY, []) is None
    assert extended_study_log(None, []) is None

from typing import Any

from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.tracking.events import extended_attempt, extended_study

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
    "facts": {"train_s": 1.0},
}


def test_lines_read_in_pieces_say_what_they_say_together() -> None:
    """Tracking reads a file as it grows."""
    whole = lines({"event": "start", "facts": {"seed": 1}}, epoch(1), epoch(2), END)

    together = extended_attempt(None, KEY, whole)
    in_pieces = None
    for line in whole:
        in_pieces = extended_attempt(in_pieces, KEY, [line])

    assert in_pieces == together
    assert together is not None
    assert [result.epoch for result in together.epochs] == [1, 2]
    assert together.end is not None
    assert together.end.facts == {"train_s": 1.0}


def test_of_an_epoch_noted_twice_the_first_stays() -> None:
    """What a retry repeats is not counted again."""
    record = extended_attempt(None, KEY, lines({"event": "start", "facts": {}}, epoch(1), epoch(1), epoch(2)))

    assert record is not None
    assert record.epoch_ms == (1, 3)


def test_an_attempt_that_is_begun_again_has_not_ended() -> None:
    """Whatever ended it before is undone."""
    start = {"event": "start", "facts": {}}

    record = extended_attempt(None, KEY, lines(start, END, start))

    assert record is not None
    assert record.end is None


def test_nothing_says_nothing() -> None:
    """A file that is still empty has no record."""
    assert extended_attempt(None, KEY, []) is None
    assert extended_study(None, []) is None

from pathlib import Path

import pytest

from lenet_exp.base.errors import NoResultError
from lenet_exp.sweep.failures import MAX_SAME_FAILURES, Bugs


def test_the_same_bug_in_a_row_stops_and_its_traceback_is_kept(tmp_path: Path) -> None:
    """Numbers that differ, such as a trial's, do not make it another bug."""
    bugs = Bugs(tmp_path / "traceback.txt")
    for number in range(MAX_SAME_FAILURES - 1):
        bugs.note("ValueError: no", f"line {number}: ValueError")

    with pytest.raises(
        NoResultError, match=r"5 attempts in a row failed alike: ValueError: no; .*traceback\.txt"
    ):
        bugs.note("ValueError: no", "line 9: ValueError")

    assert (tmp_path / "traceback.txt").read_text() == "line 0: ValueError"


def test_a_success_or_another_bug_in_between_goes_on(tmp_path: Path) -> None:
    """Only a row of the same is hopeless."""
    bugs = Bugs(tmp_path / "traceback.txt")

    for _ in range(2 * MAX_SAME_FAILURES):
        bugs.note("ValueError: a", "a")
        bugs.note("ValueError: b", "b")
    bugs.forget()
    for _ in range(MAX_SAME_FAILURES - 1):
        bugs.note("ValueError: a", "a")

"""What study and spool say about their origin: a crash's differences, and those of a wrong store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lenet_exp.base.errors import StoreError
from lenet_exp.base.lineage import Lineage, check_lineage
from lenet_exp.base.records import RunKey

FIRST, SECOND = RunKey("trial", 0, 1), RunKey("trial", 1, 1)
SPOOL = Lineage("e-1", ("a", "b"), 2, frozenset({FIRST, SECOND}), {"space": 1})


def lineage(name: str = "e-1", sweeps: str = "ab", n_kept: int = 2, keys: int = 2, space: int = 1) -> Lineage:
    return Lineage(name, tuple(sweeps), n_kept, frozenset((FIRST, SECOND)[:keys]), {"space": space})


@pytest.mark.parametrize(
    ("study", "problem"),
    [
        (None, "is gone or was emptied, but the spool has 2 attempts"),
        (Lineage(), "is gone or was emptied"),
        (Lineage("e-1", ("a", "b"), 2), "is older than the spool: it lacks trial-00000-1 and 1 other"),
        (lineage("e-2"), "belongs to another root: its id is e-2, that of the spool is e-1"),
        (lineage(keys=1), "is older than the spool: it lacks trial-00001-1"),
        (lineage(n_kept=0), "is older than the spool: it lacks the last 2 values"),
        (Lineage("", (), 2, SPOOL.keys, {"space": 1}), "has lost its mark"),
        (
            replace(lineage(), edited=frozenset([SECOND])),
            "was changed: trial-00001-1 is not what was recorded",
        ),
        (lineage(sweeps="ac"), "belongs to another copy of this root"),
        (lineage(sweeps="acde"), "belongs to another copy of this root"),
    ],
)
def test_a_study_that_is_not_the_spools_is_told(study: Lineage | None, problem: str) -> None:
    """Gone, emptied, another root's, older, or continued apart: the line says which, and what repairs it."""
    with pytest.raises(StoreError, match=rf"study\.db {problem}.*; put the right one back, or run 'repair'"):
        check_lineage(study, SPOOL, "study.db", "repair")


@pytest.mark.parametrize(
    ("study", "spool"),
    [
        (lineage(), SPOOL),
        (lineage(sweeps="a"), SPOOL),  # a crash between the two at a sweep's start
        (lineage(sweeps="abc"), SPOOL),
        (lineage(n_kept=3), SPOOL),
        (lineage(n_kept=1), SPOOL),  # a crash between the two when a value is kept
        (lineage(), Lineage()),  # the spool was deleted
        (Lineage(), Lineage()),
        (None, Lineage("e-1", ("a",))),  # nothing was recorded yet
        (lineage("", ""), lineage("e-old", "")),  # a root from before there were ids
    ],
)
def test_what_a_crash_can_leave_is_no_fault(study: Lineage | None, spool: Lineage) -> None:
    """One of the two may have been written last, and the spool can be restored from the study."""
    check_lineage(study, spool, "study.db", "repair")


def test_a_sweep_that_began_later_shows() -> None:
    """The same study with more sweeps follows; another study, and one that was continued apart, do not."""
    assert lineage(sweeps="abc").follows(SPOOL)
    assert not lineage(sweeps="ab").follows(SPOOL)
    assert not lineage("e-2", sweeps="abc").follows(SPOOL)
    assert not lineage(sweeps="acd").follows(SPOOL)


def test_without_ids_the_settings_tell_a_foreign_study() -> None:
    """Roots from before there were ids have at least their fingerprints."""
    with pytest.raises(StoreError, match="was started with other settings than the spool"):
        check_lineage(lineage("", "", space=2), lineage("e-old", ""), "study.db", "repair")


def test_a_sweep_takes_the_id_that_there_is() -> None:
    """A new study takes the spool's id, a new spool the study's; only where there is none is one drawn."""
    assert Lineage().with_sweep("e", SPOOL).id == "e-1"
    assert lineage().with_sweep("e", Lineage()).id == "e-1"
    assert Lineage().with_sweep("e", SPOOL).sweeps[:-1] == ("a", "b")
    drawn = {Lineage().with_sweep("e", Lineage()).id for _ in range(20)}
    assert len(drawn) == 20
    assert all(name.startswith("e-") for name in drawn)

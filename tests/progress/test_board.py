from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from lenet_exp.progress.board import board
from lenet_exp.progress.state import Incumbent, Progress, Running
from tests.labs.progresses import HALFWAY


def rows(progress: Progress, width: int, height: int = 40) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=width, force_terminal=True, color_system=None, highlight=False).print(
        board(progress, width, height)
    )
    return text.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_a_board_fits_and_tells_what_matters_at_every_width(width: int) -> None:
    """How far it is, how long it takes, what runs, what is best, and that something has failed."""
    shown = rows(HALFWAY, width)

    text = "\n".join(shown)
    assert max(map(len, shown)) <= width
    for words in ("7 of 14", "about 6 min (4 to 9)", "trial 7", "4/10", "0.8712", "trial 2", "+0.0123"):
        assert words in text
    for words in ("5 complete", "1 failed", "spooling 3 runs", "warning: no"):
        assert words in text


def test_what_a_training_differs_in_and_the_machine_are_told_where_there_is_room() -> None:
    """From 80 columns on; and at 200 they stand side by side, which takes fewer rows."""
    narrow, wide = rows(HALFWAY, 80), rows(HALFWAY, 200)

    for shown in (narrow, wide):
        text = "\n".join(shown)
        assert "max c12-30 lr 0.0031" in text
        assert "5 complete, 1 pruned, 2 infeasible, 1 failed, 1 retried" in text
        assert "memory 12.0 GB, disk 33.0 GB" in text
    assert len(wide) < len(narrow)


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("height", [3, 6, 8, 12])
def test_a_board_is_no_higher_than_the_terminal(width: int, height: int) -> None:
    """With more trainings than it has rows, it says how many it leaves out, which is never a single one."""
    many = replace(HALFWAY, running=tuple(Running(f"trial {n}", 10) for n in range(30)))

    shown = rows(many, width, height)

    assert len(shown) <= height
    assert "7 of 14" in "\n".join(shown)
    if height == 12:
        assert "trainings more" in "\n".join(shown)
    assert any("trial 8" in row for row in rows(HALFWAY, width, 8))


def test_a_confirmation_tells_its_seeds_and_in_a_narrow_terminal_which_seed_trains() -> None:
    """A seed is done when every configuration is trained on it; and nothing is cut that tells runs apart."""
    running = (Running("baseline, seed 3", 9), Running("trial 18, seed 3", 9))
    state = replace(HALFWAY, phase="confirmation", n_seeds=5, n_done=11, n_total=20, running=running)

    text = "\n".join(rows(state, 40))

    for words in ("2 of 5 seeds", "11 of 20", "baseline, seed 3 ", "trial 18, seed 3 ", "1 failed"):
        assert words in text
    first = replace(state, is_first_stage=True, experiment="fashion-mnist")
    assert rows(first, 39)[0] == "fashion…  confirming 2 of 5 first seeds"
    assert "0.8931 in the search  +0.0123 against the baseline" in "\n".join(rows(state, 80))


def test_a_baseline_that_leads_is_said_to_lead() -> None:
    """So nobody takes the best value for an improvement."""
    text = "\n".join(rows(replace(HALFWAY, incumbent=Incumbent("baseline", 0.9, 0.0)), 80))

    assert "0.9000  nothing better yet" in text


def test_no_colour_stands_alone_and_no_control_character_gets_through() -> None:
    """What stops and what warns is said; a label with an escape code is shown as it is written."""
    evil = replace(HALFWAY, stopping="finishing", running=(Running("a\x1b[2J", 1, "b\x1b[1m"),))

    text = "\n".join(rows(evil, 80))

    assert "! finishing" in text
    assert "\x1b" not in text

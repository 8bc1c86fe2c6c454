from pathlib import Path

import pytest

from lenet_exp.errors import NoResultError
from lenet_exp.experiment import parse
from lenet_exp.readings import NOTHING
from lenet_exp.results import read_ablation, read_findings, read_leaderboard

EXPERIMENT = parse({"name": "e", "space": {"lr": [0.1, 0.2]}})


@pytest.mark.parametrize("read", [read_leaderboard, read_ablation])
def test_what_was_never_run_has_no_table(read: type, tmp_path: Path) -> None:
    """The message says what to run, and nothing is made where it was looked for."""
    with pytest.raises(NoResultError, match=r"'e' was never run under .*; run: lenet-exp sweep"):
        read(EXPERIMENT, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_what_was_never_confirmed_has_no_findings(tmp_path: Path) -> None:
    """The leaderboard then says so in every row."""
    assert read_findings(EXPERIMENT, tmp_path) == NOTHING

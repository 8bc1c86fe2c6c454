from pathlib import Path

import pytest

from lenet_exp.base.errors import NoResultError
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.loader import parse
from lenet_exp.results.lookup import read_results
from lenet_exp.results.read import show_leaderboard

SEARCH = parse({"name": "e", "space": {"lr": [0.1, 0.2]}})
ABLATION = parse({"name": "e", "ablate": {"lr": [0.1, 0.2]}})


@pytest.mark.parametrize("experiment", [SEARCH, ABLATION], ids=["search", "ablation"])
def test_what_was_never_run_has_no_table(experiment: Experiment, tmp_path: Path) -> None:
    """The message says what to run, and nothing is made where it was looked for."""
    never = r"'e' was never run under .*; run 'lenet-exp sweep EXPERIMENT --root .*'"
    with pytest.raises(NoResultError, match=never):
        read_results(experiment, tmp_path)
    with pytest.raises(NoResultError, match=never):
        show_leaderboard(experiment, tmp_path, csv=None, style="csv", top=None)

    assert list(tmp_path.iterdir()) == []

from __future__ import annotations

from pathlib import Path

import pytest

from lenet_exp.tracking import uploader
from lenet_exp.tracking.events import Champion
from tests.labs.mlflow_lab import BASELINE, STUDY_METADATA, TRIAL, Lab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """An experiment with two complete attempts in its spool, and nothing in MLflow."""
    monkeypatch.setattr(uploader, "RETRY_S", 0.01)
    lab = Lab(tmp_path)
    lab.spool.start_study(STUDY_METADATA)
    lab.complete(BASELINE)
    lab.complete(TRIAL)
    return lab


def aliases(lab: Lab) -> dict[str, str]:
    """Return the run behind each alias."""
    client = lab.client()
    names = client.get_registered_model("ünï exp").aliases
    return {name: str(client.get_model_version_by_alias("ünï exp", name).run_id) for name in names}


def test_the_registry_is_brought_up_to_the_spool_whenever_mlflow_answers(lab: Lab) -> None:
    """Registered once however often it is uploaded, by any process; a later tie gives the alias back."""
    lab.spool.champion(Champion("ünï exp", {"champion": TRIAL.stem, "baseline": BASELINE.stem}, "won"))

    lab.sync()
    lab.sync()
    lab.sync(rebuild=True)

    runs = lab.opened().run_ids()
    client = lab.client()
    assert aliases(lab) == {"champion": runs[TRIAL], "baseline": runs[BASELINE]}
    assert len(client.search_model_versions("name = 'ünï exp'")) == 2
    assert client.get_registered_model("ünï exp").description == "won"

    lab.spool.champion(Champion("ünï exp", dict.fromkeys(("champion", "baseline"), BASELINE.stem), "a tie"))
    lab.sync()

    assert aliases(lab) == {"champion": runs[BASELINE], "baseline": runs[BASELINE]}
    assert len(client.search_model_versions("name = 'ünï exp'")) == 2


def test_a_model_that_is_missing_is_said_and_holds_nothing_up(lab: Lab) -> None:
    """All else is in MLflow."""
    lab.spool.champion(Champion("ünï exp", {"champion": "trial-00009-1"}, ""))
    lab.spool.end_study("COMPLETE")

    report = lab.sync()

    assert report.n_uploaded == 2
    assert report.problems == (
        "upload of study to MLflow failed: trial-00009-1 has no model to register as ünï exp@champion",
    )
    run_id = lab.opened().run_id("study")
    assert run_id is not None
    assert lab.client().get_run(run_id).info.status == "FINISHED"

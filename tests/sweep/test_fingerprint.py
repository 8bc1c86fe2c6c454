"""What the study's own run in MLflow says after a sweep."""

from __future__ import annotations

from lenet_exp.tracking.spool import Spool
from tests.labs.swept import Swept


def test_the_study_says_what_was_found(swept_once: Swept) -> None:
    """The last line of the study's spool has the best accuracy, its delta, and what that means."""
    study = Spool(swept_once.home / "spool").study()

    assert study is not None
    assert study.end is not None
    metrics, tags = study.end.result["metrics"], study.end.result["tags"]
    assert 0 <= metrics["val_accuracy"] <= 1
    assert metrics["val_delta"] <= metrics["val_accuracy"]
    assert tags["best"]
    assert study.metadata.tags["mlflow.source.name"] == "lenet-exp sweep swept"
    # MLflow shows the beginning, so the page's verdict comes first.
    question, verdict, *rest = tags["mlflow.note.content"].split("\n\n")
    assert question == "**Does it <b>work</b>?**"
    assert "the baseline" in verdict.lower()
    assert "- how sure: " in rest[0]
    assert "report.html" in rest[-1]

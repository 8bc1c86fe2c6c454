"""What a study has on record, for tests that look at a part of it."""

from pathlib import Path
from typing import Any

from lenet_exp.study.records import TrialRecord
from lenet_exp.study.trials import read_study


def read_records(name: str, root: Path, url: str | None = None) -> list[TrialRecord] | None:
    """Return every attempt of an experiment that has ended; None if it was never begun there."""
    study = read_study(name, root, url)
    return study.records if study else None


def read_kept(name: str, root: Path, url: str | None = None) -> dict[str, Any]:
    """Return all that was kept with an experiment's study, by name; empty if nothing was."""
    study = read_study(name, root, url)
    return study.kept if study else {}

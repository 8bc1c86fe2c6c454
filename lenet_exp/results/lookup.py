"""What an experiment has recorded so far, and which attempt somebody means by a name.

Everything is only read, so it may be used while a sweep runs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lenet_exp.base.errors import ConfigError, LenetExpError, NoResultError, UnreachableError
from lenet_exp.base.layout import Layout
from lenet_exp.config.experiment import Data, Experiment
from lenet_exp.results.evaluation import (
    NOT_CONFIRMED,
    READINGS,
    SPEEDS,
    ConfirmationSummary,
    confirmation_summary,
)
from lenet_exp.results.leaderboard import ranked
from lenet_exp.results.table import Table
from lenet_exp.study.records import TrialRecord
from lenet_exp.study.trials import read_study
from lenet_exp.tracking.events import RunLog
from lenet_exp.tracking.spool import Spool
from lenet_exp.tracking.store import log_file

#: So many of an MLflow run id's characters are enough to name it; fewer could be a trial's number.
_ID_CHARACTERS = 8


@dataclass(frozen=True)
class ExperimentResults:
    """An experiment's records.

    Attributes:
        experiment: What its file says, but for the data, which are as the study was started with.
        layout: Where the experiment's files lie.
        records: Every attempt that has ended.
        spool: What every attempt did.
        fingerprint: What makes the study this study.
        confirmation: What a confirmation found out.
    """

    experiment: Experiment
    layout: Layout
    records: Sequence[TrialRecord]
    spool: Spool
    fingerprint: dict[str, Any]
    confirmation: ConfirmationSummary = NOT_CONFIRMED

    def leaderboard(self) -> Table:
        """Return the ranked table of what was tried."""
        return ranked(self.records, self.spool.run_ids(), self.confirmation)

    def attempt(self, record: TrialRecord) -> RunLog | None:
        """Return what the spool has of the training behind ``record``, which a duplicate shares."""
        return self.spool.read(self.original(record).key)

    def original(self, record: TrialRecord) -> TrialRecord:
        """Return the record itself, or that of the training whose result a duplicate was told."""
        number = record.result.get("duplicate_of")
        if number is None:
            return record
        return next(r for r in self.records if r.key.role == record.key.role and r.key.trial == number)

    def add_to_run(self, stem: str, path: Path, uri: str, say: Callable[[str], Any]) -> bool:
        """Add a file to the run that an attempt, or the study, has in MLflow; return whether it is there.

        Args:
            stem: The attempt's stem, or `lenet_exp.tracking.spool.STUDY`.
            path: The file; it stays where it is.
            uri: URI of the store.
            say: Told, in one line, why the file is not there.
        """
        run_id = self.spool.run_id(stem)
        try:
            if run_id is None:
                raise UnreachableError(f"{stem} has no run in MLflow yet")
            log_file(uri, run_id, path)
        except LenetExpError as error:
            say(f"warning: {error}; {path.name} is in {path.parent} alone")
            return False
        return True

    def find(self, name: str) -> TrialRecord:
        """Return the attempt that ``name`` means.

        Args:
            name: A trial's number, a label as in ``run 3``, an MLflow run id, ``baseline``, or ``champion``.

        Raises:
            ConfigError: If there is none of this name.
            NoResultError: If the best is asked for, and nothing was completed.
        """
        if name == "champion":
            return self._champion()
        by_id = {run_id: key for key, run_id in self.spool.run_ids().items()}
        keys = {by_id[found] for found in by_id if len(name) >= _ID_CHARACTERS and found.startswith(name)}
        named = [record for record in self.records if name in _names(record) or record.key in keys]
        # Of a training that was tried again, the last attempt is meant.
        if named and len({record.label for record in named}) == 1:
            return max(
                named, key=lambda record: (not record.superseded, record.key.attempt, record.key.trial)
            )
        if named:
            shown = ", ".join(repr(record.label) for record in named)
            raise ConfigError(f"{name!r} could be {shown}; name one of them in full")
        raise ConfigError(f"{self.experiment.name!r} has no run {name!r}; {self._hint(name)}")

    def _champion(self) -> TrialRecord:
        """Return the attempt that is registered as champion; before a confirmation, the best one."""
        study = self.spool.study()
        stem = study.champion.aliases.get("champion") if study and study.champion else None
        done = [record for record in self.records if record.state == "COMPLETE"]
        chosen = [record for record in done if record.key.stem == stem]
        searched = [r for r in done if r.key.role in ("trial", "run") and r.value is not None]
        if not (chosen or searched):
            raise NoResultError(f"{self.experiment.name!r} has no finished trial; run: lenet-exp sweep")
        return chosen[0] if chosen else max(searched, key=lambda r: (r.value or 0.0, -r.key.trial))

    def _hint(self, name: str) -> str:
        labels = sorted({record.label for record in self.records})
        near = difflib.get_close_matches(name, [*labels, "champion", "baseline"], n=1)
        if near:
            return f"did you mean {near[0]!r}?"
        return "name a trial's number, a label of the leaderboard, an MLflow run id, champion or baseline"


def _names(record: TrialRecord) -> set[str]:
    """Return what people may call an attempt."""
    number = {str(record.key.trial)} if record.key.role == "trial" else set()
    return {record.label, record.key.stem} | number


def read_results(experiment: Experiment, root: Path, storage: str | None = None) -> ExperimentResults:
    """Return what was recorded of an experiment; it is only read.

    Args:
        experiment: What to look for.
        root: Folder of everything that runs write.
        storage: URL of the study's storage, where it is not a file below ``root``.

    Raises:
        NoResultError: If it was never started there.
        StoreError: If the study's storage is damaged or of another version.
    """
    layout = Layout.of(root, experiment.name)
    study = read_study(experiment.name, layout.root, storage)
    if study is None:
        raise NoResultError(f"{experiment.name!r} was never run under {layout.root}; run: lenet-exp sweep")
    # The file may have been changed since, or flags may have been stronger than it.
    known = {
        name: value for name, value in study.fingerprint.get("data", {}).items() if name in Data.model_fields
    }
    used = experiment.model_copy(update={"data": experiment.data.model_copy(update=known)})
    found = confirmation_summary(study.kept.get(READINGS), study.kept.get(SPEEDS))
    return ExperimentResults(used, layout, study.records, Spool(layout.spool), study.fingerprint, found)

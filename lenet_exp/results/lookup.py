"""Read what an experiment has recorded so far, and find an attempt by a name.

Nothing is written to the study or the spool, so all of this may be used while a sweep runs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lenet_exp.base.errors import ConfigError, LenetExpError, NoResultError, UnreachableError, mask_url
from lenet_exp.base.layout import Layout, study_db
from lenet_exp.base.lineage import Lineage, check_lineage
from lenet_exp.base.messages import repair_command, say
from lenet_exp.base.records import RunKey, without_seed
from lenet_exp.config.experiment import Data, Experiment
from lenet_exp.results.champion import has_baseline
from lenet_exp.results.conclusion import NOT_CONFIRMED, ConfirmationSummary, confirmation_summary
from lenet_exp.results.leaderboard import ranked
from lenet_exp.results.table import Table
from lenet_exp.study.records import TrialRecord
from lenet_exp.study.trials import StudyContent, counts, read_study
from lenet_exp.tracking.events import RunLog
from lenet_exp.tracking.model import log_file
from lenet_exp.tracking.spool import Spool

#: Fewest characters of an MLflow run id that stand for the run; fewer could be a trial's number.
_MIN_ID_CHARACTERS = 8


@dataclass(frozen=True)
class ExperimentResults:
    """Everything that an experiment has recorded so far.

    Attributes:
        experiment: The experiment as in its file, but with the data settings that the study was started with.
        layout: Paths of the experiment's files.
        records: A record for each attempt that has ended, of every role.
        spool: Spool with the log of every attempt, epoch by epoch.
        fingerprint: Settings that the study was started with; a sweep with other settings is refused.
        confirmation: Results of the last confirmation; `NOT_CONFIRMED` before there is one.
    """

    experiment: Experiment
    layout: Layout
    records: Sequence[TrialRecord]
    spool: Spool
    fingerprint: dict[str, Any]
    confirmation: ConfirmationSummary = NOT_CONFIRMED

    @cached_property
    def leaderboard(self) -> Table:
        """The leaderboard, see `lenet_exp.results.leaderboard.ranked`."""
        return ranked(self.records, self.spool.run_ids(), self.confirmation)

    @cached_property
    def run_logs(self) -> Mapping[RunKey, RunLog]:
        """The log of every attempt that the spool has, by key; of a damaged one a warning is printed."""
        return {log.key: log for log in self.spool.run_logs(lambda line: say(f"warning: {line}"))}

    def attempt(self, record: TrialRecord) -> RunLog | None:
        """Return the log of the training that gave ``record`` its result, or None if the spool has no log.

        A duplicate is a trial that repeats an earlier configuration, and so is not trained; the log is then
        that of the earlier trial.
        """
        return self.spool.read(self.original(record).key)

    def original(self, record: TrialRecord) -> TrialRecord:
        """Return the record of the training that ``record`` duplicates, or else ``record`` itself."""
        number = record.result.get("duplicate_of")
        if number is None:
            return record
        of_role = [r for r in self.records if r.key.role == record.key.role]
        # Until November 2026 this was Optuna's number of the attempt.
        same = [r for r in of_role if r.trial == number] or [r for r in of_role if r.number == number]
        return min(same, key=lambda other: other.superseded)

    def add_to_run(
        self, stem: str, path: Path, uri: str, say: Callable[[str], Any], folder: str | None = None
    ) -> bool:
        """Upload a file to the MLflow run of an attempt or of the study; return True if it was uploaded.

        Args:
            stem: Stem of the attempt, or `lenet_exp.tracking.spool.STUDY` for the study's own run.
            path: File, or folder of files, to upload; it also stays where it is.
            uri: URI of the MLflow store.
            say: Called with a one-line warning if the file could not be uploaded.
            folder: Folder among the run's artifacts to upload it to; None for none.
        """
        run_id = self.spool.run_id(stem)
        try:
            if run_id is None:
                raise UnreachableError(f"{stem} has no run in MLflow yet")
            log_file(uri, run_id, path, folder)
        except LenetExpError as error:
            say(f"warning: {error}; {path.name} was not uploaded, and is only in {path.parent}")
            return False
        return True

    def find(self, name: str | int) -> TrialRecord:
        """Return the record of the attempt called ``name``; of several at one training, the last.

        Args:
            name: A trial's number, a label such as ``trial 3`` or ``baseline`` (with several seeds, the
                first is meant), at least eight characters of an MLflow run id, or ``champion``.

        Raises:
            ConfigError: If no attempt has this name, or attempts at different trainings have it.
            NoResultError: If ``champion`` is asked for before the baseline and any trial or listed run are
                complete.
        """
        name = str(name)
        if name == "champion":
            return self._champion()
        by_id = {run_id: key for key, run_id in self.spool.run_ids().items()}
        keys = {
            key
            for run_id, key in by_id.items()
            if len(name) >= _MIN_ID_CHARACTERS and run_id.startswith(name)
        }
        matches = [record for record in self.records if name in _names(record) or record.key in keys]
        # Of a configuration with several seeds the first is meant: choosing one would be choosing luck.
        matches = matches or [
            r for r in self.records if r.label == f"{name}, seed 1" and r.key.role != "confirm"
        ]
        # Attempts at one training share a label, as do those on other images of another confirmation.
        if matches and len({record.label for record in matches}) == 1:
            return max(matches, key=lambda r: (not r.superseded, r.key.trial, r.key.attempt))
        if matches:
            labels = ", ".join(repr(record.label) for record in matches)
            raise ConfigError(f"{name!r} could be {labels}; name one of them in full")
        raise ConfigError(f"{self.experiment.name!r} has no run {name!r}; {self._hint(name)}")

    def _champion(self) -> TrialRecord:
        """Return the record of the champion; before a confirmation, of the best trial or listed run."""
        study = self.spool.study()
        stem = study.champion.aliases.get("champion") if study and study.champion else None
        done = [record for record in self.records if record.state == "COMPLETE"]
        registered = [record for record in done if record.key.stem == stem]
        searched = [r for r in done if r.key.role in ("trial", "run") and r.value is not None]
        if not (registered or searched) and self.experiment.ablate:
            names = ", ".join(dict.fromkeys(repr(without_seed(record.label)) for record in done))
            raise NoResultError(
                f"an ablation has no champion; name one of {names or 'its trainings, once run'}"
            )
        if not (registered or searched):
            raise NoResultError(
                f"{self.experiment.name!r} has no complete trial or listed run;"
                f" run '{self.experiment.command('sweep', self.layout.root)}'"
            )
        evaluation = self.confirmation.evaluation
        if not has_baseline(self.records) or (evaluation and not evaluation.has_baseline):
            raise NoResultError(
                f"{self.experiment.name!r} has no champion, as its baseline is not complete;"
                f" run '{self.experiment.command('sweep', self.layout.root)}',"
                " which trains it again or says why not"
            )
        return registered[0] if registered else max(searched, key=lambda r: (r.value or 0.0, -r.trial))

    def _hint(self, name: str) -> str:
        labels = sorted({record.label for record in self.records})
        close = difflib.get_close_matches(name, [*labels, "champion", "baseline"], n=1)
        if close:
            return f"did you mean {close[0]!r}?"
        return "name a trial's number, a label of the leaderboard, an MLflow run id, champion or baseline"


def _names(record: TrialRecord) -> set[str]:
    """Return the names that `ExperimentResults.find` accepts for an attempt, besides its MLflow run id."""
    number = {str(record.trial)} if record.key.role == "trial" else set()
    return {record.label, record.key.stem} | number


def ensure_related(spool: Spool, name: str, root: Path, storage: str | None, study: Lineage | None) -> None:
    """Check that a study is the one that the spool was written with, and lacks nothing of it.

    Args:
        spool: Spool of the experiment.
        name: Name of the experiment.
        root: Folder that holds all results.
        storage: URL of the studies' storage in PostgreSQL; None for the file below ``root``.
        study: Lineage of the study; None if the storage has no study of this name.

    Raises:
        StoreError: If the study is gone, emptied, older than the spool, or another root's.
    """
    place = mask_url(storage) if storage else study_db(root)
    where = f"{place}: the study {name!r}"
    check_lineage(study, spool.lineage(study.keys if study else ()), where, repair_command(root, storage))


def read_related(name: str, root: Path, storage: str | None = None) -> StudyContent | None:
    """Return all that an experiment's study stores, once it is checked that its spool belongs to it.

    Args:
        name: Name of the experiment.
        root: Folder that holds all results.
        storage: URL of the studies' storage in PostgreSQL; None for the file below ``root``.

    Returns:
        What the study stores, or None if the experiment was never run below ``root``.

    Raises:
        StoreError: If the storage is damaged or of another version, or the study is not the right one.
        UnreachableError: If the storage does not answer.
    """
    # A sweep writes an attempt to the study first, so what the spool has by now, the study has in a moment.
    spool = Spool(Layout.of(root, name).spool)
    stems = spool.stems()
    study = read_study(name, root, storage)
    if stems:
        ensure_related(spool, name, root, storage, study and study.lineage)
    return study


def read_results(experiment: Experiment, root: Path, storage: str | None = None) -> ExperimentResults:
    """Read what an experiment has recorded so far, without writing anything.

    Args:
        experiment: The experiment; its study is found by its name.
        root: Folder below which sweeps write everything.
        storage: URL of the studies' storage in PostgreSQL; None for the file below ``root``.

    Raises:
        NoResultError: If the experiment was never run below ``root``.
        StoreError: If the study's storage is damaged or of another version.
    """
    layout = Layout.of(root, experiment.name)
    study = read_related(experiment.name, layout.root, storage)
    if study is None:
        raise NoResultError(
            f"{experiment.name!r} was never run under {root}; run '{experiment.command('sweep', root)}'"
        )
    # The file may have changed since the study was started, or flags may have overridden it.
    data_as_started = {
        name: value for name, value in study.fingerprint.get("data", {}).items() if name in Data.model_fields
    }
    as_started = experiment.model_copy(update={"data": experiment.data.model_copy(update=data_as_started)})
    n_finished = sum(map(counts, study.records))
    confirmation = confirmation_summary(study.kept, experiment, root, n_finished)
    spool = Spool(layout.spool)
    spool.study_id = study.lineage.id
    return ExperimentResults(as_started, layout, study.records, spool, study.fingerprint, confirmation)

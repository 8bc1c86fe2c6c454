"""A study's runs in MLflow: one parent run for the study, and below it a run for each attempt.

Every step may be repeated: runs are found by their key and never created twice, and metrics have the spool's
times, so that logging them again changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_exp.base.errors import DataError, mask_url
from lenet_exp.base.records import RunKey, State, without_seed
from lenet_exp.tracking import model
from lenet_exp.tracking.events import Champion, End, RunLog, StudyLog
from lenet_exp.tracking.registry import register
from lenet_exp.tracking.spool import STUDY, Spool
from lenet_exp.training.weights import recorded_digest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

#: MLflow's status of a run, by the state of its attempt.
STATUS: dict[State, str] = {
    "RUNNING": "RUNNING",
    "COMPLETE": "FINISHED",
    "PRUNED": "KILLED",
    "FAIL": "FAILED",
}

# MLflow's limits: metrics in a request, characters of a tag and of a digest, runs in a page of a search.
_METRICS_A_BATCH = 1000
_TAG_LENGTH = 5000
_DIGEST_LENGTH = 36
_PAGE = 1000


class MlflowRuns:
    """A study's runs in one MLflow store."""

    def __init__(
        self, client: MlflowClient, spool: Spool, study: StudyLog, artifact_root: Path | None
    ) -> None:
        """Find or create MLflow's experiment and the study's run.

        Args:
            client: Client of the store.
            spool: Spool of the study, whose index has the ids of the runs.
            study: Log of the study, from which its run is created.
            artifact_root: Artifact folder of an experiment that is created; None lets the server choose it.
        """
        self._client = client
        self._spool = spool
        self._study = study
        self._uploaded: dict[Path, int] = {}
        self._experiment_id = self._experiment(artifact_root)
        self._study_id = self._study_run()

    def ping(self) -> None:
        """Check that the store answers; if it does not, MLflow's exception is raised."""
        self._client.get_experiment(self._experiment_id)

    # Attempts.

    def begin(self, run_log: RunLog) -> str:
        """Find or create the attempt's run, log what is known at its start, and return the run's id."""
        metadata = run_log.metadata
        label = metadata.get("label") or f"{run_log.key.role}-{run_log.key.trial}"
        tags = {
            "mlflow.parentRunId": self._study_id,
            "lenet_exp.role": run_log.key.role,
            **_subject(run_log.key, label),
            "lenet_exp.attempt": run_log.key.attempt,
            "lenet_exp.state": run_log.end.state if run_log.end else "RUNNING",
            "lenet_exp.config": metadata.get("config"),
            **_prefixed(metadata.get("tags", {})),
        }
        run_id, is_new = self._run(run_log.key.stem, run_log.start_ms, label, tags)
        self._log(run_id, params={**metadata.get("params", {}), "seed": metadata.get("seed")}, tags=tags)
        self._log_dataset(run_id)
        if not is_new and run_log.end is None:
            self._client.update_run(run_id, status="RUNNING")
        return run_id

    def log_epochs(self, run_id: str, run_log: RunLog, n_logged: int) -> None:
        """Log the epochs of an attempt that are not logged yet.

        Args:
            run_id: Id of the attempt's run.
            run_log: Log of the attempt.
            n_logged: Number of epochs that are logged already, and are skipped.
        """
        from mlflow.entities import Metric

        n_metrics = max((len(result.metrics()) for result in run_log.epochs), default=1)
        epochs_a_batch = max(1, _METRICS_A_BATCH // n_metrics)
        for first in range(n_logged, len(run_log.epochs), epochs_a_batch):
            batch = slice(first, first + epochs_a_batch)
            metrics = [
                Metric(name, value, time_ms, result.epoch)
                for result, time_ms in zip(run_log.epochs[batch], run_log.epoch_ms[batch], strict=True)
                for name, value in result.metrics().items()
                if math.isfinite(value)
            ]
            not_finite = {
                name
                for result in run_log.epochs
                for name, value in result.metrics().items()
                if not math.isfinite(value)
            }
            if run_log.metadata.get("tags", {}).get("lenet_exp.train_on") == "train+validation":
                not_finite -= {"val_loss", "val_accuracy"}  # there was nothing to validate on
            tags = {"lenet_exp.not_finite": ", ".join(sorted(not_finite))} if not_finite else {}
            self._log(run_id, metrics=metrics, tags=tags)

    def finish(self, run_id: str, run_log: RunLog, end: End) -> str | None:
        """End the attempt's run, and log its model if the attempt ended COMPLETE.

        Args:
            run_id: Id of the attempt's run.
            run_log: Log of the attempt.
            end: State, time and cause of the attempt's end, and its weights.

        Returns:
            The reason why the model could not be logged; None if it was, or if there is none to log.
        """
        self._log_test(run_id, run_log)
        self.end_run(run_id, run_log.start_ms, end)
        if end.state != "COMPLETE" or end.weights is None:
            return None
        try:
            self._log_model(run_id, run_log, self._spool.inside(end.weights))
        except DataError as error:
            self._log(run_id, tags={"lenet_exp.model_problem": error})
            return str(error)
        return None

    def _log_test(self, run_id: str, run_log: RunLog) -> None:
        from mlflow.entities import Metric

        if run_log.test:
            step = run_log.epochs[-1].epoch if run_log.epochs else 0
            finite = {name: value for name, value in run_log.test.items() if math.isfinite(value)}
            metrics = [Metric(name, value, run_log.test_ms, step) for name, value in finite.items()]
            self._log(run_id, metrics=metrics)

    def end_run(self, run_id: str, start_ms: int, end: End) -> None:
        """Set a run's final status.

        Args:
            run_id: Id of the run of an attempt or of the study.
            start_ms: Time at which the attempt or the study started, in ms since 1970.
            end: State, time and cause of the end.
        """
        self._log(run_id, tags={"lenet_exp.state": end.state, "lenet_exp.reason": end.reason or ""})
        # The clock may have been set back since the start.
        self._client.set_terminated(run_id, STATUS[end.state], max(start_ms, end.time_ms))

    def cut_off(self, run_id: str, time_ms: int) -> None:
        """Set the run of an attempt that was cut off to KILLED; the next sweep decides how the attempt ended.

        Args:
            run_id: Id of the attempt's run.
            time_ms: Time of the attempt's last epoch, else of its start, in ms since 1970.
        """
        self._log(run_id, tags={"lenet_exp.reason": "cut off"})
        self._client.set_terminated(run_id, "KILLED", time_ms)

    def _log_model(self, run_id: str, run_log: RunLog, weights: Path) -> None:
        image_size = self._study.metadata.image_size
        digest = recorded_digest(run_log.key, run_log.end.result if run_log.end else {}, self._study.kept)
        network = model.load_network(run_log.metadata["params"], weights, image_size, digest)
        epoch = run_log.epochs[-1].epoch if run_log.epochs else 0
        model.log_model(self._client, run_id, self._key(run_log.key.stem), network, image_size, epoch)
        self._client.log_artifact(run_id, str(weights))

    # The study.

    def begin_study(self, study: StudyLog) -> None:
        """Write the study's log to the study's run, and set the run to RUNNING."""
        self._study = study
        metadata = study.metadata
        run = self._client.get_run(self._study_id)
        # MLflow refuses to change a parameter, but a sweep may go on with other flags.
        params = {name: value for name, value in metadata.params.items() if name not in run.data.params}
        self._log(
            self._study_id, params=params, tags={"lenet_exp.state": "RUNNING", **_prefixed(metadata.tags)}
        )
        self._log_dataset(self._study_id)
        if run.info.status != "RUNNING":
            self._client.update_run(self._study_id, status="RUNNING")

    def upload_files(self) -> None:
        """Upload the study's files that have changed since this object uploaded them."""
        for name in self._study.metadata.files:
            path = self._spool.home / name
            if not path.is_file() or self._uploaded.get(path) == path.stat().st_mtime_ns:
                continue
            changed = path.stat().st_mtime_ns
            if path.suffix == ".toml":
                self._client.log_text(self._study_id, mask_url(path.read_text()), path.name)
            else:
                self._client.log_artifact(self._study_id, str(path))
            self._uploaded[path] = changed

    def finish_study(self, end: End) -> None:
        """Upload the study's files, settle all its runs, and end the study's own run."""
        self.upload_files()
        self.settle()
        self.end_run(self._study_id, self._study.start_ms, end)

    def register(self, champion: Champion) -> None:
        """Register the champion's networks as models, under their aliases.

        Raises:
            DataError: If one of the networks has no run yet, or its run has no model.
        """
        runs = {alias: self._spool.run_id(stem) for alias, stem in champion.aliases.items()}
        register(self._client, champion, runs)

    def cut_off_study(self) -> None:
        """Set the study's run to KILLED, after the study's driver died."""
        self._client.set_terminated(self._study_id, "KILLED")

    # Left-over runs.

    def settle(self) -> None:
        """End the RUNNING runs whose attempts have ended or are unknown to the spool, and delete duplicates.

        A duplicate arises if a server seems dead and creates a run after we have searched for it.
        """
        stems = set(self._spool.stems())
        for run in list(self._search(f"{self._of_study} AND attributes.status = 'RUNNING'")):
            stem, run_id = self._stem(run), run.info.run_id
            known_id = self._spool.run_id(stem)
            if stem not in stems:
                self._client.set_terminated(run_id, "KILLED")
            elif known_id and known_id != run_id:
                self._delete(run)
            elif known_id and stem != STUDY:
                run_log = self._spool.read(RunKey.from_stem(stem))
                if run_log and run_log.end:
                    self.end_run(run_id, run_log.start_ms, run_log.end)

    def delete_unknown(self) -> int:
        """Delete the study's runs that are not in the spool's index, and return how many."""
        known_ids = {self._spool.run_id(stem) for stem in self._spool.stems()}
        unknown = [run for run in self._search(self._of_study) if run.info.run_id not in known_ids]
        for run in unknown:
            self._delete(run)
        return len(unknown)

    def _delete(self, run: Run) -> None:
        for output in run.outputs.model_outputs if run.outputs else []:
            self._client.delete_logged_model(output.model_id)
        self._client.delete_run(run.info.run_id)

    # MLflow's calls.

    @property
    def _of_study(self) -> str:
        return f"tags.`lenet_exp.study` = '{self._study.metadata.study}'"

    def _key(self, stem: str) -> str:
        return f"{self._study.metadata.study}/{stem}"

    def _stem(self, run: Run) -> str:
        return str(run.data.tags.get("lenet_exp.key", "")).removeprefix(self._key(""))

    def _experiment(self, artifact_root: Path | None) -> str:
        name = self._study.metadata.experiment
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            location = artifact_root.resolve().as_uri() if artifact_root else None
            return str(self._client.create_experiment(name, artifact_location=location))
        if experiment.lifecycle_stage != "active":
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _study_run(self) -> str:
        known_id = self._spool.run_id(STUDY)
        if known_id and not self._exists(known_id):
            # This is not the store of last time, or it was emptied, so the index is not about it.
            self._spool.forget_uploaded()
        tags = {"lenet_exp.role": "study", **_prefixed(self._study.metadata.tags)}
        return self._run(STUDY, self._study.start_ms, self._study.metadata.study, tags)[0]

    def _exists(self, run_id: str) -> bool:
        from mlflow import MlflowException

        try:
            return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _run(self, stem: str, start_ms: int, name: str, tags: Mapping[str, Any]) -> tuple[str, bool]:
        """Find or create the run of an attempt or the study; return its id, and True if it was created."""
        if known_id := self._spool.run_id(stem):
            return known_id, False
        # The server's answer may have been lost after it created the run, so search before creating one.
        runs = sorted(
            self._search(f"tags.`lenet_exp.key` = '{self._key(stem)}'"),
            # A run that has ended is kept rather than one that is still RUNNING.
            key=lambda run: (run.info.status == "RUNNING", run.info.run_id),
        )
        for copy in runs[1:]:
            self._delete(copy)
        if runs:
            run = runs[0]
            if "lenet_exp.trial" in run.data.tags and "lenet_exp.trial" not in tags:
                # Until November 2026 runs of every role had this tag.
                self._client.delete_tag(run.info.run_id, "lenet_exp.trial")
        else:
            fixed = {"lenet_exp.study": self._study.metadata.study, "lenet_exp.key": self._key(stem)}
            run = self._client.create_run(self._experiment_id, start_ms, _texts({**tags, **fixed}), name)
        self._spool.record_run_id(stem, run.info.run_id)
        return run.info.run_id, not runs

    def _search(self, condition: str) -> Iterator[Run]:
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id], condition, max_results=_PAGE, page_token=token
            )
            yield from page
            if not (token := page.token):
                return

    def _log(
        self,
        run_id: str,
        metrics: Any = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Log everything in one request; MLflow takes up to 1000 metrics, 100 parameters and 100 tags."""
        from mlflow.entities import Param, RunTag

        self._client.log_batch(
            run_id,
            metrics,
            [Param(name, value) for name, value in _texts(params or {}).items()],
            [RunTag(name, value) for name, value in _texts(tags or {}).items()],
            synchronous=True,
        )

    def _log_dataset(self, run_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if dataset := self._study.metadata.dataset:
            entity = Dataset(dataset.name, dataset.digest[:_DIGEST_LENGTH], "local", mask_url(dataset.source))
            self._client.log_inputs(
                run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])]
            )


def _subject(key: RunKey, label: str) -> dict[str, Any]:
    """Return a tag with the trial's number, or with the finalist that the training confirms, or no tag."""
    if key.role == "trial":
        return {"lenet_exp.trial": key.trial}
    return {"lenet_exp.of": without_seed(label)} if key.role == "confirm" else {}


def _prefixed(tags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tags that are not None; names without a prefix get this package's."""
    named = {name if "." in name else f"lenet_exp.{name}": value for name, value in tags.items()}
    return {name: value for name, value in named.items() if value is not None}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the values as strings for MLflow: None becomes an empty one, and secrets are masked."""
    return {
        name: "" if value is None else mask_url(str(value))[:_TAG_LENGTH] for name, value in values.items()
    }

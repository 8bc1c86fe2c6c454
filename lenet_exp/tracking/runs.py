"""A study's runs in MLflow: one parent run for the study, and below it a run for each attempt.

Every step may be repeated: runs are found by their tags and never created twice, and metrics have the spool's
times, so that logging them again changes nothing. What somebody deleted in MLflow is restored, and keeps its
name; only what is gone for good is created again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_exp.base.errors import DataError, mask_url
from lenet_exp.base.records import RunKey
from lenet_exp.tracking import audit, model
from lenet_exp.tracking.audit import EXPERIMENT, STATUS, Stored, texts
from lenet_exp.tracking.events import Champion, End, RunLog, StudyLog, deltas, label_of, name_of
from lenet_exp.tracking.spool import STUDY, Spool
from lenet_exp.tracking.ui import VIEW, experiment_tags
from lenet_exp.training.weights import recorded_digest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# MLflow's limits: metrics in a request, characters of a digest.
_METRICS_A_BATCH = 1000
_DIGEST_LENGTH = 36


class MlflowRuns:
    """A study's runs in one MLflow store."""

    def __init__(
        self,
        client: MlflowClient,
        spool: Spool,
        study: StudyLog,
        artifact_root: Path | None,
        *,
        takes_over: bool = False,
    ) -> None:
        """Find or create MLflow's experiment and the study's run, and look at all runs; see `adopt`.

        Args:
            client: Client of the store.
            spool: Spool of the study, whose index has the ids of the runs.
            study: Log of the study, from which its run is created.
            artifact_root: Artifact folder of an experiment that is created; None lets the server choose it.
            takes_over: True to take over runs that another copy of the root has written; those of other
                trainings are deleted.
        """
        self._client = client
        self._takes_over = takes_over
        self._spool = spool
        self._study = study
        self._artifact_root = artifact_root
        self._uploaded: dict[Path, int] = {}
        self._marks: dict[str, list[Any]] = {}
        self._gone: set[str] = set()
        self._without_delta: dict[str, tuple[str, RunLog]] = {}
        self._baselines: dict[Any, float] = {}
        self._experiment_id = self._study_id = ""
        self.adopt()

    def adopt(self) -> None:
        """Take over what the store has of the study, and mark pending in the spool what the store lacks.

        Deleted runs are restored, second copies are deleted, and runs that nobody works on are ended.
        """
        self._uploaded.clear()  # somebody may have deleted these files in the store
        kept = self._look()
        if kept.experiment is None:
            location = self._artifact_root.resolve().as_uri() if self._artifact_root else None
            name = self._study.metadata.experiment
            self._experiment_id = str(self._client.create_experiment(name, location, {EXPERIMENT: name}))
        else:
            self._experiment_id = str(kept.experiment.experiment_id)
            if kept.experiment.lifecycle_stage != "active":
                self._client.restore_experiment(self._experiment_id)
                kept = self._look()  # its runs are restored with it
        tagged = kept.experiment.tags if kept.experiment else {}
        wanted = {EXPERIMENT: self._study.metadata.experiment, **experiment_tags(self._study.metadata)}
        for name, value in texts(wanted).items():
            # Only the view is ours alone: people may edit the description.
            if name not in tagged or (name == VIEW and tagged[name] != value):
                self._client.set_experiment_tag(self._experiment_id, name, value)
        others = [stem for stem, run in kept.runs.items() if self._takes_over and self._differs(stem, run)]
        for run in (*kept.copies, *map(kept.runs.__getitem__, others)):
            self._delete(run)
        kept = replace(kept, runs={s: run for s, run in kept.runs.items() if s not in others})
        for run in kept.unknown:
            if run.info.status == "RUNNING":
                self._client.set_terminated(run.info.run_id, "KILLED")
        for stem, run in kept.runs.items():
            self._take_over(stem, run)
        self._gone = {stem for stem in self._spool.stems() if stem not in kept.runs}
        self._study_id, _ = self._run(
            STUDY,
            self._study.start_ms,
            self._study.metadata.study,
            {"lenet_exp.role": "study", **audit.prefixed(self._study.metadata.tags)},
        )
        for stem in self.lacking():
            self._spool.mark_pending(stem)

    def lacking(self) -> dict[str, str]:
        """Return what each run lacks in MLflow, by stem, in words; runs that lack nothing are left out."""
        return audit.lacking(self._client, self._spool, self._study, self._look())

    def _look(self) -> Stored:
        metadata = self._study.metadata
        return audit.stored(self._client, self._spool, metadata, takes_over=self._takes_over)

    def _differs(self, stem: str, run: Run) -> bool:
        """Return True if a run has other parameters than the attempt, as another copy's attempt may have."""
        run_log = self._spool.read(RunKey.from_stem(stem)) if stem != STUDY else None
        params = audit.texts(audit.params_of(run_log)) if run_log else {}
        return any(run.data.params.get(name, value) != value for name, value in params.items())

    def _take_over(self, stem: str, run: Run) -> None:
        run_id = run.info.run_id
        if run.info.lifecycle_stage != "active":
            self._client.restore_run(run_id)
        if self._spool.run_id(stem) != run_id:
            self._spool.record_run_id(stem, run_id)
        if "lenet_exp.trial" in run.data.tags and not stem.startswith("trial-"):
            # Until November 2026 runs of every role had this tag.
            self._client.delete_tag(run_id, "lenet_exp.trial")

    def ping(self) -> None:
        """Check that the store answers; if it does not, MLflow's exception is raised."""
        self._client.get_experiment(self._experiment_id)

    # Attempts.

    def begin(self, run_log: RunLog) -> str:
        """Find or create the attempt's run, log what is known at its start, and return the run's id."""
        tags = audit.tags_of(run_log, self._study.metadata.study, self._study_id)
        name = name_of(run_log, self._study.metadata)
        run_id, is_new = self._run(run_log.key.stem, run_log.start_ms, name, tags)
        if not is_new and self._client.get_run(run_id).info.run_name == label_of(run_log) != name:
            self._client.update_run(run_id, name=name)  # until December 2026 the label was the whole name
        self._log(run_id, params=audit.params_of(run_log), tags=tags)
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
        self._log_delta(run_id, run_log)
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

    def _log_delta(self, run_id: str, run_log: RunLog) -> None:
        """Log how far the accuracy is from the baseline's; while that is not known, the attempt waits."""
        from mlflow.entities import Metric

        waiting = self._without_delta
        waiting[run_log.key.stem] = run_id, run_log
        if run_log.key.role == "baseline" or not self._baselines:
            self._baselines = audit.baselines(self._spool)
        for stem, (waiting_id, log) in list(waiting.items()):
            measured = deltas(log, self._baselines)
            for name, value in (measured or {}).items():
                self._log(waiting_id, metrics=[Metric(name, value, log.epoch_ms[-1], log.epochs[-1].epoch)])
            if measured is not None:
                del waiting[stem]

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
        key = f"{self._study.metadata.study}/{run_log.key.stem}"
        model.log_model(self._client, run_id, key, network, image_size, epoch)
        model.clear_way(self._client.get_run(run_id).info.artifact_uri, [weights.name])
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
            self._study_id, params=params, tags={"lenet_exp.state": "RUNNING", **audit.study_tags(study)}
        )
        self._log_dataset(self._study_id)
        if run.info.status != "RUNNING":
            self._client.update_run(self._study_id, status="RUNNING")

    def upload_files(self) -> None:
        """Upload the study's files that have changed since this object looked at all runs."""
        is_new = False
        for name, path in model.artifacts_of(self._spool.home, self._study.metadata.files).items():
            if self._uploaded.get(path) == path.stat().st_mtime_ns:
                continue
            changed = path.stat().st_mtime_ns
            content = path.read_bytes()
            model.clear_way(self._client.get_run(self._study_id).info.artifact_uri, [name])
            if path.suffix == ".toml":
                content = mask_url(content.decode()).encode()
                self._client.log_text(self._study_id, content.decode(), name)
            else:
                self._client.log_artifact(self._study_id, str(path), name.rpartition("/")[0] or None)
            self._uploaded[path] = changed
            self._marks[name] = model.mark(content)
            is_new = True
        if is_new:
            self._log(self._study_id, tags={model.FILES: json.dumps(self._marks, sort_keys=True)})

    def finish_study(self, end: End) -> None:
        """Log what the study found, upload its files, and end its own run."""
        from mlflow.entities import Metric

        measured = end.result.get("metrics", {}).items()
        # At the end of the curves that it is shown beside.
        step = int(self._study.metadata.params.get("epochs", 0))
        self._log(
            self._study_id, metrics=[Metric(name, value, end.time_ms, step) for name, value in measured]
        )
        self.upload_files()
        self.end_run(self._study_id, self._study.start_ms, end)

    def register(self, champion: Champion) -> None:
        """Register the champion's networks as models, under their aliases.

        Raises:
            DataError: If one of the networks has no run yet, or its run has no model.
        """
        stems = champion.aliases.values()
        runs = {stem: run_id for stem in stems if (run_id := self._spool.run_id(stem))}
        model.register(self._client, champion, self._study.metadata.study, runs)

    def cut_off_study(self) -> None:
        """Set the study's run to KILLED, after the study's driver died."""
        self._client.set_terminated(self._study_id, "KILLED")

    # Left-over runs.

    def delete_unknown(self) -> int:
        """Delete the study's runs that the spool does not have, and return how many."""
        unknown = self._look().unknown
        for run in unknown:
            self._delete(run)
        return len(unknown)

    def _delete(self, run: Run) -> None:
        run_id = run.info.run_id
        if "lenet_exp.key" in run.data.tags:
            # Whoever restores the experiment restores this run too, which must not be taken for ours then.
            self._client.delete_tag(run_id, "lenet_exp.key")
        for output in run.outputs.model_outputs if run.outputs else []:
            if audit.present(self._client.get_logged_model, output.model_id):
                self._client.delete_logged_model(output.model_id)
        self._client.delete_run(run_id)

    # MLflow's calls.

    def _run(self, stem: str, start_ms: int, name: str, tags: Mapping[str, Any]) -> tuple[str, bool]:
        """Return the id of the run of an attempt or the study, and True if it was created."""
        known_id = self._spool.run_id(stem)
        if known_id and stem not in self._gone:
            return known_id, False
        # The server's answer may have been lost after it created the run, so look before creating one.
        kept = self._search_again(stem)
        if kept:
            self._take_over(stem, kept)
            run_id = kept.info.run_id
        else:
            every_tag = {**tags, **audit.own_tags(self._study.metadata.study, stem)}
            run_id = self._client.create_run(
                self._experiment_id, start_ms, texts(every_tag), name
            ).info.run_id
            self._spool.record_run_id(stem, run_id)
        self._gone.discard(stem)
        return run_id, not kept

    def _search_again(self, stem: str) -> Run | None:
        key = audit.own_tags(self._study.metadata.study, stem)["lenet_exp.key"]
        runs = self._client.search_runs([self._experiment_id], f"tags.`lenet_exp.key` = '{key}'")
        return runs[0] if runs else None

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
            [Param(name, value) for name, value in texts(params or {}).items()],
            [RunTag(name, value) for name, value in texts(tags or {}).items()],
            synchronous=True,
        )

    def _log_dataset(self, run_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if dataset := self._study.metadata.dataset:
            entity = Dataset(dataset.name, dataset.digest[:_DIGEST_LENGTH], "local", mask_url(dataset.source))
            self._client.log_inputs(
                run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])]
            )

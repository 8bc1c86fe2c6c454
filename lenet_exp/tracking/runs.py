"""What a study looks like in MLflow: one parent run, below it a run per attempt.

Everything here can be done again: what is there already is found by its key and not made twice, and
points carry the spool's times, so that logging them again changes nothing.
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

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

STATUS: dict[State, str] = {
    "RUNNING": "RUNNING",
    "COMPLETE": "FINISHED",
    "PRUNED": "KILLED",
    "FAIL": "FAILED",
}

# MLflow's limits.
_METRICS_A_BATCH = 1000
_TAG_LENGTH = 5000
_DIGEST_LENGTH = 36
_PAGE = 1000


class MlflowRuns:
    """A study's runs in one MLflow store."""

    def __init__(
        self, client: MlflowClient, spool: Spool, study: StudyLog, artifact_root: Path | None
    ) -> None:
        """Find or make the experiment and the study's run.

        Args:
            client: Of the store.
            spool: Keeps the runs' ids.
            study: What the study's run says.
            artifact_root: Where a new experiment keeps its files; None leaves that to the server.
        """
        self._client = client
        self._spool = spool
        self._study = study
        self._uploaded: dict[Path, int] = {}
        self._experiment_id = self._experiment(artifact_root)
        self._study_id = self._study_run()

    def ping(self) -> None:
        """Raise whatever MLflow raises if the store does not answer."""
        self._client.get_experiment(self._experiment_id)

    # Attempts.

    def begin(self, record: RunLog) -> str:
        """Make sure that the attempt has its run, with what is known at its start; return the run's id."""
        metadata = record.metadata
        label = metadata.get("label") or f"{record.key.role}-{record.key.trial}"
        tags = {
            "mlflow.parentRunId": self._study_id,
            "lenet_exp.role": record.key.role,
            **_which(record.key, label),
            "lenet_exp.attempt": record.key.attempt,
            "lenet_exp.state": record.end.state if record.end else "RUNNING",
            "lenet_exp.config": metadata.get("config"),
            **_prefixed(metadata.get("tags", {})),
        }
        run_id, is_new = self._run(record.key.stem, record.start_ms, label, tags)
        self._log(run_id, params={**metadata.get("params", {}), "seed": metadata.get("seed")}, tags=tags)
        self._log_dataset(run_id)
        if not is_new and record.end is None:
            self._client.update_run(run_id, status="RUNNING")
        return run_id

    def log_epochs(self, run_id: str, record: RunLog, since: int) -> None:
        """Log the epochs after the first ``since`` of the record."""
        from mlflow.entities import Metric

        most = max((len(result.metrics()) for result in record.epochs), default=1)
        epochs_a_batch = max(1, _METRICS_A_BATCH // most)
        for first in range(since, len(record.epochs), epochs_a_batch):
            batch = slice(first, first + epochs_a_batch)
            metrics = [
                Metric(name, value, time_ms, result.epoch)
                for result, time_ms in zip(record.epochs[batch], record.epoch_ms[batch], strict=True)
                for name, value in result.metrics().items()
                if math.isfinite(value)
            ]
            not_finite = {
                name
                for result in record.epochs
                for name, value in result.metrics().items()
                if not math.isfinite(value)
            }
            if record.metadata.get("tags", {}).get("lenet_exp.train_on") == "train+validation":
                not_finite -= {"val_loss", "val_accuracy"}  # there was nothing to validate on
            tags = {"lenet_exp.not_finite": ", ".join(sorted(not_finite))} if not_finite else {}
            self._log(run_id, metrics=metrics, tags=tags)

    def finish(self, run_id: str, record: RunLog, end: End) -> str | None:
        """End the attempt's run and give it its model.

        Returns:
            Why it has no model though it should; None if all is well.
        """
        self._log_test(run_id, record)
        self.end_run(run_id, record.start_ms, end)
        if end.state != "COMPLETE" or end.weights is None:
            return None
        try:
            self._log_model(run_id, record, self._spool.inside(end.weights))
        except DataError as error:
            self._log(run_id, tags={"lenet_exp.model_problem": error})
            return str(error)
        return None

    def _log_test(self, run_id: str, record: RunLog) -> None:
        from mlflow.entities import Metric

        if record.test:
            step = record.epochs[-1].epoch if record.epochs else 0
            finite = {name: value for name, value in record.test.items() if math.isfinite(value)}
            metrics = [Metric(name, value, record.test_ms, step) for name, value in finite.items()]
            self._log(run_id, metrics=metrics)

    def end_run(self, run_id: str, start_ms: int, end: End) -> None:
        """Give a run its last status."""
        self._log(run_id, tags={"lenet_exp.state": end.state, "lenet_exp.reason": end.reason or ""})
        # The clock may have been set back meanwhile.
        self._client.set_terminated(run_id, STATUS[end.state], max(start_ms, end.time_ms))

    def cut_off(self, run_id: str, time_ms: int) -> None:
        """End a run whose process is gone without having ended it; the next sweep decides what it was."""
        self._log(run_id, tags={"lenet_exp.reason": "cut off"})
        self._client.set_terminated(run_id, "KILLED", time_ms)

    def _log_model(self, run_id: str, record: RunLog, weights: Path) -> None:
        image_size = self._study.metadata.image_size
        network = model.load_network(record.metadata["params"], weights, image_size)
        epoch = record.epochs[-1].epoch if record.epochs else 0
        model.log_model(self._client, run_id, self._key(record.key.stem), network, image_size, epoch)
        self._client.log_artifact(run_id, str(weights))

    # The study.

    def begin_study(self, study: StudyLog) -> None:
        """Bring the study's run up to what its spool says now."""
        self._study = study
        metadata = study.metadata
        there = self._client.get_run(self._study_id)
        # A parameter cannot change, and a sweep may go on with other flags.
        params = {name: value for name, value in metadata.params.items() if name not in there.data.params}
        self._log(
            self._study_id, params=params, tags={"lenet_exp.state": "RUNNING", **_prefixed(metadata.tags)}
        )
        self._log_dataset(self._study_id)
        if there.info.status != "RUNNING":
            self._client.update_run(self._study_id, status="RUNNING")

    def upload_files(self) -> None:
        """Upload the study's files that changed since they were uploaded by this object."""
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
        """End the study's run, the last one to end."""
        self.upload_files()
        self.settle()
        self.end_run(self._study_id, self._study.start_ms, end)

    def register(self, champion: Champion) -> None:
        """Register the networks that were chosen, under their aliases (see `champion`).

        Raises:
            DataError: If one of them has no run yet, or no model.
        """
        runs = {alias: self._spool.run_id(stem) for alias, stem in champion.aliases.items()}
        register(self._client, champion, runs)

    def cut_off_study(self) -> None:
        """End the study's run, whose driver died."""
        self._client.set_terminated(self._study_id, "KILLED")

    # Runs that nobody would miss, or wait for.

    def settle(self) -> None:
        """Leave no run of this study RUNNING that is over, and delete second copies of those that are not.

        A server that was taken for dead may have made a run after we had looked for it.
        """
        stems = set(self._spool.stems())
        for run in list(self._search(f"{self._of_study} AND attributes.status = 'RUNNING'")):
            stem, run_id = self._stem(run), run.info.run_id
            known = self._spool.run_id(stem)
            if stem not in stems:
                self._client.set_terminated(run_id, "KILLED")
            elif known and known != run_id:
                self._delete(run)
            elif known and stem != STUDY:
                record = self._spool.read(RunKey.from_stem(stem))
                if record and record.end:
                    self.end_run(run_id, record.start_ms, record.end)

    def delete_unknown(self) -> int:
        """Delete the runs of this study that the spool does not know, and second copies; return how many."""
        wanted = {self._spool.run_id(stem) for stem in self._spool.stems()}
        unknown = [run for run in self._search(self._of_study) if run.info.run_id not in wanted]
        for run in unknown:
            self._delete(run)
        return len(unknown)

    def _delete(self, run: Run) -> None:
        for output in run.outputs.model_outputs if run.outputs else []:
            self._client.delete_logged_model(output.model_id)
        self._client.delete_run(run.info.run_id)

    # Below: MLflow's calls.

    @property
    def _of_study(self) -> str:
        return f"tags.`lenet_exp.study` = '{self._study.metadata.study}'"

    def _key(self, stem: str) -> str:
        return f"{self._study.metadata.study}/{stem}"

    def _stem(self, run: Run) -> str:
        return str(run.data.tags.get("lenet_exp.key", "")).removeprefix(self._key(""))

    def _experiment(self, artifact_root: Path | None) -> str:
        name = self._study.metadata.experiment
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = artifact_root.resolve().as_uri() if artifact_root else None
            return str(self._client.create_experiment(name, artifact_location=location))
        if found.lifecycle_stage != "active":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _study_run(self) -> str:
        known = self._spool.run_id(STUDY)
        if known and not self._exists(known):
            # Another store than last time, or an emptied one: nothing of ours is there.
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
        """Return the run of an attempt or of the study, and whether it was made just now."""
        if known := self._spool.run_id(stem):
            return known, False
        # An answer may have been lost after the run was made, so look before making it (again).
        found = sorted(
            self._search(f"tags.`lenet_exp.key` = '{self._key(stem)}'"),
            # The one that was carried further stays.
            key=lambda run: (run.info.status == "RUNNING", run.info.run_id),
        )
        for twin in found[1:]:
            self._delete(twin)
        if found:
            run = found[0]
            if "lenet_exp.trial" in run.data.tags and "lenet_exp.trial" not in tags:
                # Until November 2026 every run had it, with the number within its role.
                self._client.delete_tag(run.info.run_id, "lenet_exp.trial")
        else:
            fixed = {"lenet_exp.study": self._study.metadata.study, "lenet_exp.key": self._key(stem)}
            run = self._client.create_run(self._experiment_id, start_ms, _texts({**tags, **fixed}), name)
        self._spool.keep_run_id(stem, run.info.run_id)
        return run.info.run_id, not found

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
        """Log in one request; at most 100 parameters and 100 tags."""
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


def _which(key: RunKey, label: str) -> dict[str, Any]:
    """Return a trial's number, or what a confirmation's training confirms; nothing for other roles."""
    if key.role == "trial":
        return {"lenet_exp.trial": key.trial}
    return {"lenet_exp.of": without_seed(label)} if key.role == "confirm" else {}


def _prefixed(tags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tags that say something, under our own prefix unless they have one."""
    named = {name if "." in name else f"lenet_exp.{name}": value for name, value in tags.items()}
    return {name: value for name, value in named.items() if value is not None}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the values as MLflow takes them: nothing is an empty text, secrets are masked."""
    return {
        name: "" if value is None else mask_url(str(value))[:_TAG_LENGTH] for name, value in values.items()
    }

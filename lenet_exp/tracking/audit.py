"""What MLflow's store has of a study, found by our tags, and what it lacks of the spool; nothing is written.

People rename, delete and restore things in MLflow, put old backups back, and use another store. So neither
names nor the spool's index are trusted: a run is ours by its tags, whatever it is called and wherever it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_exp.base.errors import DataError, StoreError, mask_url
from lenet_exp.base.records import RunKey, State, without_seed
from lenet_exp.tracking import model
from lenet_exp.tracking.events import SOURCE, RunLog, StudyLog, StudyMetadata, deltas, label_of
from lenet_exp.tracking.spool import STUDY, Spool
from lenet_exp.training.weights import recorded_digest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, FileInfo, LoggedModel, Run

#: MLflow's status of a run, by the state of its attempt.
STATUS: dict[State, str] = {
    "RUNNING": "RUNNING",
    "COMPLETE": "FINISHED",
    "PRUNED": "KILLED",
    "FAIL": "FAILED",
}
#: Tag of MLflow's experiment, with the name in the experiment's file.
EXPERIMENT = "lenet_exp.experiment"

# MLflow's limits: characters of a tag, runs and models in a page of a search.
_TAG_LENGTH = 5000
_PAGE = 1000
_MODELS_A_PAGE = 100


@dataclass(frozen=True)
class Stored:
    """What a store has of a study.

    Attributes:
        experiment: MLflow's experiment, which may be deleted; None if there is none.
        runs: Run of each attempt and of the study, by stem; a run may be deleted.
        copies: Further runs of the same attempts, which are not deleted.
        unknown: Runs of this study whose attempt the spool does not have, and which are not deleted.
    """

    experiment: Experiment | None
    runs: Mapping[str, Run]
    copies: tuple[Run, ...] = ()
    unknown: tuple[Run, ...] = ()


def stored(
    client: MlflowClient, spool: Spool, metadata: StudyMetadata, *, takes_over: bool = False
) -> Stored:
    """Return what the store has of a study.

    Args:
        client: Client of the store.
        spool: Spool of the study; the ids in its index find runs whose tags somebody has deleted.
        metadata: Metadata of the study, with the values of the tags.
        takes_over: True to take over runs that another copy of the root has written.

    Raises:
        StoreError: If another copy of the root has written the runs, so that two sweeps would share them.
    """
    from mlflow.entities import ViewType

    with_tag = f"tags.`{EXPERIMENT}` = '{metadata.experiment}'"
    tagged = list(client.search_experiments(ViewType.ALL, filter_string=with_tag))
    named = client.get_experiment_by_name(metadata.experiment)
    experiments = {e.experiment_id: e for e in (*tagged, *([named] if named else []))}
    ids, condition = list(experiments), f"tags.`lenet_exp.study` = '{metadata.study}'"
    stems = {*spool.stems(), STUDY}
    stem_of = {run_id: stem for stem in stems if (run_id := spool.run_id(stem))}
    by_stem: dict[str, list[Run]] = {}
    if ids:
        for run in _pages(
            lambda token: client.search_runs(ids, condition, ViewType.ALL, _PAGE, page_token=token)
        ):
            key = str(run.data.tags.get("lenet_exp.key", ""))
            # A tag can be edited, which must not exchange two attempts.
            stem = stem_of.get(run.info.run_id) or key.removeprefix(f"{metadata.study}/")
            by_stem.setdefault(stem, []).append(run)
    unknown = [run for stem in set(by_stem) - stems for run in by_stem.pop(stem)]
    for stem in stems:
        known_id = spool.run_id(stem)
        if stem not in by_stem and known_id and (run := _run(client, known_id, metadata.study)):
            by_stem[stem] = [run]
    runs: dict[str, Run] = {}
    copies: list[Run] = []
    for stem, candidates in by_stem.items():
        known_id = spool.run_id(stem)
        runs[stem], *others = sorted(candidates, key=lambda run: _preference(run, known_id))
        copies += others
    known_ids = {run.info.run_id for run in runs.values()}
    last_sweep = runs[STUDY].data.tags.get("lenet_exp.sweep") if STUDY in runs else None
    if last_sweep and metadata.sweeps and last_sweep not in metadata.sweeps and not takes_over:
        raise StoreError(
            f"the runs of {metadata.study} in MLflow were written by a sweep that this root does not know, of"
            " another copy of it; name another store with --tracking-uri, or give the runs to this copy with"
            f" 'lenet-exp sync --rebuild' of {metadata.experiment!r}"
        )
    return Stored(
        _experiment(client, experiments, runs, tagged, named),
        runs,
        tuple(run for run in copies if _is_active(run)),
        tuple(run for run in unknown if _is_active(run) and run.info.run_id not in known_ids),
    )


def _preference(run: Run, known_id: str | None) -> tuple[Any, ...]:
    """Return a sort key: what is not deleted comes first, then what the index has, then what has ended."""
    return (not _is_active(run), run.info.run_id != known_id, run.info.status == "RUNNING", run.info.run_id)


def _is_active(entity: Any) -> bool:
    return bool(getattr(entity, "info", entity).lifecycle_stage == "active")


def _run(client: MlflowClient, run_id: str, study: str) -> Run | None:
    """Return the run with this id, unless there is none, or both its tags say that it is another study's."""
    if (run := present(client.get_run, run_id)) is None:
        return None
    tags = run.data.tags
    is_ours = tags.get("lenet_exp.study", study) == study
    return run if is_ours or tags.get("lenet_exp.key", "").startswith(f"{study}/") else None


def present(get: Callable[[str], Any], name: str) -> Any:
    """Return what MLflow has under a name, or None if it has nothing there.

    Args:
        get: Method of a client that returns it.
        name: Name or id.
    """
    from mlflow import MlflowException

    try:
        return get(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _experiment(
    client: MlflowClient,
    experiments: Mapping[str, Experiment],
    runs: Mapping[str, Run],
    tagged: list[Experiment],
    named: Experiment | None,
) -> Experiment | None:
    """Return the experiment with the study's run, else one with our tag, one with any run, or by name."""
    if STUDY in runs:
        known_id = runs[STUDY].info.experiment_id
        return experiments.get(known_id) or client.get_experiment(known_id)
    if tagged:
        return min(tagged, key=lambda experiment: not _is_active(experiment))
    if runs:
        return client.get_experiment(next(iter(runs.values())).info.experiment_id)
    return named


def _pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    """Yield everything that a search of MLflow gives, page by page."""
    token = None
    while True:
        page = search(token)
        yield from page
        if not (token := page.token):
            return


# What a run has to have.


def tags_of(run_log: RunLog, study: str, study_run_id: str) -> dict[str, Any]:
    """Return the tags of an attempt's run.

    Args:
        run_log: Log of the attempt.
        study: Id of the study.
        study_run_id: Id of the study's own run in MLflow.
    """
    key, metadata, end = run_log.key, run_log.metadata, run_log.end
    label = label_of(run_log)
    subject: dict[str, Any] = {"lenet_exp.trial": key.trial} if key.role == "trial" else {}
    if key.role == "confirm":
        subject = {"lenet_exp.of": without_seed(label)}
    return {
        **prefixed(metadata.get("tags", {})),
        "mlflow.parentRunId": study_run_id,
        **own_tags(study, key.stem),
        "lenet_exp.role": key.role,
        **subject,
        "lenet_exp.attempt": key.attempt,
        "lenet_exp.state": end.state if end else "RUNNING",
        "lenet_exp.config": metadata.get("config"),
        **({"lenet_exp.reason": end.reason or ""} if end else {}),
    }


def own_tags(study: str, stem: str) -> dict[str, str]:
    """Return the tags by which a run is found.

    Args:
        study: Id of the study.
        stem: Stem of the attempt, or `STUDY`.
    """
    return {"lenet_exp.study": study, "lenet_exp.key": f"{study}/{stem}"}


def baselines(spool: Spool) -> dict[Any, float]:
    """Return the last ``val_accuracy`` of each complete baseline, by its seed."""
    stems = [stem for stem in spool.stems() if stem.startswith("baseline-")]
    logs = (spool.read(RunKey.from_stem(stem)) for stem in sorted(stems))
    complete = (log for log in logs if log and log.epochs and log.end and log.end.state == "COMPLETE")
    return {log.metadata.get("seed"): log.epochs[-1].val_accuracy for log in complete}


def study_tags(study: StudyLog) -> dict[str, Any]:
    """Return the tags of the study's own run; what the last sweep found replaces what it began with."""
    metadata = study.metadata
    ended = study.end.result.get("tags", {}) if study.end else {}
    return {
        "lenet_exp.role": "study",
        **prefixed({**metadata.tags, **ended}),
        **own_tags(metadata.study, STUDY),
    }


def params_of(run_log: RunLog) -> dict[str, Any]:
    """Return the parameters of an attempt's run."""
    return {**run_log.metadata.get("params", {}), "seed": run_log.metadata.get("seed")}


def prefixed(tags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tags that are not None; names without a prefix get this package's."""
    named = {name if "." in name else f"lenet_exp.{name}": value for name, value in tags.items()}
    return {name: value for name, value in named.items() if value is not None}


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the values as strings for MLflow: None becomes an empty one, and secrets are masked."""
    return {
        name: "" if value is None else mask_url(str(value))[:_TAG_LENGTH] for name, value in values.items()
    }


# What a store lacks.


def lacking(client: MlflowClient, spool: Spool, study: StudyLog, kept: Stored) -> dict[str, str]:
    """Return what each run lacks in MLflow, by stem, in words; runs that lack nothing are left out.

    Args:
        client: Client of the store.
        spool: Spool of the study.
        study: Log of the study.
        kept: Runs that the store has, from `stored`.
    """
    if kept.experiment is None:
        return dict.fromkeys(spool.stems(), "it is not there")
    logs: dict[str, RunLog] = {}
    lacks: dict[str, str] = {}
    for stem in spool.stems():
        try:
            if stem != STUDY and (run_log := spool.read(RunKey.from_stem(stem))):
                logs[stem] = run_log
        except StoreError as error:  # one damaged file must not keep the other runs from MLflow
            lacks[stem] = str(error)
    accuracies = baselines(spool)
    models = _models(client, kept) if any(log.end and log.end.weights for log in logs.values()) else {}
    for stem in (*logs, STUDY):
        run = kept.runs.get(stem)
        if run is None:
            lack: str | None = "it is not there"
        elif not (_is_active(run) and _is_active(kept.experiment)):
            lack = "it is deleted"
        elif stem == STUDY:
            lack = _study_lacks(client, spool, study, kept)
        else:
            study_run = kept.runs.get(STUDY)
            tags = tags_of(logs[stem], study.metadata.study, study_run.info.run_id if study_run else "")
            lack = _run_lacks(client, run, logs[stem], tags, accuracies) or _model_lacks(
                client, spool, logs[stem], run, models, study.kept
            )
        if lack:
            lacks[stem] = lack
    return lacks


def _run_lacks(
    client: MlflowClient, run: Run, run_log: RunLog, tags: Mapping[str, Any], accuracies: Mapping[Any, float]
) -> str | None:
    end = run_log.end
    if run_log.end is None:
        tags = {name: value for name, value in tags.items() if name != "lenet_exp.state"}
    if end and run.info.status != STATUS[end.state]:
        return f"its status is {run.info.status}"
    if not texts(tags).items() <= run.data.tags.items():
        return "it lacks tags"
    if not texts(params_of(run_log)).items() <= run.data.params.items():
        return "it lacks parameters"
    wanted = {**(run_log.epochs[-1].metrics() if run_log.epochs else {}), **run_log.test}
    if SOURCE in tags:  # runs from before December 2026 have neither a source nor a delta
        wanted |= deltas(run_log, accuracies) or {}
    for name, value in wanted.items():
        if math.isfinite(value) and run.data.metrics.get(name) != value:
            # Somebody may have logged a point of their own, which comes after ours and cannot be deleted.
            points = client.get_metric_history(run.info.run_id, name)
            if all(point.value != value for point in points):
                return "it lacks metrics"
    return None


def _models(client: MlflowClient, kept: Stored) -> dict[str, LoggedModel]:
    """Return the models that can be used, by the ids of their runs."""
    ids = sorted({run.info.experiment_id for run in kept.runs.values()})
    models = _pages(
        lambda token: client.search_logged_models(ids, max_results=_MODELS_A_PAGE, page_token=token)
    )
    usable = [each for each in models if str(each.status) == "READY" and model.is_network(each)]
    return {each.source_run_id: each for each in usable}


def _model_lacks(
    client: MlflowClient,
    spool: Spool,
    run_log: RunLog,
    run: Run,
    models: Mapping[str, LoggedModel],
    kept: Any,
) -> str | None:
    end = run_log.end
    if end is None or end.state != "COMPLETE" or end.weights is None:
        return None
    logged = models.get(run.info.run_id)
    digest = recorded_digest(run_log.key, end.result, kept)
    outputs = run.outputs.model_outputs if run.outputs else []
    is_logged = logged and logged.model_id in [output.model_id for output in outputs]
    if logged and is_logged and model.has_files(client, logged):
        files = model.file_marks(run.info.artifact_uri, lambda: client.list_artifacts(run.info.run_id))
        size = _size(spool, end.weights)
        stored_size, stored_digest = files.get(Path(end.weights).name, (None, None))
        is_same = stored_size == size and (not (digest and stored_digest) or digest == stored_digest)
        # Without the file here there is nothing to compare with, and nothing that could be uploaded.
        return None if size is None or is_same else "it lacks its weights"
    if _size(spool, end.weights) is None:
        return f"it has no model, and {spool.home / end.weights} is missing"
    return run.data.tags.get("lenet_exp.model_problem") or "it has no model"


def _size(spool: Spool, weights: str) -> int | None:
    """Return the size of a file of weights in bytes, or None if it is not there or leads out of the root."""
    try:
        path = spool.inside(weights)
    except DataError:
        return None
    return path.stat().st_size if path.is_file() else None


def _all_artifacts(client: MlflowClient, run_id: str) -> Iterator[FileInfo]:
    """Yield the artifacts of a run, and those in its folders."""
    for file in client.list_artifacts(run_id):
        yield from client.list_artifacts(run_id, file.path) if file.is_dir else (file,)


def _study_lacks(client: MlflowClient, spool: Spool, study: StudyLog, kept: Stored) -> str | None:
    run, metadata = kept.runs[STUDY], study.metadata
    measured = study.end.result.get("metrics", {}) if study.end else {}
    if study.end and run.info.status != STATUS[study.end.state]:
        return f"its status is {run.info.status}"
    if not texts(study_tags(study)).items() <= run.data.tags.items():
        return "it lacks tags"
    if not measured.items() <= run.data.metrics.items():
        return "it lacks metrics"
    if not metadata.params.keys() <= run.data.params.keys():
        return "it lacks parameters"
    stored_files = model.file_marks(run.info.artifact_uri, lambda: _all_artifacts(client, run.info.run_id))
    files = model.artifacts_of(spool.home, metadata.files).keys()
    if study.end and (missing := sorted(files - stored_files.keys())):
        return f"it lacks {missing[0]}"
    if study.end and (changed := model.changed_files(stored_files, run.data.tags)):
        return f"it lacks {changed[0]} as it was uploaded"
    if study.champion:
        run_ids = {stem: run.info.run_id for stem, run in kept.runs.items()}
        return model.registry_lacks(client, study.champion, metadata.study, run_ids)
    return None

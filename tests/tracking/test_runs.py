from dataclasses import replace
from pathlib import Path

import pytest

from lenet_exp.base.records import METRICS, RunKey
from lenet_exp.tracking.events import SOURCE
from lenet_exp.tracking.runs import MlflowRuns
from lenet_exp.tracking.ui import VIEW
from tests.labs.mlflow_lab import BASELINE, SMALL, STUDY_METADATA, TRIAL, Lab, runs_by_name


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def mlflow_runs(lab: Lab) -> MlflowRuns:
    study = lab.spool.study()
    assert study is not None
    return MlflowRuns(lab.client(), lab.spool, study, lab.artifacts)


def test_an_attempt_is_one_run_however_often_it_is_begun(lab: Lab) -> None:
    """Below the study's run, with its parameters, and one point an epoch."""
    lab.spool.start_study(STUDY_METADATA)
    lab.begin(TRIAL)
    run_log = lab.spool.read(TRIAL)
    assert run_log is not None

    first, again = (mlflow_runs(lab).begin(run_log) for _ in range(2))
    for _ in range(2):  # also logged twice, which changes nothing
        mlflow_runs(lab).log_epochs(first, run_log, 0)

    assert first == again
    client = lab.client()
    runs = runs_by_name(client)
    parent = next(run for run in runs.values() if run.data.tags["lenet_exp.role"] == "study")
    run = client.get_run(first)
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.data.params["pooling"] == "max"
    assert {name: len(client.get_metric_history(first, name)) for name in METRICS} == dict.fromkeys(
        METRICS, 2
    )


def test_a_run_ends_as_its_attempt_did(lab: Lab) -> None:
    """Complete is FINISHED, pruned KILLED, failed FAILED."""
    lab.spool.start_study(STUDY_METADATA)
    for key, state, status in ((TRIAL, "PRUNED", "KILLED"), (BASELINE, "FAIL", "FAILED")):
        lab.begin(key)
        lab.spool.end(key, state)  # type: ignore[arg-type]  # a tuple forgets which texts it has
        run_log = lab.spool.read(key)
        assert run_log is not None
        assert run_log.end is not None
        runs = mlflow_runs(lab)
        run_id = runs.begin(run_log)

        runs.finish(run_id, run_log, run_log.end)

        assert lab.client().get_run(run_id).info.status == status


def test_what_the_table_of_runs_should_show_is_there(lab: Lab) -> None:
    """Names say what differs, deltas follow the baseline, the study's run says what was found."""
    baseline = {**SMALL.hyperparameters(), "pooling": "avg"}
    metadata = replace(
        STUDY_METADATA, fingerprint={"baseline": baseline, "space": {"pooling": ["avg", "max"]}}
    )
    lab.spool.start_study(metadata)
    for key in (TRIAL, BASELINE):  # the trial ends first, and waits for the baseline
        lab.begin(key, 2, **{SOURCE: "lenet-exp sweep exp", "mlflow.user": "ada"})
        lab.spool.end(key, "COMPLETE")
    tags = {"verdict": "better", "mlflow.note.content": "it won"}
    lab.spool.end_study("COMPLETE", result={"metrics": {"val_accuracy": 0.82}, "tags": tags})

    report = lab.sync()

    client = lab.client()
    runs = runs_by_name(client)
    trial, study = runs["trial 0: max"], runs[STUDY_METADATA.study]
    assert (trial.data.metrics["val_delta"], trial.data.tags["mlflow.user"]) == (0.0, "ada")
    assert study.data.metrics == {"val_accuracy": 0.82}
    assert study.data.tags["lenet_exp.verdict"] == "better"
    assert study.data.tags["mlflow.note.content"] == "it won"
    assert "params.`pooling`" in client.get_experiment(study.info.experiment_id).tags[VIEW]
    assert report.lacking == {}
    client.set_tag(study.info.run_id, "lenet_exp.verdict", "worse")
    assert lab.sync(rebuild=True).lacking == {}
    assert client.get_run(study.info.run_id).data.tags["lenet_exp.verdict"] == "better"


def test_the_delta_of_an_alternative_is_that_to_the_baseline_of_its_seed(lab: Lab) -> None:
    """Of several seeds each has a baseline of its own, whichever ends first; nothing lacks then."""
    lab.spool.start_study(STUDY_METADATA)
    keys = [RunKey("ablation", 1, 1), BASELINE, RunKey("ablation", 0, 1), RunKey("baseline", 1, 1)]
    for key in keys:
        lab.begin(key, 2 + key.trial, seed=key.trial, **{SOURCE: "lenet-exp sweep exp"})
        lab.spool.end(key, "COMPLETE")

    report = lab.sync()

    assert report.lacking == {}
    deltas = {name: run.data.metrics.get("val_delta") for name, run in runs_by_name(lab.client()).items()}
    assert deltas == {
        **dict.fromkeys(["ablation 0", "ablation 1", "baseline 0", "baseline 1"], 0.0),
        STUDY_METADATA.study: None,
    }


def test_runs_of_older_versions_are_left_alone(lab: Lab) -> None:
    """A run with its label for a name, without source and delta, lacks nothing; a rebuild names it."""
    lab.spool.start_study(STUDY_METADATA)
    for key in (BASELINE, TRIAL):
        lab.begin(key)
        lab.spool.end(key, "COMPLETE")
    assert lab.sync().lacking == {}
    (lab.spool.folder / "study.jsonl").unlink()
    fingerprint = {"baseline": {**SMALL.hyperparameters(), "pooling": "avg"}}
    lab.opened().start_study(replace(STUDY_METADATA, fingerprint=fingerprint))

    kept = lab.sync()
    names = set(runs_by_name(lab.client()))
    lab.sync(rebuild=True)

    assert kept.n_uploaded == 0
    assert "trial 0" in names
    assert "trial 0: max" in runs_by_name(lab.client())

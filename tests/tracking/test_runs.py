from pathlib import Path

import pytest

from lenet_exp.base.records import METRICS
from lenet_exp.tracking.runs import MlflowRuns
from tests.labs.mlflow_lab import BASELINE, STUDY_METADATA, TRIAL, Lab, runs_by_name


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

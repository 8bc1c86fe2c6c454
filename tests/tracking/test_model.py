from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lenet_exp.tracking import uploader
from tests.labs.mlflow_lab import SMALL, STUDY_METADATA, TRIAL, Lab, runs_by_name


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """An experiment whose study has begun."""
    monkeypatch.setattr(uploader, "RETRY_S", 0.01)
    lab = Lab(tmp_path)
    lab.spool.start_study(STUDY_METADATA)
    return lab


PREDICT = """
import sys
sys.modules["lenet_exp"] = None  # whoever imports it fails
import mlflow, numpy
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(f"runs:/{sys.argv[2]}/model")
images = numpy.load(sys.argv[3])
numpy.save(sys.argv[4], model.predict(images))
for n in (1, 2, 1000):
    assert model.predict(numpy.resize(images, (n, 1, 28, 28))).shape == (n, 10)
"""


@pytest.mark.slow
def test_a_model_works_without_this_package(lab: Lab, tmp_path: Path) -> None:
    """Anyone with MLflow loads a run's model, no pickle allowed, and gets the network's own logits."""
    import numpy as np
    import torch

    from lenet_exp.tracking.model import load_network

    lab.complete(TRIAL)
    lab.sync()
    images = np.random.default_rng(0).random((5, 1, 28, 28), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    run_id = lab.opened().run_ids()[TRIAL]
    arguments = [lab.uri, run_id, str(tmp_path / "images.npy"), str(tmp_path / "logits.npy")]
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}

    subprocess.run([sys.executable, "-I", "-c", PREDICT, *arguments], cwd="/", env=environment, check=True)

    weights = lab.client().download_artifacts(run_id, "weights.safetensors", str(tmp_path))
    params = {**SMALL.hyperparameters(), "epochs": SMALL.epochs}
    with torch.no_grad():
        expected = load_network(params, Path(weights), image_size=28)(torch.from_numpy(images))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected.numpy(), rtol=1e-5, atol=1e-6)


def test_a_model_carries_no_pickled_code(lab: Lab) -> None:
    """Nothing below the artifacts is a pickle, other than torch's plain tensors."""
    import torch

    lab.complete(TRIAL)

    lab.sync()

    names = [path.name for path in lab.artifacts.rglob("*") if path.is_file()]
    assert not [name for name in names if name.endswith((".pkl", ".pth", ".pickle", ".py"))]
    with zipfile.ZipFile(next(lab.artifacts.rglob("model.pt2"))) as archive:
        tensors = [name for name in archive.namelist() if name.endswith((".pt", ".pkl"))]
        for name in tensors:
            torch.load(archive.open(name), weights_only=True)


def test_an_attempt_without_its_weights_is_still_complete(lab: Lab) -> None:
    """Weights that are gone cost the model and nothing else, and somebody is told."""
    lab.complete(TRIAL)
    shutil.rmtree(lab.home / "checkpoints")

    report = lab.sync()

    run = runs_by_name(lab.client())["trial 0"]
    assert run.info.status == "FINISHED"
    assert "No such file" in run.data.tags["lenet_exp.model_problem"]
    assert [problem.split(":")[0] for problem in report.problems] == [TRIAL.stem]


def test_weights_of_another_network_make_no_model(lab: Lab) -> None:
    """Weights that do not fit the configuration are told, not logged."""
    lab.complete(TRIAL)
    weights = next(lab.home.rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])

    report = lab.sync()

    assert len(report.problems) == 1
    assert lab.client().search_logged_models(["1"]) == []

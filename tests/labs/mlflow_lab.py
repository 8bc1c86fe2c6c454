"""An experiment with its spool and its MLflow store, for the tests of what carries one to the other."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_exp.base.records import EpochResult, RunKey
from lenet_exp.config.hyperparameters import PRESETS, configuration, overlay
from lenet_exp.tracking import audit, store, uploader
from lenet_exp.tracking.events import DatasetMetadata, StudyMetadata
from lenet_exp.tracking.model import FILES
from lenet_exp.tracking.spool import Spool

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SMALL = configuration(overlay(PRESETS["lenet"], {"channels": [2, 2], "fc_width": [8, 8], "epochs": 2}))
STUDY_METADATA = StudyMetadata(
    study="ünï exp-1",
    experiment="ünï exp",
    params={"trials": 3},
    tags={"version": "0.1"},
    dataset=DatasetMetadata("fashion-mnist", "0" * 64, "/data/images.npy"),
    files=("experiment.toml", "leaderboard.csv"),
)


@functools.cache
def empty_store() -> bytes:
    """Return a store with nothing in it, which takes seconds to make and nothing to copy."""
    with tempfile.TemporaryDirectory() as folder:
        store.prepare(store.local_uri(Path(folder)))
        return Path(folder, "mlflow.db").read_bytes()


class Lab:
    """An experiment on disk, and a driver's hand to write its spool."""

    def __init__(self, root: Path) -> None:
        """Begin with an empty store."""
        self.root = root
        self.uri = store.local_uri(root)
        self.artifacts = root / "artifacts"
        self.home = root / "exp"
        self._clock: Iterator[int] = itertools.count(1_700_000_000)
        self.spool = self.opened()
        self.home.mkdir()
        (root / "mlflow.db").write_bytes(empty_store())

    def opened(self) -> Spool:
        """Return the spool as another process would open it."""
        return Spool(self.home / "spool", clock=self._clock.__next__)

    def begin(self, key: RunKey, n_epochs: int = 2, seed: Any = 7, **tags: Any) -> None:
        """Write the lines of an attempt that trains.

        Args:
            key: Key of the attempt.
            n_epochs: Number of its epochs, which decides its accuracy.
            seed: Seed of the training.
            tags: Tags of its run.
        """
        metadata = {
            "label": f"{key.role} {key.trial}",
            "params": {**SMALL.hyperparameters(), "epochs": SMALL.epochs},
            "seed": seed,
            "config": SMALL.id,
            "tags": tags,
        }
        self.spool.start(key, metadata)
        for number in range(1, n_epochs + 1):
            self.spool.epoch(key, result(number))

    def complete(self, key: RunKey) -> None:
        """Write all lines of a complete attempt, and its weights."""
        from lenet_exp.training.loop import save_weights
        from lenet_exp.training.network import LeNet, initialise

        self.begin(key, device="cpu")
        network = LeNet(SMALL)
        initialise(network, "xavier_uniform", seed=key.trial)
        weights = self.home / "checkpoints" / key.stem / "weights.safetensors"
        weights.parent.mkdir(parents=True, exist_ok=True)
        save_weights(network, weights)
        self.spool.end(key, "COMPLETE", weights=str(weights.relative_to(self.home)))

    def sync(self, *, rebuild: bool = False) -> uploader.SyncReport:
        """Carry everything, as another process would."""
        return uploader.sync(self.opened(), self.uri, self.artifacts, rebuild=rebuild)

    def client(self) -> MlflowClient:
        """Return MLflow's own client of the store."""
        return plain_client(self.uri)


TRIAL, BASELINE, OTHER = RunKey("trial", 0, 1), RunKey("baseline", 0, 1), RunKey("trial", 1, 2)


def result(number: int, val_loss: float = 0.5) -> EpochResult:
    """Return what an epoch could give."""
    return EpochResult(number, 0.6 / number, 0.7, val_loss, 0.8 + number / 100, 9000.0, 1.5 * number)


def plain_client(uri: str) -> MlflowClient:
    """Return MLflow's own client, quietened before it is imported."""
    store.prepare_environment()
    from mlflow import MlflowClient

    return MlflowClient(uri)


def experiment_id(client: MlflowClient, name: str = STUDY_METADATA.experiment) -> str:
    """Return the id of the lab's experiment, or of another."""
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return str(experiment.experiment_id)


def refuse(client: MlflowClient, key: RunKey) -> None:
    """Have MLflow refuse an attempt: a run with the attempt's key has another seed, which cannot change."""
    tags = {"lenet_exp.study": STUDY_METADATA.study, "lenet_exp.key": f"{STUDY_METADATA.study}/{key.stem}"}
    run = client.create_run(experiment_id(client), tags=tags)
    client.log_param(run.info.run_id, "seed", "another")


def all_runs(client: MlflowClient, experiment: str = STUDY_METADATA.experiment) -> list[Run]:
    """Return the runs of the experiment that are not deleted."""
    return list(client.search_runs([experiment_id(client, experiment)]))


def runs_by_name(client: MlflowClient, experiment: str = STUDY_METADATA.experiment) -> dict[str, Run]:
    """Return the runs by name, after making sure that no two share one."""
    runs = all_runs(client, experiment)
    names = {str(run.info.run_name): run for run in runs}
    assert len(names) == len(runs)
    return names


def points(client: MlflowClient, run: Run) -> dict[str, list[tuple[int, float, int]]]:
    """Return each metric's points: step, value, time."""
    return {
        name: [(p.step, p.value, p.timestamp) for p in client.get_metric_history(run.info.run_id, name)]
        for name in sorted(run.data.metrics)
    }


def own(tags: dict[str, str]) -> dict[str, str]:
    """Return the tags without that of the files, as a model's file has the time in it."""
    return {name: value for name, value in tags.items() if name != FILES}


def everything(client: MlflowClient, experiment: str = STUDY_METADATA.experiment) -> dict[str, Any]:
    """Return all that MLflow shows, without the ids it makes up."""
    runs = runs_by_name(client, experiment)
    ids = {run.info.run_id: name for name, run in runs.items()}
    seen: dict[str, Any] = {}
    for name, run in runs.items():
        outputs = run.outputs.model_outputs if run.outputs else []
        logged = [audit.present(client.get_logged_model, output.model_id) for output in outputs]
        models = [model for model in logged if model]
        inputs = [each.dataset.name for each in run.inputs.dataset_inputs] if run.inputs else []
        seen[name] = {
            "info": (run.info.status, run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": {k: ids.get(v, v) for k, v in own(run.data.tags).items() if k != "mlflow.user"},
            "points": points(client, run),
            "inputs": inputs,
            "files": sorted(file.path for file in client.list_artifacts(run.info.run_id)),
            "models": [(model.name, str(model.status), model.params, own(model.tags)) for model in models],
        }
    seen["models"] = len(client.search_logged_models([experiment_id(client, experiment)]))
    return seen

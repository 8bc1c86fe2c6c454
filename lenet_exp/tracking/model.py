"""A trained network as an MLflow model, which can be loaded without this package.

The network is exported as a graph (``pt2``), so the model contains neither code nor a pickle.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_exp.base.errors import DataError
from lenet_exp.config.hyperparameters import CLASSES, Configuration
from lenet_exp.tracking.store import reason
from lenet_exp.training.weights import read_weights

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import nn

#: The model's name: ``runs:/<run id>/model`` loads it.
NAME = "model"


def load_network(
    params: Mapping[str, Any], weights: Path, image_size: int, sha256: str | None = None
) -> nn.Module:
    """Load a trained network and return it, in evaluation mode.

    Args:
        params: Hyper-parameters of the network, as `Configuration.to_dict` returned them.
        weights: File with the network's weights, ``weights.safetensors``.
        image_size: Side of the images, in pixels.
        sha256: Recorded digest of the weights; None if none was recorded.

    Raises:
        DataError: If the weights are missing, are damaged, or belong to another network.
    """
    from safetensors.torch import load

    from lenet_exp.training.network import LeNet

    content = read_weights(weights, sha256)
    try:
        network = LeNet(Configuration.from_dict(params), image_size)
        network.load_state_dict(load(content))
    except Exception as error:  # safetensors, torch and pydantic have exceptions of their own
        raise DataError(f"cannot load the network in {weights}: {reason(error)}") from error
    return network.eval()


def log_model(
    client: MlflowClient, run_id: str, key: str, network: nn.Module, image_size: int, epoch: int
) -> None:
    """Log a network as the MLflow model of the run that trained it.

    Calling this again completes a model whose logging was interrupted, and never creates a second one.

    MLflow's own ``log_model`` depends on process-wide state (the tracking URI, the active run and model);
    this function does the same with nothing but the client.

    Args:
        client: Client of the store that has the run.
        run_id: Id of the run that trained the network.
        key: Value of the model's tag ``lenet_exp.key``, by which a later call finds the model.
        network: Network that maps ``(n, 1, image_size, image_size)`` float32 to ``(n, 10)`` float32.
        image_size: Side of the images, in pixels.
        epoch: Number of epochs that the network was trained for.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.models import Model

    run = client.get_run(run_id)
    with_key = client.search_logged_models([run.info.experiment_id], f"tags.`lenet_exp.key` = '{key}'")
    model = next((model for model in with_key if model.source_run_id == run_id), None)
    if model is None:
        model = client.create_logged_model(
            run.info.experiment_id, NAME, run_id, tags={"lenet_exp.key": key}, params=run.data.params
        )
    if model.status != LoggedModelStatus.READY:
        with tempfile.TemporaryDirectory() as folder:
            description = Model(
                artifact_path=model.artifact_location,
                run_id=run_id,
                model_id=model.model_id,
                model_uuid=model.model_id,
            )
            _save(network, Path(folder) / NAME, description, image_size)
            client.log_model_artifacts(model.model_id, str(Path(folder) / NAME))
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    outputs = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=epoch)])


def _save(network: nn.Module, path: Path, description: Any, image_size: int) -> None:
    """Write the network to the folder ``path``, in the format of MLflow's models."""
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    float32 = np.dtype(np.float32)
    save: Callable[..., None] = mlflow.pytorch.save_model
    save(
        network,
        path,
        mlflow_model=description,
        serialization_format="pt2",
        # Two images, because from one torch.export would conclude that the batch size is always one.
        input_example=np.zeros((2, 1, image_size, image_size), dtype=np.float32),
        # Signature and requirements are given, because MLflow takes seconds to infer them.
        signature=ModelSignature(
            inputs=Schema([TensorSpec(float32, (-1, 1, image_size, image_size))]),
            outputs=Schema([TensorSpec(float32, (-1, CLASSES))]),
        ),
        pip_requirements=[
            f"mlflow=={mlflow.__version__}",
            f"numpy=={np.__version__}",
            f"torch=={torch.__version__.split('+')[0]}",
        ],
    )

"""Registers the champion and the baseline in MLflow's model registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lenet_exp.base.errors import DataError
from lenet_exp.tracking.events import Champion

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel


def register(client: MlflowClient, champion: Champion, runs: Mapping[str, str | None]) -> None:
    """Register the networks as versions of one model, and set their aliases; a second call changes nothing.

    Args:
        client: Client of the store that has the runs.
        champion: Name, description and aliases of the registered model.
        runs: Id of the run that trained the alias's network, by alias; None for a network without a run.

    Raises:
        DataError: If a run is missing, or has no model.
    """
    models = {alias: _model(client, run_id, champion, alias) for alias, run_id in runs.items()}
    if not client.search_registered_models(f"name = '{champion.name}'"):
        client.create_registered_model(champion.name)
    client.update_registered_model(champion.name, champion.description)
    for alias, model in models.items():
        version = _version(client, champion.name, model)
        client.set_registered_model_alias(champion.name, alias, version)


def _model(client: MlflowClient, run_id: str | None, champion: Champion, alias: str) -> LoggedModel:
    """Return the model that the run ``run_id`` logged, to be registered under ``alias``.

    Raises:
        DataError: If ``run_id`` is None, or the run has logged no model.
    """
    run: Any = client.get_run(run_id) if run_id else None
    outputs = run.outputs.model_outputs if run and run.outputs else []
    if not outputs:
        raise DataError(f"{champion.aliases[alias]} has no model to register as {champion.name}@{alias}")
    return client.get_logged_model(outputs[0].model_id)


def _version(client: MlflowClient, name: str, model: LoggedModel) -> str:
    """Return the version of ``model`` in the registered model ``name``; create it if there is none."""
    run_id = model.source_run_id
    for version in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        return str(version.version)
    # Not "models:/<id>", which MLflow looks up in the process-wide store instead of the client's.
    source = model.artifact_location
    return str(client.create_model_version(name, source, run_id, model_id=model.model_id).version)

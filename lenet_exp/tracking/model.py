"""A trained network as an MLflow model, which can be loaded without this package, and MLflow's registry.

The network is exported as a graph (``pt2``), so the model contains neither code nor a pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from lenet_exp.base.errors import DataError, LenetExpError, UnreachableError, mask_url
from lenet_exp.base.files import move_aside
from lenet_exp.config.hyperparameters import CLASSES, Configuration
from lenet_exp.tracking.events import Champion
from lenet_exp.tracking.store import connect, reason
from lenet_exp.training.weights import read_weights

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import FileInfo, LoggedModel, Run
    from mlflow.entities.model_registry import RegisteredModel
    from torch import nn

#: The model's name: ``runs:/<run id>/model`` loads it.
NAME = "model"

#: Tag of a model, and of the study's run, with size in bytes and SHA-256 of each file as it was uploaded.
FILES = "lenet_exp.files"

_OWNER = "lenet_exp.study"
_FILES = ("MLmodel", "data/model.pt2")


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
    model = _logged(client, run, key) or client.create_logged_model(
        run.info.experiment_id, NAME, run_id, tags={"lenet_exp.key": key}, params=run.data.params
    )
    if model.status != LoggedModelStatus.READY or not has_files(client, model):
        with tempfile.TemporaryDirectory() as folder:
            description = Model(
                artifact_path=model.artifact_location,
                run_id=run_id,
                model_id=model.model_id,
                model_uuid=model.model_id,
            )
            _save(network, Path(folder) / NAME, description, image_size)
            uploaded = marks(Path(folder) / NAME)
            clear_way(model.artifact_location, uploaded)
            client.log_model_artifacts(model.model_id, str(Path(folder) / NAME))
            # Last, so that files whose upload was cut off are not taken for whole.
            tag = json.dumps(uploaded, sort_keys=True)
            client.set_logged_model_tags(model.model_id, {FILES: tag})
    if model.status != LoggedModelStatus.READY:
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    outputs = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=epoch)])


def _logged(client: MlflowClient, run: Run, key: str) -> LoggedModel | None:
    """Return the model that a run has logged, which may be incomplete; None if it has none, or no longer."""
    models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    # People may log models of their own, or edit the tags of ours.
    own = [model for model in models if is_network(model)]
    own.sort(key=lambda model: (model.tags.get("lenet_exp.key") != key, str(model.status) != "READY"))
    return own[0] if own else None


def is_network(model: LoggedModel) -> bool:
    """Return True if a model is the network that its run trained, not one that people logged."""
    return bool(model.name == NAME)


def has_files(client: MlflowClient, model: LoggedModel) -> bool:
    """Return True if the files that load a model are where the store says, and are those that were uploaded.

    Args:
        client: Client of the store.
        model: Model of a run.
    """

    def list_files() -> list[FileInfo]:
        return [
            file
            for folder in (None, "data")
            for file in client.list_logged_model_artifacts(model.model_id, folder)
        ]

    stored = file_marks(model.artifact_location, list_files)
    return all(stored.get(name, [0])[0] for name in _FILES) and not changed_files(stored, model.tags)


def changed_files(stored: Mapping[str, list[Any]], tags: Mapping[str, str]) -> list[str]:
    """Return the names of the files that are missing, or are not those that were uploaded.

    Args:
        stored: Files in the store, from `file_marks`.
        tags: Tags of the model or run, which say what was uploaded; until November 2026 they did not.
    """
    try:
        uploaded = dict(json.loads(tags.get(FILES, "{}")))
        return sorted(
            name
            for name, (size, digest) in uploaded.items()
            if name not in stored or stored[name][0] != size or stored[name][1] not in (None, digest)
        )
    except (ValueError, TypeError):  # somebody has edited the tag
        return [FILES]


def file_marks(uri: str, list_files: Callable[[], Iterable[FileInfo]]) -> dict[str, list[Any]]:
    """Return size in bytes and SHA-256 of each file in an artifact folder, by relative path.

    Without its files at hand a store knows sizes alone: then the digests are None.

    Args:
        uri: URI of the folder; one on this machine is read, which is quicker than asking the store.
        list_files: Function that asks the store.
    """
    if not uri.startswith("file:"):
        return {file.path: [file.file_size, None] for file in list_files() if not file.is_dir}
    return marks(_local_folder(uri))


def _local_folder(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def clear_way(uri: str, names: Iterable[str]) -> None:
    """Move aside what is in the place of files to be uploaded; MLflow would follow a link out of the root.

    Args:
        uri: URI of the artifact folder; nothing is done unless it is on this machine.
        names: Relative paths of the files.

    Raises:
        DiskError: If something cannot be moved.
    """
    if not uri.startswith("file:"):
        return
    folder = _local_folder(uri)
    for name in names:
        path = folder / name
        places = [folder.parent, folder, *(folder / above for above in reversed(Path(name).parents)), path]
        for place in places:
            is_right = place.is_file() if place == path else place.is_dir()
            if os.path.lexists(place) and (place.is_symlink() or not is_right):
                move_aside(place)


def marks(folder: Path) -> dict[str, list[Any]]:
    """Return size in bytes and SHA-256 of each file below a folder, by relative path; links are left out."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): mark(path.read_bytes()) for path in files}


def artifacts_of(home: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return the files to upload by their path among the artifacts, which has no folder but their own.

    Args:
        home: The experiment's folder.
        names: Files, and folders of files, absolute or relative to it; what does not exist is left out.
    """
    files: dict[str, Path] = {}
    for path in (home / name for name in names):
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.is_file() and each.suffix != ".part")
            files |= {f"{path.name}/{each.name}": each for each in inside}
        elif path.is_file():
            files[path.name] = path
    return files


def mark(content: bytes) -> list[Any]:
    """Return size in bytes and SHA-256 of a file's content."""
    return [len(content), hashlib.sha256(content).hexdigest()]


def log_file(uri: str, run_id: str, path: Path, folder: str | None = None) -> None:
    """Upload a file, or all files of a folder, to the artifacts of a run, and note what they are now.

    Args:
        uri: URI of the store, as MLflow takes it.
        run_id: Id of the run.
        path: File to upload, under its own name; or a folder, whose files are uploaded.
        folder: Folder among the artifacts to upload it to; None for none.

    Raises:
        UnreachableError: If the store does not answer, or has no such run.
        StoreError: If a local store is damaged, not MLflow's, or of another version.
    """
    try:
        client = connect(uri)
        # MLflow caches where a run's files go, so log_artifact alone would not notice that the run is gone.
        tags = client.get_run(run_id).data.tags
        (client.log_artifacts if path.is_dir() else client.log_artifact)(run_id, str(path), folder)
        if FILES in tags:  # else the files would be taken for damaged ones
            files = marks(path) if path.is_dir() else {path.name: mark(path.read_bytes())}
            known = json.loads(tags[FILES]) | {f"{folder}/{n}" if folder else n: m for n, m in files.items()}
            client.set_tag(run_id, FILES, json.dumps(known, sort_keys=True))
    except LenetExpError:
        raise
    except Exception as error:  # a server, a database and a file system have exceptions of their own
        raise UnreachableError(
            f"the tracking store {mask_url(uri)} did not accept {path.name}: {reason(error)}"
        ) from error


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


# The registry.


def register(client: MlflowClient, champion: Champion, study: str, runs: Mapping[str, str]) -> None:
    """Register the networks as versions of one model, and set their aliases; a second call changes nothing.

    The registered model has the champion's name, unless another study of this name has it on the same server:
    then it has the study's id. It keeps the name that somebody gives it in MLflow.

    Args:
        client: Client of the store that has the runs.
        champion: Name, description and aliases of the registered model.
        study: Id of the study.
        runs: Ids of the runs that trained the networks, by stem.

    Raises:
        DataError: If a run is missing, or has no model.
    """
    models = _models(client, champion, study, runs)
    registered = _registered(client, champion.name, study, runs.values())
    name = registered.name if registered else champion.name
    if registered is None:
        if client.search_registered_models(f"name = '{name}'"):
            name = study
        client.create_registered_model(name, tags={_OWNER: study}, description=champion.description)
    else:
        if registered.tags.get(_OWNER) != study:
            client.set_registered_model_tag(name, _OWNER, study)
        client.update_registered_model(name, champion.description)
    for alias, model in models.items():
        version = _version(client, name, model)
        if version is None:
            # Not "models:/<id>", which MLflow looks up in the process-wide store instead of the client's.
            version = client.create_model_version(
                name, model.artifact_location, model.source_run_id, model_id=model.model_id
            ).version
        client.set_registered_model_alias(name, alias, str(version))


def registry_lacks(
    client: MlflowClient, champion: Champion, study: str, runs: Mapping[str, str]
) -> str | None:
    """Return what the registry lacks of a champion, in words; None if it lacks nothing.

    Args:
        client: Client of the store that has the runs.
        champion: Name, description and aliases of the registered model.
        study: Id of the study.
        runs: Ids of the runs that trained the networks, by stem.
    """
    registered = _registered(client, champion.name, study, runs.values())
    if registered is None or registered.tags.get(_OWNER) != study:
        return f"{champion.name!r} is not registered"
    try:
        models = _models(client, champion, study, runs)
    except DataError as error:
        return str(error)
    for alias, model in models.items():
        version = _version(client, registered.name, model)
        if version is None or str(registered.aliases.get(alias)) != version:
            return f"{registered.name}@{alias} is not registered"
    return None


def _models(
    client: MlflowClient, champion: Champion, study: str, runs: Mapping[str, str]
) -> dict[str, LoggedModel]:
    """Return the models to register, by alias.

    Raises:
        DataError: If a run is missing, or has no model.
    """
    models = {}
    for alias, stem in champion.aliases.items():
        model = _logged(client, client.get_run(runs[stem]), f"{study}/{stem}") if stem in runs else None
        if model is None:
            raise DataError(f"{stem} has no model to register as {champion.name}@{alias}")
        models[alias] = model
    return models


def _registered(
    client: MlflowClient, name: str, study: str, run_ids: Iterable[str]
) -> RegisteredModel | None:
    """Return the study's registered model; None if it has none yet."""
    if tagged := client.search_registered_models(f"tags.`{_OWNER}` = '{study}'"):
        return tagged[0]
    for registered in client.search_registered_models(f"name = '{name}'"):
        versions = client.search_model_versions(f"name = '{name}'")
        is_ours = not versions or any(version.run_id in set(run_ids) for version in versions)
        if _OWNER not in registered.tags and is_ours:  # registered before November 2026
            return registered
    return None


def _version(client: MlflowClient, name: str, model: LoggedModel) -> str | None:
    """Return the version of ``model`` in the registered model ``name``; None if there is none."""
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{model.source_run_id}'")
    # A version of a model that somebody deleted is of no use: the network has been logged again since.
    return next((str(v.version) for v in versions if v.source == model.artifact_location), None)

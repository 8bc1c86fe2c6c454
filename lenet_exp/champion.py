"""The model that won: which attempt it is, what its description says, and its place in MLflow's registry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lenet_exp.entries import Champion
from lenet_exp.errors import DataError
from lenet_exp.readings import Reading

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel


def winner(reading: Reading) -> str:
    """Return the configuration that won: the baseline's, unless a finalist is better.

    Of several the one with the highest validation accuracy is taken, on fresh seeds where there is one:
    choosing by the test split would flatter the choice.
    """
    better = {one["config"] for one in reading.verdicts if one["verdict"] == "better"}
    if not better:
        return reading.plan.baseline.config
    fresh = reading.fresh_val_accuracy or {}

    def validated(config: str) -> float:
        searched = next(one.val_accuracy for one in reading.plan.finalists if one.config == config)
        return fresh.get(config, -math.inf if searched is None else searched)

    # The finalists are in the order of the search, which decides between equals.
    return max((one.config for one in reading.plan.finalists if one.config in better), key=validated)


def elected(experiment: str, question: str, reading: Reading) -> Champion | None:
    """Return what is to be registered after a reading; None if the baseline gave no network.

    Each alias gets the network of the first seed: choosing among seeds would be choosing luck.
    """
    first = {score.config: score.run for score in reversed(reading.scores)}
    baseline = reading.plan.baseline.config
    if baseline not in first:
        return None
    aliases = {"champion": first[reading.champion], "baseline": first[baseline]}
    return Champion(experiment, aliases, _description(question, reading))


def _description(question: str, reading: Reading) -> str:
    verdicts = {one["config"]: one for one in reading.verdicts}
    lines = [question, ""] if question else []
    lines += [f"{sentence}  " for sentence in reading.sentences()]
    lines += [
        "",
        "| configuration | n_seeds | test_accuracy | delta | p_value | verdict |",
        "|---|---|---|---|---|---|",
    ]

    def reached(config: str) -> list[float]:
        return [score.test_accuracy for score in reading.scores if score.config == config]

    def mean(config: str) -> float:
        values = reached(config)
        return math.fsum(values) / len(values) if values else -math.inf

    for one in sorted(reading.plan.everyone, key=lambda one: mean(one.config), reverse=True):
        verdict = verdicts.get(one.config, {})
        cells = [f"{one.label} ({one.config})", str(len(reached(one.config)))]
        cells += [_shown(mean(one.config)), _shown(verdict.get("delta")), _shown(verdict.get("p_value"))]
        lines.append("| " + " | ".join([*cells, verdict.get("verdict") or ""]) + " |")
    seeds = ", ".join(map(str, reading.plan.seeds))
    split = f"{reading.n_images:,} test images of {reading.dataset}, read {reading.completed}"
    lines += ["", f"Seeds {seeds}; {split}; trained on {reading.plan.train_on}; lenet_exp {reading.version}."]
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.4f}"


def register(client: MlflowClient, champion: Champion, runs: Mapping[str, str | None]) -> None:
    """Register the networks, each once, and give them their aliases; doing it again changes nothing.

    Args:
        client: Of the store that has the runs.
        champion: What to register.
        runs: The run of each alias; None where it has none yet.

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
    """Return the run's model."""
    run: Any = client.get_run(run_id) if run_id else None
    outputs = run.outputs.model_outputs if run and run.outputs else []
    if not outputs:
        raise DataError(f"{champion.aliases[alias]}: no model to register as {champion.name}@{alias}")
    return client.get_logged_model(outputs[0].model_id)


def _version(client: MlflowClient, name: str, model: LoggedModel) -> str:
    """Return the version of the registered model that this one is."""
    run_id = model.source_run_id
    for known in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        return str(known.version)
    # Not "models:/<id>", which MLflow looks up in the process-wide store instead of the client's.
    source = model.artifact_location
    made = client.create_model_version(name, source, run_id, model_id=model.model_id)
    return str(made.version)

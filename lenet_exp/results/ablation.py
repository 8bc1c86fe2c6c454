"""The table of an ablation: what each alternative alone does to the baseline, and how sure we are.

Verdicts are on the validation split; the test split stays closed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from lenet_exp.config.experiment import Experiment
from lenet_exp.results.aggregate import by_seed
from lenet_exp.results.statistics import estimate
from lenet_exp.results.table import Table, finite
from lenet_exp.results.verdicts import Sample, Verdict, verdicts
from lenet_exp.study.records import TrialRecord

#: The columns, in order.
COLUMNS = (
    *("factor", "value", "config", "n_seeds", "val_accuracy", "val_accuracy_sem"),
    *("val_delta", "val_delta_low", "val_delta_high", "val_p_value", "verdict", "seeds_to_settle"),
    *("examples_per_s", "examples_per_s_ratio", "n_parameters", "macs", "epochs", "note"),
)


def ablation_table(experiment: Experiment, records: Sequence[TrialRecord]) -> Table:
    """Return the table: the baseline, then the file's alternatives in order.

    Args:
        experiment: An experiment with an ``[ablate]``.
        records: Attempts that ended, of whatever role.

    Returns:
        A table of `COLUMNS`. A row has the seeds that were completed; ``val_delta``, its interval,
        ``val_p_value``
        (after Holm's correction over the table) and ``verdict`` are those of `lenet_exp.results.verdicts`,
        on the seeds that the baseline has too. A row in which a seed gave no result, as the loss diverged,
        has a ``note`` and no verdict: the seeds that are left would flatter it.
    """
    ended = [record for record in records if not record.superseded]
    experiment = _as_trained(experiment, ended)
    base_rows = [record for record in ended if record.key.role == "baseline"]
    own = experiment.baseline_configuration
    rows = [_measured("baseline", "", own.id, own.epochs, base_rows)]
    samples = []
    for alternative, configuration in experiment.alternatives():
        config = configuration.id
        mine = [r for r in ended if r.key.role == "ablation" and r.config == config]
        rows.append(_measured(alternative.factor, alternative.value, config, configuration.epochs, mine))
        samples.append(_sample(config, mine))
    judged = verdicts(samples, _sample(own.id, base_rows))
    for row, verdict in zip(rows[1:], judged, strict=True):
        row.update(_judged(row, verdict))
        row["examples_per_s_ratio"] = _ratio(row["examples_per_s"], rows[0]["examples_per_s"])
    return Table(COLUMNS, rows)


def _as_trained(experiment: Experiment, records: Sequence[TrialRecord]) -> Experiment:
    """Return the experiment in the precision that its baseline was trained in."""
    trained = (record.values["precision"] for record in records if record.key.role == "baseline")
    return experiment.with_precision(next(trained, experiment.base["precision"]))


def _measured(
    factor: str, value: str, config: str, epochs: int, records: Sequence[TrialRecord]
) -> dict[str, Any]:
    """Return what a row says by itself; what is not known is None."""
    complete = list(by_seed(records).values())
    accuracy = estimate([record.value for record in complete if record.value is not None])
    reasons = [record.reason for record in records if record.value is None]
    found = dict.fromkeys(COLUMNS)
    for name in ("examples_per_s", "n_parameters", "macs"):
        numbers = [record.result[name] for record in records if record.result.get(name) is not None]
        # Size and cost are the same for every seed.
        found[name] = None if not numbers else fmean(numbers) if name == "examples_per_s" else numbers[0]
    return found | {
        "factor": factor,
        "value": value,
        "config": config,
        "n_seeds": len(complete),
        "val_accuracy": finite(accuracy.mean),
        "val_accuracy_sem": finite(accuracy.sem),
        "epochs": epochs,
        "note": f"{len(reasons)} of {len(records)} seeds: {reasons[0]}" if reasons else None,
    }


def _sample(config: str, records: Sequence[TrialRecord]) -> Sample:
    # What compares test accuracies compares these as well.
    values = {record.seed: math.nan if record.value is None else record.value for record in records}
    return Sample(config, tuple(values.values()), tuple(values))


def _judged(row: Mapping[str, Any], verdict: Verdict) -> dict[str, Any]:
    if row["note"] or verdict.n_seeds == 0:
        return {}
    numbers = {
        f"val_{name}": finite(getattr(verdict, name))
        for name in ("delta", "delta_low", "delta_high", "p_value")
    }
    return {**numbers, "verdict": verdict.verdict, "seeds_to_settle": verdict.seeds_to_settle}


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None

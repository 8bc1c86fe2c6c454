"""The table of an ablation: the baseline, and each alternative compared with it.

The accuracies are those on the validation split; the test split is not read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from lenet_exp.config.experiment import Experiment
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.results.aggregate import by_seed
from lenet_exp.results.table import Table, finite
from lenet_exp.results.verdicts.judging import Sample, Verdict, verdicts
from lenet_exp.results.verdicts.seeds import seeds_to_settle
from lenet_exp.results.verdicts.statistics import estimate
from lenet_exp.study.records import TrialRecord

#: What each column is, in order; experiments/README.md says the same.
ABLATION_MEANINGS = {
    **dict.fromkeys(("factor", "value"), "what was changed, and to what"),
    "config": "name of the configuration",
    "n_seeds": "seeds that were trained to the end",
    **dict.fromkeys(("val_accuracy", "val_accuracy_sem"), "mean over them, and its standard error"),
    **dict.fromkeys(
        ("val_delta", "val_delta_low", "val_delta_high"),
        "difference to the baseline on the same seeds, and its joint interval",
    ),
    "val_p_value": "after Holm's correction over the table",
    "verdict": "better, worse or tie",
    **dict.fromkeys(
        ("seeds_to_settle_low", "seeds_to_settle_high"), "seeds that find a difference of confirm.margin"
    ),
    **dict.fromkeys(
        ("examples_per_s", "examples_per_s_ratio"),
        "training images a second: mean over seeds; over the baseline's",
    ),
    "n_parameters": "weights and biases",
    "macs": "multiply-adds for one image, forward",
    "epochs": "epochs that were trained",
    "note": "why seeds have no result; such a row has no verdict",
}
#: The columns, in order.
COLUMNS = tuple(ABLATION_MEANINGS)


def ablation_table(experiment: Experiment, records: Sequence[TrialRecord]) -> Table:
    """Return the table of an ablation: the baseline, then the alternatives in the order of the file.

    Args:
        experiment: An experiment with an ``[ablate]`` section.
        records: Records of the attempts that have ended, of every role.

    Returns:
        A table of `COLUMNS`. A row averages over the seeds whose training is complete. `verdicts` gives
        ``val_delta``, its interval, ``val_p_value`` (Holm-adjusted over the table) and ``verdict``, from the
        seeds that the baseline has too. If a seed gave no result, for example because its loss diverged, the
        row has a ``note`` and no verdict: the remaining seeds would flatter it. If that is the baseline's,
        there is no verdict at all. A tie has the numbers of seeds that would find a difference of
        ``confirm.margin``.
    """
    ended = [record for record in records if not record.superseded]
    experiment = _as_trained(experiment, ended)
    baseline = experiment.baseline_configuration
    baseline_records = [record for record in ended if record.key.role == "baseline"]
    rows = [_measured("baseline", "", baseline, baseline_records)]
    samples = []
    for alternative, configuration in experiment.alternatives():
        config = configuration.id
        trained = [r for r in ended if r.key.role == "ablation" and r.config == config]
        rows.append(_measured(alternative.factor, alternative.value, configuration, trained))
        samples.append(_sample(config, trained))
    judgements = verdicts(samples, _sample(baseline.id, baseline_records))
    for row, verdict in zip(rows[1:], judgements, strict=True):
        # Where the baseline lacks a seed, there is nothing to compare with on it.
        if not rows[0]["note"]:
            row.update(_judged(row, verdict))
        if row["verdict"] == "tie" and verdict.n_seeds > 1:
            level = verdict.level / len(samples)
            numbers = verdict.delta_sd, verdict.n_seeds, experiment.confirm.margin, level, level
            row["seeds_to_settle_low"], row["seeds_to_settle_high"] = seeds_to_settle(*numbers)
        row["examples_per_s_ratio"] = _ratio(row["examples_per_s"], rows[0]["examples_per_s"])
    return Table(COLUMNS, rows)


def _as_trained(experiment: Experiment, records: Sequence[TrialRecord]) -> Experiment:
    """Return the experiment in the precision of its trained baseline, on which the hashes depend."""
    precisions = (record.values["precision"] for record in records if record.key.role == "baseline")
    return experiment.with_precision(next(precisions, experiment.base["precision"]))


def _measured(
    factor: str, value: str, configuration: Configuration, records: Sequence[TrialRecord]
) -> dict[str, Any]:
    """Return the cells of a row that do not depend on other rows; unknown values are None."""
    complete = list(by_seed(records).values())
    accuracy = estimate([record.value for record in complete if record.value is not None])
    reasons = [record.reason for record in records if record.value is None]
    cells: dict[str, Any] = dict.fromkeys(COLUMNS)
    for name in ("examples_per_s", "n_parameters", "macs"):
        numbers = [record.result[name] for record in records if record.result.get(name) is not None]
        # Size and cost are the same for every seed.
        cells[name] = None if not numbers else fmean(numbers) if name == "examples_per_s" else numbers[0]
    return cells | {
        "factor": factor,
        "value": value,
        "config": configuration.id,
        "n_seeds": len(complete),
        "val_accuracy": finite(accuracy.mean),
        "val_accuracy_sem": finite(accuracy.sem),
        "epochs": configuration.epochs,
        "note": f"{len(reasons)} of {len(records)} seeds: {reasons[0]}" if reasons else None,
    }


def _sample(config: str, records: Sequence[TrialRecord]) -> Sample:
    # A `Sample` names its accuracies after the test split; here they are those of the validation split.
    values = {record.seed: math.nan if record.value is None else record.value for record in records}
    return Sample(config, tuple(values.values()), tuple(values))


def _judged(row: Mapping[str, Any], verdict: Verdict) -> dict[str, Any]:
    """Return the cells of a verdict, or no cells if a seed gave no result or the baseline shares no seed."""
    if row["note"] or verdict.n_seeds == 0:
        return {}
    numbers = {
        f"val_{name}": finite(getattr(verdict, name))
        for name in ("delta", "delta_low", "delta_high", "p_value")
    }
    return {**numbers, "verdict": verdict.verdict}


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None

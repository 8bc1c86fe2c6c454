import random
from collections.abc import Mapping
from typing import Any

import pytest

from lenet_exp.base.records import RunKey
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.loader import parse
from lenet_exp.config.trainings import fixed_trainings
from lenet_exp.results.ablation import COLUMNS, ablation_table
from lenet_exp.results.table import Table
from lenet_exp.study.records import TrialRecord

#: Paired noise: what a seed gives to every configuration.
LUCK = (0.003, -0.002, 0.001, 0.004, -0.003)


def experiment(**ablate: Any) -> Experiment:
    factors = {"pooling": ["avg"], "lr": [0.5, 0.001]}
    return parse({"name": "a", "ablate": factors | ablate})


def trained(ablation: Experiment, gains: dict[str, float | None]) -> list[TrialRecord]:
    """Return what the jobs gave: the baseline 0.89 and each alternative as much more, or nothing."""
    records = []
    seeds = sorted({job.seed for job in fixed_trainings(ablation)})
    for number, job in enumerate(fixed_trainings(ablation.with_precision("bfloat16"))):
        gain = gains.get(job.label.partition(",")[0], 0.0)
        luck = LUCK[seeds.index(job.seed)] + random.Random(job.label).gauss(0, 3e-4)
        value = None if gain is None else 0.89 + luck + gain
        fast = 2.0 if job.role == "ablation" else 1.0
        records.append(
            TrialRecord(
                RunKey(job.role, number, 1),
                "COMPLETE" if value is not None else "PRUNED",
                job.label,
                job.configuration,
                job.seed,
                {},
                {"examples_per_s": 1000.0 * fast, "n_parameters": 5, "macs": 7}
                | ({} if value is not None else {"reason": "diverged: loss is nan in epoch 1"}),
                value,
            )
        )
    return records


def row(table: Table, factor: str, value: str) -> Mapping[str, Any]:
    (found,) = [row for row in table.rows if (row["factor"], row["value"]) == (factor, value)]
    return found


def column(table: Table, name: str) -> list[Any]:
    return [row[name] for row in table.rows]


def test_each_alternative_is_judged_against_the_baseline_on_the_same_seeds() -> None:
    """In the file's order, with verdict, interval, p over the table, and the ratio of speeds."""
    ablation = experiment()

    table = ablation_table(ablation, trained(ablation, {"pooling avg": 0.01, "lr 0.5": -0.4}))

    assert tuple(table.columns) == COLUMNS
    assert column(table, "factor") == ["baseline", "pooling", "lr", "lr"]
    assert column(table, "value") == ["", "avg", "0.5", "0.001"]
    assert column(table, "verdict") == [None, "better", "worse", "tie"]
    assert column(table, "n_seeds") == [5] * 4
    better = row(table, "pooling", "avg")
    assert better["val_delta"] == pytest.approx(0.01, abs=1e-3)
    assert better["val_delta_low"] <= better["val_delta"] <= better["val_delta_high"]
    assert better["val_p_value"] < 0.05
    assert better["examples_per_s_ratio"] == 2.0
    assert column(table, "n_parameters") == [5] * 4


def test_the_correction_is_over_the_whole_table() -> None:
    """The same differences are less sure where more was tried."""
    short, long = experiment(lr=[0.5]), experiment(lr=[0.5, 0.4, 0.3, 0.2, 0.1])
    p_values = [
        row(ablation_table(each, trained(each, {"pooling avg": 0.001})), "pooling", "avg")["val_p_value"]
        for each in (short, long)
    ]

    assert p_values[0] < p_values[1]


def test_a_row_that_lost_a_seed_has_a_reason_and_no_verdict() -> None:
    """What diverges is not judged by the seeds that did not."""
    ablation = experiment()
    records = trained(ablation, {"lr 0.5": None})

    diverged = row(ablation_table(ablation, records), "lr", "0.5")

    assert diverged["note"] == "5 of 5 seeds: diverged: loss is nan in epoch 1"
    assert diverged["verdict"] is None
    assert diverged["n_seeds"] == 0


def test_a_table_under_way_compares_what_there_is() -> None:
    """Seeds that a row has not got yet are left out of its difference."""
    ablation = experiment()
    records = trained(ablation, {"pooling avg": 0.01})
    begun = records[: len(records) - 3]

    table = ablation_table(ablation, begun)

    assert column(table, "n_seeds") == [5, 4, 4, 4]
    assert row(table, "pooling", "avg")["verdict"] == "better"
    assert column(ablation_table(ablation, []), "n_seeds") == [0] * 4

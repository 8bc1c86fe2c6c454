"""The leaderboard: one row for each configuration that was tried, ranked, against the baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from lenet_exp.base.records import RunKey
from lenet_exp.config.hyperparameters import HYPERPARAMETERS
from lenet_exp.results.aggregate import over_seeds, pareto_front
from lenet_exp.results.evaluation import NOTHING, Findings
from lenet_exp.results.table import Table
from lenet_exp.study.records import TrialRecord

#: What a confirmation found out of one configuration, by column.
_Cells = Mapping[str, Any]

#: The columns, in order; those of the confirmation are empty until there is one.
COLUMNS = (
    *("rank", "role", "trial", "config", "state", "n_seeds"),
    *("val_accuracy", "val_accuracy_sem", "test_accuracy", "test_accuracy_sem"),
    *("delta", "delta_low", "delta_high", "p_value", "verdict"),
    *("examples_per_s", "train_s", "n_parameters", "macs", "epochs"),
    *HYPERPARAMETERS,
    *("variant", "fresh_val_accuracy", "permutation_p", "mcnemar_p", "seeds_to_settle"),
    *("pareto_parameters", "pareto_speed", "mlflow_run_id"),
)
_PARETO = ("pareto_parameters", "pareto_speed")

_Baseline = tuple[float | None, str | None]


def ranked(records: Iterable[TrialRecord], run_ids: Mapping[RunKey, str], found: Findings = NOTHING) -> Table:
    """Return the ranked table of what was tried.

    Args:
        records: Attempts that ended; those that were tried again are left out.
        run_ids: MLflow's id of each attempt's run, as far as known.
        found: What is known of configurations from a confirmation.

    Returns:
        A table of `COLUMNS`. Confirmed rows come first, by ``test_accuracy``, then the other completed
        ones, by ``val_accuracy``; equal ones share a rank, and the ranks they use up are skipped. Rows
        without a result have no rank.
    """
    shown = over_seeds(r for r in records if not r.superseded and r.key.role != "confirm")
    baseline = _baseline(shown)
    rows = [
        _row(record, baseline, run_ids.get(record.key), found.cells.get(record.config)) for record in shown
    ]
    rows.sort(key=attrgetter("order"))
    return Table(
        COLUMNS,
        [
            {**row.cells, "rank": rank, **dict(zip(_PARETO, fronts, strict=True))}
            for row, rank, fronts in zip(rows, _ranks(rows), _fronts(rows), strict=True)
        ],
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the table, and what places it among the others.

    Attributes:
        cells: Values by column, without those that depend on other rows.
        order: What rows are sorted by: those without a result, and the unconfirmed ones, come later.
        score: Whether it is confirmed, and the accuracy that it is ranked by; None if it has none.
        smallness: Minus the number of parameters, NaN if unknown.
        speed: Examples per second, NaN if unknown.
    """

    cells: Mapping[str, Any]
    order: tuple[bool, bool, float, int]
    score: tuple[bool, float | None] | None
    smallness: float
    speed: float


def _baseline(records: Sequence[TrialRecord]) -> _Baseline:
    """Return the value that all others are compared with, and the version of the code that gave it."""
    found = next((r for r in reversed(records) if r.key.role == "baseline" and r.value is not None), None)
    return (found.value, _code(found)) if found else (None, None)


def _code(record: TrialRecord) -> str | None:
    """Return which code trained an attempt, as in ``0.1.0+3fa9c2d1b07e``; None if nobody noted it."""
    version, code = record.result.get("lenet_exp"), record.result.get("code")
    return f"{version}+{code}" if version and code else None


def _row(record: TrialRecord, baseline: _Baseline, run_id: str | None, found: _Cells | None) -> _Row:
    cells = _cells(record, baseline, run_id, found)
    complete = record.state == "COMPLETE"
    # A test_accuracy alone does not make a row a confirmed one.
    confirmed = complete and found is not None and found["test_accuracy"] is not None
    value = cells["test_accuracy"] if confirmed else cells["val_accuracy"]
    trial = cells["trial"]
    order = (
        not complete,
        not confirmed,
        -value if value is not None else math.inf,
        -1 if trial is None else trial,
    )
    smallness, speed = -_number(cells["n_parameters"]), _number(cells["examples_per_s"])
    return _Row(cells, order, (confirmed, value) if complete else None, smallness, speed)


def _cells(
    record: TrialRecord, baseline: _Baseline, run_id: str | None, cells: _Cells | None
) -> dict[str, Any]:
    complete = record.state == "COMPLETE"
    is_baseline = record.key.role == "baseline"
    value = record.value if complete else record.history.get(record.epochs)
    reference, code = baseline
    delta = value - reference if complete and value is not None and reference is not None else None
    own_code = _code(record)
    result = record.result
    found = dict.fromkeys(COLUMNS)
    return found | {
        "role": record.key.role,
        "trial": None if is_baseline else record.key.trial,
        "config": record.config,
        "state": record.state,
        "n_seeds": result.get("n_seeds", 1) if complete else None,
        "val_accuracy": value,
        "val_accuracy_sem": result.get("val_accuracy_sem"),
        "test_accuracy": result.get("test_accuracy") if complete else None,
        "delta": result.get("delta", delta),
        "verdict": "not confirmed" if complete and not is_baseline else None,
        **{name: result.get(name) for name in ("examples_per_s", "train_s", "n_parameters", "macs")},
        "epochs": record.epochs,
        **record.values,
        # Trained by other code than the baseline, so that its delta may be the code's.
        "variant": own_code if code and own_code != code else None,
        **(cells or {} if complete else {}),
        "mlflow_run_id": run_id,
    }


def _ranks(rows: Sequence[_Row]) -> list[int | None]:
    """Return the rank of each row; they are in order, the completed ones first."""
    ranks: list[int | None] = []
    above: tuple[bool, float | None] | None = None
    for position, row in enumerate(rows, start=1):
        score = row.score
        if score is None:
            ranks += [None] * (len(rows) - len(ranks))
            break
        ranks.append(ranks[-1] if score == above else position)
        above = score
    return ranks


#: Whether a row is on the front of accuracy and size, and on that of accuracy and speed; None for neither.
_Fronts = tuple[bool | None, bool | None]


def _fronts(rows: Sequence[_Row]) -> list[_Fronts]:
    """Return for each row whether no other is both more accurate and smaller, and both that and faster.

    Only rows that were measured alike are compared: the confirmed ones once there are any, else all that
    were completed; the others are on no front and off none.
    """
    known = [
        (i, row, value) for i, row in enumerate(rows) if row.score and (value := row.score[1]) is not None
    ]
    # Sorted as they are, the confirmed ones are the first.
    n_confirmed = sum(row.score[0] for _, row, _ in known if row.score)
    compared = known[:n_confirmed] or known
    smaller = pareto_front([(value, row.smallness) for _, row, value in compared])
    faster = pareto_front([(value, row.speed) for _, row, value in compared])
    fronts: list[_Fronts] = [(None, None)] * len(rows)
    for (i, *_), pair in zip(compared, zip(smaller, faster, strict=True), strict=True):
        fronts[i] = pair
    return fronts


def _number(value: float | None) -> float:
    return math.nan if value is None else value

"""The leaderboard: a row for each configuration that was tried, ranked, against the baseline; its CSV."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_exp.base.errors import DataError
from lenet_exp.base.records import RunKey
from lenet_exp.config.hyperparameters import HYPERPARAMETERS
from lenet_exp.results.aggregate import over_seeds, pareto_front
from lenet_exp.results.evaluation import NOT_CONFIRMED, ConfirmationSummary
from lenet_exp.results.table import Table, read_csv
from lenet_exp.study.records import TrialRecord

if TYPE_CHECKING:
    import pandas as pd

#: What a confirmation found out of one configuration, by column.
_Cells = Mapping[str, Any]

#: The columns, in order; those of the confirmation are empty until there is one.
COLUMNS = (
    *("rank", "role", "trial", "name", "config", "state", "n_seeds"),
    *("val_accuracy", "val_accuracy_sem", "val_delta", "test_accuracy", "test_accuracy_sem"),
    *("delta", "delta_low", "delta_high", "p_value", "verdict"),
    *("examples_per_s", "train_s", "n_parameters", "macs", "epochs"),
    *HYPERPARAMETERS,
    *("variant", "fresh_val_accuracy", "permutation_p", "mcnemar_p", "seeds_to_settle"),
    *("pareto_parameters", "pareto_speed", "mlflow_run_id"),
)
_PARETO = ("pareto_parameters", "pareto_speed")

_Baseline = tuple[float | None, str | None]


def ranked(
    records: Iterable[TrialRecord],
    run_ids: Mapping[RunKey, str],
    confirmation: ConfirmationSummary = NOT_CONFIRMED,
) -> Table:
    """Return the ranked table of what was tried.

    Args:
        records: Attempts that ended; those that were tried again are left out.
        run_ids: MLflow's id of each attempt's run, as far as known.
        confirmation: Columns that a confirmation fills, by configuration.

    Returns:
        A table of `COLUMNS`. Confirmed rows come first, by ``test_accuracy``, then the other completed
        ones, by ``val_accuracy``; equal ones share a rank, and the ranks they use up are skipped. Rows
        without a result have no rank.
    """
    shown = over_seeds(r for r in records if not r.superseded and r.key.role != "confirm")
    baseline = _baseline(shown)
    rows = [
        _row(record, baseline, run_ids.get(record.key), confirmation.cells.get(record.config))
        for record in shown
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
    number = -1 if record.key.role == "baseline" else record.key.trial
    order = (not complete, not confirmed, -value if value is not None else math.inf, number)
    smallness, speed = -_number(cells["n_parameters"]), _number(cells["examples_per_s"])
    return _Row(cells, order, (confirmed, value) if complete else None, smallness, speed)


def _cells(
    record: TrialRecord, baseline: _Baseline, run_id: str | None, cells: _Cells | None
) -> dict[str, Any]:
    complete = record.state == "COMPLETE"
    is_baseline = record.key.role == "baseline"
    value = record.value if complete else record.history.get(record.epochs)
    reference, code = baseline
    val_delta = value - reference if complete and value is not None and reference is not None else None
    own_code = _code(record)
    result = record.result
    found = dict.fromkeys(COLUMNS)
    return found | {
        "role": record.key.role,
        "trial": record.key.trial if record.key.role == "trial" else None,
        "name": record.name,
        "config": record.config,
        "state": record.state,
        "n_seeds": result.get("n_seeds", 1) if complete else None,
        "val_accuracy": value,
        "val_accuracy_sem": result.get("val_accuracy_sem"),
        "test_accuracy": result.get("test_accuracy") if complete else None,
        "val_delta": result.get("val_delta", val_delta),
        "verdict": "not confirmed" if complete and not is_baseline else None,
        **{name: result.get(name) for name in ("examples_per_s", "train_s", "n_parameters", "macs")},
        "epochs": record.epochs,
        **record.values,
        # Trained by other code than the baseline, so that its delta may be the code's.
        "variant": own_code if code and own_code != code else None,
        **(cells or {} if complete else {}),
        "mlflow_run_id": run_id,
    }


def read_leaderboard(path: str | Path) -> pd.DataFrame:
    """Return a ``leaderboard.csv`` as a frame: counts are ``Int64`` also where cells are empty.

    A file of a version before November 2026 is read as today's: there ``delta`` was about the validation
    images in rows that were not confirmed, and listed runs had a number instead of a ``name``.

    Args:
        path: The file, as a sweep or ``lenet-exp leaderboard --csv`` wrote it.

    Raises:
        DataError: If there is no such file, or it is no leaderboard.
    """
    rows = read_csv(Path(path))
    if rows is None or not {"rank", "role", "config", "val_accuracy"} <= set(rows.columns):
        raise DataError(f"{path} is no leaderboard; export one with: lenet-exp leaderboard --csv FILE")
    if "val_delta" not in rows.columns:
        rows = Table(COLUMNS, [dict.fromkeys(COLUMNS) | row for row in _of_before(rows.rows)])
    return rows.frame()


def _of_before(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of the CSV before November 2026 with their two kinds of ``delta`` apart."""
    is_read = any(row["verdict"] in ("better", "worse", "tie") for row in rows)
    baseline = next((row["val_accuracy"] for row in rows if row["role"] == "baseline"), None)
    separated = []
    for row in rows:
        confirmed = is_read and row["test_accuracy"] is not None and row["verdict"] != "not confirmed"
        own = row["val_accuracy"]
        known = confirmed and own is not None and baseline is not None
        val_delta = own - baseline if known else None if confirmed else row["delta"]
        separated.append(
            {
                **row,
                "trial": row["trial"] if row["role"] == "trial" else None,
                "delta": row["delta"] if confirmed else None,
                "val_delta": val_delta,
            }
        )
    return separated


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

"""The leaderboard: every configuration that was tried, ranked and compared with the baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_exp.base.errors import DataError
from lenet_exp.base.records import RunKey
from lenet_exp.config.hyperparameters import HYPERPARAMETERS
from lenet_exp.results.aggregate import configurations, is_compared, on_front
from lenet_exp.results.conclusion import NOT_CONFIRMED, ConfirmationSummary
from lenet_exp.results.table import Table, read_csv
from lenet_exp.study.records import TrialRecord

if TYPE_CHECKING:
    import pandas as pd

#: The cells that a confirmation adds to a configuration's row, by column.
_Cells = Mapping[str, Any]

#: What each column is but those of the hyper-parameters, in order; experiments/README.md says the same. Those
#: of the confirmation are empty until there is one.
MEANINGS = {
    "rank": "1 is the best; equal rows share one",
    "role": "trial, baseline, run or ablation",
    "trial": "number of the trial",
    "name": "of a listed run, or the factor and value of an alternative",
    "config": "name of the configuration",
    "state": "COMPLETE, PRUNED or FAIL",
    "n_seeds": "seeds behind the accuracies: of the confirmation if confirmed, else of the training",
    "val_accuracy": "after the last epoch, in the search; mean over seeds of a listed run",
    "val_accuracy_sem": "standard error of that mean",
    "val_delta": "val_accuracy less the baseline's, on the seeds that both have",
    "test_accuracy": "mean over the confirmation's seeds; of a list with test_split, that of the run",
    "test_accuracy_sem": "standard error of that mean",
    "delta": "test_accuracy less the baseline's, on the same seeds; 0 for the baseline",
    **dict.fromkeys(
        ("delta_low", "delta_high"), "joint interval of delta, for other seeds on these test images"
    ),
    "p_value": "of the test that decides",
    "verdict": "better, worse, tie or not confirmed",
    "examples_per_s": "training images a second in the last epoch; if confirmed, timed again alone",
    "train_s": "seconds of all training passes, evaluation left out",
    "n_parameters": "weights and biases",
    "macs": "multiply-adds for one image, forward",
    "epochs": "epochs that were trained",
    "variant": "other code than the baseline's trained this row: version and hash",
    "fresh_val_accuracy": "mean val_accuracy on the confirmation's seeds",
    "level": "level at which the verdict was reached",
    **dict.fromkeys(
        ("delta_low_other_images", "delta_high_other_images"), "the same for other images like these as well"
    ),
    **dict.fromkeys(("permutation_p", "mcnemar_p"), "two other tests, which decide nothing"),
    **dict.fromkeys(
        ("seeds_to_settle_low", "seeds_to_settle_high"), "seeds that find a difference of confirm.margin"
    ),
    **dict.fromkeys(
        ("pareto_parameters", "pareto_speed"), "no row is at least as accurate and smaller, or faster"
    ),
    "mlflow_run_id": "the run in MLflow",
}
_NAMES = tuple(MEANINGS)
_AT = _NAMES.index("variant")
#: The leaderboard's columns, in order.
COLUMNS = (*_NAMES[:_AT], *HYPERPARAMETERS, *_NAMES[_AT:])
_PARETO = ("pareto_parameters", "pareto_speed")

#: The baseline's val_accuracy and the version of the code that trained it; None if unknown.
_Baseline = tuple[float | None, str | None]


def ranked(
    records: Iterable[TrialRecord],
    run_ids: Mapping[RunKey, str],
    confirmation: ConfirmationSummary = NOT_CONFIRMED,
) -> Table:
    """Return the leaderboard: all configurations, ranked by accuracy and compared with the baseline.

    Args:
        records: Records of the attempts that have ended. A failed attempt that was tried again gets no row,
            and neither does a training of a confirmation.
        run_ids: MLflow run id by attempt; an attempt that is not in MLflow may be missing.
        confirmation: Results of the last confirmation; they replace cells of the complete rows.

    Returns:
        A table of `COLUMNS`: a row for each trial, and one for each other configuration, averaged over its
        seeds. Confirmed rows come first, by ``test_accuracy``, then the other complete rows, by
        ``val_accuracy``. Rows of equal accuracy share a rank, and the ranks they use up are skipped. Rows
        that are not complete have no rank.
    """
    shown = configurations(records)
    baseline = _baseline(shown)
    rows = [
        _row(record, baseline, run_ids.get(record.key), confirmation.cells.get(record.config), fronts)
        for record, fronts in zip(shown, _fronts(shown), strict=True)
    ]
    rows.sort(key=attrgetter("order"))
    # A list need not be confirmed, and an ablation never is.
    awaited = {"trial", "run"} if confirmation.cells else {"trial"}
    return Table(
        COLUMNS,
        [
            {
                **row.cells,
                "rank": rank,
                "verdict": row.cells["verdict"]
                or ("not confirmed" if row.score and row.cells["role"] in awaited else None),
            }
            for row, rank in zip(rows, _ranks(rows), strict=True)
        ],
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the table, with the values that place it among the others.

    Attributes:
        cells: Values by column, without those that depend on other rows.
        order: Sort key: confirmed rows first, then other complete rows, then the rest; each by accuracy.
        score: True if the row is confirmed, with the accuracy that ranks it; None for a row that is not
            complete.
    """

    cells: Mapping[str, Any]
    order: tuple[bool, bool, float, int]
    score: tuple[bool, float | None] | None


def _baseline(records: Sequence[TrialRecord]) -> _Baseline:
    """Return the baseline's val_accuracy and the version of the code that trained it."""
    for record in reversed(records):
        if record.key.role == "baseline" and record.value is not None:
            return record.value, _code(record)
    return None, None


def _code(record: TrialRecord) -> str | None:
    """Return the version of the code that trained an attempt, as in ``0.1.0+3fa9c2d1b07e``, or None."""
    version, code = record.result.get("lenet_exp"), record.result.get("code")
    return f"{version}+{code}" if version and code else None


def _row(
    record: TrialRecord,
    baseline: _Baseline,
    run_id: str | None,
    confirmed_cells: _Cells | None,
    fronts: _Cells,
) -> _Row:
    cells = _cells(record, baseline, run_id, confirmed_cells) | dict(fronts)
    complete = record.state == "COMPLETE"
    # Only a confirmation's test_accuracy counts: a listed run may have one that [watch] measured.
    confirmed = complete and confirmed_cells is not None and confirmed_cells["test_accuracy"] is not None
    value = cells["test_accuracy"] if confirmed else cells["val_accuracy"]
    number = -1 if record.key.role == "baseline" else record.trial
    order = (not complete, not confirmed, -value if value is not None else math.inf, number)
    return _Row(cells, order, (confirmed, value) if complete else None)


def _fronts(records: Sequence[TrialRecord]) -> Iterator[_Cells]:
    """Yield the cells that say whether a row is on the Pareto fronts; None for a row that is not compared."""
    flags = [on_front(records, name, sign) for name, sign in (("n_parameters", -1), ("examples_per_s", 1))]
    for record, *is_on in zip(records, *flags, strict=True):
        yield dict(zip(_PARETO, is_on if is_compared(record) else [None, None], strict=True))


def _cells(
    record: TrialRecord, baseline: _Baseline, run_id: str | None, confirmed_cells: _Cells | None
) -> dict[str, Any]:
    complete = record.state == "COMPLETE"
    value = record.value if complete else record.history.get(record.epochs)
    baseline_value, baseline_code = baseline
    val_delta = None
    if complete and value is not None and baseline_value is not None:
        val_delta = value - baseline_value
    code = _code(record)
    result = record.result
    empty: dict[str, Any] = dict.fromkeys(COLUMNS)
    return empty | {
        "role": record.key.role,
        "trial": record.trial if record.key.role == "trial" else None,
        "name": record.name,
        "config": record.config,
        "state": record.state,
        "n_seeds": result.get("n_seeds", 1) if complete else None,
        "val_accuracy": value,
        "val_accuracy_sem": result.get("val_accuracy_sem"),
        "test_accuracy": result.get("test_accuracy") if complete else None,
        "val_delta": result.get("val_delta", val_delta),
        **{name: result.get(name) for name in ("examples_per_s", "train_s", "n_parameters", "macs")},
        "epochs": record.epochs,
        **record.values,
        # Where other code trained the baseline, the difference between the two may be the code's.
        "variant": code if baseline_code and code != baseline_code else None,
        **(confirmed_cells or {} if complete else {}),
        "mlflow_run_id": run_id,
    }


def read_leaderboard(path: str | Path) -> pd.DataFrame:
    """Read a ``leaderboard.csv`` into a pandas frame; counts are ``Int64``, even in columns with empty cells.

    A file written before November 2026 is converted to today's columns: ``delta`` of its unconfirmed rows was
    measured on validation images, and its listed runs had a number instead of a ``name``.

    Args:
        path: A file that a sweep or ``lenet-exp leaderboard --csv`` wrote.

    Raises:
        DataError: If there is no such file, or it is not a leaderboard.
    """
    table = read_csv(Path(path)) if isinstance(path, str | Path) else None
    if table is None or not {"rank", "role", "config", "val_accuracy"} <= set(table.columns):
        raise DataError(
            f"{path} is missing or not a leaderboard; to export one, run 'lenet-exp leaderboard --csv FILE'"
        )
    if "val_delta" not in table.columns:
        table = Table(COLUMNS, [dict.fromkeys(COLUMNS) | row for row in _from_old_columns(table.rows)])
    return table.frame()


def _from_old_columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a CSV written before November 2026, with ``val_delta`` split off from ``delta``."""
    has_evaluation = any(row["verdict"] in ("better", "worse", "tie") for row in rows)
    baseline = next((row["val_accuracy"] for row in rows if row["role"] == "baseline"), None)
    converted = []
    for row in rows:
        confirmed = has_evaluation and row["test_accuracy"] is not None and row["verdict"] != "not confirmed"
        val_accuracy = row["val_accuracy"]
        val_delta = None if confirmed else row["delta"]
        if confirmed and val_accuracy is not None and baseline is not None:
            val_delta = val_accuracy - baseline
        converted.append(
            {
                **row,
                "trial": row["trial"] if row["role"] == "trial" else None,
                "delta": row["delta"] if confirmed else None,
                "val_delta": val_delta,
            }
        )
    return converted


def _ranks(rows: Sequence[_Row]) -> list[int | None]:
    """Return the rank of each of the sorted rows; a row that is not complete gets None."""
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

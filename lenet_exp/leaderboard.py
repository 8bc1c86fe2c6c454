"""The leaderboard: one row for each configuration that was tried, ranked, against the baseline."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from lenet_exp.config import HYPERPARAMETERS
from lenet_exp.errors import NoResultError
from lenet_exp.record import RunKey, TrialRecord

#: The columns, in order; those of the confirmation are empty until there is one.
COLUMNS = (
    "rank",
    "role",
    "trial",
    "config",
    "state",
    "n_seeds",
    "val_accuracy",
    "val_accuracy_sem",
    "test_accuracy",
    "test_accuracy_sem",
    "delta",
    "delta_low",
    "delta_high",
    "p_value",
    "verdict",
    "examples_per_s",
    "train_s",
    "n_parameters",
    "macs",
    "epochs",
    *HYPERPARAMETERS,
    "mlflow_run_id",
)

#: What a spreadsheet would take for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

_WHOLE = {
    "rank",
    "trial",
    "n_seeds",
    "n_parameters",
    "macs",
    "epochs",
    "batch_size",
    "conv_layers",
    "fc_layers",
}
_WHOLE |= {key for key in HYPERPARAMETERS if key[:-2] in ("kernel_size", "padding", "channels", "fc_width")}


def leaderboard(records: Sequence[TrialRecord], run_ids: Mapping[RunKey, str]) -> pd.DataFrame:
    """Return the ranked table of what was tried.

    Args:
        records: Attempts that ended; those that were tried again are left out.
        run_ids: MLflow's id of each attempt's run, as far as known.

    Returns:
        A frame of `COLUMNS`. Completed rows come first, by ``val_accuracy``; equal ones share a rank, and
        the ranks they use up are skipped. Rows without a result have no rank.
    """
    shown = [record for record in records if not record.superseded and record.key.role != "confirm"]
    baseline = next((r.value for r in shown if r.key.role == "baseline" and r.value is not None), None)
    rows = [_row(record, baseline, run_ids) for record in shown]
    rows.sort(key=_order)
    _rank(rows)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(_WHOLE, "Int64"))


def _row(record: TrialRecord, baseline: float | None, run_ids: Mapping[RunKey, str]) -> dict[str, Any]:
    complete = record.state == "COMPLETE"
    is_baseline = record.key.role == "baseline"
    value = record.value if complete else record.history.get(record.epochs)
    delta = value - baseline if complete and value is not None and baseline is not None else None
    return {
        "role": record.key.role,
        "trial": None if is_baseline else record.key.trial,
        "config": record.identity,
        "state": record.state,
        "n_seeds": 1 if complete else None,
        "val_accuracy": value,
        "delta": delta,
        "verdict": "not confirmed" if complete and not is_baseline else None,
        **{name: record.result.get(name) for name in ("examples_per_s", "train_s", "n_parameters", "macs")},
        "epochs": record.epochs,
        **record.values,
        "mlflow_run_id": run_ids.get(record.key),
    }


def _order(row: Mapping[str, Any]) -> tuple[bool, float, int]:
    value = row["val_accuracy"]
    trial = row["trial"]
    return (
        row["state"] != "COMPLETE",
        -value if value is not None else math.inf,
        -1 if trial is None else trial,
    )


def _rank(rows: Sequence[dict[str, Any]]) -> None:
    """Number the completed rows, which come first, in place."""
    for position, row in enumerate(rows, start=1):
        if row["state"] != "COMPLETE":
            break
        above = rows[position - 2] if position > 1 else None
        tied = above is not None and above["val_accuracy"] == row["val_accuracy"]
        row["rank"] = above["rank"] if above is not None and tied else position


def to_csv(frame: pd.DataFrame) -> str:
    """Return the frame as CSV, in which no text cell can be taken for a formula.

    Example:
        >>> print(to_csv(pd.DataFrame({"label": ["=1+1"], "delta": [-0.5]})), end="")
        label,delta
        '=1+1,-0.5
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(frame.columns)
    for row in frame.itertuples(index=False):
        writer.writerow([_cell(value) for value in row])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def best(frame: pd.DataFrame) -> pd.Series[Any]:
    """Return the first row of the table.

    Raises:
        NoResultError: If nothing was completed.
    """
    if frame.empty or frame["rank"].isna().iloc[0]:
        raise NoResultError("no finished trial; run the sweep first, or give it more trials")
    return frame.iloc[0]


def render(frame: pd.DataFrame, style: Literal["csv", "markdown", "json"]) -> str:
    """Return the frame as text in ``style``; the JSON is a list of rows."""
    if style == "csv":
        return to_csv(frame)
    if style == "json":
        return str(frame.to_json(orient="records", indent=2)) + "\n"
    header = "| " + " | ".join(frame.columns) + " |\n|" + "---|" * len(frame.columns) + "\n"
    lines = (
        "| " + " | ".join(_shown(value) for value in row) + " |\n" for row in frame.itertuples(index=False)
    )
    return header + "".join(lines)


def _shown(value: Any) -> str:
    cell = _cell(value)
    text = f"{cell:.5g}" if isinstance(cell, float) else str(cell)
    return text.replace("|", "\\|")

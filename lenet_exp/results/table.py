"""A table of plain values, and its forms: CSV, Markdown, JSON, a pandas frame."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lenet_exp.config.hyperparameters import HYPERPARAMETERS

if TYPE_CHECKING:
    import pandas as pd

#: First characters that make a spreadsheet take a cell for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

#: Columns of integers and of measurements; pandas cannot infer their types if cells are empty.
_WHOLE = {
    *(
        "rank",
        "trial",
        "n_seeds",
        "seeds_to_settle_low",
        "seeds_to_settle_high",
        "n_parameters",
        "macs",
        "epochs",
    ),
    *("batch_size", "conv_layers", "fc_layers"),
    *(key for key in HYPERPARAMETERS if key[:-2] in ("kernel_size", "padding", "channels", "fc_width")),
}
_MEASURED = {
    *("val_accuracy", "val_accuracy_sem", "val_delta", "val_delta_low", "val_delta_high", "val_p_value"),
    *("test_accuracy", "test_accuracy_sem", "delta", "delta_low", "delta_high", "p_value"),
    *(
        "level",
        "delta_low_other_images",
        "delta_high_other_images",
        "permutation_p",
        "mcnemar_p",
        "fresh_val_accuracy",
        "examples_per_s",
        "examples_per_s_ratio",
    ),
    *("train_s", "lr", "momentum", "weight_decay"),
}
_TYPES = {
    **dict.fromkeys(_WHOLE, "Int64"),
    **dict.fromkeys(_MEASURED, "float64"),
    **dict.fromkeys(("pareto_parameters", "pareto_speed"), "boolean"),
}


class Table(NamedTuple):
    """Rows of plain values, so that pandas is loaded only for those who ask for a frame.

    Attributes:
        columns: Names of the columns, in order.
        rows: Values of each row by column; None for an unknown value.
    """

    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]

    def frame(self) -> pd.DataFrame:
        """Return the rows as a pandas frame; counts are ``Int64``, Pareto fronts ``boolean``."""
        # Loading pandas takes 0.5 s (experiments/LOG.md, Speed: what a sweep costs beside its arithmetic).
        import pandas as pd

        frame = pd.DataFrame(self.rows, columns=list(self.columns))
        return frame.astype({column: _TYPES[column] for column in self.columns if column in _TYPES})

    def plain_rows(self) -> list[dict[str, Any]]:
        """Return the rows with None in place of NaN and infinities, which JSON does not have."""
        return [{column: finite(row[column]) for column in self.columns} for row in self.rows]


def finite(value: Any) -> Any:
    """Return the value, or None if it is a NaN or an infinity, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_csv(table: Table) -> str:
    """Return a table as CSV; text that a spreadsheet would take for a formula gets a leading ``'``.

    Example:
        >>> print(to_csv(Table(["label", "delta"], [{"label": "=1+1", "delta": -0.5}])), end="")
        label,delta
        '=1+1,-0.5
    """
    return "".join(
        _csv_line(values)
        for values in (table.columns, *([row[column] for column in table.columns] for row in table.rows))
    )


def read_csv(path: Path) -> Table | None:
    """Read a table that `to_csv` wrote; return None if the file is missing or is not such a table."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            columns, *lines = csv.reader(file)
            rows = [dict(zip(columns, map(_value, columns, line), strict=True)) for line in lines]
    except (OSError, ValueError):  # a ValueError: not UTF-8, too few cells, or text in place of a number
        return None
    return Table(columns, rows)


def _value(column: str, cell: str) -> Any:
    """Return the value of a CSV cell that `_cell` wrote."""
    kind = _TYPES.get(column)
    if not cell:
        return None
    if kind == "boolean":
        return cell == "True"
    if kind:
        return int(cell) if kind == "Int64" else float(cell)
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def _csv_line(values: Iterable[Any]) -> str:
    out = io.StringIO()
    # Only with the default line ending does the writer also quote a cell with a "\r".
    csv.writer(out).writerow([_cell(value) for value in values])
    return out.getvalue().removesuffix("\r\n") + "\n"


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def render(table: Table, style: Literal["csv", "markdown", "json"]) -> str:
    """Return a table as CSV, Markdown or JSON.

    Args:
        table: Table to format.
        style: Format of the text; ``json`` gives a list with an object per row.
    """
    if style == "csv":
        return to_csv(table)
    if style == "json":
        return json.dumps(table.plain_rows(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    header = "| " + " | ".join(table.columns) + " |\n|" + "---|" * len(table.columns) + "\n"
    lines = (
        "| " + " | ".join(_shown(row[column]) for column in table.columns) + " |\n" for row in table.rows
    )
    return header + "".join(lines)


def _shown(value: Any) -> str:
    cell = _cell(value)
    text = f"{cell:.5g}" if isinstance(cell, float) else str(cell)
    return text.replace("|", "\\|")

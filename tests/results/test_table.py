import csv
import io
import json
import math

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from lenet_exp.results.table import Table, render, to_csv

#: Two rows, the second with what is not known.
TABLE = Table(
    ("rank", "label", "delta", "pareto_speed"),
    [
        {"rank": 1, "label": "a|b", "delta": 0.1234567, "pareto_speed": True},
        {"rank": None, "label": "c", "delta": math.nan, "pareto_speed": None},
    ],
)


@given(st.text(max_size=20))
def test_no_text_becomes_a_formula(text: str) -> None:
    """A cell never begins with what a spreadsheet would compute, and the text can be had back."""
    written = to_csv(Table(["a", "b"], [{"a": f"{text}.", "b": 1}]))

    cell = next(csv.reader(io.StringIO(written.partition("\n")[2])))[0]
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell.removeprefix("'").replace("\r\n", "\n") == f"{text}.".removeprefix("'").replace("\r\n", "\n")


@given(st.floats(-1, 1))
def test_numbers_stay_numbers(number: float) -> None:
    """A negative number is no formula, and no digit is lost."""
    read = pd.read_csv(io.StringIO(to_csv(Table(["a"], [{"a": number}]))))

    assert read.loc[0, "a"] == number


def test_a_table_is_rendered_for_people_and_for_programs() -> None:
    """Markdown has a line per row, JSON an object per row; what is not known is empty, or null."""
    assert render(TABLE, "markdown").splitlines()[2:] == ["| 1 | a\\|b | 0.12346 | True |", "|  | c |  |  |"]
    rows = json.loads(render(TABLE, "json"))
    assert rows[0] == TABLE.rows[0]
    assert rows[1] == {"rank": None, "label": "c", "delta": None, "pareto_speed": None}
    assert render(TABLE, "csv") == to_csv(TABLE)


def test_a_frame_has_counts_and_truth_values_though_some_are_not_known() -> None:
    """They are neither turned into decimal numbers nor into objects."""
    frame = TABLE.frame()

    assert frame.dtypes[["rank", "pareto_speed"]].astype(str).tolist() == ["Int64", "boolean"]
    assert frame["rank"].isna().tolist() == [False, True]

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lenet_exp.base.errors import DataError
from lenet_exp.base.records import RunKey, State
from lenet_exp.config.hyperparameters import PRESETS, configuration
from lenet_exp.results.conclusion import ConfirmationSummary
from lenet_exp.results.leaderboard import COLUMNS, ranked, read_leaderboard
from lenet_exp.results.table import to_csv
from lenet_exp.study.records import TrialRecord

BASELINE = configuration(PRESETS["lenet"])


def record(number: int, value: float | None, state: State = "COMPLETE", role: str = "trial") -> TrialRecord:
    return TrialRecord(
        key=RunKey(role, number, 1),
        state=state,
        label=f"{role} {number}",
        configuration=BASELINE,
        seed=1,
        history={1: 0.1, 2: value} if value is not None else {},
        result={"examples_per_s": 1000.0, "train_s": 2.0, "n_parameters": 61_706, "macs": 416_520},
        value=value if state == "COMPLETE" else None,
    )


def leaderboard(*given: Any) -> pd.DataFrame:
    return ranked(*given).frame()


def test_configurations_that_tie_share_a_rank_and_the_ranks_they_use_up_are_skipped() -> None:
    """0.9, 0.9, 0.8 are ranked 1, 1, 3."""
    table = leaderboard([record(0, 0.8), record(1, 0.9), record(2, 0.9)], {})

    assert table["rank"].tolist() == [1, 1, 3]
    assert table["trial"].tolist() == [1, 2, 0]


def test_delta_is_against_the_baseline_which_is_ranked_among_the_others() -> None:
    """The baseline is a row like any other, and its own delta is 0."""
    table = leaderboard([record(0, 0.875, role="baseline"), record(0, 0.75), record(1, 0.9375)], {})

    assert table["role"].tolist() == ["trial", "baseline", "trial"]
    assert table["val_delta"].tolist() == [0.0625, 0.0, -0.125]


def test_seeds_of_one_configuration_are_one_row() -> None:
    """With their number, mean and standard error, and so in the file; trials stay as they are drawn."""
    runs = [replace(record(n, value, role="run"), seed=n) for n, value in enumerate([0.75, 0.5, 0.25])]
    records = [*runs, record(0, 0.9), record(1, 0.9)]

    table = leaderboard(records, {})

    assert table["n_seeds"].tolist() == [1, 1, 3]
    row = table.iloc[2]
    assert (row["role"], row["val_accuracy"]) == ("run", 0.5)
    assert row["val_accuracy_sem"] == pytest.approx(0.25 / 3**0.5)


def test_rows_without_a_result_come_last_and_have_no_rank() -> None:
    """A pruned trial shows the accuracy it had, at the epochs it had, and is not compared."""
    table = leaderboard([record(0, 0.99, "PRUNED"), record(1, 0.5), record(2, None, "FAIL")], {})

    assert table["state"].tolist() == ["COMPLETE", "PRUNED", "FAIL"]
    assert table["rank"].isna().tolist() == [False, True, True]
    assert table["val_accuracy"].isna().tolist() == [False, False, True]
    assert table[["val_delta", "delta"]].isna().all().all()


def test_an_attempt_that_was_tried_again_is_shown_once() -> None:
    """The row is the retry's."""
    failed = replace(record(0, None, "FAIL"), result={"retried": True})

    assert leaderboard([failed, record(1, 0.5)], {})["trial"].tolist() == [1]


def test_the_csv_has_the_columns_of_the_design_and_pandas_reads_it_back(tmp_path: Path) -> None:
    """Numbers are numbers again, whole ones stay whole, and what is not known is empty."""
    named = replace(record(1, 0.8, role="run"), label="=NA(), seed 1")
    table = ranked([record(0, 0.875, role="baseline"), record(7, 0.9), named], {RunKey("trial", 7, 1): "abc"})
    (tmp_path / "leaderboard.csv").write_text(to_csv(table))

    plain = pd.read_csv(tmp_path / "leaderboard.csv", dtype_backend="numpy_nullable")
    read = read_leaderboard(tmp_path / "leaderboard.csv")

    assert tuple(plain.columns) == COLUMNS
    assert plain["test_accuracy"].isna().all()
    assert list(read["name"])[2] == "=NA()"
    pd.testing.assert_frame_equal(read, table.frame())
    for frame in (plain, read):
        assert list(frame.loc[0, ["trial", "val_accuracy", "mlflow_run_id"]]) == [7, 0.9, "abc"]
        counts = frame[["rank", "trial", "epochs", "channels_1"]]
        assert [str(dtype) for dtype in counts.dtypes] == ["Int64"] * 4


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "rank,role,config,val_accuracy\n1\n", "\udcff"])
def test_what_is_no_leaderboard_is_refused(tmp_path: Path, content: str) -> None:
    """One line, and how to get one."""
    file = tmp_path / "other.csv"
    with pytest.raises(DataError, match=r"other\.csv is missing or not a leaderboard; to export one, run"):
        read_leaderboard(file)
    file.write_text(content, errors="surrogateescape")
    with pytest.raises(DataError, match=r"other\.csv is missing or not a leaderboard; to export one, run"):
        read_leaderboard(str(file))


def test_a_row_that_other_code_trained_says_so() -> None:
    """The version is shown where it is not the baseline's, and where the baseline's is known."""

    def trained_by(code: str | None, number: int, role: str = "trial") -> TrialRecord:
        made = record(number, 0.5, role=role)
        return replace(made, result={**made.result, "lenet_exp": "1", "code": code})

    records = [trained_by("a", 0, "baseline"), trained_by("a", 0), trained_by("b", 1)]

    table = leaderboard(records, {}).set_index(["role", "trial"])
    assert table["variant"].dropna().to_dict() == {("trial", 1): "1+b"}
    assert leaderboard(records[1:], {})["variant"].isna().all()


def test_without_trials_there_is_a_header() -> None:
    """A sweep of no trials is valid."""
    assert to_csv(ranked([], {})) == ",".join(COLUMNS) + "\n"


def found(accuracy: float, verdict: str | None = None, **cells: Any) -> dict[str, Any]:
    """Return what a confirmation found out of a configuration."""
    return {"n_seeds": 3, "test_accuracy": accuracy, "verdict": verdict, **cells}


def confirmed() -> tuple[list[TrialRecord], ConfirmationSummary]:
    """Return a baseline and four trials, of which the two best were confirmed and one of them held."""
    tried = [record(0, 0.75, role="baseline")]
    for number, value in enumerate([0.9, 0.95, 0.85, 0.85]):
        changed = BASELINE.model_copy(update={"lr": 0.1 + number})
        tried.append(replace(record(number, value), configuration=changed))
    cells = {
        BASELINE.id: found(0.8, delta=0.0, examples_per_s=3000.0),
        tried[1].config: found(
            0.875, "better", delta=0.075, delta_low=0.05, delta_high=0.1, examples_per_s=2000.0
        ),
        tried[2].config: found(0.7, "tie", delta=-0.1, seeds_to_settle=20, examples_per_s=2500.0),
    }
    return tried, ConfirmationSummary(cells)


def test_confirmed_rows_come_first_by_what_was_confirmed() -> None:
    """The winner of the search comes last of them, below the baseline; the others follow as before."""
    table = leaderboard(confirmed()[0], {}, confirmed()[1])

    assert table["trial"].astype(object).where(table["trial"].notna(), None).tolist() == [0, None, 1, 2, 3]
    assert table["rank"].tolist() == [1, 2, 3, 4, 4]
    assert table["verdict"].tolist()[2:] == ["tie", "not confirmed", "not confirmed"]
    assert table["val_accuracy"].tolist() == [0.9, 0.75, 0.95, 0.85, 0.85]
    assert table["n_seeds"].tolist() == [3, 3, 3, 1, 1]
    assert table["delta"].tolist()[:3] == [0.075, 0.0, -0.1]
    assert table["delta"].isna().tolist() == [False, False, False, True, True]
    assert table["val_delta"].tolist() == pytest.approx([0.15, 0.0, 0.2, 0.1, 0.1])


def test_the_pareto_fronts_are_among_rows_that_were_measured_alike() -> None:
    """All complete ones, by their accuracy and speed in the search, whatever a confirmation measured."""
    tried, confirmation = confirmed()
    before = leaderboard(tried, {}).set_index("config")
    after = leaderboard(tried, {}, confirmation).set_index("config")

    assert before["pareto_speed"].tolist() == [True, False, False, False, False]
    for column in ("pareto_speed", "pareto_parameters"):
        assert after[column].to_dict() == before[column].to_dict()

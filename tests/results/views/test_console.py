import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from lenet_exp.base.errors import ConfigError
from lenet_exp.base.records import RunKey, State
from lenet_exp.config.hyperparameters import PRESETS, Configuration, configuration, overlay
from lenet_exp.config.loader import parse
from lenet_exp.results.ablation import COLUMNS as ABLATION
from lenet_exp.results.leaderboard import ranked
from lenet_exp.results.table import Table
from lenet_exp.results.views import console
from lenet_exp.results.views.console import print_ablation, print_leaderboard, print_shapes
from lenet_exp.study.records import TrialRecord
from tests.results.test_leaderboard import confirmed

LENET = configuration(PRESETS["lenet"])
SMALL = configuration(
    overlay(
        PRESETS["lenet"],
        {
            "conv_layers": 1,
            "fc_layers": 1,
            "pooling": "avg",
            "activation": "tanh",
            "optimizer": "sgd",
            "lr": 0.12345,
        },
    )
)


def record(
    number: int,
    value: float,
    *,
    role: str = "trial",
    state: State = "COMPLETE",
    configuration: Configuration = LENET,
) -> TrialRecord:
    return TrialRecord(
        key=RunKey(role, number, 1),
        state=state,
        label=f"{role} {number}",
        configuration=configuration,
        seed=1,
        history={1: value},
        result={"examples_per_s": 12_345.6, "n_parameters": 61_706},
        value=value if state == "COMPLETE" else None,
    )


def table(*records: TrialRecord) -> Table:
    return ranked(records, {})


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that makes the output a terminal of some width."""

    def of_width(width: int) -> None:
        monkeypatch.setattr(
            console, "console", lambda: Console(force_terminal=True, color_system=None, width=width)
        )

    return of_width


def rows(printed: str) -> list[list[str]]:
    """Return the words of each row of the table."""
    lines = printed.splitlines()
    rule = next(number for number, line in enumerate(lines) if "──" in line)
    body = itertools.takewhile(lambda line: line and not line.startswith("baseline:"), lines[rule + 1 :])
    return [line.split() for line in body]


def labels(printed: str) -> list[str]:
    return [
        "baseline" if "baseline" in row[:2] else " ".join(row[row.index("trial") :][:2])
        for row in rows(printed)
    ]


def test_numbers_are_shown_with_their_signs_and_thousands(capsys: pytest.CaptureFixture[str]) -> None:
    """Accuracies have four digits, differences a sign, counts separators; names are headings."""
    print_leaderboard(table(record(0, 0.5, role="baseline"), record(0, 0.25)))

    printed = capsys.readouterr().out
    _, trial = rows(printed)
    assert trial == ["2", "trial", "0", "0.2500", "-0.2500", "12,346", "61,706", "nothing"]
    assert [word in printed for word in ("val_accuracy", "delta", "examples_per_s")] == [True] * 3


def test_the_baseline_is_shown_wherever_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    """The first rows are followed by the baseline, and by how to see those that are left out."""
    frame = table(record(0, 0.125, role="baseline"), record(0, 0.5), record(1, 0.25), record(2, 0.75))

    print_leaderboard(frame, top=2, command="lenet-exp leaderboard mine")
    printed = capsys.readouterr().out
    assert labels(printed) == ["trial 2", "trial 0", "baseline"]
    assert "\n1 more: 'lenet-exp leaderboard mine'" in printed

    print_leaderboard(frame, top=None)
    assert labels(capsys.readouterr().out) == ["trial 2", "trial 0", "trial 1", "baseline"]


def test_a_row_without_a_result_shows_what_became_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    """It has its state where others have their verdict, and no rank."""
    failed = replace(record(1, 0.5, state="FAIL"), history={}, result={})

    print_leaderboard(table(record(0, 0.5, state="PRUNED"), failed))

    pruned, failure, *_ = rows(capsys.readouterr().out)
    assert pruned[:6] == ["trial", "0", "0.5000", "12,346", "61,706", "PRUNED"]
    assert failure[:3] == ["trial", "1", "FAIL"]


def test_an_empty_leaderboard_is_a_table_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was trained yet, which is no error."""
    print_leaderboard(table())

    assert rows(capsys.readouterr().out) == []


def test_two_configurations_that_differ_in_anything_look_different(
    capsys: pytest.CaptureFixture[str], terminal: Callable[[int], None]
) -> None:
    """Each row says what differs from the baseline, whose own values stand below the table once."""
    terminal(80)
    mse, classic = (
        configuration(overlay(PRESETS["lenet"], {"loss": "mse", "lr": lr})) for lr in (0.009, 0.5)
    )

    print_leaderboard(
        table(
            record(0, 0.5, role="baseline"),
            record(0, 0.25, configuration=mse),
            record(1, 0.125, configuration=classic),
        )
    )

    printed = capsys.readouterr().out
    baseline, *others = (" ".join(row) for row in rows(printed))
    assert baseline.endswith(" 61,706")
    assert [row.partition(" 61,706 ")[2] for row in others] == ["mse", "lr 0.5 mse"]
    assert "\nbaseline: max k5-5 p2-0 c6-16 relu fc120-84 xavier_uniform adam lr 0.009" in printed


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_table_is_wider_than_the_terminal(
    capsys: pytest.CaptureFixture[str], terminal: Callable[[int], None], width: int
) -> None:
    """Columns are left out, then texts are broken, and nothing that tells rows apart is lost."""
    terminal(width)
    wide = configuration(overlay(PRESETS["lenet"], {"conv_layers": 3, "channels": 512, "fc_width": 4096}))
    named = replace(record(2, 0.25, role="run", configuration=wide), label="日本語の名前" * 5)
    alternative = {"factor": "pooling", "value": "avg", "val_delta_low": -0.5, "val_delta_high": 0.25}

    print_leaderboard(table(record(0, 0.5, role="baseline"), record(1, 0.25, configuration=SMALL), named))
    board = capsys.readouterr().out
    print_ablation(Table(ABLATION, [dict.fromkeys(ABLATION) | alternative | {"val_accuracy": 0.75}]))
    print_shapes(parse({"name": "e"}))
    others = capsys.readouterr().out

    shown = [line for line in (board + others).splitlines() if "lenet-exp leaderboard" not in line]
    assert max(map(cell_len, shown)) <= width
    # A number stays beside its name, whatever is broken.
    for word in ("k5-5-3", "c512-512-512", "fc4096-4096", "lr 0.123"):
        assert word in board
    if width == 80:
        assert sum("avg k5 same" in line and "0.2500" in line for line in board.splitlines()) == 1


def test_what_is_not_shown_on_a_terminal_is_not_broken_into_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """In a file or a pipe every row is one line, however long its configuration."""
    wide = configuration(overlay(PRESETS["lenet"], {"conv_layers": 3, "channels": 512, "fc_width": 4096}))

    print_leaderboard(table(record(0, 0.5, configuration=wide)))

    assert "k5-5-3 p2-0-1 c512-512-512 relu fc4096-4096 xavier_uniform adam lr 0.009 cross_entropy" in (
        capsys.readouterr().out
    )


def test_shapes_are_shown_of_the_baseline_and_of_every_listed_run(capsys: pytest.CaptureFixture[str]) -> None:
    """A table each, under the run's own name as it was written, at the size of the images."""
    experiment = parse(
        {
            "name": "e",
            "data": {"resize": 32},
            "run": [{"name": "[bold]small", "conv_layers": 1}, {"fc_layers": 1}],
        }
    )

    print_shapes(experiment)

    printed = capsys.readouterr().out
    titles = [line.strip() for line in printed.splitlines() if "input" in line]
    totals = [line.split()[1] for line in printed.splitlines() if line.strip().startswith("total")]
    assert titles == [f"{name}, input 1x32x32" for name in ("baseline", "[bold]small", "run 2")]
    assert len(set(totals)) == 3
    assert "Conv2d 5x5, padding 2       6x32x32" in printed


def test_a_listed_run_without_a_network_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """The layer that does not fit is said."""
    experiment = parse({"name": "e", "run": [{"name": "tall", "kernel_size": 15, "padding": 0}]})

    with pytest.raises(ConfigError, match=r"^tall: no network can be built from this configuration: .*15"):
        print_shapes(experiment)


def test_a_confirmed_table_shows_verdict_spread_and_interval_where_there_is_room(
    capsys: pytest.CaptureFixture[str], terminal: Callable[[int], None]
) -> None:
    """A wide table has all, a narrow one no broken numbers; below it stands what was found out."""
    tried, confirmation = confirmed()
    cells = {config: {**one, "test_accuracy_sem": 0.0125} for config, one in confirmation.cells.items()}
    frame = ranked(tried, {}, replace(confirmation, cells=cells))

    print_leaderboard(frame, sentences=["trial 0: better: \x1b[31mby [much]"])
    wide = capsys.readouterr().out
    terminal(80)
    print_leaderboard(frame)
    narrow = capsys.readouterr().out

    first = next(line for line in wide.splitlines() if "trial 0" in line)
    for part in ("0.8750", "0.0125", "+0.0750", "[+0.0500, +0.1000]", "better", "2,000"):
        assert part in first
    assert "trial 0: better: \\x1b[31mby [much]\n" in wide
    shown = next(line for line in narrow.splitlines() if "trial 0" in line)
    assert shown.split()[3:8] == ["0.9000", "0.8750", "+0.0750", "61,706", "better"]

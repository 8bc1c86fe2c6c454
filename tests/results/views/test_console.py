from dataclasses import replace

import pytest
from rich.console import Console

from lenet_exp.base.errors import ConfigError
from lenet_exp.base.records import RunKey, State
from lenet_exp.config.hyperparameters import PRESETS, Configuration, configuration, overlay
from lenet_exp.config.loader import parse
from lenet_exp.results.leaderboard import ranked
from lenet_exp.results.table import Table
from lenet_exp.results.views import console
from lenet_exp.results.views.console import describe, print_leaderboard, print_shapes
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


def rows(printed: str) -> list[list[str]]:
    """Return the words of each row below the table's head."""
    return [line.split() for line in printed.splitlines()[4:] if line.strip()]


def labels(printed: str) -> list[str]:
    return ["baseline" if row[1] == "baseline" else " ".join(row[1:3]) for row in rows(printed)]


def test_a_configuration_is_described_in_a_few_words() -> None:
    """The hyper-parameters that tell configurations apart, those of a layer joined by dashes."""
    described = [
        describe(row) for row in ranked([record(0, 0.5), record(1, 0.25, configuration=SMALL)], {}).rows
    ]

    assert described == [
        "max relu kernel 5-5 channels 6-16 fc 120-84 adam lr 0.009",
        "avg tanh kernel 5 channels 6 fc none sgd lr 0.123",
    ]


def test_numbers_are_shown_with_their_signs_and_thousands(capsys: pytest.CaptureFixture[str]) -> None:
    """Accuracies have four digits, differences a sign, counts separators; names are headings."""
    print_leaderboard(table(record(0, 0.5, role="baseline"), record(0, 0.25)))

    printed = capsys.readouterr().out
    _, trial = rows(printed)
    assert trial[:9] == ["2", "trial", "0", "0.2500", "-0.2500", "12,346", "61,706", "not", "confirmed"]
    assert [word in printed for word in ("val_accuracy", "delta", "examples_per_s", "verdict")] == [True] * 4


def test_the_baseline_is_shown_wherever_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    """The first rows are followed by the baseline, unless it is one of them."""
    frame = table(record(0, 0.125, role="baseline"), record(0, 0.5), record(1, 0.25), record(2, 0.75))

    print_leaderboard(frame, top=2)
    assert labels(capsys.readouterr().out) == ["trial 2", "trial 0", "baseline"]

    print_leaderboard(frame, top=None)
    assert labels(capsys.readouterr().out) == ["trial 2", "trial 0", "trial 1", "baseline"]


def test_a_row_without_a_result_shows_what_became_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    """It has its state where others have their verdict, and no rank."""
    failed = replace(record(1, 0.5, state="FAIL"), history={}, result={})

    print_leaderboard(table(record(0, 0.5, state="PRUNED"), failed))

    pruned, failure = rows(capsys.readouterr().out)
    assert pruned[:6] == ["trial", "0", "0.5000", "12,346", "61,706", "PRUNED"]
    assert failure[:3] == ["trial", "1", "FAIL"]


def test_an_empty_leaderboard_is_a_table_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was trained yet, which is no error."""
    print_leaderboard(table())

    assert rows(capsys.readouterr().out) == []


def test_what_is_not_shown_on_a_terminal_is_not_broken_into_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """In a file or a pipe every row is one line, however long its configuration."""
    wide = configuration(overlay(PRESETS["lenet"], {"conv_layers": 3, "channels": 512, "fc_width": 4096}))

    print_leaderboard(table(record(0, 0.5, configuration=wide)))

    assert "kernel 5-5-3 channels 512-512-512 fc 4096-4096 adam lr 0.009" in capsys.readouterr().out


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
    assert "Conv2d 5x5, padding 2        6x32x32" in printed


def test_a_listed_run_without_a_network_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """The layer that does not fit is said."""
    experiment = parse({"name": "e", "run": [{"name": "tall", "kernel_size": 15, "padding": 0}]})

    with pytest.raises(ConfigError, match=r"^tall: no network can be built from this configuration: .*15"):
        print_shapes(experiment)


def test_a_confirmed_table_shows_verdict_spread_and_interval_where_there_is_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wide table has all, a narrow one no broken numbers; below it stands what was found out."""
    tried, confirmation = confirmed()
    cells = {config: {**one, "test_accuracy_sem": 0.0125} for config, one in confirmation.cells.items()}
    frame = ranked(tried, {}, replace(confirmation, cells=cells))

    print_leaderboard(frame, sentences=["trial 0: better: \x1b[31mby [much]"])
    wide = capsys.readouterr().out
    monkeypatch.setattr(console, "console", lambda: Console(width=80))
    print_leaderboard(frame)
    narrow = capsys.readouterr().out

    first = next(line for line in wide.splitlines() if "trial 0" in line)
    for part in ("0.8750 ± 0.0125", "+0.0750 [+0.0500, +0.1000]", "better", "2,000"):
        assert part in first
    assert "trial 0: better: \\x1b[31mby [much]\n" in wide
    shown = next(line for line in narrow.splitlines() if "trial 0" in line)
    assert shown.split()[:7] == ["1", "trial", "0", "0.9000", "0.8750", "+0.0750", "better"]

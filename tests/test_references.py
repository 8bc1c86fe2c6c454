"""What the documents say of keys, columns, codes and numbers, compared with the code that knows them."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from lenet_exp.base import errors
from lenet_exp.base.records import METRICS
from lenet_exp.cli.bench import TRIAL_S
from lenet_exp.cli.peak import training_flops
from lenet_exp.config.experiment import FIRST_SEEDS
from lenet_exp.config.hyperparameters import HYPERPARAMETERS, PRESETS, configuration
from lenet_exp.config.loader import MAX_FILE_BYTES
from lenet_exp.config.space import MAX_GRID
from lenet_exp.execution import checkpoint, executor, resources, signals
from lenet_exp.results import ablation, leaderboard
from lenet_exp.results.verdicts import seeds, statistics
from lenet_exp.results.verdicts.statistics import reading_level
from lenet_exp.results.views.curves import curves_table
from lenet_exp.study import postgres, sampling, study
from lenet_exp.sweep import agenda, driver, run
from lenet_exp.tracking import audit
from lenet_exp.training import diagnostics, trainer
from lenet_exp.training.usage import Usage
from tests.labs.documents import (
    BENCHMARKS,
    EXPERIMENTS,
    OPERATIONS,
    README,
    STATISTICS,
    TESTS,
    code_spans,
    prose,
    rows,
    section,
    sessions,
    title,
)
from tests.labs.places import PROJECT
from tests.labs.reference import Key, sections


def names(cells: list[str]) -> list[str]:
    """Return what stands between backticks in cells."""
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def flat(document: Path) -> str:
    """Return a document's text without its line ends."""
    return " ".join(prose(document).split())


# Keys and columns.


@pytest.mark.parametrize("keys", sections().values(), ids=sections())
def test_the_reference_of_keys_is_that_of_the_models(keys: list[Key]) -> None:
    """Each section has a table with the keys, in order, their types, bounds and defaults."""
    tables = [
        table
        for table in re.split(r"\n(?!\|)", prose(EXPERIMENTS))
        if "| key | values | default | meaning |" in table
    ]

    assert len(tables) == len(sections())
    said = [[Key(row[0].strip("`"), *row[1:3]) for row in rows(table)] for table in tables]
    assert keys in said
    assert all(len(row) == 4 for table in tables for row in rows(table))


def test_the_classic_network_is_as_told() -> None:
    """It differs from today's in four values."""
    changed = {name: value for name, value in PRESETS["classic"].items() if value != PRESETS["lenet"][name]}

    assert changed == {"pooling": "avg", "activation": "sigmoid", "optimizer": "sgd", "lr": 0.9}
    assert "sigmoid, average pooling, SGD with `lr` 0.9" in flat(EXPERIMENTS)


def test_every_column_of_the_leaderboard_is_explained() -> None:
    """In its order; the hyper-parameters in one line, with their number."""
    table = rows(section(EXPERIMENTS, "leaderboard.csv"))
    columns = [name for name in leaderboard.COLUMNS if name not in HYPERPARAMETERS]
    at = next(number for number, row in enumerate(table) if row[0] == "the hyper-parameters")

    assert names([row[0] for row in table]) == columns
    assert columns[len(names([row[0] for row in table[:at]]))] == leaderboard.COLUMNS[-12] == "variant"
    assert (
        f"{len(HYPERPARAMETERS)} columns from `{HYPERPARAMETERS[0]}` to `{HYPERPARAMETERS[-1]}`"
        in table[at][1]
    )
    assert all(len(row) == 3 and all(row) for row in table)


def test_a_column_has_one_explanation() -> None:
    """The page explains a column of the leaderboard in the words of the reference."""
    table = [row for row in rows(section(EXPERIMENTS, "leaderboard.csv")) if row[0] != "the hyper-parameters"]
    told = {
        name: re.sub(r"\[(.*?)\]\(.*?\)|`", r"\1", text)
        for row in table
        for name, text in [(n, row[1]) for n in names([row[0]])]
    }

    assert told == leaderboard.MEANINGS


def test_every_column_of_an_ablation_is_explained() -> None:
    """Each of them once."""
    table = rows(section(EXPERIMENTS, "ablation.csv"))

    assert sorted(names([row[0] for row in table])) == sorted(ablation.COLUMNS)


def test_every_column_of_the_curves_is_explained() -> None:
    """Those that every list has, and those that have to be asked for."""
    explained = names([row[0] for row in rows(section(EXPERIMENTS, "curves.csv"))])
    watched = [
        "test_loss",
        "test_accuracy",
        *(f"{name}_conv1" for name in ("grad_norm", "dead_share", "saturated_share")),
        *Usage(1, torch.device("cpu")).measure(),
        "system/gpu_0_memory_usage_megabytes",
        "system/gpu_0_utilization_percentage",
    ]

    assert sorted(explained) == sorted([*curves_table([]).columns, *watched])


def test_every_metric_and_tag_in_mlflow_is_named() -> None:
    """What the code writes is what a user can look for."""
    text = section(EXPERIMENTS, "MLflow")
    explained = set(names([row[0] for row in rows(text)]))
    explained = {name if name.startswith("lenet_exp") else f"lenet_exp{name}" for name in explained}
    code = "".join(path.read_text() for path in (PROJECT / "lenet_exp").rglob("*.py"))
    written = set(
        re.findall(
            r'"(lenet_exp\.(?:role|trial|of|attempt|state|reason|config|[a-z_]+_runners|train_on|division_seed'
            r'|duplicate_of|not_finite|model_problem|study|key))"',
            code,
        )
    )

    assert set(METRICS) <= set(names([text]))
    of_study = {f"lenet_exp.{name}" for name in ("test_readings", "version", "sweep", "experiment")}
    assert explained == written | of_study
    assert audit.STATUS == {
        "RUNNING": "RUNNING",
        "COMPLETE": "FINISHED",
        "PRUNED": "KILLED",
        "FAIL": "FAILED",
    }


# Exit codes, sessions, markers.


def test_every_exit_code_is_in_both_tables() -> None:
    """A script can rely on what is written."""
    kinds = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.LenetExpError)]
    codes = {e.exit_code for e in kinds} | {0, 130, 143}
    cells = [cell for row in rows(section(README, "Exit codes")) for cell in row[::2]]
    short = [int(code) for cell in cells for code in cell.split(", ")]
    long = [int(row[0]) for row in rows(section(OPERATIONS, "Exit codes"))]

    assert sorted(short) == sorted(codes)
    assert long == sorted(codes)


def test_every_session_and_marker_is_explained() -> None:
    """And none that is not there."""
    text = prose(TESTS)
    table = rows(section(TESTS, "Running them"))
    markers = {row[0].strip("`"): row[1] for row in rows(section(TESTS, "Markers"))}
    written = (PROJECT / "pyproject.toml").read_text()

    assert {row[0].strip("`") for row in table} == sessions()
    assert all(f'"{name}: {meaning}"' in written for name, meaning in markers.items())
    assert len(markers) == len(re.findall(r'^    "\w+: ', written, re.MULTILINE))
    for span in code_spans(TESTS):
        if re.fullmatch(r"(labs|fixtures|crash|benchmarks)/|\w+\.py", span):
            assert (PROJECT / "tests" / span).exists(), span
    assert "`nox -s proofs` runs them" in text


# Numbers.


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (
            EXPERIMENTS,
            f"learns from the {sampling._GOOD} best and the latest {sampling._SHOWN - sampling._GOOD} trials",
        ),
        (EXPERIMENTS, f"takes every point once, {MAX_GRID:,} at most"),
        (OPERATIONS, f"After {driver.MAX_INFEASIBLE} of them in a row the sweep ends"),
        (EXPERIMENTS, f"where the slope is below {diagnostics.FLAT:.0%} of its largest".replace("%", " %")),
        (EXPERIMENTS, f"Diagnostics look at {trainer.DIAGNOSED:,} training images"),
        (EXPERIMENTS, f"no tie, or more than {seeds.MOST_SEEDS}"),
        (STATISTICS, f"`seeds_to_settle_high` (up to {seeds.MOST_SEEDS})"),
        (STATISTICS, f"of at least {seeds.POWER} with the larger"),
        (STATISTICS, f'`seeds = "auto"` {"eight" if FIRST_SEEDS == 8 else FIRST_SEEDS} seeds are trained'),
        (STATISTICS, f"at least {seeds.FEWEST_SEEDS} and at most `max_seeds`"),
        (STATISTICS, f"({reading_level(0.05, 1):g}), the second a tenth ({reading_level(0.05, 2):g})"),
        (STATISTICS, f"Up to {statistics.EXACT_SIGNS} seeds every sign is tried"),
        (STATISTICS, f"beyond that {statistics.SIGN_DRAWS:,} are drawn"),
        (STATISTICS, f"with a chance of {0.9**5:.2f}"),
        (README, f"shows none with a chance of {0.9**5:.2f}"),
        (STATISTICS, f"is {2.0**-4:.4f} at five seeds and {2.0**-5:.3f} at six"),
        (BENCHMARKS, f"over {'ten' if TRIAL_S == 10 else TRIAL_S} seconds"),
        (OPERATIONS, f"longer than {signals.EPOCH_PATIENCE_S:g} s is dropped"),
        (OPERATIONS, f"SIGTERM, {executor.GRACE_S:g} s later SIGKILL"),
        (OPERATIONS, f"less than {resources.MIN_FREE_BYTES / 1e6:g} MB are free"),
        (OPERATIONS, f"{'three' if study.MAX_ATTEMPTS == 3 else study.MAX_ATTEMPTS} attempts in all"),
        (OPERATIONS, f"| attempts at one training | {study.MAX_ATTEMPTS} |"),
        (OPERATIONS, f"{'five' if agenda.MAX_SAME_FAILURES == 5 else '?'} attempts in a row fail alike"),
        (
            OPERATIONS,
            f"{'fifty' if driver.MAX_INFEASIBLE == 50 else '?'} configurations in a row have no network",
        ),
        (OPERATIONS, f"gone for {'two' if run.LOST_AFTER_S == 120 else '?'} minutes (7)"),
        (OPERATIONS, f"waits for up to {'ten' if postgres.PATIENCE_S == 600 else '?'} minutes"),
        (OPERATIONS, f"of its last {'two' if checkpoint._KEPT == 2 else '?'} epochs, with a checksum"),
        (OPERATIONS, f"on accelerators {'four' if resources.PER_ACCELERATOR == 4 else '?'} for each"),
        (OPERATIONS, f"{resources.WORKER_BYTES / 1e9:g} GB for each |"),
        (OPERATIONS, f"| an experiment file | {MAX_FILE_BYTES / 1e6:g} MB |"),
    ],
    ids=lambda value: title(value) if isinstance(value, Path) else None,
)
def test_a_number_is_that_of_the_code(document: Path, sentence: str) -> None:
    """Whoever changes the one is told of the other."""
    assert sentence in flat(document)


def test_the_readme_s_chances_are_those_of_the_simulations() -> None:
    """The largest rate of false *better* in any cell, and the power of five seeds with three finalists."""
    equal = rows(section(STATISTICS, "Where nothing differs"))
    power = rows(section(STATISTICS, "Where finalists are better"))
    rates = [float(rate) for row in equal for cell in row[2:] for rate in cell.partition("(")[0].split()]
    normal = next(row for row in power[1:] if row[1] == "3")  # below "normal", which the first row has
    _, half, one, two = [0, *normal[4].split()]

    assert f"at most {1000 * max(rates):.0f} of 1,000 simulated sweeps" in flat(README)
    assert f"with a chance of 0{two}, of one with 0{one}" in flat(README)
    assert float(str(half)) < float(one) < float(two)


def test_the_ratios_of_the_benchmarks_follow_from_their_numbers() -> None:
    """Of speed, of the peak, and of the time that others take."""
    table = {row[0]: row[1:] for row in rows(section(BENCHMARKS, "Numbers"))}

    def numbers(name: str) -> list[float]:
        return [float(re.sub(r",| \(.*", "", cell)) for cell in table[name]]

    usual, ours = numbers("`usual_examples_per_s`"), numbers("`examples_per_s`, 2 workers of one thread")
    flops = training_flops(configuration(PRESETS["lenet"]))
    shares = [rate * flops / 1e9 / peak for rate, peak in zip(ours, numbers("`peak_gflops`"), strict=True)]
    assert numbers("`speedup`") == [round(o / u, 1) for o, u in zip(ours, usual, strict=True)]
    assert numbers("`share_of_peak`") == [round(share, 2) for share in shares]
    seconds = numbers("lenet_exp, 2 workers")
    for other in list(table)[-3:-1]:
        said = [float(re.findall(r"\((.*)\)", cell)[0]) for cell in table[other]]
        reached = [o / s for o, s in zip(numbers(other), seconds, strict=True)]
        assert said == pytest.approx(reached, abs=0.051), other


def test_the_readme_s_speed_is_that_of_the_benchmarks() -> None:
    """Number by number, for the two machines that it shows."""
    table = {row[0]: row[1:] for row in rows(section(BENCHMARKS, "Numbers"))}
    shown = [row[1:] for row in rows(section(README, "Speed"))]
    wanted = ("usual_examples_per_s", "`examples_per_s`", "lenet_exp, 2 workers", "Optuna, ", "Ray Tune, ")

    for cells, name in zip(shown, wanted, strict=True):
        full = next(value for key, value in table.items() if name in key)
        assert cells == [cell.partition(" ")[0] for cell in full[:2]], name


def test_the_readme_s_answer_is_that_of_the_experiment() -> None:
    """Its numbers are in the comment at the top of the default experiment."""
    comment = (PROJECT / "experiments" / "fashion_mnist.toml").read_text().partition("\nname")[0]
    answer = re.search(r"The champion of such a search,.*?\n\n", prose(README), re.DOTALL)
    assert answer

    found = re.findall(r"[+-]?0\.\d{4}", answer[0])
    assert len(found) == 7
    assert set(found) <= set(re.findall(r"[+-]?0\.\d{4}", comment))


def test_what_changed_is_named_as_it_is_now() -> None:
    """Every new name in the list of changes is one that the code writes."""
    code = "".join(path.read_text() for path in (PROJECT / "lenet_exp").rglob("*.py"))

    for row in rows(section(EXPERIMENTS, "Changes")):
        for name in names(row[2:]):
            assert re.search(rf"\b{name}\b", code) or name.removeprefix("val_") in code, name


def test_no_row_of_a_table_is_said_twice() -> None:
    """Each failure has one row, whatever was at work."""
    found = sorted(
        row[0]
        for heading in ("What happens during a sweep", "What happens at the start")
        for row in rows(section(OPERATIONS, heading))
    )

    assert all(first != second for first, second in pairwise(found))

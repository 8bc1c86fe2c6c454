"""MLflow's pages about a finished sweep, as a new user sees them: `lenet-exp ui`, and then clicks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.labs.browser_lab import free_port, opened, screenshot, watch
from tests.labs.places import MINI_FOLDER, PROJECT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# What MLflow's own scripts complain about, whatever a sweep wrote: files of its own server that it lacks.
_OF_MLFLOW = ("Failed to load resource", "ResizeObserver")

_EXPERIMENT = f"""\
name = "shown"
question = "Is it seen?"
[data]
dataset = "fashion-mnist-mini"
folder = "{MINI_FOLDER}"
validation = 200
limit = 300
[baseline]
channels = [3, 5]
fc_layers = 1
[training]
epochs = 2
batch_size = 64
[space]
pooling = ["avg", "max"]
lr = {{ low = 1e-3, high = 3e-2, log = true }}
[search]
trials = 3
pruner = "none"
[watch]
system_metrics = true
[confirm]
top = 1
seeds = 2
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[str]:
    """The address that `lenet-exp ui` prints for a sweep of three trials, whose best is confirmed."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "shown.toml").write_text(_EXPERIMENT)
    environment = {**os.environ, "LENET_EXP_DATA": str(folder / "data"), "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "lenet_exp"]
    subprocess.run(
        [*command, "sweep", "shown.toml", "--root", "runs"],
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    ui = subprocess.Popen(
        [*command, "ui", "--root", "runs", "--port", str(free_port())],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ui.stdout is not None
    try:
        yield ui.stdout.readline().partition(" at ")[2].split(" (")[0]
    finally:
        ui.send_signal(signal.SIGINT)
        ui.communicate(timeout=30)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in which MLflow's assistant stays shut; a test fails if a script does in it."""
    with opened(browser) as page:
        shut = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
        # A page among the artifacts is shown in a frame that may not store anything.
        page.add_init_script(f"try {{ {shut} }} catch {{}}")
        watched = watch(page)
        yield page
        assert [line for line in watched.errors if not any(known in line for known in _OF_MLFLOW)] == []


def open_study(page: Page, address: str) -> None:
    """Go from the table of runs to the study's own run."""
    page.goto(address)
    page.get_by_role("link", name=re.compile("^shown-")).first.click()
    page.get_by_role("heading", name=re.compile("^shown-")).wait_for()


def test_it_opens_on_curves(page: Page, address: str) -> None:
    """The first page has a curve of each run; validation comes first, and the speed last."""
    page.goto(address)

    page.locator(".js-plotly-plot .scatterlayer path.js-line").first.wait_for(state="attached")
    screenshot(page, "mlflow-charts")
    assert page.get_by_text("Is it seen?").count()
    cards = page.locator("[data-testid='experiment-view-compare-runs-card']")
    titles = cards.evaluate_all("cards => cards.map(card => card.innerText.trim().split('\\n')[0])")
    assert titles[:4] == ["val_accuracy", "val_loss", "train_loss", "train_accuracy"]


def test_a_click_shows_the_table(page: Page, address: str) -> None:
    """It has the runs, best first, with their deltas, and names that say what differs."""
    page.goto(address)
    page.locator("label:has(input[value=TABLE])").click()

    page.get_by_text("val_delta", exact=True).first.wait_for()
    names = page.locator(".ag-pinned-left-cols-container, .ag-center-cols-container").get_by_role("link")
    names.filter(has_text="trial").first.wait_for()
    screenshot(page, "mlflow-runs")
    shown = [name for name in names.all_inner_texts() if name.startswith("trial")]
    assert re.match(r"trial \d: .*lr \d", shown[0])
    columns = page.locator(".ag-header-cell[col-id*='.']").evaluate_all(
        "cells => cells.map(cell => [cell.getAttribute('col-id'), cell.getBoundingClientRect()])"
        ".sort((one, other) => one[1].x - other[1].x).map(([name, box]) => [name, box.width])"
    )
    assert [name for name, _ in columns[:3]] == [
        "attributes.`Run Name`",
        "metrics.`val_accuracy`",
        "metrics.`val_delta`",
    ]
    assert columns[0][1] > 300


def test_a_run_shows_what_it_took_of_the_machine(page: Page, address: str) -> None:
    """Asked for in the experiment file, that is on a tab of its own."""
    page.goto(address)
    page.get_by_role("link", name=re.compile(r"^trial \d: ")).first.click()
    page.get_by_role("tab", name="System metrics").click()

    page.get_by_text("cpu_utilization_percentage", exact=True).first.wait_for()
    page.get_by_text("memory_peak_megabytes", exact=True).first.wait_for()
    screenshot(page, "mlflow-system")


def test_the_study_has_its_verdict_its_children_and_its_page(page: Page, address: str) -> None:
    """The study's run says what was found and links its trainings; its page is shown among the artifacts."""
    open_study(page, address)
    page.get_by_text("champion:").first.wait_for()
    page.get_by_role("link", name=re.compile(r"^trial \d: ")).first.wait_for()
    assert page.get_by_text("lenet-exp sweep shown").count()
    screenshot(page, "mlflow-study")

    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("report.html").first.click()

    report = page.frame_locator("iframe").last
    report.get_by_text("Is it seen?").first.wait_for()
    # Figures are drawn once they are seen.
    report.locator("figure.chart").first.scroll_into_view_if_needed()
    report.locator(".js-plotly-plot svg").first.wait_for(state="attached")
    screenshot(page, "mlflow-page")


def test_three_runs_are_compared(page: Page, address: str) -> None:
    """Three runs side by side show what differs between them, and that alone if asked."""
    page.goto(address)
    page.get_by_role("link", name=re.compile("^trial")).first.wait_for()
    ids = page.get_by_role("link", name=re.compile(r"^trial \d: ")).evaluate_all(
        "links => links.map(link => link.href.split('/').pop())"
    )
    chosen = "[" + ",".join(f'"{each}"' for each in list(dict.fromkeys(ids))[:3]) + "]"

    page.goto(f'{address.split("#", maxsplit=1)[0]}#/compare-runs?runs={chosen}&experiments=["1"]')

    page.get_by_text("Comparing 3 Runs").wait_for()
    page.get_by_text("pooling").first.wait_for()
    screenshot(page, "mlflow-compare", full_page=True)


def test_the_champion_has_a_page(page: Page, address: str) -> None:
    """The registered model says how it was found, and which of its versions is the champion."""
    page.goto(f"{address.split('#', maxsplit=1)[0]}#/models/shown")

    page.get_by_text("champion").first.wait_for()
    page.get_by_text("Is it seen?").wait_for()
    screenshot(page, "mlflow-champion")

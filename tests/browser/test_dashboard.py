"""Optuna's dashboard on a copy of a study, as experiments/OPERATIONS.md tells how to open it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.labs.browser_lab import free_port, screenshot
from tests.labs.documents import copied_study
from tests.labs.swept import Swept

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_the_dashboard_says_what_a_trial_is(page: Page, swept_once: Swept, tmp_path: Path) -> None:
    """A trial's page in the dashboard has its label."""
    pytest.importorskip("optuna_dashboard", reason="Optuna's dashboard is not installed")
    storage, address = f"sqlite:///{copied_study(swept_once.root, tmp_path)}", f"127.0.0.1:{free_port()}"
    # The package's own command would have to be on the path.
    start = "import sys; from optuna_dashboard._cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, storage, "--port", address.partition(":")[2]]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as dashboard:
        try:
            for _ in range(300):
                try:
                    urlopen(f"http://{address}/").close()
                    break
                except URLError:
                    time.sleep(0.1)
            page.goto(f"http://{address}/dashboard/studies/1/trials")
            page.get_by_text("label").first.wait_for()
            assert page.get_by_text("trial 0").count()
            screenshot(page, "dashboard")
        finally:
            dashboard.terminate()

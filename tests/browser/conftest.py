"""A real browser, Debian's Chromium, for the tests of this folder: ``nox -s browser`` runs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.labs.browser_lab import chromium, launch, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, so that a name need not be remembered in each."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


# Playwright's drivers exclude each other, and a file may have one of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium; a test is skipped where it or Playwright is not installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if (program := chromium()) is None:
        pytest.skip("no Chromium is installed; Debian's package is 'chromium'")
    with sync_api.sync_playwright() as playwright:
        browser = launch(playwright, program)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page, 1400 pixels wide; `opened` gives one of another size, or in the dark."""
    with opened(browser) as page:
        yield page

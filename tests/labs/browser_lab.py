"""Looks at a page in a real browser: what it asks for, what fails in it, and what is drawn over what."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.labs.places import PROJECT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

#: Where pictures of the pages are kept; git ignores the folder.
SCREENSHOTS = PROJECT / "tests" / "browser" / "screenshots"

_BOXES = (PROJECT / "tests" / "labs" / "boxes.js").read_text()
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Return the path of the system's Chromium; None if there is none."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def launch(playwright: Playwright, program: str) -> Browser:
    """Start the system's Chromium without a window.

    Args:
        playwright: Playwright, which drives it; a browser of its own is never downloaded.
        program: Path of the browser.
    """
    # Chromium's sandbox refuses to work for root.
    is_root = os.name == "posix" and os.geteuid() == 0
    return playwright.chromium.launch(executable_path=program, chromium_sandbox=not is_root)


@contextmanager
def opened(
    browser: Browser, width: int = 1400, height: int = 900, *, is_dark: bool = False
) -> Iterator[Page]:
    """Context manager: yield an empty page with a memory of its own.

    Args:
        browser: Browser to open it in.
        width: Width of the page in pixels.
        height: Height of the window in pixels.
        is_dark: True for a reader who prefers a dark page.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if is_dark else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(30_000)
    try:
        yield context.new_page()
    finally:
        context.close()


@dataclass
class Watched:
    """What happens in a page from the call of `watch` on.

    Attributes:
        errors: Errors on the console, and exceptions that nothing caught, each in a line.
        requests: Addresses that the page asked for, in order; ``data:`` and ``blob:`` are left out.
    """

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def watch(page: Page) -> Watched:
    """Collect what fails in a page, and what it asks for, from now on."""
    watched = Watched()
    page.on("console", lambda line: watched.errors.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith(("data:", "blob:")) else watched.requests.append(request.url)
        ),
    )
    return watched


def overflows(page: Page, selector: str = "body *", slack: float = 1.0) -> list[str]:
    """Return the elements that stick out of the page's sides; parts that scroll by themselves may be wider.

    Args:
        page: Page to measure.
        selector: CSS selector of the elements to look at.
        slack: Pixels by which an element may stick out.
    """
    return list(page.evaluate(f"given => {_BOXES}.overflows(given)", {"selector": selector, "slack": slack}))


def overlaps(page: Page, selector: str = "body", slack: float = 2.0) -> list[str]:
    """Return the pairs of visible texts that are drawn over each other, as ``first | second``.

    Turned texts of a drawing (SVG) are measured as they lie.

    Args:
        page: Page to measure.
        selector: CSS selector of the elements whose texts are compared with each other, such as ``svg``.
        slack: Pixels that two boxes may share in each direction, as a line's box is higher than its letters.
    """
    return list(page.evaluate(f"given => {_BOXES}.overlaps(given)", {"selector": selector, "slack": slack}))


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def screenshot(page: Page, name: str, *, full_page: bool = False) -> Path:
    """Keep a picture of the page, and return its path.

    Args:
        page: Page to draw.
        name: Name of the picture without ``.png``; an older one of this name is replaced.
        full_page: True to draw the whole page, False to draw what the window shows.
    """
    SCREENSHOTS.mkdir(exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=full_page)
    return path

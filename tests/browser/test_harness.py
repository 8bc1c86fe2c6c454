"""What the other tests of this folder measure with: overlaps, overflow, errors and requests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.labs.browser_lab import overflows, overlaps, watch

if TYPE_CHECKING:
    from playwright.sync_api import Page

_FLAWED = """<!doctype html><body style="margin:0">
<p style="position:absolute;top:10px;left:10px;margin:0">below</p>
<p style="position:absolute;top:14px;left:14px;margin:0">above</p>
<p style="position:absolute;top:50px;left:10px;margin:0">alone</p>
<div style="overflow-x:auto;width:200px;margin-top:300px"><div style="width:3000px">scrolls</div></div>
<div class="wide" style="width:3000px">sticks out</div>
<svg width="400" height="100" style="position:absolute;top:100px;left:0">
  <text transform="translate(20 90) rotate(-45)">turned text</text>
  <text transform="translate(60 90) rotate(-45)">beside it</text></svg>
<script>console.error("complaint"); fetch("missing.json"); throw new Error("thrown")</script>"""


def test_what_is_wrong_with_a_page_is_told(page: Page, tmp_path: Path) -> None:
    """Texts over each other, what sticks out, what fails, and what is asked for is each told."""
    (tmp_path / "flawed.html").write_text(_FLAWED)
    watched = watch(page)

    with page.expect_request("**/missing.json"):
        page.goto((tmp_path / "flawed.html").as_uri())

    assert overlaps(page) == ["below | above"]
    assert overflows(page) == ["div.wide from 0 to 3000 of 1400 px"]
    assert "complaint" in watched.errors
    assert "thrown" in watched.errors
    assert [url.rpartition("/")[2] for url in watched.requests] == ["flawed.html", "missing.json"]

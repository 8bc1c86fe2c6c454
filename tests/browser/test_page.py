"""The page as a browser shows it: from disk, without a request, at two widths, in the dark and on paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lenet_exp.config import loader
from lenet_exp.results.lookup import read_results
from lenet_exp.results.views.page.report import write_report
from tests.labs import browser_lab
from tests.labs.browser_lab import overflows, overlaps, screenshot
from tests.labs.swept import Swept


@pytest.fixture(scope="module")
def address(swept_once: Swept) -> str:
    """The page of a finished sweep, as a file."""
    results = read_results(loader.load(swept_once.file), swept_once.root)
    return write_report(results, swept_once.root).absolute().as_uri()


@pytest.fixture
def opened(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page in a window of the given size and colours; no script may fail, and nothing be requested."""
    width, scheme = getattr(request, "param", (1400, "light"))
    with browser_lab.opened(browser, width, is_dark=scheme == "dark") as tab:
        watched = browser_lab.watch(tab)
        tab.goto(address)
        yield tab
        assert watched.errors == []
        assert watched.requests == [address]


def names(tab: Any) -> list[str]:
    return [
        text.split("\n")[0].strip()
        for text in tab.locator("table.rows tbody tr:visible .name").all_inner_texts()
    ]


@pytest.mark.parametrize(
    "opened", [(1400, "light"), (800, "dark"), (400, "light"), (400, "dark")], indirect=True
)
def test_the_page_is_as_wide_as_the_window(opened: Any) -> None:
    """Every figure is drawn, in view or not; nothing sticks out, and no text is drawn over another."""
    opened.locator(".plot:not(:has(.main-svg))").first.wait_for(state="detached")
    assert opened.locator(".undrawn").count() == 0

    assert opened.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    # plotly measures texts in an element of its own, far outside.
    assert overflows(opened, "header *, main *, footer *") == []
    assert overlaps(opened) == []
    is_dark = opened.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    screenshot(opened, f"page-{opened.viewport_size['width']}{'-dark' * is_dark}", full_page=True)


@pytest.mark.parametrize("opened", [(1000, "light"), (1000, "dark")], indirect=True)
def test_every_text_stands_out_from_its_ground(opened: Any) -> None:
    """Contrast is at least 4.5, as WCAG asks for."""
    assert opened.evaluate(CONTRAST) == []


def test_a_column_sorts_by_click_and_by_key(opened: Any) -> None:
    """The largest number first, then the smallest; what has no value stays last; the head says so."""
    head = opened.locator("th", has_text="val_accuracy").first
    column = opened.locator("th:visible").all_inner_texts().index(head.inner_text()) + 1

    def values() -> list[float]:
        return [float(text) for text in opened.locator(f"tbody td:nth-child({column})").all_inner_texts()]

    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert values() == sorted(values(), reverse=True)
    head.locator("button").press("Enter")

    assert head.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(values())


def test_a_text_and_a_state_filter_the_rows(opened: Any) -> None:
    """All that stands between commas has to be in a row; the page says how many rows are left."""
    opened.get_by_placeholder("a name").fill("trial 2")
    assert names(opened) == ["trial 2"]
    assert opened.locator("output").inner_text() == "1 of 4 rows"

    opened.get_by_placeholder("a name").fill("")
    opened.locator(".controls select").select_option(index=1)

    assert 0 < len(names(opened)) < 4


def test_a_column_is_explained_to_pointer_and_keyboard(opened: Any) -> None:
    """A head tells what its column is while it is pointed at or has the focus, until Escape."""
    button = opened.locator("th button", has_text="val_accuracy").first
    tip = opened.locator("#tip")
    assert tip.is_hidden()

    button.hover()
    assert tip.inner_text().startswith("after the last epoch")
    opened.mouse.move(0, 0)
    assert tip.is_hidden()
    button.focus()
    assert tip.is_visible()
    opened.keyboard.press("Escape")

    assert tip.is_hidden()


def test_a_row_unfolds_to_its_curve_and_a_command_to_copy(opened: Any) -> None:
    """And folds again; the command names no folder."""
    button = opened.locator(".name button", has_text="trial 2")

    button.click()

    unfolded = opened.locator("tr.unfold")
    assert unfolded.locator("svg path").count() == 2
    assert unfolded.locator("code").first.inner_text() == "lenet-exp replay 2 --experiment swept.toml"
    unfolded.locator("button", has_text="copy").first.click()
    opened.wait_for_function("document.querySelector('tr.unfold button').textContent === 'copied'")
    button.click()
    assert unfolded.count() == 0


@pytest.mark.parametrize("opened", [(400, "light")], indirect=True)
def test_names_stay_in_view_on_a_phone(opened: Any) -> None:
    """While the table is moved aside, each row still says which it is."""
    name = opened.locator(".name button", has_text="trial 2")
    name.scroll_into_view_if_needed()

    opened.evaluate("document.querySelector('.wide').scrollLeft = 300")

    assert opened.evaluate("document.querySelector('.wide').scrollLeft") > 100
    assert name.bounding_box()["x"] >= 0
    name.click()
    assert opened.locator("tr.unfold svg").is_visible()


def test_all_columns_are_shown_on_request(opened: Any) -> None:
    """The box works without a script too, as it is the style sheet's."""
    few = opened.locator("th:visible").count()

    opened.locator("input.columns").check()

    assert opened.locator("th:visible").count() > few + 10


def test_paper_has_all_figures_and_no_boxes_to_scroll(opened: Any, tmp_path: Path) -> None:
    """Before it is printed, all figures are drawn, explanations are open, and the page fits its sheet."""
    opened.pdf(path=str(tmp_path / "page.pdf"), prefer_css_page_size=True)

    assert opened.locator(".plot:not(:has(.main-svg))").count() == 0
    opened.set_viewport_size({"width": 695, "height": 900})
    opened.emulate_media(media="print")
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 695
    assert opened.locator(".meanings").is_visible()
    assert opened.locator(".controls").is_hidden()


def test_the_table_has_its_head_on_every_sheet(opened: Any, tmp_path: Path) -> None:
    """A reader of the second sheet still sees what the numbers are."""
    from pypdf import PdfReader  # is there where a browser is wanted

    opened.evaluate("""() => {
        document.querySelectorAll('section:not(#leaderboard)').forEach((section) => section.remove());
        const body = document.querySelector('table.rows').tBodies[0];
        for (let i = 0; i < 150; i++) body.append(body.rows[1].cloneNode(true));
    }""")

    opened.pdf(path=str(tmp_path / "page.pdf"), prefer_css_page_size=True)

    pages = PdfReader(tmp_path / "page.pdf").pages
    sheets = [page.extract_text(extraction_mode="layout") for page in pages]
    with_rows = [sheet for sheet in sheets if sheet.count("trial") > 10]
    assert len(with_rows) >= 3
    assert all(re.search(r"^ *rank +name", sheet, re.MULTILINE) for sheet in with_rows)


def test_without_scripts_texts_and_tables_are_there(browser: Any, address: str) -> None:
    """And the page says what is missing."""
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(address)

    assert len(names(tab)) == 4
    assert "the figures are not drawn" in tab.locator("noscript p").inner_text()
    assert tab.locator(".controls").is_hidden()
    context.close()


def test_a_part_that_fails_leaves_the_others(browser: Any, address: str) -> None:
    """Where figures cannot be drawn, the tables still sort."""
    context = browser.new_context()
    tab = context.new_page()
    tab.add_init_script("Object.defineProperty(window, 'IntersectionObserver', {value: undefined})")
    tab.goto(address)
    head = tab.locator("th", has_text="val_accuracy").first

    head.locator("button").click()

    assert head.get_attribute("aria-sort") == "descending"
    context.close()


#: Texts of the page outside of figures whose contrast to their ground is below 4.5, by the formula of WCAG 2.
CONTRAST = """() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (at) => {
    for (; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('body *:not(script, style, figure *, option)')]
    .filter((at) => [...at.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .filter((at) => at.getClientRects().length)
    .filter((at) => {
      const [a, b] = [light(rgb(getComputedStyle(at).color)), light(ground(at))];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
    })
    .map((at) => `${at.tagName}.${at.className}: ${at.textContent.slice(0, 40)}`);
}"""

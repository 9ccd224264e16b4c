"""The evaluation report in a real browser: nothing is asked for, tables sort, lists switch, the legend and the search work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from evaluation_sample import sample

from trading_core.plots.report import evaluation_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path(os.environ.get("CHROMIUM") or "/usr/bin/chromium")
DRAWN = "document.querySelectorAll('.chart:not(.js-plotly-plot)').length === 0"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"there is no browser at {CHROMIUM}; set CHROMIUM to the path of one")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_bytes(evaluation_report(sample(300)))
    return path


def opened(browser: Browser, report: Path, width: int, scheme: str) -> tuple[Page, list[str]]:
    """The page once all is drawn, and what it complained of or asked for beyond its own file."""
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda message: said.append(message.text))
    page.on(
        "request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    page.goto(report.as_uri())
    page.wait_for_function(DRAWN)
    return page, said


@pytest.mark.thorough
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_it_is_drawn_without_a_complaint_and_fits(browser: Browser, report: Path, width: int, scheme: str) -> None:
    page, said = opened(browser, report, width, scheme)
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.thorough
def test_heads_sort_by_what_is_shown(browser: Browser, report: Path) -> None:
    page, _ = opened(browser, report, 1280, "light")
    column = page.locator("#strategies tbody tr td:nth-of-type(2)")  # CAGR
    head = page.locator("#strategies thead tr:last-child th").nth(2)

    def shown() -> list[float]:
        return [float(text.replace("−", "-").rstrip("\u00a0%")) for text in column.all_inner_texts()]

    head.locator("button").press("Enter")  # by keyboard
    assert head.get_attribute("aria-sort") == "descending"
    assert shown() == sorted(shown(), reverse=True)
    head.locator("button").click()
    assert shown() == sorted(shown())
    random = page.locator("#significance thead tr:last-child th").nth(14)
    random.locator("button").click()
    last = page.locator("#significance tbody tr td:last-child").all_inner_texts()
    assert last[-3:] == ["–"] * 3  # what is not there stays last
    random.locator("button").click()
    assert page.locator("#significance tbody tr td:last-child").all_inner_texts()[-3:] == ["–"] * 3


@pytest.mark.thorough
def test_lists_and_the_legend_change_the_charts(browser: Browser, report: Path) -> None:
    page, said = opened(browser, report, 1280, "light")
    page.select_option("#pick-strategy", label="buy-and-hold")
    page.wait_for_function("document.getElementById('random').closest('figure').classList.contains('empty')")
    assert page.locator("#random").is_hidden()
    assert page.locator("[data-turn=strategy][data-entry='37']").first.is_visible()
    page.click("text=All of tft")
    visible = (
        "document.getElementById('drawdown').data.filter(trace => trace.visible === true).map(trace => trace.name)"
    )
    shown = page.evaluate(visible)
    assert len(shown) == 15
    assert all(name.endswith("· tft") for name in shown[:12])
    page.locator(".chips button", has_text="kelly").first.press("Space")
    assert len(page.evaluate(visible)) == 16
    assert said == []


@pytest.mark.thorough
def test_fills_are_searched_and_turned_over(browser: Browser, report: Path) -> None:
    page, _ = opened(browser, report, 1280, "light")
    fills = sample(300).blotter.fills[-2000:]
    said, rows = page.locator("[data-said]"), page.locator("#fills tbody tr")
    assert said.inner_text() == "1 to 25 of 2,000"
    page.click("text=Older")
    assert said.inner_text() == "26 to 50 of 2,000"
    page.fill("#fills input", "s411 SELL")
    wanted = [fill for fill in fills if fill.symbol == "S411" and fill.side == "sell"]
    assert said.inner_text().endswith(f"of {len(wanted)}")
    assert rows.first.locator("td").all_inner_texts()[:4] == [
        str(wanted[-1].session),
        wanted[-1].strategy,
        "S411",
        "sell",
    ]
    page.fill("#fills input", "nothing like it")
    assert said.inner_text() == "No fill matches."

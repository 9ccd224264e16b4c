"""The page of a trading session: small, self-contained, every text of the data escaped, right where little is known."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from session_sample import HOSTILE, bare, order, sample

from trading_core.plots import session_format
from trading_core.plots.session_page import session_page
from trading_core.plots.session_tables import history

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = Path(os.environ.get("CHROMIUM") or "/usr/bin/chromium")


def html_of(page: object) -> str:
    return session_page(page).decode()  # type: ignore[arg-type]


def text_of(html: str) -> str:
    """What is read: without scripts, styles and tags."""
    visible = re.sub(r"<(style|script)\b.*?</\1>", "", html, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", visible).replace("\u00a0", " "))


def test_everything_that_comes_from_data_is_escaped() -> None:
    html = html_of(sample())
    assert HOSTILE not in html
    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;alert") > 30
    assert len(re.findall(r"<script\b", html)) == 1  # the page's own


def test_it_asks_for_nothing_and_is_small() -> None:
    html = html_of(sample(400))
    assert "http:" not in html
    assert "https:" not in html
    assert re.findall(r'(?:src|href)="([^"#]+)"', html) == ["data:,"]
    assert len(html.encode()) < 300_000
    assert "281 more rows in the JSON file" in text_of(html)  # of the 401 orders, 120 are listed
    assert "prefers-color-scheme: dark" in html


def test_what_a_person_must_know_is_read() -> None:
    text = text_of(html_of(sample()))
    assert "needs a person" in text
    assert "Equity 10,100.00" in text
    assert "+100.00 (+1.00 %)" in text
    assert "All, against a free trade at the decision 6.00 (59.7 bps)" in text  # 2 + 3 + 1 of 1005
    assert "1 order without a reference price left out" in text
    assert "Rank IC so far 0.250 over 3 symbols" in text
    assert "Left the list" in text
    assert "Within the 90 % interval" not in text  # the horizon has not passed: it means nothing yet
    complete = replace(sample(), outcome=replace(sample().outcome, complete=True))  # type: ignore[type-var]
    assert "Within the 90 % interval 90 %" in text_of(html_of(complete))


def test_an_order_of_unknown_fate_stands_out() -> None:
    html = html_of(sample())
    assert len(re.findall('<tr class="alert">', html)) == 1
    assert "unknown" in html.split('<tr class="alert">')[1].split("</tr>")[0]


def test_where_nothing_is_known_it_says_so() -> None:
    text = text_of(html_of(bare()))
    for said in (
        "Nothing has been decided yet.",
        "No order was decided.",
        "Nothing was executed.",
        "This is the first session.",
        "Nothing was recorded",
        "There is no decision yet.",
        "Equity –",
    ):
        assert said in text
    assert "nan" not in text.lower()


def test_an_order_of_a_later_attempt_says_which() -> None:
    assert "attempt 2" in text_of(html_of(replace(sample(), orders=(order(attempt=2),))))


def test_the_history_tells_the_date_once() -> None:
    text = re.sub(r"<[^>]+>", "", history(order(status="expired").history))
    assert text.startswith("submitting 03-05 22:00:00 → expired 100 (")
    assert text.endswith(" 03-06 14:30:00")


def test_numbers_are_rounded_and_signed() -> None:
    f = session_format
    assert [f.money(v) for v in (1234.5, -0.004, -2.0, float("nan"))] == ["1,234.50", "0.00", "−2.00", "–"]
    assert [f.gain(v) for v in (3.0, -3.0, 0.0)] == ["+3.00", "−3.00", "0.00"]
    assert [f.bps(v) for v in (12.34, -0.04, float("nan"))] == ["+12.3", "0.0", "–"]
    assert [f.shares(v) for v in (1500.0, 0.12345, -2.5)] == ["1,500", "0.1235", "−2.5"]
    assert f.listed([str(n) for n in range(14)]).endswith("11 and 2 more")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"there is no browser at {CHROMIUM}; set CHROMIUM to the path of one")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.thorough
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_it_fits_sorts_and_complains_of_nothing(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    path = tmp_path / "session.html"
    path.write_bytes(session_page(sample(12)))
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda message: said.append(message.text))
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ranks = page.locator("#decision table.sortable tbody tr td:nth-of-type(2)")
    page.locator("#decision table.sortable thead th").nth(2).locator("button").click()
    assert ranks.all_inner_texts() == [str(n) for n in range(12, 0, -1)]
    assert said == []

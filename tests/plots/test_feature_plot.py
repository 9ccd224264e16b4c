"""The page of one symbol: it holds the bars and features it was given, in panels on one axis, and escapes every text."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from datetime import date, datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from trading_core.plots.feature_page import FeatureSeries, SymbolChart, closed_days, feature_page, figure_of

MONDAY = date(2024, 7, 1)
DAYS = [MONDAY + timedelta(days=i) for i in (0, 1, 2, 4, 7, 8)]  # Thursday, the 4th of July, is a holiday
EVIL = "<script>alert('x')</script>&\"</script>"


def series(name: str, values: list[float], **changes: Any) -> FeatureSeries:
    made = FeatureSeries(
        name, "trend", f"About {name}", "ratio", 14, f"formula of {name}", np.array(values, np.float32)
    )
    return dataclasses.replace(made, **changes)


def example(**changes: Any) -> SymbolChart:
    close = np.array([10.0, 11.0, 10.5, 12.0, 11.5, 13.0])
    made = SymbolChart(
        "AAPL: bars and features",
        (("Market", "tiny"), ("Sessions", "2024-07-01 to 2024-07-09")),
        DAYS,
        close - 0.2,
        close + 0.5,
        close - 0.5,
        close,
        np.full(6, 1e6),
        (
            series("rsi_14", [math.nan, math.nan, 55.0, 60.5, 58.25, 70.0]),
            series("market_trend_state", [-1.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
        ),
        ("Prices are adjusted.",),
    )
    return dataclasses.replace(made, **changes)


class Page(HTMLParser):
    """Elements, addresses, and the text outside scripts and styles."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.inside, self.words = "", ""
        self.feed(html.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.inside = tag
        self.links += [value for key, value in attrs if key in ("src", "href", "action", "data")]

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.words += data + " "


def drawn(html: bytes) -> dict[str, Any]:
    ((name, data),) = re.findall(
        r'<script type="application/json" data-chart="(\w+)">(.*?)</script>', html.decode(), re.S
    )
    assert name == "bars"
    return json.loads(data)


def test_one_file_that_links_nowhere_and_says_what_it_shows() -> None:
    page = Page(feature_page(example()))
    assert page.links == ["data:,"]
    assert not {"img", "iframe", "object"} & set(page.tags)
    for text in (
        "AAPL: bars and features",
        "tiny",
        "2024-07-09",
        "Prices are adjusted.",
        "formula of rsi_14",
        "14 bars",
    ):
        assert text in page.words


def test_candles_volume_and_a_panel_for_each_feature() -> None:
    figure = drawn(feature_page(example()))
    assert [(t["type"], t["name"], t["yaxis"]) for t in figure["data"]] == [
        ("candlestick", "price", "y"),
        ("bar", "volume", "y2"),
        ("scatter", "rsi_14", "y3"),
        ("scatter", "market_trend_state", "y4"),
    ]
    candles, volume, rsi, state = figure["data"]
    assert {tuple(t["x"]) for t in figure["data"]} == {tuple(day.isoformat() for day in DAYS)}
    assert [t.get("xaxis", "x") for t in figure["data"]] == ["x"] * 4  # one axis: they zoom together
    assert len(volume["x"]) == len(candles["x"]) == 6
    assert (rsi["line"]["shape"], state["line"]["shape"]) == ("linear", "hv")
    assert rsi["connectgaps"] is False
    labels = [note["text"] for note in figure["layout"]["annotations"]]
    assert labels == [
        "<b>rsi_14</b>  About rsi_14 · ratio",
        "<b>market_trend_state</b>  About market_trend_state · ratio",
    ]


def test_the_values_are_those_that_were_given() -> None:
    figure, _ = figure_of(example())
    candles, volume, rsi, _ = figure.data
    np.testing.assert_array_equal(candles.close, [10.0, 11.0, 10.5, 12.0, 11.5, 13.0])
    np.testing.assert_array_equal(candles.high, np.asarray(candles.close) + 0.5)
    np.testing.assert_array_equal(volume.y, [1e6] * 6)
    np.testing.assert_array_equal(rsi.y, [math.nan, math.nan, 55.0, 60.5, 58.25, 70.0])
    assert all(colour == volume.marker.color[0] for colour in volume.marker.color)  # all six closed above their open


def test_panels_lie_under_each_other_without_touching() -> None:
    layout = drawn(feature_page(example()))["layout"]
    domains = [layout[axis]["domain"] for axis in ("yaxis", "yaxis2", "yaxis3", "yaxis4")]
    assert domains[0][1] == 1.0
    assert domains[-1][0] == pytest.approx(0.0, abs=1e-9)
    for above, below in pairwise(domains):
        assert above[0] > below[1] > below[0] >= 0.0
    assert layout["xaxis"]["anchor"] == "y4"


def test_numbers_of_the_table() -> None:
    """rsi_14 is there at 55, 60.5, 58.25 and 70: median 59.375, two of six missing."""
    words = Page(feature_page(example())).words
    assert re.search(r"rsi_14\s+trend\s+70\s+55\s+59\.38\s+70\s+2 of 6\s+14 bars\s+ratio\s+formula of rsi_14", words)


def test_a_feature_that_is_nowhere_defined_says_so() -> None:
    chart = example(features=(series("rsi_14", [math.nan] * 6),))
    page = feature_page(chart)
    assert "not defined at any of these bars" in json.dumps(drawn(page)["layout"]["annotations"])
    assert re.search(r"rsi_14\s+trend\s+–\s+–\s+–\s+–\s+6 of 6", Page(page).words)


def test_days_without_bars_take_no_room() -> None:
    """Weekends as a rule, other days by name; a market that trades on Sundays names its Saturday."""
    assert closed_days(DAYS) == [{"bounds": ["sat", "mon"]}, {"values": ["2024-07-04"]}]
    every_day = [MONDAY + timedelta(days=i) for i in range(10)]
    assert closed_days(every_day) == []
    assert closed_days([day for day in every_day if day.day != 6]) == [{"values": ["2024-07-06"]}]


def test_intraday_bars_stand_side_by_side() -> None:
    times = [datetime(2024, 7, 1, 15, 30), datetime(2024, 7, 1, 16, 0), datetime(2024, 7, 2, 10, 0)]
    cut = {name: getattr(example(), name)[:3] for name in ("open", "high", "low", "close", "volume")}
    chart = example(times=times, **cut, features=(series("rsi_14", [1.5, 2.5, 3.5]),))
    figure = drawn(feature_page(chart))
    assert figure["layout"]["xaxis"]["type"] == "category"
    assert figure["data"][0]["x"] == ["2024-07-01 15:30", "2024-07-01 16:00", "2024-07-02 10:00"]


def test_texts_are_escaped() -> None:
    evil = series(EVIL, [1.5] * 6, family=EVIL, description=EVIL, unit=EVIL, formula=EVIL)
    page = Page(feature_page(example(title=EVIL, facts=((EVIL, EVIL),), features=(evil,), notes=(EVIL,))))
    honest = Page(feature_page(example(features=(series("rsi_14", [1.5] * 6),))))
    assert page.tags.count("script") == honest.tags.count("script")
    assert page.words.count("alert('x')") >= 6

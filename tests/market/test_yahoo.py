"""The Yahoo source against a local stand-in: raw prices, events, and a cause for everything that fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # yahoo_server is a program beside the tests, not a package

from yahoo_server import CRUMB, Series, YahooServer  # noqa: E402

from trading_core.errors import InvalidDateRangeError, SourceUnavailableError  # noqa: E402
from trading_core.market.quality import check_bars  # noqa: E402
from trading_core.market.source import BAR_SCHEMA, INSTRUMENT_SCHEMA, Fetched, Source  # noqa: E402
from trading_core.market.yahoo import URL_VARIABLE, YahooOptions, build_yahoo  # noqa: E402
from trading_core.sessions import Sessions  # noqa: E402

NOW = datetime(2021, 3, 3, 12, 0, tzinfo=UTC)  # before the open of 3 March 2021
START, END = date(2020, 6, 1), date(2021, 3, 2)

# Apple in 2020 on raw terms (its closes, dividends and 4:1 split of 31 August are the historical ones), beside
# a company whose 7:1 and 4:1 splits both come after its first bar: 7 * 4 = 28.
APPLE = Series(
    [date(2020, 8, 6), date(2020, 8, 7), date(2020, 8, 28), date(2020, 8, 31), date(2020, 11, 6)],
    [441.62, 452.82, 504.05, 127.58, 118.32],
    [457.65, 454.70, 505.77, 131.00, 119.20],
    [439.19, 441.17, 498.31, 126.00, 116.13],
    [455.61, 444.45, 499.23, 129.04, 118.69],
    [50_607_200, 49_511_400, 46_907_479, 225_702_700, 114_457_900],
    {date(2020, 8, 31): 4.0},
    {date(2020, 8, 7): 0.82, date(2020, 11, 6): 0.205},
)
TWICE = Series(
    [date(2020, 6, 1), date(2020, 7, 1), date(2020, 9, 1)],
    *([[560.0, 80.0, 20.0]] * 4),
    [1000, 7000, 28000],
    {date(2020, 7, 1): 7.0, date(2020, 9, 1): 4.0},
    {date(2020, 6, 1): 2.8},
)


@pytest.fixture(scope="module")
def server() -> Iterator[YahooServer]:
    with YahooServer(now=NOW, series={"APPLE": APPLE, "TWICE": TWICE}) as running:
        yield running


@pytest.fixture(autouse=True)
def _redirected(server: YahooServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, server.url)


def source(*symbols: str, max_retries: int = 2, calendar: str = "XNYS", interval: str = "1d") -> Source:
    options = YahooOptions(symbols or ("AAPL",), date(2018, 1, 1), pause_s=0.0, max_retries=max_retries, backoff_s=0.0)
    return build_yahoo(options, calendar, interval)


def fetch(*symbols: str, start: date = START, end: date = END, now: datetime = NOW) -> Fetched:
    return source(*symbols).fetch(symbols, start, end, now)


def test_apple_comes_back_as_it_traded() -> None:
    fetched = fetch("APPLE")
    assert dict(fetched.bars.schema) == BAR_SCHEMA
    assert fetched.failures == {}
    assert fetched.bars["session"].to_list() == APPLE.sessions
    for name in ("open", "high", "low", "close"):
        assert fetched.bars[name].to_list() == pytest.approx(getattr(APPLE, name), rel=1e-12)
    assert fetched.bars["volume"].to_list() == pytest.approx(APPLE.volume, rel=1e-7)
    assert fetched.bars["ts"][3] == datetime(2020, 8, 31, 20, 0, tzinfo=UTC)
    events = fetched.actions.select("session", "kind", "value").rows()
    assert [event[:2] for event in events] == [
        (date(2020, 8, 7), "dividend"),
        (date(2020, 8, 31), "split"),
        (date(2020, 11, 6), "dividend"),
    ]
    assert [event[2] for event in events] == pytest.approx([0.82, 4.0, 0.205])
    assert fetched.actions["known_at"].to_list() == fetched.actions["session"].to_list()


def test_later_splits_are_undone_even_when_only_old_bars_are_wanted() -> None:
    fetched = fetch("APPLE", end=date(2020, 8, 10))
    assert fetched.bars["close"].to_list() == pytest.approx([455.61, 444.45])
    assert fetched.actions.select("kind", "value").rows() == [("dividend", pytest.approx(0.82))]


def test_two_splits_multiply() -> None:
    fetched = fetch("TWICE")
    assert fetched.bars["close"].to_list() == pytest.approx([560.0, 80.0, 20.0])
    assert fetched.bars["volume"].to_list() == pytest.approx([1000, 7000, 28000])
    dividend = fetched.actions.filter(pl.col("kind") == "dividend")
    assert dividend["value"].to_list() == pytest.approx([2.8])


def test_a_split_of_this_morning_is_undone_before_its_first_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the ex-date, before the open, Yahoo's history is adjusted already but the day has no bar yet."""
    morning = datetime(2020, 8, 31, 11, 0, tzinfo=UTC)
    with YahooServer(now=morning, series={"APPLE": APPLE}) as early:
        monkeypatch.setenv(URL_VARIABLE, early.url)
        fetched = fetch("APPLE", end=date(2020, 8, 31), now=morning)
    assert fetched.bars["close"].to_list() == pytest.approx([455.61, 444.45, 499.23])
    assert fetched.actions["kind"].to_list() == ["dividend"]


def test_bitcoin_has_a_bar_every_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Friday to Monday of a market that never closes; the day that has just begun is left out."""
    days = [date(2021, 2, 26), date(2021, 2, 27), date(2021, 2, 28), date(2021, 3, 1)]
    prices = [46_339.76, 46_188.45, 45_137.77, 49_631.24]
    btc = Series(days, *([prices] * 4), [3.5e11, 4.6e10, 5.3e10, 5.3e10], always_open=True)
    monday = datetime(2021, 3, 1, 9, 0, tzinfo=UTC)
    with YahooServer(now=monday, series={"BTC-USD": btc}) as running:
        monkeypatch.setenv(URL_VARIABLE, running.url)
        fetched = source("BTC-USD", calendar="24/7").fetch(["BTC-USD"], days[0], days[-1], monday)
    assert fetched.failures == {}
    assert fetched.bars["session"].to_list() == days[:3]
    assert fetched.bars["close"].to_list() == pytest.approx(prices[:3])
    assert fetched.bars["ts"].to_list() == [datetime(2021, day.month, day.day, tzinfo=UTC) for day in days[1:]]


def test_hourly_bars_are_raw_end_stamped_and_inside_the_session() -> None:
    """Apple's 4:1 split of 31 August lies after the first day asked for; seven bars a day, the last of half an hour."""
    fetched = source("APPLE", interval="1h").fetch(["APPLE"], date(2020, 8, 28), date(2020, 8, 31), NOW)
    assert fetched.failures == {}
    friday, monday = (fetched.bars.filter(pl.col("session") == date(2020, 8, day)) for day in (28, 31))
    assert (friday["open"][0], friday["close"][-1]) == pytest.approx((504.05, 499.23))
    assert (monday["open"][0], monday["close"][-1]) == pytest.approx((127.58, 129.04))
    assert friday["volume"].to_list() == pytest.approx([1000.0] * 6)
    # 9:30 in New York is 13:30 UTC in summer. The bar that nobody traded in (12:30) is not there, nor the one at the close.
    assert friday["ts"].dt.strftime("%H:%M").to_list() == ["14:30", "15:30", "16:30", "18:30", "19:30", "20:00"]
    assert fetched.actions.select("session", "kind", "value").rows() == [(date(2020, 8, 31), "split", 4.0)]


@pytest.mark.parametrize(("interval", "bars"), [("1m", 390), ("5m", 78), ("15m", 26), ("30m", 13)])
def test_intraday_bars_of_the_last_days(interval: str, bars: int) -> None:
    built = source("MSFT", interval=interval)
    fetched = built.fetch(["MSFT"], date(2021, 2, 26), date(2021, 3, 3), NOW)
    counts = dict(fetched.bars.group_by("session").len().iter_rows())
    missing = 0 if interval == "30m" else 1  # the bar without a trade; yfinance makes half hours of quarters
    assert counts == dict.fromkeys((date(2021, 2, 26), date(2021, 3, 1), date(2021, 3, 2)), bars - missing)
    assert fetched.bars["ts"].max() == datetime(2021, 3, 2, 21, 0, tzinfo=UTC)


@pytest.mark.parametrize(("interval", "days", "start"), [("1m", 8, "2021-02-24"), ("30m", 60, "2021-01-04")])
def test_bars_that_yahoo_does_not_keep_are_refused(server: YahooServer, interval: str, days: int, start: str) -> None:
    before = len(server.requests)
    built = source("MSFT", interval=interval)
    with pytest.raises(
        InvalidDateRangeError, match=f"Yahoo keeps bars of {interval} for {days} days, so start on {start}"
    ):
        built.fetch(["MSFT"], date(2020, 12, 1), END, NOW)
    assert len(server.requests) == before
    assert built.fetch(["MSFT"], date.fromisoformat(start), END, NOW).failures == {}


def test_only_closed_sessions_come(monkeypatch: pytest.MonkeyPatch) -> None:
    with YahooServer(now=datetime(2021, 3, 2, 18, 0, tzinfo=UTC)) as midday, monkeypatch.context() as patched:
        patched.setenv(URL_VARIABLE, midday.url)
        fetched = fetch("MSFT", now=datetime(2021, 3, 2, 18, 0, tzinfo=UTC))
    assert fetched.bars["session"].max() == date(2021, 3, 1)
    assert fetch("MSFT").bars["session"].max() == date(2021, 3, 2)
    assert fetch("MSFT", now=datetime(2020, 8, 3, 12, 0, tzinfo=UTC)).bars["session"].max() == date(2020, 7, 31)


def test_every_failure_has_its_cause_and_stops_nobody() -> None:
    fetched = fetch("AAPL", "NOPE", "EMPTY", "NULLS", "BROKEN", "GARBLE", "LIMITED", "MSFT")
    assert fetched.bars["symbol"].unique().sort().to_list() == ["AAPL", "MSFT"]
    causes = dict(fetched.failures)
    assert causes.pop("NOPE") == "No data found, symbol may be delisted"
    assert causes.pop("EMPTY") == "Yahoo has no prices for it in this range"
    assert causes.pop("NULLS") == "Yahoo lists it, but every price is missing"
    assert causes.pop("LIMITED") == "Too Many Requests. Rate limited. Try after a while. (3 tries)"
    assert set(causes) == {"BROKEN", "GARBLE"}
    assert all(cause.startswith("Yahoo's answer cannot be read (JSONDecodeError") for cause in causes.values())


def test_missing_prices_are_kept_for_the_quality_gate() -> None:
    fetched = fetch("HOLEY", start=date(2018, 1, 1), end=date(2018, 12, 31))
    opens = fetched.bars["open"]
    assert fetched.bars.height == 251  # the sessions of New York in 2018
    # Rows 9, 19, 29 ... have no open, rows 24, 49, 74 ... no price at all: 25 + 10 of 251, 5 of them in both.
    assert opens.null_count() == 25 + 10 - 5
    assert opens.is_nan().sum() == 0
    report = check_bars(fetched.bars, fetched.actions, Sessions("XNYS"), NOW)
    assert report.quarantined["check"].to_list() == ["missing_price"] * 30
    assert report.clean.height == 221


def test_synthetic_apple_passes_the_quality_gate() -> None:
    fetched = fetch("AAPL", start=date(2018, 1, 1))
    report = check_bars(fetched.bars, fetched.actions, Sessions("XNYS"), NOW)
    assert report.findings.is_empty()
    assert (fetched.actions["kind"] == "split").sum() == 1


def test_a_rate_limit_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with YahooServer(now=NOW, busy_requests=4) as busy:
        monkeypatch.setenv(URL_VARIABLE, busy.url)
        fetched = fetch("BUSY")
        assert len(busy.charts("BUSY")) == 5  # yfinance asks twice per try: two tries refused, the third answered
    assert fetched.failures == {}
    assert fetched.bars.height > 0


def test_a_source_that_turns_everybody_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceUnavailableError, match=r"'yahoo' does not answer: Too Many Requests.*\(3 tries\)"):
        fetch("LIMITED")
    with YahooServer(now=NOW, busy_requests=10**6) as down:
        dead = down.url
    monkeypatch.setenv(URL_VARIABLE, dead)
    with pytest.raises(SourceUnavailableError, match=f"no connection to {dead}"):
        fetch("AAPL", "BBB", "CCC", "DDD", "EEE")


def test_one_request_per_symbol_and_the_crumb_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with YahooServer(now=NOW) as fresh:
        monkeypatch.setenv(URL_VARIABLE, fresh.url)
        fetch("AAPL", "MSFT", "IBM")
        asked = [path for path, _ in fresh.requests if path.startswith("/v8/")]
        assert asked == [f"/v8/finance/chart/{symbol}" for symbol in ("AAPL", "IBM", "MSFT")]
        assert {query.get("crumb", CRUMB) for _, query in fresh.requests} == {CRUMB}
        assert "div" in fresh.charts("IBM")[0]["events"]


def test_nothing_is_asked_for_a_range_that_has_not_closed(server: YahooServer) -> None:
    before = len(server.requests)
    fetched = fetch("AAPL", start=date(2021, 3, 3), end=date(2021, 3, 5))
    assert fetched.bars.is_empty()
    assert len(server.requests) == before
    with pytest.raises(InvalidDateRangeError):
        fetch("AAPL", start=END, end=START)


def test_symbols_and_instruments_need_no_request(server: YahooServer) -> None:
    before = len(server.requests)
    built = source("MSFT", "AAPL")
    assert built.symbols() == ["AAPL", "MSFT"]
    frame = built.instruments(NOW)
    assert dict(frame.schema) == INSTRUMENT_SCHEMA
    assert frame.rows() == [("AAPL", None, None, None), ("MSFT", None, None, None)]
    assert len(server.requests) == before


@pytest.mark.parametrize(
    ("symbols", "text"),
    [
        ((), "name at least one"),
        (("aapl",), "'aapl'; allowed: A-Z"),
        (("AAPL", "MS FT", "../X"), "'MS FT', '../X'"),
        (("AAPL", "AAPL"), "repeated entries"),
    ],
)
def test_symbols_that_are_refused(symbols: tuple[str, ...], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        YahooOptions(symbols)
    assert text in str(caught.value)


def test_options_come_from_a_market_file() -> None:
    from trading_core.config import parse_options
    from trading_core.errors import InvalidConfigError

    options = parse_options(YahooOptions, {"symbols": ["BRK-B", "^GSPC"], "start": date(2019, 1, 2)}, "us-yahoo")
    assert options.symbols == ("BRK-B", "^GSPC")
    with pytest.raises(InvalidConfigError, match="name at least one"):
        parse_options(YahooOptions, {"symbols": []}, "us-yahoo")


def test_the_stand_in_runs_as_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, str(HERE / "yahoo_server.py"), "--port", "0", "--now", NOW.isoformat()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parents[1]) as process:
        try:
            assert process.stdout is not None
            monkeypatch.setenv(URL_VARIABLE, process.stdout.readline().strip())
            assert fetch("AAPL").bars["session"].max() == END
        finally:
            process.terminate()

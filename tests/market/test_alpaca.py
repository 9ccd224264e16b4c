"""The Alpaca source over HTTP against a local stand-in: raw bars, events, and a cause for everything that fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # alpaca_server is a program beside the tests, not a package

import alpaca_server  # noqa: E402
from alpaca_server import KEY_ID, SECRET_KEY, AlpacaServer  # noqa: E402

from trading_core.errors import InvalidConfigError, InvalidDateRangeError, SourceUnavailableError  # noqa: E402
from trading_core.market.alpaca import KEY_VARIABLES, URL_VARIABLE, AlpacaOptions, build_alpaca  # noqa: E402
from trading_core.market.source import BAR_SCHEMA, Fetched, Source  # noqa: E402
from trading_core.schema import PriceBasis  # noqa: E402

NOW = datetime(2021, 3, 3, 12, 0, tzinfo=UTC)  # before the open of 3 March 2021
START, END = date(2020, 6, 1), date(2021, 3, 2)
BARS, EVENTS = "/v2/stocks/bars", "/v1/corporate-actions"


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(KEY_VARIABLES, (KEY_ID, SECRET_KEY), strict=True):
        monkeypatch.setenv(name, value)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AlpacaServer]:
    with AlpacaServer(NOW) as running:
        monkeypatch.setenv(URL_VARIABLE, running.url)
        yield running


def source(*symbols: str, interval: str = "1d", **changes: object) -> Source:
    given: dict[str, object] = {
        "requests_per_minute": 100_000, "timeout_s": 5.0, "max_retries": 2, "backoff_s": 0.0, "start": date(2019, 1, 2),
    }  # fmt: skip
    return build_alpaca(AlpacaOptions(symbols or ("AAPL",), **{**given, **changes}), "XNYS", interval)  # type: ignore[arg-type]


def fetch(*symbols: str, start: date = START, end: date = END, interval: str = "1d", **changes: object) -> Fetched:
    return source(*symbols, interval=interval, **changes).fetch(symbols, start, end, NOW)


# --- what comes -------------------------------------------------------------------------------------------------------


def test_daily_bars_come_as_they_traded(server: AlpacaServer) -> None:
    """The numbers are those that the stand-in has drawn, read here without the SDK or the adapter."""
    fetched = fetch("AAPL", "MSFT")
    assert dict(fetched.bars.schema) == BAR_SCHEMA
    assert fetched.failures == {}
    days, values = alpaca_server.daily("MSFT", NOW.date())
    inside = [i for i, day in enumerate(days) if START <= day <= END]
    bars = fetched.bars.filter(pl.col("symbol") == "MSFT")
    assert bars["session"].to_list() == [days[i] for i in inside]
    assert bars.select("open", "high", "low", "close", "volume").rows() == [tuple(values[i]) for i in inside]
    # Midnight in New York (04:00 or 05:00 UTC) is the stamp; the bar ends at the close: 16:00 there, in summer and winter.
    ends = dict(bars.select("session", "ts").iter_rows())
    assert ends[date(2020, 6, 1)] == datetime(2020, 6, 1, 20, 0, tzinfo=UTC)
    assert ends[date(2021, 3, 2)] == datetime(2021, 3, 2, 21, 0, tzinfo=UTC)
    assert ends[date(2020, 11, 27)] == datetime(2020, 11, 27, 18, 0, tzinfo=UTC)  # a half day
    assert source().price_basis is PriceBasis.RAW


def test_what_is_asked_for(server: AlpacaServer) -> None:
    fetch("AAPL", "MSFT", "BRK.B", feed="sip", symbols_per_request=2)
    assert server.asked(BARS) == [["AAPL", "BRK.B"], ["MSFT"]]
    query = next(query for path, query in server.requests if path == BARS)
    assert (query["adjustment"], query["feed"], query["timeframe"]) == ("raw", "sip", "1Day")
    assert query["start"] == "2020-06-01T04:00:00+00:00"  # midnight in New York
    types = next(query["types"] for path, query in server.requests if path == EVENTS)
    assert types.split(",") == ["forward_split", "reverse_split", "cash_dividend"]


def test_events_lie_on_their_ex_date_and_are_known_then(server: AlpacaServer) -> None:
    """Apple's 4:1 split of 31 August 2020 and its dividends (paid three weeks later); GE's 1:8 reverse split."""
    events = fetch("AAPL", "GE").actions
    assert events.select("symbol", "session", "kind").rows() == [
        ("AAPL", date(2020, 8, 7), "dividend"),
        ("AAPL", date(2020, 8, 31), "split"),
        ("AAPL", date(2020, 11, 9), "dividend"),
        ("AAPL", date(2021, 2, 8), "dividend"),
        ("GE", date(2020, 8, 3), "split"),
    ]
    assert events["value"].to_list() == pytest.approx([0.82, 4.0, 0.205, 0.205, 0.125])
    assert events["known_at"].to_list() == events["session"].to_list()
    # A dividend whose ex-date lies inside, but which is paid only after the range.
    part = fetch("AAPL", start=date(2020, 8, 3), end=date(2020, 8, 10))
    assert part.actions.select("session", "kind").rows() == [(date(2020, 8, 7), "dividend")]


def test_an_answer_in_pages_is_put_together(monkeypatch: pytest.MonkeyPatch, server: AlpacaServer) -> None:
    whole = fetch("AAPL", "MSFT", "IBM")
    with AlpacaServer(NOW, page_size=100) as paged:
        monkeypatch.setenv(URL_VARIABLE, paged.url)
        again = fetch("AAPL", "MSFT", "IBM")
    assert again.bars.equals(whole.bars)
    assert len(paged.asked(BARS)) == 6  # 3 x 190 sessions in pages of 100
    tokens = [query.get("page_token") for path, query in paged.requests if path == BARS]
    assert tokens == [None, "100", "200", "300", "400", "500"]


@pytest.mark.parametrize(("interval", "minutes"), [("1m", 1), ("5m", 5), ("15m", 15), ("30m", 30)])
def test_intraday_bars_of_regular_hours(server: AlpacaServer, interval: str, minutes: int) -> None:
    day = date(2021, 3, 2)
    fetched = fetch("IBM", start=date(2021, 3, 1), end=day, interval=interval)
    bars = fetched.bars.filter(pl.col("session") == day)
    assert bars.height == 390 // minutes  # 9:30 to 16:00
    assert fetched.bars.height == 2 * 390 // minutes
    assert bars["ts"].min() == datetime(2021, 3, 2, 14, 30, tzinfo=UTC) + timedelta(minutes=minutes)
    assert bars["ts"].max() == datetime(2021, 3, 2, 21, 0, tzinfo=UTC)
    drawn = alpaca_server.intraday("IBM", day, minutes)[60 // minutes : 60 // minutes + 390 // minutes]
    assert bars["close"].to_list() == [row["c"] for row in drawn]
    # Asked for from the open of the first to the close of the last session: the night between, and the close itself.
    assert fetched.outside_hours == 2 * 60 // minutes + 1


def test_hours_are_counted_from_the_open(server: AlpacaServer) -> None:
    day = date(2021, 3, 2)
    bars = fetch("IBM", start=day, end=day, interval="1h").bars
    half = alpaca_server.intraday("IBM", day, 30)[2:15]
    assert bars["ts"].dt.strftime("%H:%M").to_list() == ["15:30", "16:30", "17:30", "18:30", "19:30", "20:30", "21:00"]
    first, last = bars.row(0, named=True), bars.row(6, named=True)
    assert (first["open"], first["close"]) == (half[0]["o"], half[1]["c"])
    assert first["high"] == max(half[0]["h"], half[1]["h"])  # type: ignore[type-var]
    assert first["volume"] == half[0]["v"] + half[1]["v"]  # type: ignore[operator]
    assert (last["open"], last["close"], last["volume"]) == (
        half[12]["o"],
        half[12]["c"],
        half[12]["v"],
    )  # half an hour


def test_a_session_that_is_open_has_no_bar(server: AlpacaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    midday = datetime(2021, 3, 2, 18, 0, tzinfo=UTC)
    with AlpacaServer(midday) as early:
        monkeypatch.setenv(URL_VARIABLE, early.url)
        for interval in ("1d", "30m"):
            found = source("IBM", interval=interval).fetch(["IBM"], date(2021, 2, 26), END, midday)
            assert found.bars["session"].max() == date(2021, 3, 1)


# --- what fails -------------------------------------------------------------------------------------------------------


def test_every_failure_has_its_cause_and_stops_nobody(server: AlpacaServer) -> None:
    fetched = fetch("AAPL", "NOPE", "EMPTY", "LOST", "GARBLE", "BLANK", "ODD", "ECHO", "MSFT")
    assert fetched.bars["symbol"].unique().sort().to_list() == ["AAPL", "MSFT"]
    causes = dict(fetched.failures)
    assert causes.pop("NOPE") == "HTTP 422: invalid symbol: NOPE"
    assert causes.pop("EMPTY") == "Alpaca has no bar of it from 2020-06-01 to 2021-03-02"
    assert causes.pop("LOST") == "HTTP 404: endpoint not found."
    assert causes.pop("GARBLE") == "the answer cannot be read (it is no JSON)"
    assert causes.pop("ECHO") == "HTTP 400: bad header ***"
    assert set(causes) == {"BLANK", "ODD"}
    assert all(cause.startswith("the answer cannot be read (") for cause in causes.values())


@pytest.mark.parametrize(
    ("symbol", "cause", "tries"),
    [
        ("BROKEN", "HTTP 500: <html>Internal Server Error</html>", 3),
        ("LIMITED", "HTTP 429: too many requests.", 3),
        ("RESET", "no answer from http://127.0.0.1:", 3),
    ],
)
def test_trouble_is_tried_again_and_named(server: AlpacaServer, symbol: str, cause: str, tries: int) -> None:
    fetched = fetch("AAPL", symbol, symbols_per_request=1)
    assert list(fetched.failures) == [symbol]
    assert fetched.failures[symbol].startswith(cause)
    assert server.asked(BARS).count([symbol]) == tries


def test_an_answer_that_breaks_off_is_asked_for_again(server: AlpacaServer) -> None:
    fetched = fetch("CUT")
    assert fetched.failures == {}
    assert fetched.bars.height == 190  # sessions of New York from June 2020 to 2 March 2021
    assert len(server.asked(BARS)) == 2


def test_a_server_that_hangs_is_not_waited_for(server: AlpacaServer) -> None:
    fetched = fetch("AAPL", "HANG", timeout_s=0.2, max_retries=0)
    assert fetched.bars["symbol"].unique().to_list() == ["AAPL"]
    assert fetched.failures["HANG"].endswith("(ReadTimeout)")


def test_the_server_says_how_long_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("trading_core.market.polite.time.sleep", waits.append)
    with AlpacaServer(NOW, retry_after="7") as busy:
        monkeypatch.setenv(URL_VARIABLE, busy.url)
        fetched = fetch("BUSY")
    assert fetched.failures == {}
    assert [wait for wait in waits if wait > 1] == [7.0, 7.0]
    with AlpacaServer(NOW, retry_after="3600") as closed:
        monkeypatch.setenv(URL_VARIABLE, closed.url)
        with pytest.raises(SourceUnavailableError, match="HTTP 429: too many requests"):
            fetch("BUSY")
    assert 3600.0 not in waits  # an hour is not waited for
    assert len(closed.asked(BARS)) == 1


def test_without_a_word_the_pauses_double(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("trading_core.market.polite.time.sleep", waits.append)
    with AlpacaServer(NOW, down=True) as down:
        monkeypatch.setenv(URL_VARIABLE, down.url)
        with pytest.raises(SourceUnavailableError, match="HTTP 503: service unavailable"):
            fetch("AAPL", max_retries=4, backoff_s=1.5)
    assert [wait for wait in waits if wait > 1] == [1.5, 3.0, 6.0, 12.0]


def test_an_outage_is_noticed_before_every_symbol_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = [f"S{letter}" for letter in "ABCDEFGHIJ"]
    with AlpacaServer(NOW, down=True) as down:
        monkeypatch.setenv(URL_VARIABLE, down.url)
        with pytest.raises(SourceUnavailableError):
            fetch(*symbols, max_retries=0)
    assert down.asked(BARS) == [symbols, ["SA"], ["SB"], ["SC"]]


def test_the_rate_limit_spreads_the_requests(server: AlpacaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """600 a minute are ten a second: the clock stands still here, so all that passes is what was slept."""
    waits: list[float] = []
    monkeypatch.setattr("trading_core.market.polite.time.monotonic", lambda: 1000.0 + sum(waits))
    monkeypatch.setattr("trading_core.market.polite.time.sleep", waits.append)
    fetch("AAPL", "MSFT", "IBM", requests_per_minute=600, symbols_per_request=1)
    assert len(server.requests) == 6  # bars and events of each
    assert waits == pytest.approx([0.1] * 5)
    fetch("AAPL", requests_per_minute=600)  # the next chunk of the same process
    assert waits == pytest.approx([0.1] * 7)


# --- keys and options -------------------------------------------------------------------------------------------------


def test_wrong_keys_are_said_at_once_and_never_shown(server: AlpacaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLES[1], "a-wrong-secret")
    with pytest.raises(SourceUnavailableError, match=r"refuses the keys or the feed \(HTTP 403: forbidden") as caught:
        fetch("AAPL", "MSFT")
    assert len(server.requests) == 1
    chain: list[str] = []
    error: BaseException | None = caught.value
    while error is not None:
        chain += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    assert not any("a-wrong-secret" in text or KEY_ID in text for text in chain)


def test_a_feed_that_is_not_subscribed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with AlpacaServer(NOW, subscription=False) as free:
        monkeypatch.setenv(URL_VARIABLE, free.url)
        with pytest.raises(SourceUnavailableError, match="subscription does not permit querying recent SIP data"):
            fetch("AAPL", feed="sip")
        assert fetch("AAPL", feed="iex").failures == {}


def test_missing_keys_are_named_when_something_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLES[0])
    monkeypatch.setenv(KEY_VARIABLES[1], "")
    built = source("AAPL")
    assert built.symbols() == ["AAPL"]
    with pytest.raises(InvalidConfigError, match=r"TRADING_ALPACA_KEY_ID: is not set[^$]*TRADING_ALPACA_SECRET_KEY"):
        built.fetch(["AAPL"], START, END, NOW)


def test_nothing_is_asked_for_a_range_without_a_session(server: AlpacaServer) -> None:
    assert fetch("AAPL", start=date(2021, 3, 3), end=date(2021, 3, 5)).bars.is_empty()  # not closed yet
    assert fetch("AAPL", start=date(2021, 2, 27), end=date(2021, 2, 28)).failures == {}  # a weekend
    assert server.requests == []
    with pytest.raises(InvalidDateRangeError):
        fetch("AAPL", start=END, end=START)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"symbols": ()}, "name at least one"),
        ({"symbols": ("aapl", "BRK-B")}, "'aapl', 'BRK-B'; allowed: A-Z"),
        ({"symbols": ("AAPL", "AAPL")}, "repeated entries"),
        ({"symbols": ("AAPL",), "feed": "otc"}, "allowed: iex, sip"),
        ({"symbols": ("AAPL",), "requests_per_minute": 0}, "requests_per_minute must lie between"),
        ({"symbols": ("AAPL",), "timeout_s": 0.0}, "timeout_s must lie in"),
    ],
)
def test_options_state_their_bounds(options: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        AlpacaOptions(**options)  # type: ignore[arg-type]
    assert text in str(caught.value)


def test_stocks_do_not_trade_around_the_clock() -> None:
    with pytest.raises(InvalidConfigError, match="calendar: stocks have sessions"):
        build_alpaca(AlpacaOptions(("AAPL",)), "24/7")

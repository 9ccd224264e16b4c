"""Bars of Yahoo Finance through yfinance: raw prices with their splits and dividends.

Yahoo adjusts every price, volume and dividend it serves for all splits up to the day of the request, so what it says
about a past day changes with each later split. Here those splits are undone, which needs every event up to Yahoo's
present even when only old bars are wanted: each request runs from the first wanted session with no end. Capital gains
that funds distribute are not part of Yahoo's dividends and are left out; delistings are not announced by Yahoo.

Intraday bars reach back a few days or weeks only (REACH_DAYS); their prices are taken to be split-adjusted as the daily
ones are. An interval in which nothing was traded has no bar.

One symbol per request: yfinance's bulk download swallows the cause of a failure. Yahoo's data is for personal use
under Yahoo's terms.

Environment: `TRADING_YAHOO_URL` sends every request to a stand-in (`http://127.0.0.1:PORT`) in place of Yahoo.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import polars as pl

from trading_core.errors import InvalidDateRangeError, SourceUnavailableError
from trading_core.market.bar_times import START, placed, with_close
from trading_core.market.source import (
    ACTION_SCHEMA,
    BAR_SCHEMA,
    Fetched,
    Source,
    named_only,
    require_interval,
)
from trading_core.schema import DAILY, INTERVALS, KNOWN_AT, SESSION, SYMBOL, TS, UTC_TS, ActionKind, PriceBasis
from trading_core.sessions import Sessions

if TYPE_CHECKING:
    import pandas as pd

URL_VARIABLE = "TRADING_YAHOO_URL"
_SYMBOL = re.compile(r"[A-Z0-9^][A-Z0-9.^=-]{0,14}")
_NO_END = date(2100, 1, 1)  # Yahoo stops at its own present
REACH_DAYS = {"1m": 8, "5m": 60, "15m": 60, "30m": 60, "1h": 730}  # how far back Yahoo serves intraday bars
_GIVE_UP_AFTER = 3  # symbols in a row that Yahoo turned away: asking for the others would only prolong a rate limit
_MAX_WAIT_S = 60.0
_PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True, slots=True)
class YahooOptions:
    """`symbols`: Yahoo's names, upper case (AAPL, BRK-B, ^GSPC). `start`: no bar before this day is fetched.

    `pause_s`: between two symbols. A refused request is repeated up to `max_retries` times, after `backoff_s`, then
    twice that and so on (60 s at most).
    """

    symbols: tuple[str, ...]
    start: date = date(2015, 1, 1)
    pause_s: float = 0.2
    max_retries: int = 4
    backoff_s: float = 2.0

    def __post_init__(self) -> None:
        if not self.symbols:
            raise ValueError("symbols is empty; name at least one, for example AAPL")
        wrong = [symbol for symbol in self.symbols if not _SYMBOL.fullmatch(symbol)]
        if wrong:
            raise ValueError(
                f"symbols holds {', '.join(map(repr, wrong))}; allowed: A-Z 0-9 . - ^ =, at most 15 characters"
            )
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"symbols holds repeated entries: {', '.join(self.symbols)}")
        if self.pause_s < 0 or self.backoff_s < 0 or not 0 <= self.max_retries <= 10:
            raise ValueError("pause_s and backoff_s must be 0 or more, max_retries between 0 and 10")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What became of one symbol: rows (see `_rows`), or why there are none; `refused`: Yahoo itself is in trouble."""

    rows: pl.DataFrame | None
    reason: str = ""
    refused: bool = False


@dataclass(frozen=True, slots=True)
class _Question:
    """One chart request: rows from `begin` to before `end`, in UTC, of one interval."""

    begin: date | datetime
    end: date | datetime
    interval: str


class _YahooSource:
    """See YahooOptions and the module's text."""

    name = "yahoo"
    price_basis = PriceBasis.RAW

    def __init__(self, options: YahooOptions, calendar: str, interval: str) -> None:
        self._options = options
        self._sessions = Sessions(calendar)
        self.interval = interval

    def symbols(self) -> list[str]:
        return sorted(self._options.symbols)

    def instruments(self, now: datetime) -> pl.DataFrame:
        """One row per symbol; sector, listed and delisted are null: Yahoo's charts do not say."""
        return named_only(self.symbols())

    def fetch(self, symbols: Sequence[str], start: date, end: date, now: datetime) -> Fetched:
        """Raw bars of sessions in start..end closed by `now`, with the splits and dividends whose ex-date lies in them.

        A row without prices is handed over with nulls (the quality gate quarantines it); a symbol without any price is
        a failure. Events are known at the session of their ex-date: Yahoo lists them from that day on.
        Errors: InvalidDateRangeError, also for intraday bars older than Yahoo keeps them; SourceUnavailableError when
        Yahoo turns every symbol away.
        """
        if start > end:
            raise InvalidDateRangeError(start, end, "the start lies after the end")
        first, last = max(start, self._options.start), min(end, self._sessions.last_closed(now))
        question = self._question(first, last, now)
        frames, failures = self._ask(symbols, question) if question else ({}, {})
        rows = _stack(frames)
        inside = rows.filter(pl.col(SESSION).is_between(first, last))
        if self.interval == DAILY:
            bars = with_close(inside.filter("is_bar"), self._sessions).select(list(BAR_SCHEMA)).sort(SYMBOL, TS)
            return Fetched(bars, _actions(inside), failures)
        found = placed(rows.filter("is_bar").drop(SESSION), self._sessions, self.interval)
        bars = found.bars.filter(pl.col(SESSION).is_between(first, last)).select(list(BAR_SCHEMA))
        return Fetched(bars, _actions(inside), failures, found.left_out(first, last))

    def _question(self, first: date, last: date, now: datetime) -> _Question | None:
        """What to ask Yahoo for; None when there is nothing to ask for. Errors: InvalidDateRangeError."""
        if first > last:
            return None
        if self.interval == DAILY:
            # One day early, because a session of Sydney opens the UTC day before.
            return _Question(first - timedelta(days=1), _NO_END, DAILY)
        days = self._sessions.between(first, last)
        if not days:
            return None
        begin, oldest = self._sessions.open(days[0]), now - timedelta(days=REACH_DAYS[self.interval])
        if begin < oldest:
            kept = self._sessions.next(oldest.date())
            reach = f"Yahoo keeps bars of {self.interval} for {REACH_DAYS[self.interval]} days"
            raise InvalidDateRangeError(first, last, f"{reach}, so start on {kept} or later")
        return _Question(begin, now + timedelta(days=1), self.interval)

    def _ask(self, symbols: Sequence[str], question: _Question) -> tuple[dict[str, pl.DataFrame], dict[str, str]]:
        """Rows per symbol, and the reason of each symbol that has none."""
        session, symbols = _prepare_yfinance(), sorted(set(symbols))
        frames: dict[str, pl.DataFrame] = {}
        failures: dict[str, str] = {}
        refused, in_a_row = 0, 0
        for position, symbol in enumerate(symbols):
            if in_a_row >= _GIVE_UP_AFTER:
                failures[symbol] = f"not asked for: Yahoo turned away {in_a_row} symbols in a row"
                refused += 1
                continue
            if position:
                time.sleep(self._options.pause_s)
            answer = self._answer(symbol, question, session)
            in_a_row = in_a_row + 1 if answer.refused else 0
            refused += answer.refused
            if answer.rows is None:
                failures[symbol] = answer.reason
            else:
                frames[symbol] = answer.rows
        if symbols and refused == len(symbols):
            raise SourceUnavailableError(self.name, next(iter(failures.values())))
        return frames, failures

    def _answer(self, symbol: str, question: _Question, session: Any) -> _Answer:
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential
        from yfinance.exceptions import YFPricesMissingError

        tries = self._options.max_retries + 1
        retrying = Retrying(
            stop=stop_after_attempt(tries),
            wait=wait_exponential(multiplier=self._options.backoff_s, max=_MAX_WAIT_S),
            retry=retry_if_exception(_is_refusal),
            reraise=True,
        )
        try:
            history = retrying(_history, symbol, question, session)
        except YFPricesMissingError as error:
            return _Answer(None, error.yahoo_reason or "Yahoo has no prices for it in this range")
        # yfinance raises whatever its parsing meets (KeyError, TypeError, JSON errors of two libraries): a broken
        # answer for one symbol must not stop the others.
        except Exception as error:
            if _is_refusal(error):
                return _Answer(None, f"{_refusal(error)} ({tries} tries)", refused=True)
            return _Answer(None, f"Yahoo's answer cannot be read ({type(error).__name__}: {_one_line(error)})")
        return _rows(symbol, history, question.interval)


def build_yahoo(options: YahooOptions, calendar: str, interval: str = DAILY) -> Source:
    """The Yahoo source on the sessions of `calendar`. Asks nothing yet.

    Errors: InvalidConfigError for an interval there is no such.
    """
    return _YahooSource(options, calendar, require_interval("yahoo", interval, tuple(INTERVALS)))


# --- asking ----------------------------------------------------------------------------------------------------------


def _history(symbol: str, question: _Question, session: Any) -> pd.DataFrame:
    """Yahoo's rows up to its present: split-adjusted OHLC, Volume, Dividends, Stock Splits, indexed by their start."""
    import yfinance

    ticker = yfinance.Ticker(symbol, session=session)
    # The zone is only used to turn `start` into a timestamp. Known beforehand, it saves a second request per symbol,
    # and an unknown symbol fails with Yahoo's own reason.
    ticker._tz = "UTC"
    return ticker.history(
        start=question.begin,
        end=question.end,
        interval=question.interval,
        auto_adjust=False,
        actions=True,
        keepna=True,
    )


def _is_refusal(error: BaseException) -> bool:
    """Whether Yahoo (or the way to it) is in trouble, rather than this symbol: worth asking again later."""
    from yfinance.exceptions import YFDataException, YFRateLimitError

    # requests' JSON error is an OSError and a ValueError at once: an unreadable answer, not a lost connection.
    lost = isinstance(error, OSError) and not isinstance(error, ValueError)
    return lost or isinstance(error, YFRateLimitError | YFDataException)


def _refusal(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"no connection to {os.environ.get(URL_VARIABLE) or 'Yahoo'} ({type(error).__name__})"
    return _one_line(error)


def _prepare_yfinance() -> Any:
    """Sets yfinance up for this process and returns the session to hand over (None: yfinance's own).

    yfinance keeps its session, crumb and answers in a process-wide singleton, so each fetch puts it right again.
    """
    import yfinance
    from yfinance.data import YfData

    yfinance.config.debug.hide_exceptions = False  # by default a failure is a log line and an empty frame
    _own_cache_folder()
    YfData().cache_get.cache_clear()
    url = os.environ.get(URL_VARIABLE)
    return _redirected(url) if url else None


@lru_cache(maxsize=1)
def _own_cache_folder() -> TemporaryDirectory[str]:
    """Where yfinance keeps its cookie: one folder per process, gone at its end.

    The shared default makes parallel tasks collide (it deletes and inserts a row under a unique key), and is unpickled.
    """
    import yfinance

    folder = TemporaryDirectory(prefix="yfinance-", ignore_cleanup_errors=True)
    yfinance.set_tz_cache_location(folder.name)
    return folder


def _redirected(url: str) -> Any:
    """A requests.Session that sends every https request to `url`, keeping path and query."""
    from urllib.parse import urlsplit, urlunsplit

    import requests
    from requests.adapters import HTTPAdapter

    target = urlsplit(url)

    class Redirect(HTTPAdapter):
        def send(self, request, stream=False, timeout=None, verify=True, cert=None, proxies=None):  # type: ignore[no-untyped-def, override]
            there = request.copy()
            asked = urlsplit(request.url)
            there.url = urlunsplit((target.scheme, target.netloc, asked.path, asked.query, ""))
            there.headers["X-Original-Host"] = asked.netloc
            response = super().send(there, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies={})
            response.url = request.url  # cookies and yfinance's consent check look at Yahoo's address
            return response

    session = requests.Session()
    session.mount("https://", Redirect())
    return session


# --- reading the answer ----------------------------------------------------------------------------------------------

_ROWS: dict[str, pl.DataType | type[pl.DataType]] = {
    SYMBOL: pl.String,
    SESSION: pl.Date,  # of an intraday row the date of its start in the exchange's zone
    START: UTC_TS,
    **dict.fromkeys((*_PRICES, "volume", "dividend", "split"), pl.Float64),
    "is_bar": pl.Boolean,
}


def _rows(symbol: str, history: pd.DataFrame, interval: str) -> _Answer:
    """yfinance's frame as raw rows, columns as _ROWS: dividend in cash (0 = none), split as new per old (1 = none)."""
    columns = {"Open": "open", "High": "high", "Low": "low", "Close": "close", "Volume": "volume"}
    columns |= {"Dividends": "dividend", "Stock Splits": "split"}
    data: dict[str, Any] = {new: history[old].to_numpy(dtype="float64") for old, new in columns.items()}
    times = {
        SESSION: [stamp.date() for stamp in history.index],
        START: [stamp.to_pydatetime().astimezone(UTC) for stamp in history.index],
    }
    frame = pl.DataFrame({**times, **data}, schema_overrides={START: UTC_TS}, nan_to_null=True)
    priced = pl.any_horizontal(pl.col(_PRICES).is_not_null())
    if not frame.select(priced.any()).item():
        return _Answer(None, "Yahoo lists it, but every price is missing")
    event = (pl.col("dividend") != 0) | (pl.col("split") != 0)
    frame = frame.sort(START).with_columns(
        pl.lit(symbol).alias(SYMBOL),
        # yfinance adds a row without prices for an event outside the bars: an event, not a bar. Within a day it adds
        # one for every interval without a trade, also at night.
        is_bar=(priced | ~event) if interval == DAILY else priced,
        split=pl.when(pl.col("split") > 0).then("split").otherwise(1.0),
    )
    return _Answer(_without_split_adjustment(frame).select(list(_ROWS)))


def _without_split_adjustment(rows: pl.DataFrame) -> pl.DataFrame:
    """Undoes the splits after each row: prices and dividends times their product, volume divided by it."""
    later = pl.col("split").reverse().cum_prod().reverse().shift(-1, fill_value=1.0)
    return rows.with_columns(pl.col(*_PRICES, "dividend") * later, volume=pl.col("volume") / later)


def _stack(frames: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames.values()) if frames else pl.DataFrame(schema=_ROWS)


def _actions(rows: pl.DataFrame) -> pl.DataFrame:
    """The events of the rows, columns as ACTION_SCHEMA, sorted by key."""
    splits = rows.filter(pl.col("split") != 1).select(
        SYMBOL, SESSION, pl.lit(ActionKind.SPLIT.value).alias("kind"), pl.col("split").alias("value")
    )
    dividends = rows.filter(pl.col("dividend") != 0).select(
        SYMBOL, SESSION, pl.lit(ActionKind.DIVIDEND.value).alias("kind"), pl.col("dividend").alias("value")
    )
    events = pl.concat([splits, dividends]).with_columns(pl.col(SESSION).alias(KNOWN_AT))
    return events.select(list(ACTION_SCHEMA)).sort(SYMBOL, SESSION, "kind")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

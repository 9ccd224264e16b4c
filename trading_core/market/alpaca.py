"""Bars, splits and cash dividends of US stocks from Alpaca's market data API (v2), through alpaca-py.

Prices are asked for as traded (`adjustment=raw`). Events come from the corporate actions endpoint (v1), which finds them
by the date they are processed: splits on their ex-date, dividends on the day they are paid. So they are asked for from a
week before the first to four months after the last session, and those whose ex-date lies in the range are kept. Alpaca
does not say when an event was announced, and promises no time at which it lists one: it counts as known at the session
of its ex-date. Stock dividends, spin-offs, mergers and changes of name are not taken over; delistings are not announced.

Bars come in batches of symbols. A batch that is refused is asked for again symbol by symbol, so that the one at fault is
named and stops nobody; a symbol without any bar in the range is named too, since Alpaca tells an unknown one from a silent
one only by its spelling. Hourly bars are made of half-hourly ones, counted from the open: Alpaca's own start on the full
hour, and the first of a day would mix trades from before the open. Alpaca's data are used under Alpaca's terms.

Environment: `TRADING_ALPACA_KEY_ID` and `TRADING_ALPACA_SECRET_KEY`; `TRADING_ALPACA_DATA_URL` sends every request to a
stand-in (`http://127.0.0.1:PORT`) in place of Alpaca.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import SecretStr

from trading_core.errors import InvalidConfigError, InvalidDateRangeError, SourceUnavailableError
from trading_core.market.bar_times import START, hours_of, placed, with_close
from trading_core.market.polite import Manners, polite_session
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

KEY_VARIABLES = ("TRADING_ALPACA_KEY_ID", "TRADING_ALPACA_SECRET_KEY")
URL_VARIABLE = "TRADING_ALPACA_DATA_URL"
HOURLY, HALF_HOURLY = "1h", "30m"
NEW_YORK = ZoneInfo("America/New_York")
_SYMBOL = re.compile(r"[A-Z][A-Z0-9.]{0,14}")
_UNITS = {"m": "Min", "h": "Hour", "d": "Day"}
_COLUMNS = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}
_BEFORE, _AFTER = timedelta(days=7), timedelta(days=120)  # the ex-date to the day an event is processed, with room
_GIVE_UP_AFTER = 3  # symbols in a row that failed alone: asking for the others would only prolong an outage
_REFUSED = frozenset({401, 403})  # wrong keys, or a feed that the subscription does not hold: no symbol can help it


@dataclass(frozen=True, slots=True)
class AlpacaOptions:
    """`symbols`: Alpaca's names (AAPL, BRK.B). `start`: no bar before this day is fetched.

    `feed`: `iex` (one exchange, free; its volume is a few per cent of the market's) or `sip` (all exchanges).
    `requests_per_minute`: of one process; two tasks that download at once need half each. `timeout_s`: of a request.
    A request that fails is repeated up to `max_retries` times: after what the server asks for, else after `backoff_s`,
    then twice that and so on.
    """

    symbols: tuple[str, ...]
    start: date = date(2016, 1, 4)
    feed: Literal["iex", "sip"] = "iex"
    requests_per_minute: int = 200
    timeout_s: float = 30.0
    max_retries: int = 5
    backoff_s: float = 1.0
    symbols_per_request: int = 50

    def __post_init__(self) -> None:
        if not self.symbols:
            raise ValueError("symbols is empty; name at least one, for example AAPL")
        wrong = [symbol for symbol in self.symbols if not _SYMBOL.fullmatch(symbol)]
        if wrong:
            raise ValueError(
                f"symbols holds {', '.join(map(repr, wrong))}; allowed: A-Z, 0-9 and ., a letter first, at most 15"
            )
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"symbols holds repeated entries: {', '.join(self.symbols)}")
        if self.feed not in ("iex", "sip"):
            raise ValueError(f"feed is '{self.feed}'; allowed: iex, sip")
        if not 1 <= self.requests_per_minute <= 100_000 or not 1 <= self.symbols_per_request <= 200:
            raise ValueError("requests_per_minute must lie between 1 and 100000, symbols_per_request between 1 and 200")
        if not 0 < self.timeout_s <= 600 or self.backoff_s < 0 or not 0 <= self.max_retries <= 10:
            raise ValueError("timeout_s must lie in (0, 600], backoff_s be 0 or more, max_retries between 0 and 10")


@dataclass(frozen=True, slots=True)
class _Keys:
    """Read when something is asked for, never printed: SecretStr shows stars."""

    key_id: SecretStr
    secret_key: SecretStr

    @classmethod
    def from_environment(cls) -> _Keys:
        values = [os.environ.get(name, "") for name in KEY_VARIABLES]
        missing = [name for name, value in zip(KEY_VARIABLES, values, strict=True) if not value]
        if missing:
            problems = [f"{name}: is not set; source 'alpaca' needs the key of an Alpaca account" for name in missing]
            raise InvalidConfigError("The environment", problems)
        return cls(*(SecretStr(value) for value in values))

    def cleared(self, text: str) -> str:
        """`text` without the keys, should a server have sent them back."""
        for secret in (self.key_id, self.secret_key):
            text = text.replace(secret.get_secret_value(), "***")
        return text


@dataclass(frozen=True, slots=True)
class _Span:
    """What is asked for: sessions first..last, bars that start in [begin, end]."""

    first: date
    last: date
    begin: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class _Answer:
    """`bars`: symbol, start, open .. volume of the symbols that have any. `actions`: as ACTION_SCHEMA."""

    bars: pl.DataFrame
    actions: pl.DataFrame


class _Failed(Exception):
    """A request without a usable answer. `outage`: Alpaca itself or the way to it is in trouble, not this symbol."""

    def __init__(self, reason: str, outage: bool) -> None:
        super().__init__(reason)
        self.outage = outage


class _AlpacaSource:
    """See AlpacaOptions and the module's text."""

    name = "alpaca"
    price_basis = PriceBasis.RAW

    def __init__(self, options: AlpacaOptions, calendar: str, interval: str) -> None:
        self._options = options
        self._sessions = Sessions(calendar)
        self.interval = interval

    def symbols(self) -> list[str]:
        return sorted(self._options.symbols)

    def instruments(self, now: datetime) -> pl.DataFrame:
        """One row per symbol; sector, listed and delisted are null: the data API does not say."""
        return named_only(self.symbols())

    def fetch(self, symbols: Sequence[str], start: date, end: date, now: datetime) -> Fetched:
        """Raw bars of sessions in start..end closed by `now`, with the splits and dividends whose ex-date lies in them.

        A symbol's bars come with its events or not at all. Errors: InvalidDateRangeError; InvalidConfigError without
        keys; SourceUnavailableError when Alpaca refuses the keys or the feed, or answers for no symbol.
        """
        if start > end:
            raise InvalidDateRangeError(start, end, "the start lies after the end")
        span = self._span(max(start, self._options.start), min(end, self._sessions.last_closed(now)))
        wanted = sorted(set(symbols))
        if span is None or not wanted:
            return Fetched(pl.DataFrame(schema=BAR_SCHEMA), pl.DataFrame(schema=ACTION_SCHEMA), {})
        answers, failures = _Client(self._options, self.interval, span, self._sessions).ask(wanted)
        rows = pl.concat([answer.bars for answer in answers]) if answers else pl.DataFrame(schema=_ROWS)
        actions = pl.concat([answer.actions for answer in answers]) if answers else pl.DataFrame(schema=ACTION_SCHEMA)
        bars, outside = self._in_sessions(rows, span)
        return Fetched(bars, actions.sort(SYMBOL, SESSION, "kind"), failures, outside)

    def _span(self, first: date, last: date) -> _Span | None:
        """None when no session lies in first..last."""
        days = self._sessions.between(first, last) if first <= last else []
        if not days:
            return None
        # A daily bar is stamped with midnight in New York; the end of a request counts as inside.
        begin = datetime.combine(days[0], time(), NEW_YORK) if self.interval == DAILY else self._sessions.open(days[0])
        end = self._sessions.open(days[-1]) if self.interval == DAILY else self._sessions.close(days[-1])
        return _Span(days[0], days[-1], begin.astimezone(UTC), end)

    def _in_sessions(self, rows: pl.DataFrame, span: _Span) -> tuple[pl.DataFrame, int]:
        """The bars as BAR_SCHEMA, and how many lie outside regular hours."""
        if self.interval == DAILY:
            local = pl.col(START).dt.convert_time_zone(str(NEW_YORK)).dt.date().alias(SESSION)
            bars = with_close(rows.with_columns(local), self._sessions)
            return bars.select(list(BAR_SCHEMA)).sort(SYMBOL, TS), 0
        found = placed(rows, self._sessions, HALF_HOURLY if self.interval == HOURLY else self.interval)
        bars = hours_of(found.bars, self._sessions) if self.interval == HOURLY else found.bars
        return bars.select(list(BAR_SCHEMA)), found.left_out(span.first, span.last)


def build_alpaca(options: AlpacaOptions, calendar: str, interval: str = DAILY) -> Source:
    """The Alpaca source on the sessions of `calendar`. Asks nothing yet, and needs no keys yet.

    Errors: InvalidConfigError for an interval there is no such, and for a market that never closes: it serves stocks.
    """
    if Sessions(calendar).always_open:
        raise InvalidConfigError(
            "A market of source 'alpaca'", [f"calendar: stocks have sessions; '{calendar}' has none"]
        )
    return _AlpacaSource(options, calendar, require_interval("alpaca", interval, tuple(INTERVALS)))


# --- asking ----------------------------------------------------------------------------------------------------------


class _Client:
    """The SDK's two clients over one polite session, for one fetch."""

    def __init__(self, options: AlpacaOptions, interval: str, span: _Span, sessions: Sessions) -> None:
        from alpaca.data.historical.corporate_actions import CorporateActionsClient
        from alpaca.data.historical.stock import StockHistoricalDataClient

        self._options, self._span, self._sessions = options, span, sessions
        self._asked = HALF_HOURLY if interval == HOURLY else interval
        self._keys = _Keys.from_environment()
        url = os.environ.get(URL_VARIABLE) or None
        manners = Manners(options.requests_per_minute, options.timeout_s, options.max_retries, options.backoff_s)
        session = polite_session(url or "alpaca", manners, use_environment=url is None)
        keys = (self._keys.key_id.get_secret_value(), self._keys.secret_key.get_secret_value())
        self._stocks = StockHistoricalDataClient(*keys, raw_data=True, url_override=url)
        self._events = CorporateActionsClient(*keys, raw_data=True, url_override=url)
        for client in (self._stocks, self._events):
            client._session = session
            client._retry = 0  # the SDK's own: three more tries after three seconds each, whatever the server asks for

    def ask(self, symbols: Sequence[str]) -> tuple[list[_Answer], dict[str, str]]:
        """The answers, and the reason of each symbol that has none. Errors: SourceUnavailableError."""
        answers: list[_Answer] = []
        failures: dict[str, str] = {}
        outages, in_a_row = 0, 0
        size = self._options.symbols_per_request
        queue = [list(symbols[i : i + size]) for i in range(0, len(symbols), size)]
        while queue:
            batch = queue.pop(0)
            if in_a_row >= _GIVE_UP_AFTER:
                failures |= dict.fromkeys(batch, f"not asked for: {in_a_row} symbols in a row failed")
                outages += len(batch)
                continue
            try:
                answers.append(self._batch(batch))
                in_a_row = 0
            except _Failed as error:
                if len(batch) > 1:
                    queue[:0] = [[symbol] for symbol in batch]
                    continue
                failures[batch[0]] = str(error)
                in_a_row = in_a_row + 1 if error.outage else 0
                outages += error.outage
        if outages == len(symbols):
            raise SourceUnavailableError("alpaca", next(iter(failures.values())))
        return answers, dict(sorted({**self._silent(symbols, answers), **failures}.items()))

    def _silent(self, symbols: Sequence[str], answers: Sequence[_Answer]) -> dict[str, str]:
        """The symbols without any bar, with that as the reason."""
        delivered = {symbol for answer in answers for symbol in answer.bars[SYMBOL].unique()}
        reason = f"Alpaca has no bar of it from {self._span.first} to {self._span.last}"
        return {symbol: reason for symbol in symbols if symbol not in delivered}

    def _batch(self, symbols: list[str]) -> _Answer:
        """Bars and events of some symbols. Errors: _Failed; SourceUnavailableError for keys that are refused."""
        bars = self._answered(lambda: _bars(self._stock_bars(symbols), symbols))
        actions = self._answered(lambda: _actions(self._corporate_actions(symbols), self._span, self._sessions))
        return _Answer(bars, actions.join(bars.select(SYMBOL).unique(), on=SYMBOL, how="semi"))

    def _stock_bars(self, symbols: list[str]) -> Any:
        from alpaca.data.enums import Adjustment, DataFeed
        from alpaca.data.requests import StockBarsRequest
        from alpaca.data.timeframe import TimeFrame, TimeFrameUnit

        amount, unit = int(self._asked[:-1]), _UNITS[self._asked[-1]]
        return self._stocks.get_stock_bars(
            StockBarsRequest(
                symbol_or_symbols=symbols,
                timeframe=TimeFrame(amount, TimeFrameUnit(unit)),
                start=self._span.begin,
                end=self._span.end,
                adjustment=Adjustment.RAW,
                feed=DataFeed(self._options.feed),
            )
        )

    def _corporate_actions(self, symbols: list[str]) -> Any:
        from alpaca.data.enums import CorporateActionsType as Kind
        from alpaca.data.requests import CorporateActionsRequest

        return self._events.get_corporate_actions(
            CorporateActionsRequest(
                symbols=symbols,
                types=[Kind.FORWARD_SPLIT, Kind.REVERSE_SPLIT, Kind.CASH_DIVIDEND],
                start=self._span.first - _BEFORE,
                end=self._span.last + _AFTER,
                limit=None,
            )
        )

    def _answered(self, ask: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        import requests
        from alpaca.common.exceptions import APIError

        try:
            return ask()
        except APIError as error:
            reason = f"HTTP {error.status_code}: {self._keys.cleared(_message(error))}"
            if error.status_code in _REFUSED:
                raise SourceUnavailableError("alpaca", f"it refuses the keys or the feed ({reason})") from error
            outage = error.status_code == 429 or error.status_code >= 500
            raise _Failed(reason, outage) from error
        except requests.JSONDecodeError as error:
            raise _Failed("the answer cannot be read (it is no JSON)", outage=False) from error
        except requests.RequestException as error:
            where = os.environ.get(URL_VARIABLE) or "Alpaca"
            raise _Failed(f"no answer from {where} ({type(error).__name__})", outage=True) from error
        # What the SDK and the reading meet in an answer of another shape: an empty body, other keys, other types.
        except (KeyError, TypeError, ValueError, AttributeError, pl.exceptions.PolarsError) as error:
            reason = self._keys.cleared(" ".join(str(error).split())[:200])
            raise _Failed(f"the answer cannot be read ({type(error).__name__}: {reason})", outage=False) from error


def _message(error: Any) -> str:
    """The server's own words, in one short line."""
    try:
        text = str(error.message)
    except (ValueError, KeyError, TypeError):
        text = str(error)
    return " ".join(text.split())[:200] or "no reason given"


# --- reading the answers ---------------------------------------------------------------------------------------------

_ROWS: dict[str, pl.DataType | type[pl.DataType]] = {
    SYMBOL: pl.String,
    START: UTC_TS,
    **dict.fromkeys(_COLUMNS.values(), pl.Float64),
}


def _bars(answer: Mapping[str, Sequence[Mapping[str, Any]]], symbols: Sequence[str]) -> pl.DataFrame:
    """Columns as _ROWS; symbols that were not asked for are no part of it."""
    frames = [pl.DataFrame(schema=_ROWS)]
    for symbol in symbols:
        rows = answer.get(symbol) or ()
        values: dict[str, Any] = {name: [_number(row[key]) for row in rows] for key, name in _COLUMNS.items()}
        starts = [datetime.fromisoformat(row["t"]).astimezone(UTC) for row in rows]
        frames.append(pl.DataFrame({SYMBOL: [symbol] * len(rows), START: starts, **values}, schema=_ROWS))
    return pl.concat(frames)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _actions(answer: Mapping[str, Sequence[Mapping[str, Any]]], span: _Span, sessions: Sessions) -> pl.DataFrame:
    """Events whose ex-date lies in the span, columns as ACTION_SCHEMA; several of one kind and day are one event."""
    found: dict[tuple[str, date, str], float] = {}
    for kind in ("forward_splits", "reverse_splits", "cash_dividends"):
        for row in answer.get(kind) or ():
            ex_date = date.fromisoformat(row["ex_date"])
            session = ex_date if sessions.is_session(ex_date) else sessions.next(ex_date)
            if kind == "cash_dividends":
                key = (row["symbol"], session, ActionKind.DIVIDEND.value)
                found[key] = found.get(key, 0.0) + float(row["rate"])
            else:
                key = (row["symbol"], session, ActionKind.SPLIT.value)
                found[key] = found.get(key, 1.0) * float(row["new_rate"]) / float(row["old_rate"])
    rows = [(*key, value) for key, value in found.items() if span.first <= key[1] <= span.last]
    columns = {name: ACTION_SCHEMA[name] for name in (SYMBOL, SESSION, "kind", "value")}
    events = pl.DataFrame(rows, schema=columns, orient="row")
    return events.with_columns(pl.col(SESSION).alias(KNOWN_AT)).select(list(ACTION_SCHEMA))

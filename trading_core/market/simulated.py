"""The simulated market as a source: bars, events and instruments as of `now`, and the truth to judge forecasts by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache

import numpy as np
import polars as pl

from trading_core.errors import InvalidDateRangeError
from trading_core.market.adjust import adjusted
from trading_core.market.simulation import SimulatedOptions, SimulatedPanel, simulate
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA, INSTRUMENT_SCHEMA, Fetched, require_interval
from trading_core.schema import DAILY, SESSION, SYMBOL, TS, ActionKind, BoolArray, DateArray, IntArray, PriceBasis
from trading_core.sessions import Sessions

__all__ = ["SimulatedOptions", "SimulatedSource", "build_simulated"]

_PRICES = ("open", "high", "low", "close", "volume")


def build_simulated(options: SimulatedOptions, calendar: str, interval: str = DAILY) -> SimulatedSource:
    """The source of the registry's line "simulated". Daily bars only; errors: InvalidConfigError."""
    require_interval("simulated", interval, (DAILY,))
    return SimulatedSource(options, calendar)


@dataclass(frozen=True, slots=True)
class _History:
    """A panel with its calendar, up to the end of a year; nobody outside is shown the rows after `now`."""

    sessions: DateArray  # [T]
    following: DateArray  # [T] the session after, when the events of the row take effect
    closes: pl.Series  # [T] UTC
    panel: SimulatedPanel


@lru_cache(maxsize=4)
def _history(options: SimulatedOptions, calendar: str, year: int) -> _History:
    """Whole years, so that a replay of consecutive days generates once. Prefix-stable, so the year cannot matter."""
    clock = Sessions(calendar)
    sessions = clock.between(options.start, date(year, 12, 31))
    following = [*sessions[1:], clock.next(date(year, 12, 31))]
    closes = pl.Series(TS, clock.closes(sessions), dtype=BAR_SCHEMA[TS])
    panel = simulate(options, sessions)
    return _History(np.array(sessions, "datetime64[D]"), np.array(following, "datetime64[D]"), closes, panel)


class SimulatedSource:
    """A market of `options.symbols` symbols SIM001 ... on the sessions of `calendar` from `options.start` on.

    The same options and calendar give the same bits for every range, subset of symbols and `now`.
    """

    name = "simulated"
    interval = DAILY
    price_basis = PriceBasis.RAW

    def __init__(self, options: SimulatedOptions, calendar: str) -> None:
        self.options = options
        self.calendar = calendar

    def symbols(self) -> list[str]:
        """All symbols there will ever be, sorted; one that is not listed yet has no bars and no instrument."""
        width = max(3, len(str(self.options.symbols)))
        return [f"SIM{number:0{width}d}" for number in range(1, self.options.symbols + 1)]

    def instruments(self, now: datetime) -> pl.DataFrame:
        """Symbols that have a bar by `now`: symbol, sector, listed (first session), delisted.

        `delisted` is the first session without the symbol, as in its delisting event; null while it is not known.
        """
        closed = Sessions(self.calendar).last_closed(now)
        if closed < self.options.start:
            return pl.DataFrame(schema=INSTRUMENT_SCHEMA)
        history = self._history(closed)
        rows = slice(0, int(np.searchsorted(history.sessions, np.datetime64(closed), "right")))
        seen = np.isfinite(history.panel.close[rows])
        left = history.panel.last[rows]
        frame = pl.DataFrame(
            {
                SYMBOL: self.symbols(),
                "sector": [f"Sector {number + 1:02d}" for number in history.panel.sector],
                "listed": history.sessions[rows][seen.argmax(axis=0)],
                "delisted": history.following[rows][left.argmax(axis=0)],
                "gone": left.any(axis=0),
                "seen": seen.any(axis=0),
            }
        )
        frame = frame.with_columns(pl.when("gone").then("delisted").alias("delisted"))
        return frame.filter("seen").select(*INSTRUMENT_SCHEMA)

    def fetch(self, symbols: Sequence[str], start: date, end: date, now: datetime) -> Fetched:
        """Bars of the sessions start..end that have closed by `now`, and the events of start..end known by then.

        Events are announced at the close before their ex-date, so an event of the session after the last closed one
        is among them when `end` reaches it: who holds the symbol needs it before that session's open.
        Errors: InvalidDateRangeError when start > end.
        """
        if start > end:
            raise InvalidDateRangeError(start, end, "the start lies after the end")
        known = self.symbols()
        places = {symbol: place for place, symbol in enumerate(known)}
        wanted = sorted({symbol for symbol in symbols if symbol in places})
        failures = {
            symbol: f"no such symbol; the market has {known[0]} to {known[-1]}"
            for symbol in symbols
            if symbol not in places
        }
        columns = np.array([places[symbol] for symbol in wanted], dtype=np.int64)
        closed = Sessions(self.calendar).last_closed(now)
        if min(closed, end) < self.options.start or not wanted:
            return Fetched(pl.DataFrame(schema=BAR_SCHEMA), pl.DataFrame(schema=ACTION_SCHEMA), failures)
        history = self._history(min(closed, end))
        bars = self._bars(history, columns, _within(history.sessions, start, min(closed, end)))
        announced = _within(history.following, start, end) & (history.sessions <= np.datetime64(closed))
        return Fetched(bars, self._actions(history, columns, announced), failures)

    def oracle(self, start: date, end: date, now: datetime) -> pl.DataFrame:
        """The best forecast there is: symbol, session (D), expected; sorted, D in start..end and closed by `now`.

        `expected` is the mean of the label of horizon 1, log(open(T+1) / open(T)) with T = D+1 and splits and
        dividends adjusted, given everything up to D's close. A symbol whose last bar is D's has no row.
        """
        closed = Sessions(self.calendar).last_closed(now)
        if min(closed, end) < self.options.start:
            return pl.DataFrame(schema={SYMBOL: pl.String, SESSION: pl.Date, "expected": pl.Float64})
        history = self._history(min(closed, end))
        rows = np.flatnonzero(_within(history.sessions, start, min(closed, end)))
        expected = history.panel.expected[rows]
        place, row = np.nonzero((np.isfinite(expected) & ~history.panel.last[rows]).T)
        return pl.DataFrame(
            {
                SYMBOL: self._names(place),
                SESSION: pl.Series(history.sessions[rows][row]),
                "expected": expected[row, place],
            }
        )

    def attainable_ic(self, start: date, end: date, now: datetime) -> float:
        """Mean over dates of the cross-sectional Pearson correlation of `oracle` with the realised label.

        No forecast can expect more. Decisions D with T+1 in start..end; 0.0 where the truth does not vary (no signal).
        """
        fetched = self.fetch(self.symbols(), start, end, now)
        bars = adjusted(fetched.bars, fetched.actions)
        label = (pl.col("open").shift(-2) / pl.col("open").shift(-1)).log().over(SYMBOL)
        labels = bars.select(SYMBOL, SESSION, label.alias("label")).drop_nulls()
        both = self.oracle(start, end, now).join(labels, on=[SYMBOL, SESSION], maintain_order="left")
        varied = both.filter(pl.col("expected").std().over(SESSION) > 1e-12)
        daily = varied.group_by(SESSION, maintain_order=True).agg(pl.corr("expected", "label").alias("ic"))
        mean = daily.get_column("ic").drop_nans().drop_nulls().mean()
        return float(mean) if isinstance(mean, float) else 0.0

    def _history(self, until: date) -> _History:
        return _history(self.options, self.calendar, until.year)

    def _names(self, places: IntArray) -> pl.Series:
        return pl.Series(SYMBOL, self.symbols(), dtype=pl.String).gather(pl.Series(places))

    def _bars(self, history: _History, columns: IntArray, keep: BoolArray) -> pl.DataFrame:
        rows = np.flatnonzero(keep)
        values = {name: getattr(history.panel, name)[np.ix_(rows, columns)].T for name in _PRICES}  # [N, T]
        place, row = np.nonzero(np.isfinite(values["close"]))
        return pl.DataFrame(
            {
                SYMBOL: self._names(columns[place]),
                TS: history.closes.gather(pl.Series(rows[row])),
                SESSION: pl.Series(history.sessions[rows[row]]),
                **{name: array[place, row] for name, array in values.items()},
            },
            schema=BAR_SCHEMA,
        )

    def _actions(self, history: _History, columns: IntArray, keep: BoolArray) -> pl.DataFrame:
        """Events of the announcement rows `keep`, sorted by symbol, session and kind."""
        rows, panel = np.flatnonzero(keep), history.panel
        window = np.ix_(rows, columns)
        split, dividend, last, close = (
            panel.split[window],
            panel.dividend[window],
            panel.last[window],
            panel.close[window],
        )
        kinds = (
            (ActionKind.SPLIT, np.isfinite(split) & (split != 1.0), split),
            (ActionKind.DIVIDEND, np.isfinite(dividend) & (dividend > 0.0), dividend),
            (ActionKind.DELISTING, last, close),
        )
        frames = []
        for kind, happened, value in kinds:
            row, place = np.nonzero(happened)
            frame = {
                SYMBOL: self._names(columns[place]),
                SESSION: pl.Series(history.following[rows[row]]),
                "kind": pl.Series([kind.value] * len(row), dtype=pl.String),
                "value": value[row, place],
                "known_at": pl.Series(history.sessions[rows[row]]),
            }
            frames.append(pl.DataFrame(frame, schema=ACTION_SCHEMA))
        return pl.concat(frames).sort(SYMBOL, SESSION, "kind")


def _within(days: DateArray, start: date, end: date) -> BoolArray:
    return (days >= np.datetime64(start)) & (days <= np.datetime64(end))

"""What a backtest reads: prices as traded with their events, and forecasts, as aligned arrays."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import cached_property

import numpy as np
import polars as pl

from trading_core.backtest.liquidity import liquidity
from trading_core.costs import DAYS_PER_YEAR
from trading_core.errors import DuplicateKeysError, MissingColumnsError, NoDataError
from trading_core.portfolio.actions import ACTION_CODES, check_action, in_order
from trading_core.portfolio.kernels.sessions import Market
from trading_core.schema import (
    QUANTILE_COLUMNS,
    SESSION,
    SYMBOL,
    ActionKind,
    CorporateAction,
    FloatArray,
    IntArray,
)


class FillAt(StrEnum):
    """The price of T at which a decision made at D's close is filled."""

    OPEN = "open"
    CLOSE = "close"
    VWAP = "vwap"  # a proxy, (open + high + low + close) / 4: what an order worked over the session might get


@dataclass(frozen=True, eq=False)
class MarketData:
    """Bars of T sessions and S symbols (sorted), NaN where a symbol has no bar. Prices as traded, currency per share.

    `actions[t]` take effect at the start of session t, before its open. An event on a date without a session moves to
    the next session; one after the last session is dropped.
    """

    symbols: tuple[str, ...]
    sessions: tuple[date, ...]
    opens: FloatArray  # [T, S]
    closes: FloatArray  # [T, S]
    volumes: FloatArray  # [T, S] shares
    split_factor: FloatArray  # [T, S] product of the split ratios up to t, in time order: no later split changes it
    marks: FloatArray  # [T, S] last known close in the basis of t (divided by splits since); NaN before the first bar
    actions: tuple[tuple[CorporateAction, ...], ...]  # T
    prices: FloatArray  # [T, S] at which orders of the session fill before costs; NaN where nothing traded

    @classmethod
    def from_frames(
        cls, bars: pl.DataFrame, actions: pl.DataFrame | None = None, fill_at: FillAt = FillAt.OPEN
    ) -> MarketData:
        """From `schema.BARS` and `schema.CORPORATE_ACTIONS` rows, in any order. A session without volume fills nothing.

        Errors: MissingColumnsError, NoDataError (no bars), DuplicateKeysError (two bars of one symbol and session),
        WrongTypeError (an action with an impossible value).
        """
        _require(bars, (SYMBOL, SESSION, "open", "close", "volume"), "The bars of a backtest")
        if bars.is_empty():
            raise NoDataError("A backtest needs bars and got none", "Run feature_backfill for its dates first.")
        _unique(bars, "The bars of a backtest")
        symbols = tuple(sorted(bars[SYMBOL].unique().to_list()))
        sessions = tuple(sorted(bars[SESSION].unique().to_list()))
        rows, columns = _positions(bars, symbols, sessions)
        opens, closes, volumes = (
            _grid(bars[name], rows, columns, (len(sessions), len(symbols))) for name in ("open", "close", "volume")
        )
        by_session = _actions(actions, symbols, sessions)
        factor = _split_factor(by_session, symbols)
        marks = _marks(closes, factor)
        prices = {FillAt.OPEN: opens, FillAt.CLOSE: closes}.get(fill_at)
        if prices is None:
            _require(bars, ("high", "low"), "The bars of a backtest that fills at the VWAP proxy")
            highs, lows = (_grid(bars[name], rows, columns, opens.shape) for name in ("high", "low"))
            prices = (opens + highs + lows + closes) / 4.0
        traded = np.where(volumes > 0, prices, np.nan)
        return cls(symbols, sessions, opens, closes, volumes, factor, marks, by_session, traded)

    @cached_property
    def liquidity(self) -> tuple[FloatArray, FloatArray]:
        """Daily volatility and average volume (shares, in the session's basis) [T, S], as known at each close."""
        return liquidity(self.closes, self.volumes, self.split_factor)

    @cached_property
    def years(self) -> FloatArray:
        """[T] calendar time since the session before, in years of 365 days; 0 for the first."""
        days = np.diff(np.array(self.sessions, dtype="datetime64[D]")).astype(np.float64)
        return np.concatenate([[0.0], days / DAYS_PER_YEAR])

    def for_kernels(self, with_liquidity: bool) -> Market:
        """The arrays that `portfolio.kernels` read."""
        place = {symbol: s for s, symbol in enumerate(self.symbols)}
        events = [event for day in self.actions if day for event in in_order(day)]
        sigma, adv = self.liquidity if with_liquidity else (np.zeros((0, 0)), np.zeros((0, 0)))
        return Market(
            self.closes,
            self.marks,
            self.prices,
            self.volumes,
            sigma,
            adv,
            np.concatenate([[0], np.cumsum([len(day) for day in self.actions])]).astype(np.int64),
            np.array([place[event.symbol] for event in events], dtype=np.int64),
            np.array([ACTION_CODES[event.kind] for event in events], dtype=np.int64),
            np.array([event.value for event in events], dtype=np.float64),
            self.years,
        )

    def window(self, index: int, lookback: int) -> tuple[FloatArray, FloatArray]:
        """Closes and volumes [L, S] of the last `lookback` sessions up to `index`, adjusted for splits through `index`.

        The last row is as traded. L is smaller than `lookback` at the beginning of history.
        """
        rows = slice(max(index + 1 - lookback, 0), index + 1)
        factor = self.split_factor[rows] / self.split_factor[index]
        return self.closes[rows] * factor, self.volumes[rows] / factor

    def first_at_or_after(self, day: date) -> int:
        """The index of the first session at or after `day`; T when there is none."""
        return bisect_left(self.sessions, day)


@dataclass(frozen=True, slots=True, eq=False)
class ForecastPanel:
    """Forecasts of one horizon, aligned with a MarketData: row t was made with what was known at session t's close."""

    score: FloatArray  # [T, S]; NaN = no forecast
    quantiles: FloatArray  # [T, S, Q]
    p_up: FloatArray  # [T, S]

    @classmethod
    def from_frame(
        cls, forecasts: pl.DataFrame, horizon: int, symbols: tuple[str, ...], sessions: tuple[date, ...]
    ) -> ForecastPanel:
        """From `schema.FORECASTS` rows; other horizons, symbols and sessions are left out.

        Errors: MissingColumnsError; DuplicateKeysError when several versions forecast one symbol and session: choose
        which one was valid as of each session before calling.
        """
        _require(forecasts, (SYMBOL, SESSION, "horizon", "score", "p_up", *QUANTILE_COLUMNS), "The forecasts")
        wanted = forecasts.filter(
            (pl.col("horizon") == horizon)
            & pl.col(SYMBOL).is_in(list(symbols))
            & pl.col(SESSION).is_in(pl.Series(list(sessions), dtype=pl.Date).implode())
        )
        _unique(wanted, "The forecasts")
        rows, columns = _positions(wanted, symbols, sessions)
        shape = (len(sessions), len(symbols))
        grids = [_grid(wanted[name], rows, columns, shape) for name in ("score", "p_up", *QUANTILE_COLUMNS)]
        return cls(grids[0], np.stack(grids[2:], axis=-1), grids[1])

    @classmethod
    def empty(cls, data: MarketData) -> ForecastPanel:
        """No forecast for anything: what benchmarks need."""
        shape = (len(data.sessions), len(data.symbols))
        return cls(np.full(shape, np.nan), np.full((*shape, len(QUANTILE_COLUMNS)), np.nan), np.full(shape, np.nan))


def aligned_columns(
    features: pl.DataFrame, names: Sequence[str], symbols: tuple[str, ...], sessions: tuple[date, ...]
) -> Mapping[str, FloatArray]:
    """Feature columns [T, S] in float64, aligned with a MarketData; NaN where there is no row.

    features: SYMBOL, SESSION and `names`. Errors: MissingColumnsError, DuplicateKeysError.
    """
    _require(features, (SYMBOL, SESSION, *names), "The features of a strategy")
    wanted = features.filter(
        pl.col(SYMBOL).is_in(list(symbols)) & pl.col(SESSION).is_in(pl.Series(list(sessions), dtype=pl.Date).implode())
    )
    _unique(wanted, "The features of a strategy")
    rows, columns = _positions(wanted, symbols, sessions)
    return {name: _grid(wanted[name], rows, columns, (len(sessions), len(symbols))) for name in names}


def _require(frame: pl.DataFrame, columns: Sequence[str], where: str) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise MissingColumnsError(where, missing, frame.columns)


def _unique(frame: pl.DataFrame, where: str) -> None:
    key = [SYMBOL, SESSION]
    twice = frame.group_by(key).len().filter(pl.col("len") > 1).sort(key)
    if not twice.is_empty():
        sample = [f"{row[SYMBOL]} {row[SESSION]}" for row in twice.head(3).iter_rows(named=True)]
        raise DuplicateKeysError(where, key, twice.height, sample)


def _positions(frame: pl.DataFrame, symbols: tuple[str, ...], sessions: tuple[date, ...]) -> tuple[IntArray, IntArray]:
    """Row (session) and column (symbol) of every row of `frame`, in the sorted `sessions` and `symbols`."""
    days = np.array(sessions, dtype="datetime64[D]")
    rows = np.searchsorted(days, frame[SESSION].to_numpy().astype("datetime64[D]"))
    place = {symbol: s for s, symbol in enumerate(symbols)}
    columns = np.array([place[symbol] for symbol in frame[SYMBOL].to_list()], dtype=np.int64)
    return rows.astype(np.int64), columns


def _grid(values: pl.Series, rows: IntArray, columns: IntArray, shape: tuple[int, int]) -> FloatArray:
    grid = np.full(shape, np.nan)
    grid[rows, columns] = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return grid


def _actions(
    frame: pl.DataFrame | None, symbols: tuple[str, ...], sessions: tuple[date, ...]
) -> tuple[tuple[CorporateAction, ...], ...]:
    by_session: list[list[CorporateAction]] = [[] for _ in sessions]
    known = set(symbols)
    if frame is not None and not frame.is_empty():
        _require(frame, (SYMBOL, SESSION, "kind", "value"), "The corporate actions")
        days = np.array(sessions, dtype="datetime64[D]")
        for row in frame.sort(SYMBOL, SESSION, "kind").iter_rows(named=True):
            t = int(np.searchsorted(days, np.datetime64(row[SESSION])))
            if t < len(sessions) and row[SYMBOL] in known:
                kind = ActionKind(row["kind"])
                action = CorporateAction(row[SYMBOL], row[SESSION], kind, float(row["value"]))
                check_action(action)
                by_session[t].append(action)
    return tuple(tuple(events) for events in by_session)


def _split_factor(actions: tuple[tuple[CorporateAction, ...], ...], symbols: tuple[str, ...]) -> FloatArray:
    place = {symbol: s for s, symbol in enumerate(symbols)}
    ratios = np.ones((len(actions), len(symbols)))
    for t, events in enumerate(actions):
        for event in events:
            if event.kind is ActionKind.SPLIT:
                ratios[t, place[event.symbol]] *= event.value
    return np.asarray(np.cumprod(ratios, axis=0), dtype=np.float64)


def _marks(closes: FloatArray, factor: FloatArray) -> FloatArray:
    """The last known close of every symbol at each session, restated for the splits since it was known."""
    known = np.isfinite(closes)
    last = np.maximum.accumulate(np.where(known, np.arange(len(closes))[:, None], -1), axis=0)
    columns = np.arange(closes.shape[1])
    carried = closes[last, columns] * (factor[last, columns] / factor)
    return np.asarray(np.where(known, closes, np.where(last >= 0, carried, np.nan)), dtype=np.float64)

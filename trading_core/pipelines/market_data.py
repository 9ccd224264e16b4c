"""Bars, events, forecasts and features as the arrays that decisions are made of: the same for backtest, replay and live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from trading_core.backtest.data import FillAt, MarketData, aligned_columns
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA
from trading_core.pipelines import quality
from trading_core.pipelines.panels import Versions, current_versions, load_columns
from trading_core.pipelines.workspace import Workspace
from trading_core.portfolio.auction import Liquidity
from trading_core.portfolio.overnight import QUIET, Night
from trading_core.portfolio.strategy import Strategy
from trading_core.schema import BARS, CORPORATE_ACTIONS, SESSION, SYMBOL, FloatArray
from trading_core.storage.tables import Predicate

LATEST: Mapping[str, int | None] = {}


@dataclass(frozen=True, slots=True)
class LastClose:
    """A price per share, in the shares of the session it is of."""

    close: float
    session: date


def load_market_data(
    ws: Workspace, end: date, fill_at: FillAt = FillAt.OPEN, versions: Mapping[str, int | None] = LATEST
) -> tuple[MarketData, pl.DataFrame, pl.DataFrame]:
    """Prices as traded with their events up to `end`, and both frames; versions: of tables that are not read as they are now
    (None for `quarantine`: as if there were no such table).

    The prices are without bars that were held out on the evening of their session, as the live session saw it.
    """
    where = Predicate(None, end)
    bars = ws.tables.read(BARS.name, where=where, version=versions.get(BARS.name)).select(*BAR_SCHEMA)
    table = CORPORATE_ACTIONS.name
    actions = ws.tables.read(table, where=where, version=versions.get(table)).select(*ACTION_SCHEMA)
    return MarketData.from_frames(quality.seen_that_day(ws, bars, versions), actions, fill_at), bars, actions


def load_strategy_columns(
    ws: Workspace, strategy: Strategy, data: MarketData, start: date, end: date, versions: Versions | None = None
) -> Mapping[str, FloatArray]:
    """The features that `strategy` declares [T, S], aligned with `data`; NaN outside of what its decisions of the sessions
    start .. end may look at. versions: of the tables, where they are not read as they are now.
    Errors: those of `panels.current_versions`, UnknownNameError (no such feature)."""
    if not strategy.columns:
        return {}
    first = max(data.first_at_or_after(start) + 1 - strategy.lookback, 0)
    names = list(strategy.columns)
    tables = current_versions(ws, names) if versions is None else versions
    features = load_columns(ws, names, data.sessions[first], end, tables)
    return aligned_columns(features, names, data.symbols, data.sessions)


def night_before(ws: Workspace, session: date) -> Night:
    """What an account's costs of `session` depend on: see `Night`. Reads nothing where the market's costs need nothing."""
    costs = ws.costs
    if not (costs.needs_liquidity or costs.accrues or costs.max_participation is not None):
        return QUIET
    data, _, _ = load_market_data(ws, session)
    t = data.first_at_or_after(session)
    if t == 0 or t >= len(data.sessions):
        return QUIET
    marks = {symbol: float(mark) for symbol, mark in zip(data.symbols, data.marks[t - 1], strict=True) if mark == mark}
    sigma, adv = data.liquidity
    ratio = data.split_factor[t] / data.split_factor[t - 1]  # restates D's average volume in T's shares
    known = {
        symbol: Liquidity(float(sigma[t - 1, s]), float(adv[t - 1, s] * ratio[s]), float(data.volumes[t, s]))
        for s, symbol in enumerate(data.symbols)
    }
    return Night(float(data.years[t]), marks, known)


def last_closes(
    ws: Workspace, end: date, start: date | None = None, symbols: Sequence[str] | None = None
) -> dict[str, LastClose]:
    """The last usable close of every symbol (of some) up to `end`, as seen on that evening; `start`: not older than that."""
    columns = [SYMBOL, SESSION, "close"]
    bars = quality.seen_that_day(ws, ws.tables.read(BARS.name, columns=columns, where=Predicate(start, end)))
    if symbols is not None:
        bars = bars.filter(pl.col(SYMBOL).is_in(list(symbols)))
    usable = bars.filter(pl.col("close").is_finite() & (pl.col("close") > 0)).sort(SESSION)
    last = usable.group_by(SYMBOL).agg(pl.col("close", SESSION).last())
    return {row[SYMBOL]: LastClose(row["close"], row[SESSION]) for row in last.iter_rows(named=True)}


def traded_opens(ws: Workspace, session: date) -> dict[str, float]:
    """The opening price of every symbol that traded in `session`, as seen on its evening."""
    columns = [SYMBOL, SESSION, "open", "volume"]
    bars = quality.seen_that_day(ws, ws.tables.read(BARS.name, columns=columns, where=Predicate(session, session)))
    traded = (pl.col("open") > 0) & (pl.col("volume") > 0)  # NaN is above 0 to polars
    there = bars.filter(traded & pl.col("open").is_finite() & pl.col("volume").is_finite())
    return dict(there.select(SYMBOL, "open").iter_rows())

"""What an account held, symbol by symbol, rebuilt from its trades: for attribution, exposures and closed trades."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from trading_core.backtest.data import MarketData
from trading_core.schema import SESSION, SYMBOL, ActionKind, FloatArray, IntArray, Side


@dataclass(frozen=True, slots=True, eq=False)
class Executions:
    """Fills in time order, restated for splits so that they do not matter: quantity / factor and price * factor, the
    factor being the product of the split ratios up to the fill. A delisting is a fill at what it pays, without cost."""

    row: IntArray  # [F] index of the session in the result, 0 = the first decision
    column: IntArray  # [F] index of the symbol
    quantity: FloatArray  # [F] signed
    price: FloatArray
    commission: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """values [N, S]: of the positions at each close, currency. profit [N, S]: after the costs of trading, dividends
    included, interest and borrowing fees not; the sums over both are the account's. executions: delistings included."""

    values: FloatArray
    profit: FloatArray
    executions: Executions


def positions_of(data: MarketData, trades: pl.DataFrame, first: int, last: int) -> Positions:
    """Of the trades (result.TRADE_COLUMNS) of a run whose first decision was session `first` and last session `last`."""
    fills = _executions(data, trades, first)
    count, symbols = last - first + 1, len(data.symbols)
    factor, marks = data.split_factor[first : last + 1], np.nan_to_num(data.marks[first : last + 1])
    bought, paid = np.zeros((count, symbols)), np.zeros((count, symbols))
    np.add.at(bought, (fills.row, fills.column), fills.quantity)
    np.add.at(paid, (fills.row, fills.column), fills.quantity * fills.price + fills.commission)
    held = np.cumsum(bought, axis=0)
    scale = np.abs(held).max(axis=0, initial=0.0)
    income = np.zeros((count, symbols))
    place = {symbol: s for s, symbol in enumerate(data.symbols)}
    delisted: list[tuple[int, int, float, float]] = []
    for n in range(1, count):
        for event in data.actions[first + n]:
            s = place[event.symbol]
            if event.kind is ActionKind.SPLIT or held[n - 1, s] == 0.0:
                continue
            if event.kind is ActionKind.DIVIDEND:
                income[n, s] += held[n - 1, s] * factor[n, s] * event.value
                continue
            left = held[n - 1, s]
            delisted.append((n, s, -left, event.value * factor[n, s]))
            held[n:, s] -= left
            paid[n, s] -= left * event.value * factor[n, s]
    held[np.abs(held) <= 1e-9 * scale] = 0.0  # what sums of fills leave of a closed position
    values = held * factor * marks
    before = np.vstack([np.zeros((1, symbols)), values[:-1]])
    return Positions(values, values - before - paid + income, _with_delistings(fills, delisted))


def _executions(data: MarketData, trades: pl.DataFrame, first: int) -> Executions:
    days = np.array(data.sessions, dtype="datetime64[D]")
    t = np.searchsorted(days, trades[SESSION].to_numpy().astype("datetime64[D]")).astype(np.int64)
    place = {symbol: s for s, symbol in enumerate(data.symbols)}
    column = np.array([place[symbol] for symbol in trades[SYMBOL].to_list()], dtype=np.int64)
    factor = data.split_factor[t, column] if len(t) else np.zeros(0)
    sign = np.where((trades["side"] == Side.BUY.value).to_numpy(), 1.0, -1.0)
    quantity = sign * trades["quantity"].to_numpy() / factor
    return Executions(
        t - first, column, quantity, trades["price"].to_numpy() * factor, trades["commission"].to_numpy().copy()
    )


def _with_delistings(fills: Executions, delisted: list[tuple[int, int, float, float]]) -> Executions:
    if not delisted:
        return fills
    row, column, quantity, price = (np.array(values) for values in zip(*delisted, strict=True))
    rows = np.concatenate([row, fills.row]).astype(np.int64)
    order = np.argsort(rows, kind="stable")  # a delisting comes before the fills of its session
    return Executions(
        rows[order],
        np.concatenate([column, fills.column]).astype(np.int64)[order],
        np.concatenate([quantity, fills.quantity])[order],
        np.concatenate([price, fills.price])[order],
        np.concatenate([np.zeros(len(row)), fills.commission])[order],
    )

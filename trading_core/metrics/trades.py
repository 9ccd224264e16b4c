"""From fills to trades, and how good the trades were. Pure functions on arrays, one row per fill, in time order.

A trade is an episode of one symbol from flat to flat, long or short; adding to the position and reducing it in between
belong to the same trade. A fill that crosses zero closes one trade and opens the next one.

Fills are given as arrays [N]: `session` and `symbol`, any integers (sessions ascending); `quantity`, bought positive,
sold negative, restated for splits, so that all of a symbol's quantities and prices are shares of one basis; `price`, at
which it was executed, spread, slippage and impact in it; `commission`, cash paid on top (a rebate is negative).
Dividends, borrow fees and interest come without a fill and are not counted: the trades do not add up to the change of
an account that has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trading_core.errors import InvalidConfigError, WrongTypeError
from trading_core.schema import BoolArray, FloatArray, IntArray

# Below this share of its symbol's largest position, what is left is rounding: the symbol is flat.
FLAT = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class ClosedTrades:
    """K closed trades, by closing session and then symbol. All arrays [K]; currency of the prices."""

    symbol: IntArray
    opened: IntArray  # session of the first fill
    closed: IntArray  # session of the fill that made it flat
    direction: IntArray  # +1 long, -1 short
    sessions: IntArray  # closed - opened; 0 within one session
    peak_notional: FloatArray  # largest |position after a fill| * price of that fill
    profit: FloatArray  # cash received - cash paid, commissions included
    profit_on_peak: FloatArray  # profit / peak_notional, a fraction; NaN without a notional
    open_positions: int  # symbols not flat after the last fill: their trades are counted here and not judged


@dataclass(frozen=True, slots=True)
class TradeSummary:
    """The closed trades in figures; NaN where one is not defined (no trades, no losses ...). A trade of exactly 0 is
    neither won nor lost."""

    closed_trades: int
    open_positions: int
    win_rate: float  # share of closed trades with a profit above 0
    profit_factor: float  # sum of profits / sum of losses; NaN without a loss
    expectancy: float  # mean profit of a trade, currency
    expectancy_on_peak: float  # mean of profit / peak notional, a fraction
    payoff_ratio: float  # mean profit of the won / mean loss of the lost; NaN without either
    mean_sessions: float  # held
    median_sessions: float


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """Fills by symbol and then time, those that cross zero split in two. All arrays [M]; positions as after snapping."""

    session: IntArray
    symbol: IntArray
    quantity: FloatArray
    price: FloatArray
    commission: FloatArray
    before: FloatArray  # position before
    after: FloatArray


def closed_trades(
    session: IntArray, symbol: IntArray, quantity: FloatArray, price: FloatArray, commission: FloatArray
) -> ClosedTrades:
    """The trades that were closed. Arguments: [N] each, see the module.

    A position of at most 1e-9 of its symbol's largest one counts as flat, and a fill that leaves a flat symbol flat
    (nothing bought, or such a rest sold) is left out. The commission of a fill that crosses zero is shared by quantity.
    Errors: WrongTypeError for arrays of different lengths, sessions out of order, numbers that are not finite.
    """
    _check(session, {"symbol": symbol, "quantity": quantity, "price": price, "commission": commission})
    steps = _steps(session, symbol, quantity, price, commission)
    first = np.flatnonzero(steps.before == 0.0)
    if not len(first):
        return _no_trades()
    last = np.append(first[1:], len(steps.after)) - 1
    cash = np.add.reduceat(-steps.quantity * steps.price - steps.commission, first)
    peak = np.maximum.reduceat(np.abs(steps.after) * np.abs(steps.price), first)
    flat = steps.after[last] == 0.0
    first, last, cash, peak = first[flat], last[flat], cash[flat], peak[flat]
    order = np.lexsort((steps.symbol[first], steps.session[last]))
    first, last, cash, peak = first[order], last[order], cash[order], peak[order]
    opened, closed = steps.session[first], steps.session[last]
    on_peak = np.divide(cash, peak, out=np.full(len(cash), np.nan), where=peak > 0.0)
    direction = np.sign(steps.after[first]).astype(np.int64)
    held = closed - opened
    return ClosedTrades(steps.symbol[first], opened, closed, direction, held, peak, cash, on_peak, int(np.sum(~flat)))


def summarize_trades(trades: ClosedTrades) -> TradeSummary:
    """All figures of closed trades."""
    profit = trades.profit
    won, lost = profit[profit > 0.0], profit[profit < 0.0]
    return TradeSummary(
        closed_trades=len(profit),
        open_positions=trades.open_positions,
        win_rate=_mean((profit > 0.0).astype(np.float64)),
        profit_factor=float(won.sum() / -lost.sum()) if len(lost) else float("nan"),
        expectancy=_mean(profit),
        expectancy_on_peak=_mean(trades.profit_on_peak),
        payoff_ratio=float(_mean(won) / -_mean(lost)) if len(lost) else float("nan"),
        mean_sessions=_mean(trades.sessions.astype(np.float64)),
        median_sessions=float(np.median(trades.sessions)) if len(trades.sessions) else float("nan"),
    )


def capacity(
    notional: FloatArray, capital: FloatArray, dollar_volume: FloatArray, share: float = 0.01, exceeded: float = 0.05
) -> float:
    """The largest capital at which at most `exceeded` of the fills are more than `share` of their symbol's volume.

    notional: [N] of each fill, currency, either sign; give the fills of one order as one. capital: [N] equity it was
    made with. dollar_volume: [N] average daily volume of its symbol, currency, as known at its session.
    Orders grow with the capital, so fill i reaches the limit at c_i = share * dollar_volume_i * capital_i / |notional_i|,
    and the capacity is the (floor(exceeded N) + 1)-th smallest c_i. Fills of no notional or whose capital or volume is
    not known (NaN) are left out. NaN without fills. It says nothing of the impact up to that share.
    Errors: WrongTypeError for different lengths; InvalidConfigError unless 0 < share and 0 <= exceeded < 1.
    """
    if not share > 0.0 or not 0.0 <= exceeded < 1.0:
        problem = f"share: {share}, exceeded: {exceeded}; a share lies above 0, and what may exceed it in [0, 1)"
        raise InvalidConfigError("The capacity", [problem])
    _same_lengths("The capacity", len(notional), {"capital": capital, "dollar_volume": dollar_volume})
    size = np.abs(notional)
    keep: BoolArray = (size > 0.0) & np.isfinite(size) & np.isfinite(capital) & np.isfinite(dollar_volume)
    if not keep.any():
        return float("nan")
    limits = share * dollar_volume[keep] * capital[keep] / size[keep]
    place = int(exceeded * len(limits) + 1e-9)  # 0.07 * 100 may be a little less than 7 in floats
    return float(np.partition(limits, place)[place])


def _steps(
    session: IntArray, symbol: IntArray, quantity: FloatArray, price: FloatArray, commission: FloatArray
) -> _Steps:
    """The fills as steps from position to position, none across zero and none from flat to flat."""
    order = np.argsort(symbol, kind="stable")
    before, after = _positions(symbol[order], np.asarray(quantity, dtype=np.float64)[order])
    crosses = np.sign(before) * np.sign(after) < 0.0
    kept = np.flatnonzero((before != 0.0) | (after != 0.0))
    rows = np.repeat(kept, np.where(crosses[kept], 2, 1))
    closing, opening = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)  # halves of a fill that crosses
    closing[:-1] = opening[1:] = rows[1:] == rows[:-1]
    source = order[rows]
    traded = np.asarray(quantity, dtype=np.float64)[source]
    before, after = before[rows], after[rows]
    traded[closing], traded[opening] = -before[closing], after[opening]
    part = np.ones(len(rows))
    part[closing] = np.abs(before[closing]) / (np.abs(before[closing]) + np.abs(after[closing]))
    part[opening] = 1.0 - part[closing]
    after[closing], before[opening] = 0.0, 0.0
    return _Steps(session[source], symbol[source], traded, price[source], commission[source] * part, before, after)


def _positions(symbol: IntArray, quantity: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The position before and after each fill of rows sorted by symbol; exactly 0 where it is flat."""
    if not len(symbol):
        return np.zeros(0), np.zeros(0)
    first = np.flatnonzero(np.append(True, symbol[1:] != symbol[:-1]))
    count = np.diff(first, append=len(symbol))
    after = np.empty(len(symbol))
    for start, rows in zip(first.tolist(), count.tolist(), strict=True):  # a sum of its own: other symbols add no noise
        np.cumsum(quantity[start : start + rows], out=after[start : start + rows])
    largest = np.maximum.reduceat(np.abs(after), first)
    after[np.abs(after) <= FLAT * np.repeat(largest, count)] = 0.0
    before = np.append(0.0, after[:-1])
    before[first] = 0.0
    return before, after


def _no_trades() -> ClosedTrades:
    none = np.zeros(0, dtype=np.int64)
    return ClosedTrades(none, none, none, none, none, np.zeros(0), np.zeros(0), np.zeros(0), 0)


def _check(session: IntArray, columns: Mapping[str, FloatArray | IntArray]) -> None:
    """Errors: see `closed_trades`."""
    where = "The fills"
    _same_lengths(where, len(session), columns)
    if np.any(session[1:] < session[:-1]):
        row = int(np.argmax(session[1:] < session[:-1])) + 1
        raise WrongTypeError(where, "session", f"out of order at position {row}", "ascending")
    for name, values in columns.items():
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values)))
            raise WrongTypeError(where, name, f"not finite at position {row}", "finite numbers")


def _same_lengths(where: str, count: int, columns: Mapping[str, FloatArray | IntArray]) -> None:
    for name, values in columns.items():
        if len(values) != count:
            raise WrongTypeError(where, name, f"{len(values)} long", f"{count}, as the other columns")


def _mean(values: FloatArray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")

"""What a backtest hands back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl

from trading_core.schema import SESSION, SYMBOL, FloatArray

# price, commission: see schema.Fill; reference_price: the close the order was sized with; cost: spread, slippage and
# commission in currency.
TRADE_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    SESSION: pl.Date,
    SYMBOL: pl.String,
    "side": pl.String,
    "quantity": pl.Float64,
    "price": pl.Float64,
    "commission": pl.Float64,
    "reference_price": pl.Float64,
    "cost": pl.Float64,
}
# Orders that did not fill as planned: `quantity` is what was planned, `stage` is "risk" or "auction".
UNFILLED_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    SESSION: pl.Date,
    SYMBOL: pl.String,
    "side": pl.String,
    "quantity": pl.Float64,
    "stage": pl.String,
    "reason": pl.String,
}


@dataclass(frozen=True, slots=True, eq=False)
class BacktestResult:
    """One strategy over N sessions. Row 0 is the first decision session (D), at whose close nothing is held yet.

    equity[n] = cash[n] + sum of holdings at their last known close, at the close of sessions[n]; currency.
    turnover[n]: half of all traded notional of the session (buys + sells, at execution prices) / equity[n - 1].
    costs_paid[n]: spread, slippage and commission of the session, currency.
    """

    name: str
    sessions: tuple[date, ...]
    equity: FloatArray
    cash: FloatArray
    turnover: FloatArray
    costs_paid: FloatArray
    n_positions: FloatArray
    trades: pl.DataFrame  # TRADE_COLUMNS, one row per fill, in time order
    unfilled: pl.DataFrame  # UNFILLED_COLUMNS
    final_holdings: dict[str, float]  # shares

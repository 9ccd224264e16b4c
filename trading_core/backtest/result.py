"""What a backtest hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
import polars as pl

from trading_core.portfolio.auction import reason_of
from trading_core.portfolio.kernels import types as fields
from trading_core.portfolio.risk import RiskLimits, cut_by
from trading_core.schema import SESSION, SYMBOL, FloatArray, Side

# price, commission: see schema.Fill; reference_price: the close the order was sized with; cost: spread, slippage, impact
# and commission in currency, of which `impact`.
TRADE_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    SESSION: pl.Date,
    SYMBOL: pl.String,
    "side": pl.String,
    "quantity": pl.Float64,
    "price": pl.Float64,
    "commission": pl.Float64,
    "reference_price": pl.Float64,
    "cost": pl.Float64,
    "impact": pl.Float64,
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


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """One strategy over N sessions. Row 0 is the first decision session (D), at whose close nothing is held yet.

    Arrays are [N]; currency, at or during sessions[n], unless named otherwise.
    equity[n] = cash[n] + sum of holdings at their last known close, at the close of sessions[n].
    turnover[n]: half of all traded notional of the session (buys + sells, at execution prices) / equity[n - 1].
    gross, net: sum of absolute and of signed position values at the close, as fractions of equity.
    cash[n] = cash[n-1] + interest - borrow + dividends + proceeds (of delistings) - sum of signed quantity * price
    of the trades - commission.
    """

    name: str
    sessions: tuple[date, ...]
    symbols: tuple[str, ...]
    equity: FloatArray
    cash: FloatArray
    turnover: FloatArray
    commission: FloatArray
    concession: FloatArray  # half spread and slippage
    impact: FloatArray
    borrow: FloatArray
    interest: FloatArray
    dividends: FloatArray
    proceeds: FloatArray
    gross: FloatArray
    net: FloatArray
    n_positions: FloatArray
    fills: FloatArray  # [F, TRADE_FIELDS] in time order, session as its row in `sessions`; see kernels.types
    misses: FloatArray  # [M, UNFILLED_FIELDS]
    final_quantities: FloatArray  # [S] shares
    limits: RiskLimits | None

    @property
    def costs_paid(self) -> FloatArray:
        """[N] commission, spread, slippage and impact of the session."""
        return self.commission + self.concession + self.impact

    @property
    def final_holdings(self) -> dict[str, float]:
        """Shares by symbol at the end."""
        held = np.flatnonzero(self.final_quantities)
        return {self.symbols[s]: float(self.final_quantities[s]) for s in held}

    @cached_property
    def trades(self) -> pl.DataFrame:
        """TRADE_COLUMNS, one row per fill, in time order: of a session sells by symbol, then buys by symbol."""
        row, column, signed, price, commission, reference, before, impact = self.fills.T
        quantity = np.abs(signed)
        values = (quantity, price, commission, reference, commission + quantity * np.abs(price - before), impact)
        return _frame(TRADE_COLUMNS, self._days(row), self._names(column), _sides(signed), *values)

    @cached_property
    def unfilled(self) -> pl.DataFrame:
        """UNFILLED_COLUMNS, in time order: of a session what the risk rules cut, then what the auction left."""
        row, column, signed, left, bits, stage = self.misses.T
        names = self._names(column)
        risky = (stage == fields.RISK_STAGE).tolist()
        reasons = [
            _risk_reason(int(bit), str(symbol), self.limits) if risk else reason_of(int(bit), ordered, filled)
            for bit, symbol, risk, ordered, filled in zip(
                bits.tolist(), names, risky, signed.tolist(), left.tolist(), strict=True
            )
        ]
        stages = np.where(stage == fields.RISK_STAGE, "risk", "auction")
        return _frame(UNFILLED_COLUMNS, self._days(row), names, _sides(signed), np.abs(signed), stages, reasons)

    def _days(self, rows: FloatArray) -> Sequence[object]:
        return list(np.array(self.sessions, dtype="datetime64[D]")[rows.astype(np.int64)].astype(object))

    def _names(self, columns: FloatArray) -> Sequence[object]:
        return list(np.array(self.symbols, dtype=object)[columns.astype(np.int64)])


def _sides(signed: FloatArray) -> Sequence[object]:
    return list(np.where(signed > 0, Side.BUY.value, Side.SELL.value))


def _risk_reason(bits: int, symbol: str, limits: RiskLimits | None) -> str:
    rule, reason = cut_by(bits, symbol, limits or RiskLimits())
    return f"cut by {rule}: {reason}"


def _frame(schema: dict[str, pl.DataType | type[pl.DataType]], *columns: object) -> pl.DataFrame:
    return pl.DataFrame(dict(zip(schema, columns, strict=True)), schema=schema)

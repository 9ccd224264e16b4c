"""One decision from end to end: view -> target weights -> planned orders -> risk verdicts -> the orders to send.

Replay and live session call `decide`; the backtest runs the same kernels over a whole panel. A difference between them can
only come from their inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trading_core.costs import CostModel
from trading_core.errors import NoDataError
from trading_core.portfolio.kernels.account import value
from trading_core.portfolio.planner import PlannedOrder, plan
from trading_core.portfolio.risk import RiskLimits, RiskVerdict, approved, check
from trading_core.portfolio.strategy import SessionView, Strategy, validate_weights
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class AccountWeights:
    """An account valued at D's close: shares [S], fractions of equity [S], the cash's fraction; equity, cash in currency."""

    quantities: FloatArray
    weights: FloatArray
    cash_weight: float
    equity: float
    cash: float


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """`targets` [S] as the strategy gave them; `verdicts` one per planned order; `orders` are what may be sent."""

    targets: FloatArray
    verdicts: tuple[RiskVerdict, ...]
    orders: tuple[PlannedOrder, ...]


def value_account(
    symbols: tuple[str, ...], holdings: Mapping[str, float], cash: float, marks: FloatArray
) -> AccountWeights:
    """Values an account at `marks` [S], the last known price per share of each symbol.

    Errors: NoDataError when a held symbol is not among `symbols` or has no mark: its equity would be a guess.
    """
    index = {symbol: s for s, symbol in enumerate(symbols)}
    quantities = np.zeros(len(symbols))
    for symbol, quantity in holdings.items():
        s = index.get(symbol)
        if s is None or not math.isfinite(marks[s]):
            way_out = "Backfill its bars, or record its delisting, then run the session again."
            raise NoDataError(f"The account holds {quantity:g} {symbol}, which has no known price", way_out)
        quantities[s] = quantity
    return valued(quantities, float(cash), np.ascontiguousarray(marks, dtype=np.float64))


def valued(quantities: FloatArray, cash: float, marks: FloatArray) -> AccountWeights:
    """The same for quantities [S] that all have a mark; the array is copied."""
    weights = np.zeros(len(quantities))
    equity = value(quantities, np.array(marks), cash, weights)
    return AccountWeights(quantities.copy(), weights, cash / equity if equity > 0 else 0.0, equity, cash)


def decide(
    name: str,
    strategy: Strategy,
    view: SessionView,
    account: AccountWeights,
    marks: FloatArray,
    costs: CostModel,
    fractional: bool = True,
    min_order_notional: float = 0.0,
    limits: RiskLimits | None = None,
    volumes: FloatArray | None = None,
) -> Decision:
    """The decision of strategy `name` for `view`. `account`: from `value_account` with its symbols and `marks` [S].

    `min_order_notional` in currency. Without `limits` no risk rule is applied, and positions may not exceed equity.
    `volumes`: [S] average daily volume known at the view's session, shares, NaN where it is not known (None: nowhere).
    An account that is worth nothing decides nothing. Errors: StrategyOutputError.
    """
    max_gross = max(limits.max_gross, 1.0) if limits else 1.0  # a lower limit is for the rule to scale down to
    if account.equity <= 0:
        return Decision(np.array(account.weights), (), ())
    targets = validate_weights(name, strategy.decide(view), view, max_gross, strategy.short)
    orders = plan(
        view.symbols,
        account.weights,
        targets,
        view.closes[-1],
        account.quantities,
        account.equity,
        costs,
        fractional,
        min_order_notional,
        cash=account.cash,
    )
    if limits is None or not orders:
        return Decision(targets, (), orders)
    prices = dict(zip(view.symbols, marks.tolist(), strict=True))
    holdings = {view.symbols[s]: float(account.quantities[s]) for s in np.flatnonzero(account.quantities)}
    traded = {} if volumes is None else dict(zip(view.symbols, volumes.tolist(), strict=True))
    verdicts = check(orders, account.equity, prices, holdings, limits, fractional, traded, min_order_notional)
    return Decision(targets, verdicts, approved(verdicts))

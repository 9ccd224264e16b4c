"""`python -m trading_core.portfolio.compile`: compiles all kernels of accounts and strategies now, for every later process of
this installation.

Otherwise the first backtest or decision does it, and processes that start at the same time each do it for themselves.
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np

from trading_core.costs import CostModel
from trading_core.portfolio.actions import apply_actions
from trading_core.portfolio.auction import fill_open
from trading_core.portfolio.decision import decide, value_account
from trading_core.portfolio.kernels.sessions import Account, Market, run_sessions
from trading_core.portfolio.kernels.types import PATHS, TOP_K, AccountRules, Allocation
from trading_core.portfolio.overnight import QUIET, accrue
from trading_core.portfolio.registry import STRATEGIES
from trading_core.portfolio.risk import RiskLimits, restricted_mask
from trading_core.portfolio.strategy import SessionView, SignalInputs, SignalStrategy, Strategy, session_view
from trading_core.portfolio.top_k import TopK, TopKParams
from trading_core.schema import QUANTILES, ActionKind, CorporateAction, FloatArray

SYMBOLS = ("A", "B", "C")
DAY = date(2024, 1, 2)
COSTS, LIMITS = CostModel(), RiskLimits()


def prices(sessions: int) -> FloatArray:
    """[T, S] of anything: what they are does not matter, only their type."""
    return 100.0 + np.arange(sessions * len(SYMBOLS), dtype=np.float64).reshape(sessions, -1) % 7


def any_view(strategy: Strategy) -> SessionView:
    closes, row = prices(strategy.lookback), np.zeros(len(SYMBOLS))
    quantiles, columns = np.full((len(SYMBOLS), len(QUANTILES)), np.nan), dict.fromkeys(strategy.columns, closes)
    return session_view(
        DAY, DAY + timedelta(days=1), 0, SYMBOLS, row, quantiles, row, closes, closes, row, 1.0, columns
    )


def any_inputs(strategy: Strategy) -> SignalInputs:
    closes, row = prices(strategy.lookback), np.zeros((1, len(SYMBOLS)))
    quantiles, columns = np.full((*row.shape, len(QUANTILES)), np.nan), dict.fromkeys(strategy.columns, closes)
    return SignalInputs(
        SYMBOLS, (DAY,), (0,), row, quantiles, row, closes, closes.copy(), np.ones_like(closes), columns
    )


def compile_panels() -> None:
    """What the backtest runs over a whole panel."""
    closes, none, nowhere = prices(2), np.zeros((0, 0)), np.zeros(0, dtype=np.int64)
    starts = np.zeros(len(closes) + 1, dtype=np.int64)
    market = Market(
        closes, closes, closes, closes, none, none, starts, nowhere, nowhere, np.zeros(0), np.zeros(len(closes))
    )
    rules, mask = AccountRules(True, False, 0.0), restricted_mask(SYMBOLS, LIMITS)
    account = Account(Allocation(TOP_K, k=1), COSTS.rates, LIMITS.numbers, rules, mask)
    quantities, paths = np.zeros(len(SYMBOLS)), np.zeros((PATHS, 1))
    run_sessions(market, account, np.zeros((1, len(SYMBOLS))), 0, 0, quantities, 1e4, paths, True)


def compile_sessions() -> None:
    """What a live session or a replay calls one by one."""
    strategy = TopK(TopKParams(k=1))
    marks = prices(1)[0]
    account = value_account(SYMBOLS, {"A": 1.0}, 1e4, marks)
    decision = decide("any", strategy, any_view(strategy), account, marks, COSTS, limits=LIMITS)
    dividend = CorporateAction("A", DAY, ActionKind.DIVIDEND, 1.0)
    holdings, cash = apply_actions({"A": 1.0}, 1e4, [dividend])
    accrue(holdings, cash, QUIET, COSTS)
    fill_open(decision.orders, dict(zip(SYMBOLS, marks.tolist(), strict=True)), cash, holdings, COSTS)


def compile_strategies() -> None:
    """The signals of every registered strategy, for a panel and for a view: a view's arrays are read-only, another type.

    Quantiles are not known: an optimiser, which has nothing to compile here, has then nothing to do.
    """
    for entry in STRATEGIES.values():
        strategy = entry.build(entry.params())
        strategy.decide(any_view(strategy))
        if isinstance(strategy, SignalStrategy):
            strategy.signals(any_inputs(strategy))


def main() -> None:
    compile_panels()
    compile_sessions()
    compile_strategies()


if __name__ == "__main__":
    main()

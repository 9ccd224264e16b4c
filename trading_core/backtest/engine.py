"""The backtest: the same decision, actions and auction functions as a live session, over history.

Of every pair of neighbouring sessions D, T: decide with what was known at D's close, apply T's corporate actions, fill
at T's open (sells first, then buys with the cash that is really there), value at T's close.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

import numpy as np
import polars as pl

from trading_core.backtest.data import ForecastPanel, MarketData
from trading_core.backtest.result import TRADE_COLUMNS, UNFILLED_COLUMNS, BacktestResult
from trading_core.costs import CostModel
from trading_core.errors import InvalidDateRangeError
from trading_core.portfolio.actions import adjust_orders, apply_actions
from trading_core.portfolio.auction import AuctionResult, fill_open
from trading_core.portfolio.decision import AccountWeights, Decision, decide, value_account
from trading_core.portfolio.planner import PlannedOrder
from trading_core.portfolio.risk import RiskLimits
from trading_core.portfolio.strategy import SessionView, Strategy, session_view


@dataclass(slots=True)
class _Book:
    """The account and the records of a running backtest."""

    cash: float
    holdings: dict[str, float] = field(default_factory=dict)
    equity: list[float] = field(default_factory=list)
    cash_path: list[float] = field(default_factory=list)
    turnover: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    positions: list[float] = field(default_factory=list)
    trades: list[tuple[object, ...]] = field(default_factory=list)
    unfilled: list[tuple[object, ...]] = field(default_factory=list)

    def close(self, equity: float, turnover: float, costs: float) -> None:
        self.equity.append(equity)
        self.cash_path.append(self.cash)
        self.turnover.append(turnover)
        self.costs.append(costs)
        self.positions.append(float(len(self.holdings)))


def run(
    data: MarketData,
    forecasts: ForecastPanel | None,
    strategy: Strategy,
    *,
    name: str,
    start: date,
    end: date,
    capital: float,
    costs: CostModel,
    fractional: bool = True,
    min_order_notional: float = 0.0,
    limits: RiskLimits | None = None,
) -> BacktestResult:
    """Trades `strategy` from `capital` (currency) in cash.

    `start`: the first decision is made at the close of the first session at or after it; `end`: the last session traded
    is the last one at or before it. `forecasts` None: no forecasts (benchmarks). Without `limits` no risk rule applies.
    Errors: InvalidDateRangeError when fewer than two sessions lie in start..end; StrategyOutputError.
    """
    first = data.first_at_or_after(start)
    last = min(data.first_at_or_after(end), len(data.sessions) - 1)
    if data.sessions[last] > end:
        last -= 1
    if last - first < 1:
        held = f"the bars hold {data.sessions[0]} .. {data.sessions[-1]} and a backtest needs two sessions of them"
        raise InvalidDateRangeError(start, end, held)
    panel = forecasts if forecasts is not None else ForecastPanel.empty(data)
    book = _Book(float(capital))
    book.close(float(capital), 0.0, 0.0)
    account = value_account(data.symbols, book.holdings, book.cash, data.marks[first])
    for d in range(first, last):
        view = view_of(data, panel, strategy, account, d, data.sessions[d + 1], d - first)
        marks = data.marks[d]
        decision = decide(name, strategy, view, account, marks, costs, fractional, min_order_notional, limits)
        account = _trade(data, d + 1, decision, account.equity, book, costs, fractional)
    return _result(name, data.sessions[first : last + 1], book)


def view_of(
    data: MarketData,
    panel: ForecastPanel,
    strategy: Strategy,
    account: AccountWeights,
    d: int,
    trade_session: date,
    ordinal: int,
) -> SessionView:
    """The view of the decision made at the close of session index `d` for `trade_session`, which `data` need not hold.

    `panel` must be aligned with `data`; `ordinal`: sessions since the account's first decision.
    """
    closes, volumes = data.window(d, strategy.lookback)
    return session_view(
        data.sessions[d],
        trade_session,
        ordinal,
        data.symbols,
        panel.score[d],
        panel.quantiles[d],
        panel.p_up[d],
        closes,
        volumes,
        account.weights,
        account.cash_weight,
    )


def _trade(
    data: MarketData,
    t: int,
    decision: Decision,
    equity_before: float,
    book: _Book,
    costs: CostModel,
    fractional: bool,
) -> AccountWeights:
    """One session: corporate actions, the auction at the open, the value at the close, which is returned."""
    book.holdings, book.cash = apply_actions(book.holdings, book.cash, data.actions[t])
    orders = adjust_orders(decision.orders, data.actions[t])
    opens = dict(zip(data.symbols, data.opens[t].tolist(), strict=True)) if orders else {}
    auction = fill_open(orders, opens, book.cash, book.holdings, costs, fractional)
    book.holdings, book.cash = auction.holdings_after, auction.cash_after
    account = value_account(data.symbols, book.holdings, book.cash, data.marks[t])
    traded, paid = _record(book, data.sessions[t], decision, orders, auction, opens)
    book.close(account.equity, 0.5 * traded / equity_before if equity_before > 0 else 0.0, paid)
    return account


def _record(
    book: _Book,
    session: date,
    decision: Decision,
    orders: tuple[PlannedOrder, ...],
    auction: AuctionResult[PlannedOrder],
    opens: dict[str, float],
) -> tuple[float, float]:
    """Writes down the session's fills and misses; returns the notional traded and the costs paid (currency)."""
    traded = paid = 0.0
    for fill in auction.fills:
        cost = fill.commission + fill.quantity * abs(fill.price - opens[fill.symbol])
        traded += fill.quantity * fill.price
        paid += cost
        order = orders[fill.index]
        book.trades.append(
            (
                session,
                fill.symbol,
                fill.side.value,
                fill.quantity,
                fill.price,
                fill.commission,
                order.reference_price,
                cost,
            )
        )
        if fill.reason:
            book.unfilled.append((session, fill.symbol, fill.side.value, order.quantity, "auction", fill.reason))
    for order, reason in auction.unfilled:
        book.unfilled.append((session, order.symbol, order.side.value, order.quantity, "auction", reason))
    for v in decision.verdicts:
        if v.verdict != "approve":
            reason = f"{v.verdict} by {v.rule}: {v.reason}"
            book.unfilled.append((session, v.order.symbol, v.order.side.value, v.order.quantity, "risk", reason))
    return traded, paid


def _result(name: str, sessions: tuple[date, ...], book: _Book) -> BacktestResult:
    return BacktestResult(
        name=name,
        sessions=sessions,
        equity=np.array(book.equity),
        cash=np.array(book.cash_path),
        turnover=np.array(book.turnover),
        costs_paid=np.array(book.costs),
        n_positions=np.array(book.positions),
        trades=pl.DataFrame(book.trades, schema=TRADE_COLUMNS, orient="row"),
        unfilled=pl.DataFrame(book.unfilled, schema=UNFILLED_COLUMNS, orient="row"),
        final_holdings=dict(book.holdings),
    )

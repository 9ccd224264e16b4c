"""The engine against the same rules written in plain Python: trade for trade, cent for cent, on markets full of accidents."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest

from tests.backtest.random_markets import CASES, RandomMarket, Signals
from tests.backtest.reference_engine import Reference, Session
from trading_core.backtest.engine import Job, run_many
from trading_core.backtest.result import BacktestResult
from trading_core.portfolio.kernels.types import TOP_K

SEEDS = range(4)
CLOSE = {"rel": 1e-9, "abs": 1e-6}


@cache
def both(name: str, seed: int) -> tuple[RandomMarket, BacktestResult, list[Session]]:
    case = CASES[name]
    market = case.market(seed)
    if case.rule.kind == TOP_K:
        market.signals[3] = -np.inf  # a session in which nothing may be held
    job = Job("it", Signals(case.rule, case.short), case.terms, market.panel)
    days, rules = market.data.sessions, case.terms
    result = run_many(market.data, [job], start=days[0], end=days[-1])[0]
    reference = Reference(
        market.history, rules.capital, rules.costs, rules.fractional, case.short, rules.min_order_notional, rules.limits
    )
    return market, result, reference.run(case.rule, market.by_day)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_every_trade_and_every_day_agree(name: str, seed: int) -> None:
    _, result, sessions = both(name, seed)
    trades = [trade for session in sessions for trade in session.trades]
    found = result.trades
    assert found.select("session", "symbol", "side").rows() == [
        (t.day, t.symbol, "buy" if t.quantity > 0 else "sell") for t in trades
    ]
    for column, expected in {
        "quantity": [abs(t.quantity) for t in trades],
        "price": [t.price for t in trades],
        "reference_price": [t.reference for t in trades],
    }.items():
        assert found[column].to_list() == pytest.approx(expected, rel=1e-9)
    for column, expected in {
        "commission": [t.commission for t in trades],
        "impact": [t.impact for t in trades],
        "cost": [t.commission + abs(t.quantity) * abs(t.price - t.before) for t in trades],
    }.items():
        assert found[column].to_list() == pytest.approx(expected, **CLOSE)
    for path in (
        "equity", "cash", "turnover", "commission", "concession", "impact", "borrow", "interest", "dividends", "proceeds",
    ):  # fmt: skip
        assert getattr(result, path).tolist() == pytest.approx([getattr(s, path) for s in sessions], **CLOSE), path
    held = {symbol: quantity for symbol, quantity in sessions[-1].held.items() if quantity}
    assert result.final_holdings == pytest.approx(held, rel=1e-9)
    assert len(trades) > 0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_what_did_not_fill_is_written_down_alike(name: str, seed: int) -> None:
    _, result, sessions = both(name, seed)
    misses = sorted((miss for s in sessions for miss in s.misses), key=lambda m: (m.day, m.stage != "risk", m.symbol))
    found = result.unfilled
    assert found.select("symbol", "stage").rows() == [(m.symbol, m.stage) for m in misses]
    assert found["quantity"].to_list() == pytest.approx([abs(m.quantity) for m in misses], rel=1e-9)
    for reason, miss in zip(found["reason"].to_list(), misses, strict=True):
        assert all(word in reason for word in (miss.why if miss.stage == "auction" else miss.why[-1:])), (reason, miss)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_the_books_balance_by_their_own_numbers(name: str, seed: int) -> None:
    """The formula of BacktestResult for cash, to the cent, from nothing but the result; and what is held, from its trades."""
    market, result, sessions = both(name, seed)
    signed = pl.when(pl.col("side") == "buy").then(1.0).otherwise(-1.0) * pl.col("quantity")
    paid = result.trades.group_by("session").agg((signed * pl.col("price") + pl.col("commission")).sum().alias("paid"))
    spent = dict(paid.rows())
    for n in range(1, len(result.sessions)):
        change = result.interest[n] - result.borrow[n] + result.dividends[n] + result.proceeds[n]
        expected = result.cash[n - 1] + change - spent.get(result.sessions[n], 0.0)
        assert result.cash[n] == pytest.approx(expected, abs=1e-6)
        held = sessions[n].held
        worth = [q * (market.history.mark(s, n) or np.nan) for s, q in held.items()]
        assert result.equity[n] - result.cash[n] == pytest.approx(sum(worth), **CLOSE)
        assert result.n_positions[n] == len(held)
        assert result.gross[n] == pytest.approx(sum(map(abs, worth)) / result.equity[n], **CLOSE)
        assert result.net[n] == pytest.approx(sum(worth) / result.equity[n], **CLOSE)
    costs = result.trades["cost"].sum()
    assert result.costs_paid.sum() == pytest.approx(costs, **CLOSE)


def test_the_markets_hold_what_they_are_for() -> None:
    """Over all seeds and cases every kind of accident happened, or the agreement above would say little."""
    stages, reasons, sides = set(), "", set()
    totals = dict.fromkeys(("dividends", "proceeds", "borrow", "interest", "impact", "concession"), 0.0)
    shorts, splits = 0, 0
    for name in CASES:
        for seed in SEEDS:
            market, result, sessions = both(name, seed)
            stages |= set(result.unfilled["stage"].to_list())
            reasons += " ".join(result.unfilled["reason"].unique().to_list())
            sides |= {(name, side) for side in result.trades["side"].unique().to_list()}
            shorts += any(q < 0 for s in sessions for q in s.held.values())
            splits += any(
                e.kind == "split" and s.held.get(e.symbol, 0.0) != 0.0
                for t, s in enumerate(sessions)
                for e in market.history.events_of(t)
            )
            totals = {path: total + np.abs(getattr(result, path)).sum() for path, total in totals.items()}
    assert stages == {"risk", "auction"}
    for words in (
        "no trade at the open", "all buys shrunk alike", "capped at the largest share", "no known volume or volatility",
        "no cash left", "restricted", "max_position", "max_order_notional", "max_gross",
        "max_volume_share", "max_names", "max_turnover", "max_net", "min_order_notional",
    ):  # fmt: skip
        assert words in reasons, words
    assert min(totals.values()) > 1.0
    assert shorts == len(SEEDS) * sum(case.short for case in CASES.values())
    assert splits >= 30
    assert {name for name, side in sides if side == "sell"} >= set(CASES) - {"hold", "hold, capped volume"}

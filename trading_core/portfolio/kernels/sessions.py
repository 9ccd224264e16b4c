"""An account through many sessions: value, decide, plan, check, let the night pass, fill at T's prices, value again."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from trading_core.costs import CostRates
from trading_core.portfolio.kernels.account import accrue, apply_action, usable, value
from trading_core.portfolio.kernels.allocation import allocate, flawed
from trading_core.portfolio.kernels.compiled import compiled
from trading_core.portfolio.kernels.fills import fill
from trading_core.portfolio.kernels.orders import plan
from trading_core.portfolio.kernels.rules import apply_rules
from trading_core.portfolio.kernels.types import (
    AUCTION_STAGE,
    BORROW,
    CASH,
    COMMISSION,
    CONCESSION,
    DELISTING,
    DIVIDENDS,
    EQUITY,
    GROSS,
    IMPACT,
    INTEREST,
    NET,
    PATHS,
    POSITIONS,
    PROCEEDS,
    RISK_STAGE,
    SPLIT,
    TRADE_FIELDS,
    TURNOVER,
    UNFILLED_FIELDS,
    AccountRules,
    Allocation,
    Limits,
)
from trading_core.schema import BoolArray, FloatArray, IntArray

RISK, AUCTION = float(RISK_STAGE), float(AUCTION_STAGE)


class Market(NamedTuple):
    """T sessions of S symbols, as in backtest.data.MarketData; all arrays C-contiguous and writable, float64."""

    closes: FloatArray  # [T, S]
    marks: FloatArray  # [T, S]
    prices: FloatArray  # [T, S] at which orders of the session fill before costs; NaN: it cannot be traded
    volumes: FloatArray  # [T, S]
    sigma: FloatArray  # [T, S] or [0, 0] where neither an impact nor a risk rule asks for it
    adv: FloatArray
    action_start: IntArray  # [T + 1]: the actions of session t are those from action_start[t] up to action_start[t + 1]
    action_column: IntArray
    action_kind: IntArray
    action_value: FloatArray
    years: FloatArray  # [T] since the session before, in years


class Account(NamedTuple):
    """How an account decides and what it may do. `restricted` [S]."""

    allocation: Allocation
    rates: CostRates
    limits: Limits
    rules: AccountRules
    restricted: BoolArray


@compiled
def _grown(records: FloatArray, used: int, more: int) -> FloatArray:
    """`records` [R, F] with room for `more` rows after the `used` ones."""
    if used + more <= len(records):
        return records
    larger = np.empty((max(2 * len(records), used + more), records.shape[1]))
    larger[:used] = records[:used]
    return larger


@compiled
def _put(row: FloatArray, values: tuple[float, ...]) -> None:
    for i in range(len(values)):
        row[i] = values[i]


class _Orders(NamedTuple):
    """N orders at T, in T's basis; all arrays [N]."""

    columns: IntArray
    amounts: FloatArray  # signed quantities
    prices: FloatArray
    volumes: FloatArray  # traded in T; zeros where nothing is capped
    sigma: FloatArray  # as known at D; zeros where no impact is asked for
    adv: FloatArray
    references: FloatArray  # the closes of D that the orders were sized with


@compiled
def _decide(
    account: Account, signal: FloatArray, closes: FloatArray, weights: FloatArray, equity: float, ordinal: int
) -> tuple[FloatArray, bool]:
    """Target weights, and whether they may not be acted on. An account that is worth nothing decides nothing."""
    if not equity > 0.0:
        return weights.copy(), False
    tradable = np.empty(len(closes), np.bool_)
    for s in range(len(closes)):
        tradable[s] = usable(closes[s])
    target = allocate(account.allocation, signal, tradable, weights, ordinal)
    return target, flawed(target, weights, tradable, max(account.limits.max_gross, 1.0), account.rules.short)


@compiled
def _checked(
    market: Market, account: Account, d: int, columns: IntArray, amounts: FloatArray, quantities: FloatArray,
    equity: float, missed: FloatArray, used: int, record: bool,
) -> tuple[IntArray, FloatArray, FloatArray, int]:  # fmt: skip
    """What the risk rules leave of the orders, and the records of what they cut with how many they are."""
    cuts = np.zeros(len(columns), np.int64)
    volumes = market.adv[d] if len(market.adv) > 0 else np.zeros(0)
    allowed = apply_rules(
        columns, amounts, quantities, market.marks[d], volumes, equity, account.limits, account.restricted,
        account.rules, cuts,
    )  # fmt: skip
    missed = _grown(missed, used, len(columns))
    kept = 0
    for i in range(len(columns)):
        if cuts[i] != 0 and record:
            _put(missed[used], (float(d), float(columns[i]), amounts[i], allowed[i], float(cuts[i]), RISK))
            used += 1
        if allowed[i] != 0.0:
            columns[kept], amounts[kept] = columns[i], allowed[i]
            kept += 1
    return columns[:kept], amounts[:kept], missed, used


@compiled
def _night(
    market: Market, account: Account, d: int, quantities: FloatArray, cash: float, ratio: FloatArray, path: FloatArray
) -> float:
    """Interest, fees and T's corporate actions; returns the cash and multiplies `ratio` by that of each split."""
    t = d + 1
    path[INTEREST], path[BORROW] = accrue(quantities, market.marks[d], cash, market.years[t], account.rates)
    cash += path[INTEREST] - path[BORROW]
    for a in range(market.action_start[t], market.action_start[t + 1]):
        s, kind = market.action_column[a], market.action_kind[a]
        paid = apply_action(quantities, s, kind, market.action_value[a])
        cash += paid
        if kind == SPLIT:
            ratio[s] *= market.action_value[a]
        else:
            path[PROCEEDS if kind == DELISTING else DIVIDENDS] += paid
    return cash


@compiled
def _at_open(
    market: Market, d: int, columns: IntArray, amounts: FloatArray, ratio: FloatArray, rates: CostRates
) -> _Orders:
    """The orders of D with what their fills at T depend on, restated for T's splits."""
    count, t, capped = len(columns), d + 1, rates.participation < math.inf
    restated, prices, references = np.empty(count), np.empty(count), np.empty(count)
    volumes, sigma, adv = np.zeros(count), np.zeros(count), np.zeros(count)
    for i in range(count):
        s = columns[i]
        restated[i] = amounts[i] * ratio[s]
        prices[i] = market.prices[t, s]
        references[i] = market.closes[d, s] / ratio[s]
        if capped:
            volumes[i] = market.volumes[t, s]
        if rates.impact > 0.0:
            sigma[i], adv[i] = market.sigma[d, s], market.adv[d, s] * ratio[s]
    return _Orders(columns, restated, prices, volumes, sigma, adv, references)


@compiled
def _settle(
    orders: _Orders, filled: FloatArray, paid: FloatArray, rates: CostRates, d: int, trades: FloatArray, used: int,
    record: bool, path: FloatArray,
) -> tuple[FloatArray, int]:  # fmt: skip
    """Adds up costs and traded notional in `path` and writes down the fills, sales first; returns the records and how
    many they are."""
    if record:
        trades = _grown(trades, used, len(filled))
    for side in (-1.0, 1.0):
        for i in range(len(filled)):
            size, price = filled[i] * side, orders.prices[i]
            if size > 0.0:
                fees, spread = size * paid[i] * rates.commission, size * price * rates.concession
                impact = size * abs(paid[i] - price) - spread if rates.impact > 0.0 else 0.0
                path[COMMISSION] += fees
                path[CONCESSION] += spread
                path[IMPACT] += impact
                path[TURNOVER] += size * paid[i]
                if record:
                    where = (float(d), float(orders.columns[i]))
                    _put(trades[used], (*where, filled[i], paid[i], fees, orders.references[i], price, impact))
                    used += 1
    return trades, used


@compiled
def _unfilled(
    orders: _Orders, filled: FloatArray, flags: IntArray, d: int, missed: FloatArray, used: int
) -> tuple[FloatArray, int]:
    """Writes down what did not fill as ordered; returns the records and how many they are."""
    missed = _grown(missed, used, len(filled))
    for i in range(len(filled)):
        if flags[i] != 0:
            where = (float(d), float(orders.columns[i]))
            _put(missed[used], (*where, orders.amounts[i], filled[i], float(flags[i]), AUCTION))
            used += 1
    return missed, used


@compiled
def _close(
    quantities: FloatArray, marks: FloatArray, cash: float, weights: FloatArray, before: float, path: FloatArray
) -> float:
    """Values the account at T's close; `before`: its equity at D's. Returns the equity and completes `path`."""
    equity = value(quantities, marks, cash, weights)
    path[EQUITY], path[CASH] = equity, cash
    path[TURNOVER] = 0.5 * path[TURNOVER] / before if before > 0.0 else 0.0
    for s in range(len(quantities)):
        if quantities[s] != 0.0:
            path[GROSS] += abs(weights[s])
            path[NET] += weights[s]
            path[POSITIONS] += 1.0
    return equity


@compiled
def run_sessions(
    market: Market, account: Account, signals: FloatArray, first: int, ordinal: int, quantities: FloatArray,
    cash: float, paths: FloatArray, record: bool,
) -> tuple[int, float, FloatArray, FloatArray]:  # fmt: skip
    """R decisions, made at the closes of sessions first .. first + R - 1 and filled one session later each.

    signals: [R, S]; ordinal: of the first decision. `quantities` [S] are changed in place. paths: [PATHS, R], written: one
    column per session traded, rows as in `types`. Returns the row of a decision that may not be acted on (-1: none; the
    account stands as before it), the cash, the trades [*, TRADE_FIELDS] and what did not fill [*, UNFILLED_FIELDS].
    """
    weights, ratio = np.zeros(len(quantities)), np.ones(len(quantities))
    trades, missed = np.empty((64, TRADE_FIELDS)), np.empty((16, UNFILLED_FIELDS))
    traded, left, rates, rules = 0, 0, account.rates, account.rules
    equity = value(quantities, market.marks[first], cash, weights)
    for r in range(len(signals)):
        d, t, path = first + r, first + r + 1, np.zeros(PATHS)
        target, flaw = _decide(account, signals[r], market.closes[d], weights, equity, ordinal + r)
        if flaw:
            return r, cash, trades[:traded], missed[:left]
        columns, amounts = plan(weights, target, market.closes[d], quantities, equity, cash, rates, rules)
        if account.limits.active and len(columns) > 0:
            columns, amounts, missed, left = _checked(
                market, account, d, columns, amounts, quantities, equity, missed, left, record
            )
        cash = _night(market, account, d, quantities, cash, ratio, path)
        if len(columns) > 0:
            orders = _at_open(market, d, columns, amounts, ratio, rates)
            paid, flags = np.zeros(len(columns)), np.zeros(len(columns), np.int64)
            filled, cash = fill(
                columns, orders.amounts, orders.prices, orders.volumes, orders.sigma, orders.adv, quantities, cash,
                rates, rules, paid, flags,
            )  # fmt: skip
            trades, traded = _settle(orders, filled, paid, rates, d, trades, traded, record, path)
            if record:
                missed, left = _unfilled(orders, filled, flags, d, missed, left)
        for a in range(market.action_start[t], market.action_start[t + 1]):
            ratio[market.action_column[a]] = 1.0
        equity = _close(quantities, market.marks[t], cash, weights, equity, path)
        paths[:, r] = path
    return -1, cash, trades[:traded], missed[:left]

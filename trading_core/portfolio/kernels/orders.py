"""From target weights to orders, and what the risk rules leave of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from trading_core.costs import CostRates
from trading_core.portfolio.kernels.account import floor_quantity, usable
from trading_core.portfolio.kernels.compiled import compiled
from trading_core.portfolio.kernels.types import (
    MAX_GROSS,
    MAX_ORDER_NOTIONAL,
    MAX_POSITION,
    RESTRICTED,
    RULES,
    SLACK,
    UNKNOWN_PRICE,
    AccountRules,
    Limits,
)
from trading_core.schema import BoolArray, FloatArray, IntArray


@compiled
def _sale(held: float, now: float, target: float, equity: float, price: float, fractional: bool) -> float:
    """Shares to sell to go from weight `now` down to `target`; a target of 0 sells the position exactly."""
    if target == 0.0:
        return held
    if target < 0.0 < held:
        return held + floor_quantity(-target * equity / price, fractional)
    quantity = floor_quantity((now - target) * equity / price, fractional)
    return min(quantity, held) if held > 0.0 else quantity


@compiled
def plan(
    weights: FloatArray,
    target: FloatArray,
    closes: FloatArray,
    quantities: FloatArray,
    equity: float,
    cash: float,
    rates: CostRates,
    rules: AccountRules,
) -> tuple[IntArray, FloatArray]:
    """Columns and signed quantities of the orders that move `weights` to `target`, by column; see `planner.plan`."""
    count = len(target)
    columns, amounts = np.empty(count, np.int64), np.empty(count)
    n, need = 0, 0.0
    for s in range(count):
        if target[s] == weights[s] or not usable(closes[s]):
            continue
        price, held = closes[s], quantities[s]
        if target[s] > weights[s]:
            # A purchase: what covers a short is exact, what goes beyond is the cash wanted for it.
            cover = -held if held < 0.0 and target[s] >= 0.0 else 0.0
            wanted = (target[s] - (0.0 if cover > 0.0 else weights[s])) * equity
            need += cover * price * rates.buy + wanted
            columns[n], amounts[n] = s, 0.0
            n += 1
            continue
        quantity = _sale(held, weights[s], target[s], equity, price, rules.fractional)
        small = target[s] != 0.0 and quantity * price < rules.min_order_notional
        if quantity > 0.0 and not small:
            columns[n], amounts[n] = s, -quantity
            cash += quantity * price * rates.sell
            n += 1
    scale = min(1.0, max(cash, 0.0) / need) if need > 0.0 else 0.0
    kept = 0
    for i in range(n):
        s = columns[i]
        quantity = amounts[i]
        if quantity == 0.0:
            price, held = closes[s], quantities[s]
            cover = -held if held < 0.0 and target[s] >= 0.0 else 0.0
            wanted = (target[s] - (0.0 if cover > 0.0 else weights[s])) * equity
            if scale == 1.0:
                quantity = cover + floor_quantity(wanted / (price * rates.buy), rules.fractional)
            else:
                quantity = floor_quantity(scale * (cover + wanted / (price * rates.buy)), rules.fractional)
            if quantity <= 0.0 or (quantity * price < rules.min_order_notional and target[s] != 0.0):
                continue
        columns[kept], amounts[kept] = s, quantity
        kept += 1
    return columns[:kept], amounts[:kept]


class _OrderFacts(NamedTuple):
    """What a rule reads of one order: sizes in shares, above 0. `reduces`: how much of it only closes a position."""

    size: float
    reduces: float
    position: float  # held on the side that the order enlarges; below 0 what is held on the other side
    price: float  # D's last known close
    equity: float
    restricted: bool
    opening_share: float  # of what opens or enlarges positions, that all orders together may keep


@compiled
def _unknown_price(order: _OrderFacts, limits: Limits) -> float:
    return order.size if usable(order.price) else 0.0


@compiled
def _restricted(order: _OrderFacts, limits: Limits) -> float:
    return 0.0 if order.restricted else order.size


@compiled
def _max_order_notional(order: _OrderFacts, limits: Limits) -> float:
    return limits.max_order_notional / order.price


@compiled
def _max_position(order: _OrderFacts, limits: Limits) -> float:
    return max(limits.max_position * order.equity / order.price - order.position, order.reduces)


@compiled
def _max_gross(order: _OrderFacts, limits: Limits) -> float:
    return order.reduces + (order.size - order.reduces) * order.opening_share


@compiled
def _most(rule: int, order: _OrderFacts, limits: Limits) -> float:
    """The size in shares that one rule allows: one line per rule."""
    if rule == UNKNOWN_PRICE:
        return _unknown_price(order, limits)
    if rule == RESTRICTED:
        return _restricted(order, limits)
    if rule == MAX_ORDER_NOTIONAL:
        return _max_order_notional(order, limits)
    if rule == MAX_POSITION:
        return _max_position(order, limits)
    return _max_gross(order, limits)


@compiled
def apply_rules(
    columns: IntArray,
    amounts: FloatArray,
    quantities: FloatArray,
    marks: FloatArray,
    equity: float,
    limits: Limits,
    restricted: BoolArray,
    fractional: bool,
    cuts: IntArray,
) -> FloatArray:
    """The signed quantities that the rules allow of each order; bit r of `cuts` says that rule r cut it. See `risk`."""
    allowed = amounts.copy()
    for rule in range(RULES):
        share = 1.0
        if rule == MAX_GROSS:
            share = _opening_share(columns, allowed, quantities, marks, equity, limits)
        for i in range(len(columns)):
            s, size = columns[i], abs(allowed[i])
            if size == 0.0:
                continue
            position = quantities[s] if allowed[i] > 0.0 else -quantities[s]
            reduces = min(size, max(-position, 0.0))
            order = _OrderFacts(size, reduces, position, marks[s], equity, restricted[s], share)
            most = _most(rule, order, limits)
            if size > most * (1.0 + SLACK):
                allowed[i] = math.copysign(floor_quantity(most, fractional), allowed[i])
                cuts[i] |= 1 << rule
    return allowed


@compiled
def _opening_share(
    columns: IntArray, allowed: FloatArray, quantities: FloatArray, marks: FloatArray, equity: float, limits: Limits
) -> float:
    """The share of what opens or enlarges positions that keeps all of them together within `max_gross` of equity.

    Holdings without a known price count as zero: they cannot be traded either.
    """
    gross, opened = 0.0, 0.0
    for s in range(len(quantities)):
        if quantities[s] != 0.0 and math.isfinite(marks[s]):
            gross += abs(quantities[s]) * marks[s]
    for i in range(len(columns)):
        s, size = columns[i], abs(allowed[i])
        if size > 0.0:
            position = quantities[s] if allowed[i] > 0.0 else -quantities[s]
            reduces = min(size, max(-position, 0.0))
            gross -= reduces * marks[s]
            opened += (size - reduces) * marks[s]
    room = max(limits.max_gross * equity - gross, 0.0)
    return room / opened if opened > room * (1.0 + SLACK) else 1.0

"""What the risk rules leave of orders: one small kernel per rule; their words are in `portfolio.risk`."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from trading_core.portfolio.kernels.account import floor_quantity, usable
from trading_core.portfolio.kernels.compiled import compiled
from trading_core.portfolio.kernels.types import (
    MAX_GROSS,
    MAX_NAMES,
    MAX_NET,
    MAX_ORDER_NOTIONAL,
    MAX_POSITION,
    MAX_TURNOVER,
    MAX_VOLUME_SHARE,
    MIN_ORDER_NOTIONAL,
    RESTRICTED,
    SLACK,
    UNKNOWN_PRICE,
    AccountRules,
    Limits,
)
from trading_core.schema import BoolArray, FloatArray, IntArray


class _OrderFacts(NamedTuple):
    """What a rule reads of one order: sizes in shares, above 0. `reduces`: how much of it only closes a position."""

    size: float
    reduces: float
    position: float  # held on the side that the order enlarges; below 0 what is held on the other side
    price: float  # D's last known close
    volume: float  # average daily volume known at D, shares; NaN: not known
    equity: float
    restricted: bool
    has_place: bool  # False: a new name beyond those that may be held
    opening_share: float  # of what opens or enlarges positions, that all orders together may keep


class _Together(NamedTuple):
    """All holdings and orders at D's marks, in currency. Holdings without a known price count as zero: they cannot be
    traded either."""

    gross: float  # of what is held, less what the orders close
    net: float  # of what is held, with all orders
    closed: float  # by the orders
    opened: float  # or enlarged by the orders, on both sides
    bought: float  # the part of `opened` that is long


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
def _max_volume_share(order: _OrderFacts, limits: Limits) -> float:
    return limits.max_volume_share * order.volume if usable(order.volume) else 0.0


@compiled
def _max_position(order: _OrderFacts, limits: Limits) -> float:
    return max(limits.max_position * order.equity / order.price - order.position, order.reduces)


@compiled
def _max_names(order: _OrderFacts, limits: Limits) -> float:
    return order.size if order.has_place else 0.0


@compiled
def _max_together(order: _OrderFacts, limits: Limits) -> float:
    """Of `max_gross`, `max_turnover` and `max_net`, which differ in the share alone."""
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
    if rule == MAX_VOLUME_SHARE:
        return _max_volume_share(order, limits)
    if rule == MAX_POSITION:
        return _max_position(order, limits)
    if rule == MAX_NAMES:
        return _max_names(order, limits)
    return _max_together(order, limits)


@compiled
def _gross_share(together: _Together, equity: float, limits: Limits) -> float:
    return _share(max(limits.max_gross * equity - together.gross, 0.0), together.opened)


@compiled
def _turnover_share(together: _Together, equity: float, limits: Limits) -> float:
    return _share(max(limits.max_turnover * equity - together.closed, 0.0), together.opened)


@compiled
def _net_share(together: _Together, equity: float, limits: Limits, buys: bool) -> float:
    """Of what opens on the side to which the net leans too far; the other side leads back and keeps all."""
    limit = limits.max_net * equity
    over = (together.net if buys else -together.net) - limit
    opened = together.bought if buys else together.opened - together.bought
    return _share(max(opened - over, 0.0), opened) if over > SLACK * limit else 1.0


@compiled
def _share(room: float, wanted: float) -> float:
    return room / wanted if wanted > room * (1.0 + SLACK) else 1.0


@compiled
def _opening_share(rule: int, together: _Together, equity: float, limits: Limits, buys: bool) -> float:
    """The share that a rule leaves of what opens or enlarges positions by buying (`buys`) or by selling short."""
    if rule == MAX_GROSS:
        return _gross_share(together, equity, limits)
    if rule == MAX_TURNOVER:
        return _turnover_share(together, equity, limits)
    return _net_share(together, equity, limits, buys) if rule == MAX_NET else 1.0


@compiled
def _added_up(columns: IntArray, allowed: FloatArray, quantities: FloatArray, marks: FloatArray) -> _Together:
    gross, net, closed, opened, bought = 0.0, 0.0, 0.0, 0.0, 0.0
    for s in range(len(quantities)):
        if quantities[s] != 0.0 and math.isfinite(marks[s]):
            gross += abs(quantities[s]) * marks[s]
            net += quantities[s] * marks[s]
    for i in range(len(columns)):
        s, size = columns[i], abs(allowed[i])
        if size > 0.0:
            position = quantities[s] if allowed[i] > 0.0 else -quantities[s]
            reduces = min(size, max(-position, 0.0))
            gross -= reduces * marks[s]
            net += allowed[i] * marks[s]
            closed += reduces * marks[s]
            opened += (size - reduces) * marks[s]
            if allowed[i] > 0.0:
                bought += (size - reduces) * marks[s]
    return _Together(gross, net, closed, opened, bought)


@compiled
def _places(
    columns: IntArray, amounts: FloatArray, allowed: FloatArray, quantities: FloatArray, marks: FloatArray,
    max_names: float,
) -> BoolArray:  # fmt: skip
    """[N] False for orders of new names beyond `max_names` positions: those of the lowest planned notional."""
    there, free = np.ones(len(columns), np.bool_), max_names
    for s in range(len(quantities)):
        if quantities[s] != 0.0:
            free -= 1.0
    for i in range(len(columns)):
        if allowed[i] != 0.0 and allowed[i] == -quantities[columns[i]]:
            free += 1.0
    for i in range(len(columns)):
        s, before = columns[i], 0.0
        if allowed[i] == 0.0 or quantities[s] != 0.0:
            continue
        notional = abs(amounts[i]) * marks[s]
        for j in range(len(columns)):
            if allowed[j] != 0.0 and quantities[columns[j]] == 0.0:
                other = abs(amounts[j]) * marks[columns[j]]
                if other > notional or (other == notional and columns[j] < s):
                    before += 1.0
        there[i] = before < free
    return there


@compiled
def _left(amount: float, most: float, order: _OrderFacts, rules: AccountRules) -> float:
    """What a cut to `most` shares leaves of a signed amount: nothing where it falls below the least notional of an order
    and does not close a position exactly."""
    left = floor_quantity(most, rules.fractional)
    small = left * order.price < rules.min_order_notional and left != -order.position
    return 0.0 if small else math.copysign(left, amount)


@compiled
def _asked(rule: int, limits: Limits) -> bool:
    """Whether a rule is on."""
    if rule == MAX_VOLUME_SHARE:
        return limits.max_volume_share < math.inf
    if rule == MAX_NAMES:
        return limits.max_names < math.inf
    if rule == MAX_TURNOVER:
        return limits.max_turnover < math.inf
    return limits.max_net < math.inf if rule == MAX_NET else True


@compiled
def apply_rules(
    columns: IntArray,
    amounts: FloatArray,
    quantities: FloatArray,
    marks: FloatArray,
    volumes: FloatArray,
    equity: float,
    limits: Limits,
    restricted: BoolArray,
    rules: AccountRules,
    cuts: IntArray,
) -> FloatArray:
    """The signed quantities that the rules allow of each order; bit r of `cuts` says that rule r cut it. See `risk`.

    volumes: [S] average daily volume known at D, shares; of length 0: none is known. One order per column.
    """
    allowed, places = amounts.copy(), np.ones(len(columns), np.bool_)
    of_buys, of_sells = 1.0, 1.0
    for rule in range(MIN_ORDER_NOTIONAL):
        if not _asked(rule, limits):
            continue
        if rule == MAX_NAMES:
            places = _places(columns, amounts, allowed, quantities, marks, limits.max_names)
        if rule >= MAX_GROSS:
            together = _added_up(columns, allowed, quantities, marks)
            of_buys = _opening_share(rule, together, equity, limits, True)
            of_sells = _opening_share(rule, together, equity, limits, False)
        for i in range(len(columns)):
            s, size, buys = columns[i], abs(allowed[i]), allowed[i] > 0.0
            if size == 0.0:
                continue
            position = quantities[s] if buys else -quantities[s]
            reduces = min(size, max(-position, 0.0))
            volume = volumes[s] if len(volumes) > 0 else math.nan
            share = of_buys if buys else of_sells
            order = _OrderFacts(size, reduces, position, marks[s], volume, equity, restricted[s], places[i], share)
            most = _most(rule, order, limits)
            if size > most * (1.0 + SLACK):
                cuts[i] |= 1 << rule
                allowed[i] = _left(allowed[i], most, order, rules)
                if allowed[i] == 0.0 and floor_quantity(most, rules.fractional) > 0.0:
                    cuts[i] |= 1 << MIN_ORDER_NOTIONAL
    return allowed

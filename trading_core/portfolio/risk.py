"""Risk rules: what planned orders may not do. Each rule is one function and one registry line.

A rule sees every order with the quantity still allowed by the rules before it, and answers with what it allows: the
same quantity (approve), less (clip) or zero (reject). No rule ever raises a quantity, and nothing is only logged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from trading_core.portfolio.planner import PlannedOrder, floor_quantity
from trading_core.schema import Side

Verdict: TypeAlias = Literal["approve", "clip", "reject"]
_SLACK = 1e-9  # relative: a limit met exactly is not exceeded by float noise


@dataclass(frozen=True, slots=True)
class RiskLimits:
    """Limits as fractions of equity, unless named otherwise."""

    max_position: float = 0.25  # of one symbol, after the order; drift above it does not force a sale
    max_gross: float = 1.0  # sum of all positions after the orders
    max_order_notional: float = 1e7  # of one order, in the market's currency
    restricted: frozenset[str] = frozenset()  # symbols that may be neither bought nor sold

    def __post_init__(self) -> None:
        if not 0 < self.max_position <= 1:
            raise ValueError(f"max_position is {self.max_position}; it must lie above 0 and be at most 1")
        if not 0 < self.max_gross <= 10:
            raise ValueError(f"max_gross is {self.max_gross}; it must lie above 0 and be at most 10")
        if not self.max_order_notional > 0:
            raise ValueError(f"max_order_notional is {self.max_order_notional}; it must be above 0")


@dataclass(frozen=True, slots=True)
class RiskVerdict:
    """`quantity`: what may be sent (0: rejected). `rule`: the rule that set it; `reason`: of every rule that cut it."""

    order: PlannedOrder
    verdict: Verdict
    quantity: float
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class RiskContext:
    """What the rules read: orders, equity and closes of D (currency), holdings (shares) and the limits."""

    orders: tuple[PlannedOrder, ...]
    equity: float
    closes: Mapping[str, float]
    holdings: Mapping[str, float]
    limits: RiskLimits

    def price(self, symbol: str) -> float:
        """The close of D, NaN when it is not known."""
        return float(self.closes.get(symbol, math.nan))


@dataclass(frozen=True, slots=True)
class Ruling:
    """The quantity one rule allows one order, and why it is less than before ("" when it is not)."""

    quantity: float
    reason: str = ""


RiskRule: TypeAlias = Callable[[RiskContext, Sequence[float]], list[Ruling]]


def unknown_price(context: RiskContext, allowed: Sequence[float]) -> list[Ruling]:
    """Rejects orders of symbols whose close is unknown: nothing else could be checked."""
    return [
        Ruling(quantity)
        if math.isfinite(context.price(order.symbol)) and context.price(order.symbol) > 0
        else Ruling(0.0, f"{order.symbol} has no known price")
        for order, quantity in zip(context.orders, allowed, strict=True)
    ]


def restricted(context: RiskContext, allowed: Sequence[float]) -> list[Ruling]:
    """Rejects every order of a restricted symbol."""
    return [
        Ruling(0.0, f"{order.symbol} is restricted") if order.symbol in context.limits.restricted else Ruling(quantity)
        for order, quantity in zip(context.orders, allowed, strict=True)
    ]


def max_order_notional(context: RiskContext, allowed: Sequence[float]) -> list[Ruling]:
    """Clips orders whose notional at the close exceeds `max_order_notional`."""
    limit = context.limits.max_order_notional
    rulings = []
    for order, quantity in zip(context.orders, allowed, strict=True):
        most = limit / context.price(order.symbol) if quantity > 0 else 0.0
        cut = quantity > most * (1 + _SLACK)
        rulings.append(Ruling(most, f"an order may not exceed {limit:,.0f}") if cut else Ruling(quantity))
    return rulings


def max_position(context: RiskContext, allowed: Sequence[float]) -> list[Ruling]:
    """Clips buys that would bring a symbol above `max_position` of equity at the close."""
    limit = context.limits.max_position
    rulings = []
    for order, quantity in zip(context.orders, allowed, strict=True):
        if order.side is Side.SELL or quantity <= 0:
            rulings.append(Ruling(quantity))
            continue
        room = limit * context.equity / context.price(order.symbol) - context.holdings.get(order.symbol, 0.0)
        cut = quantity > max(room, 0.0) * (1 + _SLACK)
        rulings.append(
            Ruling(max(room, 0.0), f"a position may not exceed {limit:.1%} of equity") if cut else Ruling(quantity)
        )
    return rulings


def max_gross(context: RiskContext, allowed: Sequence[float]) -> list[Ruling]:
    """Scales all buys by one factor when the positions after the orders would exceed `max_gross` of equity.

    Holdings without a known close count as zero here; they cannot be traded either.
    """
    values = [abs(q) * context.price(s) for s, q in sorted(context.holdings.items())]
    gross = sum(value for value in values if math.isfinite(value))
    notionals = [
        quantity * context.price(order.symbol) if quantity > 0 else 0.0
        for order, quantity in zip(context.orders, allowed, strict=True)
    ]
    sold = sum(n for n, order in zip(notionals, context.orders, strict=True) if order.side is Side.SELL)
    bought = sum(n for n, order in zip(notionals, context.orders, strict=True) if order.side is Side.BUY)
    room = max(context.limits.max_gross * context.equity - (gross - sold), 0.0)
    if bought <= room * (1 + _SLACK):
        return [Ruling(quantity) for quantity in allowed]
    reason = f"all positions together may not exceed {context.limits.max_gross:.1%} of equity"
    return [
        Ruling(quantity * room / bought, reason) if order.side is Side.BUY else Ruling(quantity)
        for order, quantity in zip(context.orders, allowed, strict=True)
    ]


RISK_RULES: dict[str, RiskRule] = {
    "unknown_price": unknown_price,
    "restricted": restricted,
    "max_order_notional": max_order_notional,
    "max_position": max_position,
    "max_gross": max_gross,
}


def check(
    orders: Sequence[PlannedOrder],
    equity: float,
    closes: Mapping[str, float],
    holdings: Mapping[str, float],
    limits: RiskLimits,
    fractional: bool = True,
) -> tuple[RiskVerdict, ...]:
    """One verdict per order, in the order given, after every rule of `RISK_RULES` in turn.

    `equity`: at D's close, currency; `closes`: last known price per share by symbol; `holdings`: shares by symbol. A
    clipped quantity is rounded down to 1e-6 shares (whole shares when not `fractional`); if 0 is left, it is rejected.
    """
    context = RiskContext(tuple(orders), equity, closes, holdings, limits)
    allowed = [order.quantity for order in orders]
    rules = [""] * len(allowed)
    reasons: list[list[str]] = [[] for _ in allowed]
    for name, rule in RISK_RULES.items():
        for i, ruling in enumerate(rule(context, tuple(allowed))):
            if ruling.quantity < allowed[i]:
                allowed[i] = floor_quantity(ruling.quantity, fractional)
                rules[i] = name
                reasons[i].append(ruling.reason)
    return tuple(
        RiskVerdict(order, _verdict(order.quantity, quantity), quantity, rule, "; ".join(why))
        for order, quantity, rule, why in zip(orders, allowed, rules, reasons, strict=True)
    )


def _verdict(ordered: float, allowed: float) -> Verdict:
    if allowed >= ordered:
        return "approve"
    return "clip" if allowed > 0 else "reject"


def approved(verdicts: Sequence[RiskVerdict]) -> tuple[PlannedOrder, ...]:
    """The orders that may be sent: approved ones unchanged, clipped ones with their smaller quantity."""
    return tuple(
        v.order
        if v.verdict == "approve"
        else PlannedOrder(v.order.symbol, v.order.side, v.quantity, v.order.reference_price)
        for v in verdicts
        if v.verdict != "reject"
    )

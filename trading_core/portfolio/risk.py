"""Risk rules: what planned orders may not do. Each rule is one kernel in `kernels.orders` and one registry line here.

A rule sees every order with the quantity still allowed by the rules before it, and answers with what it allows: the
same quantity (approve), less (clip) or zero (reject). No rule ever raises a quantity, and nothing is only logged. The
backtest applies the same kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from trading_core.portfolio.kernels.orders import apply_rules
from trading_core.portfolio.kernels.types import (
    MAX_GROSS,
    MAX_ORDER_NOTIONAL,
    MAX_POSITION,
    RESTRICTED,
    UNKNOWN_PRICE,
    Limits,
)
from trading_core.portfolio.planner import PlannedOrder
from trading_core.schema import BoolArray

Verdict: TypeAlias = Literal["approve", "clip", "reject"]


@dataclass(frozen=True, slots=True)
class RiskLimits:
    """Limits as fractions of equity, unless named otherwise."""

    max_position: float = 0.25  # of one symbol, long or short, after the order; drift above it does not force a trade
    max_gross: float = 1.0  # sum of all positions, long and short, after the orders
    max_order_notional: float = 1e7  # of one order, in the market's currency
    restricted: frozenset[str] = frozenset()  # symbols that may be neither bought nor sold

    def __post_init__(self) -> None:
        if not 0 < self.max_position <= 1:
            raise ValueError(f"max_position is {self.max_position}; it must lie above 0 and be at most 1")
        if not 0 < self.max_gross <= 10:
            raise ValueError(f"max_gross is {self.max_gross}; it must lie above 0 and be at most 10")
        if not self.max_order_notional > 0:
            raise ValueError(f"max_order_notional is {self.max_order_notional}; it must be above 0")

    @property
    def numbers(self) -> Limits:
        """For the kernels, which get the restricted symbols as a mask: see `restricted_mask`."""
        return Limits(True, float(self.max_position), float(self.max_gross), float(self.max_order_notional))


# Where no rule applies, positions may still not exceed equity: there is nothing else to pay for them.
NO_LIMITS = Limits(False, math.inf, 1.0, math.inf)


@dataclass(frozen=True, slots=True)
class RiskVerdict:
    """`quantity`: what may be sent (0: rejected). `rule`: the rule that set it; `reason`: of every rule that cut it."""

    order: PlannedOrder
    verdict: Verdict
    quantity: float
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class RiskRule:
    """`code`: of its kernel, its place in the order of rules. `reason(symbol, limits)`: why it cuts, as words."""

    code: int
    reason: Callable[[str, RiskLimits], str]


RISK_RULES: dict[str, RiskRule] = {
    # Rejects orders of symbols whose close is unknown: nothing else could be checked.
    "unknown_price": RiskRule(UNKNOWN_PRICE, lambda symbol, limits: f"{symbol} has no known price"),
    # Rejects every order of a restricted symbol.
    "restricted": RiskRule(RESTRICTED, lambda symbol, limits: f"{symbol} is restricted"),
    # Clips orders whose notional at the close exceeds the limit.
    "max_order_notional": RiskRule(
        MAX_ORDER_NOTIONAL, lambda symbol, limits: f"an order may not exceed {limits.max_order_notional:,.0f}"
    ),
    # Clips what would bring a position above the limit; what closes a position passes.
    "max_position": RiskRule(
        MAX_POSITION, lambda symbol, limits: f"a position may not exceed {limits.max_position:.1%} of equity"
    ),
    # Scales all that opens or enlarges positions by one factor when they would exceed the limit together.
    "max_gross": RiskRule(
        MAX_GROSS, lambda symbol, limits: f"all positions together may not exceed {limits.max_gross:.1%} of equity"
    ),
}


def restricted_mask(symbols: Sequence[str], limits: RiskLimits | None) -> BoolArray:
    """[S] whether each symbol is restricted."""
    return np.array([limits is not None and symbol in limits.restricted for symbol in symbols], dtype=np.bool_)


def cut_by(bits: int, symbol: str, limits: RiskLimits) -> tuple[str, str]:
    """The last rule among the kernel's `bits` and the reasons of all of them; ("", "") for none."""
    cut = [(name, rule.reason(symbol, limits)) for name, rule in RISK_RULES.items() if bits >> rule.code & 1]
    return (cut[-1][0], "; ".join(reason for _, reason in cut)) if cut else ("", "")


def check(
    orders: Sequence[PlannedOrder],
    equity: float,
    closes: Mapping[str, float],
    holdings: Mapping[str, float],
    limits: RiskLimits,
    fractional: bool = True,
) -> tuple[RiskVerdict, ...]:
    """One verdict per order, in the order given, after every rule of `RISK_RULES` in turn.

    `equity`: at D's close, currency; `closes`: last known price per share by symbol; `holdings`: shares by symbol, below
    0 for shorts. A clipped quantity is rounded down to 1e-6 shares (whole shares when not `fractional`); if 0 is left, it
    is rejected.
    """
    symbols = sorted({*holdings, *(order.symbol for order in orders)})
    place = {symbol: s for s, symbol in enumerate(symbols)}
    cuts = np.zeros(len(orders), dtype=np.int64)
    allowed = apply_rules(
        np.array([place[order.symbol] for order in orders], dtype=np.int64),
        np.array([order.signed for order in orders], dtype=np.float64),
        np.array([float(holdings.get(symbol, 0.0)) for symbol in symbols]),
        np.array([float(closes.get(symbol, math.nan)) for symbol in symbols]),
        float(equity),
        limits.numbers,
        restricted_mask(symbols, limits),
        bool(fractional),
        cuts,
    )
    verdicts = []
    for order, bits, quantity in zip(orders, cuts.tolist(), np.abs(allowed).tolist(), strict=True):
        rule, reason = cut_by(bits, order.symbol, limits)
        verdicts.append(RiskVerdict(order, _verdict(order.quantity, quantity), quantity, rule, reason))
    return tuple(verdicts)


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

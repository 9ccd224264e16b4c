"""Risk rules: what planned orders may not do. Each rule is one kernel in `kernels.rules` and one registry line here.

A rule sees every order with the quantity still allowed by the rules before it, and answers with what it allows: the
same quantity (approve), less (clip) or zero (reject). No rule ever raises a quantity, and nothing is only logged. The
backtest applies the same kernels.

First come the rules that look at one order alone, then those that look at all of them together. Each of these leaves
the limits of the ones before it met, since it only takes away from what opens or enlarges positions; `max_net` is the
last one, because taking away from one side may tilt the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from trading_core.portfolio.kernels.rules import apply_rules
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
    UNKNOWN_PRICE,
    AccountRules,
    Limits,
)
from trading_core.portfolio.planner import PlannedOrder
from trading_core.schema import BoolArray

Verdict: TypeAlias = Literal["approve", "clip", "reject"]


@dataclass(frozen=True, slots=True)
class RiskLimits:
    """Limits as fractions of equity at D's close, unless named otherwise. None: the rule is off."""

    max_position: float = 0.25  # of one symbol, long or short, after the order; drift above it does not force a trade
    max_gross: float = 1.0  # sum of all positions, long and short, after the orders
    max_order_notional: float = 1e7  # of one order, in the market's currency
    restricted: frozenset[str] = frozenset()  # symbols that may be neither bought nor sold
    max_net: float | None = None  # of |long - short| after the orders
    max_names: int | None = None  # positions held after the orders, long and short
    max_turnover: float | None = None  # sum of |notional| of the session's orders: buys and sells both count
    max_volume_share: float | None = None  # of one order, as a share of the average daily volume known at D

    def __post_init__(self) -> None:
        _within("max_position", self.max_position, 1)
        _within("max_gross", self.max_gross, 10)
        _within("max_order_notional", self.max_order_notional, math.inf)
        _within("max_net", self.max_net, 10)
        _within("max_turnover", self.max_turnover, 100)
        _within("max_volume_share", self.max_volume_share, 1)
        if self.max_names is not None and not self.max_names >= 1:
            raise ValueError(f"max_names is {self.max_names}; it must be at least 1")

    @property
    def needs_volumes(self) -> bool:
        """Whether a rule depends on the average daily volume of the symbols."""
        return self.max_volume_share is not None

    @property
    def numbers(self) -> Limits:
        """For the kernels, which get the restricted symbols as a mask: see `restricted_mask`."""
        return Limits(
            True,
            float(self.max_position),
            float(self.max_gross),
            float(self.max_order_notional),
            _number(self.max_net),
            _number(self.max_names),
            _number(self.max_turnover),
            _number(self.max_volume_share),
        )


def _within(name: str, value: float | None, most: float) -> None:
    if value is not None and not 0 < value <= most:
        bound = "be above 0" if most == math.inf else f"lie above 0 and be at most {most:g}"
        raise ValueError(f"{name} is {value}; it must {bound}")


def _number(limit: float | None) -> float:
    return math.inf if limit is None else float(limit)


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
    # Clips orders larger than the limit's share of the average daily volume; rejects where that is not known.
    "max_volume_share": RiskRule(
        MAX_VOLUME_SHARE,
        lambda symbol, limits: (
            f"an order may not exceed {limits.max_volume_share:.2%} of the average daily volume, which must be known"
        ),
    ),
    # Clips what would bring a position above the limit; what closes a position passes.
    "max_position": RiskRule(
        MAX_POSITION, lambda symbol, limits: f"a position may not exceed {limits.max_position:.1%} of equity"
    ),
    # Rejects orders of new names for which no place is left: what is held stays, less what the orders close exactly; the
    # places go to the new names of the highest planned notional, of equal ones to the first symbols by name.
    "max_names": RiskRule(
        MAX_NAMES, lambda symbol, limits: f"{symbol} would be a position more than the {limits.max_names} allowed"
    ),
    # Scales all that opens or enlarges positions by one factor when they would exceed the limit together.
    "max_gross": RiskRule(
        MAX_GROSS, lambda symbol, limits: f"all positions together may not exceed {limits.max_gross:.1%} of equity"
    ),
    # Scales the same by one factor when all orders together would trade more; what closes positions passes but counts.
    "max_turnover": RiskRule(
        MAX_TURNOVER,
        lambda symbol, limits: f"all orders together may not exceed {limits.max_turnover:.1%} of equity",
    ),
    # Scales what opens or enlarges positions on the side to which long less short leans too far. What leads back passes,
    # and so does what only closes a position: a short can always be covered.
    "max_net": RiskRule(
        MAX_NET, lambda symbol, limits: f"long less short may not exceed {limits.max_net:.1%} of equity either way"
    ),
    # Rejects what another rule clipped below the least notional of an order, unless it closes a position exactly.
    "min_order_notional": RiskRule(
        MIN_ORDER_NOTIONAL, lambda symbol, limits: "what is left of it lies below the least notional of an order"
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
    volumes: Mapping[str, float] | None = None,
    min_order_notional: float = 0.0,
) -> tuple[RiskVerdict, ...]:
    """One verdict per order, in the order given, after every rule of `RISK_RULES` in turn; one order per symbol.

    `equity`: at D's close, currency; `closes`: last known price per share by symbol; `holdings`: shares by symbol, below
    0 for shorts; `volumes`: average daily volume known at D, shares by symbol, not known where absent or NaN. A clipped
    quantity is rounded down to 1e-6 shares (whole shares when not `fractional`); if 0 is left, or less than
    `min_order_notional` (currency) without closing a position exactly, it is rejected.
    """
    symbols = sorted({*holdings, *(order.symbol for order in orders)})
    place = {symbol: s for s, symbol in enumerate(symbols)}
    # By symbol, as the backtest has them: the sums of the rules then have its bits.
    by_symbol = sorted(range(len(orders)), key=lambda i: orders[i].symbol)
    cuts, known = np.zeros(len(orders), dtype=np.int64), volumes or {}
    allowed = apply_rules(
        np.array([place[orders[i].symbol] for i in by_symbol], dtype=np.int64),
        np.array([orders[i].signed for i in by_symbol], dtype=np.float64),
        np.array([float(holdings.get(symbol, 0.0)) for symbol in symbols]),
        np.array([float(closes.get(symbol, math.nan)) for symbol in symbols]),
        np.array([float(known.get(symbol, math.nan)) for symbol in symbols]),
        float(equity),
        limits.numbers,
        restricted_mask(symbols, limits),
        AccountRules(bool(fractional), True, float(min_order_notional)),
        cuts,
    )
    verdicts = {}
    for i, bits, quantity in zip(by_symbol, cuts.tolist(), np.abs(allowed).tolist(), strict=True):
        rule, reason = cut_by(bits, orders[i].symbol, limits)
        verdicts[i] = RiskVerdict(orders[i], _verdict(orders[i].quantity, quantity), quantity, rule, reason)
    return tuple(verdicts[i] for i in range(len(orders)))


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

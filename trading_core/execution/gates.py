"""Pre-trade controls: what every order must pass once more in the moment it is sent.

The rules of `portfolio.risk` judge the decision, at D's close; these judge the order, with what is known now. They follow
the SEC's market access rule (17 CFR 240.15c3-5 (c)(1)), which asks for automated controls, before an order goes out, of
capital thresholds, of erroneous prices and sizes, order by order and over a short time, and of duplicative orders.

A rule answers with a sentence why not, or with None. There is no mode in which it only warns, and what is not known (None,
NaN) refuses. Nothing here reads a clock, a ledger or a broker: the caller hands in what it has asked them.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import ClassVar, TypeGuard

from trading_core.execution.gate_facts import (
    Gate,
    GateFacts,
    GateIntent,
    GateLimits,
    GateOrder,
    GateVerdict,
    Scope,
    SessionGate,
)
from trading_core.portfolio.kernels.types import SLACK
from trading_core.schema import Side
from trading_core.sessions import Sessions

__all__ = [
    "GATES", "Gate", "GateFacts", "GateIntent", "GateLimits", "GateOrder", "GateVerdict", "Scope", "SessionGate",
    "age_in_sessions", "check_order", "refusals",
]  # fmt: skip
MINUTE = timedelta(minutes=1)
NO_CLOCK = "The time is not known."


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _usable(price: float | None) -> TypeGuard[float]:
    return _finite(price) and price > 0.0


def _only_closes(order: GateOrder, position: float) -> bool:
    held = position if order.side is Side.SELL else -position
    return 0.0 < order.quantity <= held


@dataclass(frozen=True, slots=True)
class KillSwitch(SessionGate):
    """Refuses while trading is halted, for all or for the account."""

    name: ClassVar[str] = "kill_switch"

    def refuse(self, order: GateOrder, facts: GateFacts) -> str | None:
        if facts.halted is None:
            return "Whether trading is halted is not known."
        return f"Trading is halted: {facts.halt_reason or 'no reason was given'}." if facts.halted else None


@dataclass(frozen=True, slots=True)
class Restricted(Gate):
    """Refuses both sides of a restricted symbol."""

    name: ClassVar[str] = "restricted"
    symbols: frozenset[str]

    def refuse(self, order: GateOrder, facts: GateFacts) -> str | None:
        return f"{order.symbol} is restricted." if order.symbol in self.symbols else None


@dataclass(frozen=True, slots=True)
class PriceCollar(Gate):
    """Refuses when the last trade is further than this from the price the order was sized with, up or down.

    The default of 10 % is the wider of the two bands of the US limit-up limit-down plan for shares above 3 dollars.
    """

    name: ClassVar[str] = "price_collar"
    collar_bps: float

    def refuse(self, order: GateOrder, facts: GateFacts) -> str | None:
        reference, last = order.reference_price, facts.last_price
        if not _usable(reference):
            return f"The reference price of {order.symbol} is not known."
        if not _usable(last):
            return f"The last price of {order.symbol} is not known."
        away = abs(last / reference - 1.0) * 1e4
        if away <= self.collar_bps * (1.0 + SLACK):
            return None
        where = f"{last:g}, is {away:,.1f} bps from the {reference:g} it was sized with"
        return f"The last price of {order.symbol}, {where}; at most {self.collar_bps:,.1f} are allowed."


@dataclass(frozen=True, slots=True)
class MaxOrderNotional(Gate):
    """Refuses what `risk.max_order_notional` would have clipped: a quantity or price that changed since. By the reference
    price, as there; `price_collar` bounds how far the market may be from it."""

    name: ClassVar[str] = "max_order_notional"
    stops_flatten: ClassVar[bool] = False  # its size is bounded by what is held, see OnlyCloses
    most: float

    def refuse(self, order: GateOrder, facts: GateFacts) -> str | None:
        price = order.reference_price
        if not _usable(price) or not _usable(order.quantity):
            return f"The notional of the order of {order.symbol} is not known."
        notional = order.quantity * price
        if notional <= self.most * (1.0 + SLACK):
            return None
        return f"The order of {order.symbol} is worth {notional:,.2f}; at most {self.most:,.2f} are allowed."


@dataclass(frozen=True, slots=True)
class OnlyCloses(Gate):
    """Refuses a flatten that would do more than close what is held: the other rules let it pass on this condition."""

    name: ClassVar[str] = "only_closes"

    def refuse(self, order: GateOrder, facts: GateFacts) -> str | None:
        if not order.flatten:
            return None
        if not _finite(facts.position):
            return f"The position in {order.symbol} is not known."
        if _only_closes(order, facts.position):
            return None
        what = f"{order.side.value} of {order.quantity:g} {order.symbol}"
        return f"A flatten only closes what is held: the {what} does not, with {facts.position:g} held."


def _others(order: GateOrder, facts: GateFacts) -> list[GateIntent] | None:
    """The account's other intents."""
    if facts.intents is None:
        return None
    mine = [intent for intent in facts.intents if intent.account == order.account]
    return [intent for intent in mine if intent.client_order_id != order.client_order_id]


@dataclass(frozen=True, slots=True)
class MaxOrdersPerSession(Gate):
    """Refuses an order when so many others of its session were sent."""

    name: ClassVar[str] = "max_orders_per_session"
    stops_flatten: ClassVar[bool] = False  # what ran wild must be closable
    most: int

    def refuse(self, order: GateOrder, facts: GateFacts) -> str | None:
        others = _others(order, facts)
        if others is None:
            return "How many orders the session has sent is not known."
        sent = sum(intent.session == order.session for intent in others)
        if sent < self.most:
            return None
        return f"Session {order.session} has sent {sent} orders; at most {self.most} are allowed."


@dataclass(frozen=True, slots=True)
class MaxOrdersPerMinute(Gate):
    """Refuses an order when so many others were sent in the minute before; one from the future counts as well."""

    name: ClassVar[str] = "max_orders_per_minute"
    most: int

    def refuse(self, order: GateOrder, facts: GateFacts) -> str | None:
        others, now = _others(order, facts), facts.now
        if now is None or now.tzinfo is None:
            return NO_CLOCK
        if others is None:
            return "How many orders were sent in the last minute is not known."
        sent = sum(intent.at > now - MINUTE for intent in others)
        if sent < self.most:
            return None
        return f"{sent} orders were sent in the last minute; at most {self.most} are allowed."


@dataclass(frozen=True, slots=True)
class DuplicateIntent(Gate):
    """Refuses an order like another one of the account: same symbol, same side, another id, within the window.

    An attempt that takes the place of orders that are over names them (`earlier_attempts`).
    """

    name: ClassVar[str] = "duplicate_intent"
    window_seconds: float

    def refuse(self, order: GateOrder, facts: GateFacts) -> str | None:
        others, now = _others(order, facts), facts.now
        if now is None or now.tzinfo is None:
            return NO_CLOCK
        if others is None:
            return f"Which other orders of {order.symbol} were sent is not known."
        since = now - timedelta(seconds=self.window_seconds)
        for other in others:
            like = (other.symbol, other.side) == (order.symbol, order.side)
            if like and other.at > since and other.client_order_id not in order.earlier_attempts:
                what = f"Another {order.side.value} of {order.symbol}, {other.client_order_id},"
                return f"{what} was sent less than {self.window_seconds:g} seconds ago."
        return None


@dataclass(frozen=True, slots=True)
class StalePrice(Gate):
    """Refuses an order of a symbol whose last bar is too old, counted in sessions up to the decision's.

    What only closes a known position may have an older bar: a symbol that has stopped trading must not be bought, but
    whoever holds it may try to leave it. A bar later than the decision refuses everything: it could not be known then.
    """

    name: ClassVar[str] = "stale_price"
    most_sessions: int
    most_sessions_closing: int

    def refuse(self, order: GateOrder, facts: GateFacts) -> str | None:
        age, position = facts.price_age_sessions, facts.position
        if age is None:
            return f"The session of the last bar of {order.symbol} is not known."
        if age < 0:
            return f"The last bar of {order.symbol} lies after the decision's session."
        if age <= self.most_sessions:
            return None
        old = f"The last bar of {order.symbol} is {age} session(s) older than the decision"
        if not _finite(position):
            return f"{old}, and the position is not known."
        most = self.most_sessions_closing if _only_closes(order, position) else self.most_sessions
        return None if age <= most else f"{old}; at most {most} are allowed."


class EquityGate(SessionGate):
    """A rule that pauses the account, for a loss that is known: an unknown equity refuses without pausing it."""

    __slots__ = ()
    pauses: ClassVar[bool] = True

    @abstractmethod
    def loss(self, equity: float, settled: Sequence[float]) -> float | None:
        """The loss it limits, a fraction; `settled`: as in the facts, not empty. None: a value it needs is not known."""

    def known_loss(self, facts: GateFacts) -> float | str:
        """The loss; a sentence where it is not known."""
        if not _finite(facts.equity):
            return "The equity of the account is not known."
        lost = self.loss(facts.equity, facts.settled_equities) if facts.settled_equities else None
        return "The equity of the account at its settled sessions is not known." if lost is None else lost

    def asks_to_pause(self, facts: GateFacts) -> bool:
        return not isinstance(self.known_loss(facts), str)


@dataclass(frozen=True, slots=True)
class MaxDailyLoss(EquityGate):
    """Refuses, and pauses the account, when one session has lost more than this fraction of the equity before it.

    Two losses are looked at: since the last settled close, and of the last settled session itself, so that a crash that
    was settled before the next decision counts. The latter keeps refusing until another session is settled.
    """

    name: ClassVar[str] = "max_daily_loss"
    most: float

    def loss(self, equity: float, settled: Sequence[float]) -> float | None:
        path = (*settled[-2:], equity)
        if not all(map(_usable, path[:-1])):
            return None
        return max(1.0 - after / before for before, after in itertools.pairwise(path))

    def refuse(self, order: GateOrder, facts: GateFacts) -> str | None:
        lost = self.known_loss(facts)
        if isinstance(lost, str):
            return lost
        if lost <= self.most + SLACK:
            return None
        return f"The account has lost {lost:.2%} in one session; more than {self.most:.2%} pauses it."


@dataclass(frozen=True, slots=True)
class MaxDrawdown(EquityGate):
    """Refuses, and pauses the account, when equity lies more than this fraction below its highest settled value.

    Of the settled values those that are known: one that could not be priced must not stop an account for ever.
    """

    name: ClassVar[str] = "max_drawdown"
    most: float | None

    def loss(self, equity: float, settled: Sequence[float]) -> float | None:
        known = [value for value in settled if _usable(value)]
        return 1.0 - equity / max(known) if known else None

    def refuse(self, order: GateOrder, facts: GateFacts) -> str | None:
        if self.most is None:
            return None
        down = self.known_loss(facts)
        if isinstance(down, str):
            return down
        if down <= self.most + SLACK:
            return None
        return f"The account is {down:.2%} below its highest settled equity; more than {self.most:.2%} pauses it."


@dataclass(frozen=True, slots=True)
class StaleModel(SessionGate):
    """Refuses the orders of a model whose information cut-off lies too many sessions back, or not before the decision."""

    name: ClassVar[str] = "stale_model"
    most_sessions: int

    def refuse(self, order: GateOrder, facts: GateFacts) -> str | None:
        age = facts.model_age_sessions
        if age is None:
            return "The age of the model is not known."
        if age < 1:
            return "The model's information cut-off does not lie before the decision's session."
        if age <= self.most_sessions:
            return None
        return f"The model's information cut-off lies {age} sessions back; at most {self.most_sessions} are allowed."


@dataclass(frozen=True, slots=True)
class ModelNotApproved(SessionGate):
    """Refuses the orders of a version that is not the champion any more."""

    name: ClassVar[str] = "model_not_approved"

    def refuse(self, order: GateOrder, facts: GateFacts) -> str | None:
        if facts.model_approved is None:
            return "Whether the model is approved is not known."
        return None if facts.model_approved else "The model of the decision is not the approved one (the champion)."


@dataclass(frozen=True, slots=True)
class ConfigChanged(SessionGate):
    """Refuses the orders of a decision that today's strategy, costs and limits did not make."""

    name: ClassVar[str] = "config_changed"

    def refuse(self, order: GateOrder, facts: GateFacts) -> str | None:
        decided, current = facts.decided_config_hash, facts.current_config_hash
        if not decided or not current:
            return "The configuration of the decision, or that of today, is not known."
        if decided == current:
            return None
        return f"Strategy, costs or limits were changed after the decision ({decided}, now {current})."


GATES: dict[str, Callable[[GateLimits], Gate]] = {
    KillSwitch.name: lambda limits: KillSwitch(),
    ConfigChanged.name: lambda limits: ConfigChanged(),
    ModelNotApproved.name: lambda limits: ModelNotApproved(),
    StaleModel.name: lambda limits: StaleModel(limits.max_model_age_sessions),
    MaxDailyLoss.name: lambda limits: MaxDailyLoss(limits.max_daily_loss),
    MaxDrawdown.name: lambda limits: MaxDrawdown(limits.max_drawdown),
    Restricted.name: lambda limits: Restricted(limits.restricted),
    StalePrice.name: lambda limits: StalePrice(limits.max_price_age_sessions, limits.max_closing_price_age_sessions),
    PriceCollar.name: lambda limits: PriceCollar(limits.price_collar_bps),
    MaxOrderNotional.name: lambda limits: MaxOrderNotional(limits.max_order_notional),
    OnlyCloses.name: lambda limits: OnlyCloses(),
    MaxOrdersPerSession.name: lambda limits: MaxOrdersPerSession(limits.max_orders_per_session),
    MaxOrdersPerMinute.name: lambda limits: MaxOrdersPerMinute(limits.max_orders_per_minute),
    DuplicateIntent.name: lambda limits: DuplicateIntent(limits.duplicate_window_seconds),
}


def check_order(order: GateOrder, facts: GateFacts, limits: GateLimits) -> tuple[GateVerdict, ...]:
    """The verdict of every rule that an order must pass, in the order of `GATES`: all are asked, so that all are told."""
    verdicts = []
    for rule in (build(limits) for build in GATES.values()):
        if rule.stops_flatten or not order.flatten:
            reason = rule.refuse(order, facts)
            pauses = reason is not None and rule.asks_to_pause(facts)
            verdicts.append(GateVerdict(rule.name, rule.scope, pauses, reason))
    return tuple(verdicts)


def refusals(verdicts: Sequence[GateVerdict]) -> tuple[GateVerdict, ...]:
    """Those that refuse; the order may be sent only when there are none."""
    return tuple(verdict for verdict in verdicts if verdict.reason is not None)


def age_in_sessions(sessions: Sessions, since: date, until: date) -> int:
    """How many sessions lie after `since` up to and including `until`; below 0 when `since` is the later one."""
    if since > until:
        return -age_in_sessions(sessions, until, since)
    return sum(day > since for day in sessions.between(since, until))

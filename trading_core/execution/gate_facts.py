"""What pre-trade controls are asked about, by what limits, and how they answer; the rules are in `execution.gates`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import ClassVar

from trading_core.schema import Side


class Scope(StrEnum):
    """What a refusal stops."""

    ORDER = "order"  # this order; the next one may pass
    SESSION = "session"  # every order that the strategy has decided for the session


@dataclass(frozen=True, slots=True)
class GateOrder:
    """An order about to be sent. `reference_price`: the price per share it was sized with, on the share basis of `session`.

    `flatten`: it closes a position at a person's command rather than by a strategy's decision. `earlier_attempts`: ids of
    the orders it takes the place of, which the broker has declared terminal.
    """

    client_order_id: str
    account: str
    session: date  # T
    symbol: str
    side: Side
    quantity: float  # shares, above 0
    reference_price: float | None
    flatten: bool = False
    earlier_attempts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class GateIntent:
    """An intent of the ledger that was sent, or is about to be: what the counting rules count."""

    client_order_id: str
    account: str
    session: date
    symbol: str
    side: Side
    at: datetime  # aware


@dataclass(frozen=True, slots=True, kw_only=True)
class GateFacts:
    """What is known in the moment of sending. None or NaN: not known, and the rules that need it refuse.

    `intents`: all of the order's session, and those of other sessions as young as the longest window (a minute, or
    `duplicate_window_seconds`); the order's own may be among them. In a replay, whose sessions follow each other within
    seconds, those of its session alone, with `now` as it was handed to the step.
    `settled_equities`: at each settled close, oldest first, beginning with the capital the account was opened with; NaN
    for one that could not be priced.
    `model_approved`: the version of the decision is the champion now; True in a replay, which takes the model of its day.
    """

    now: datetime | None = None  # aware
    halted: bool | None = None
    halt_reason: str = ""
    last_price: float | None = None  # of the symbol's last trade, currency per share of the session's basis
    position: float | None = None  # shares of the symbol at the broker, below 0 for a short
    price_age_sessions: int | None = None  # from the symbol's last bar to D; 0: it is D's
    intents: tuple[GateIntent, ...] | None = None
    equity: float | None = None  # of the account, currency
    settled_equities: tuple[float, ...] | None = None
    model_age_sessions: int | None = None  # from the model's information cut-off to D
    model_approved: bool | None = None
    decided_config_hash: str | None = None  # of strategy, costs and limits, as frozen in the decision
    current_config_hash: str | None = None


@dataclass(frozen=True, slots=True)
class GateLimits:
    """The limits of the rules; each has the rule's name or the name of its fact."""

    restricted: frozenset[str] = frozenset()
    price_collar_bps: float = 1_000.0
    max_order_notional: float = 1e7  # in the market's currency
    max_orders_per_session: int = 1_000
    max_orders_per_minute: int = 600
    duplicate_window_seconds: float = 30.0
    max_price_age_sessions: int = 0
    max_closing_price_age_sessions: int = 5
    max_daily_loss: float = 0.10  # fraction of equity
    max_drawdown: float | None = None  # fraction of the highest settled equity; None: no limit
    max_model_age_sessions: int = 504

    def __post_init__(self) -> None:
        for name in (
            "price_collar_bps", "max_order_notional", "max_orders_per_session", "max_orders_per_minute",
            "duplicate_window_seconds",
        ):  # fmt: skip
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a finite number above 0")
        ages = {"max_model_age_sessions": 1, "max_price_age_sessions": 0, "max_closing_price_age_sessions": 0}
        for name, least in ages.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        closing, other = self.max_closing_price_age_sessions, self.max_price_age_sessions
        if closing < other:
            bound = f"it must be at least max_price_age_sessions, {other}"
            raise ValueError(f"max_closing_price_age_sessions is {closing}; {bound}")
        if not 0 < self.max_daily_loss <= 1:
            raise ValueError(f"max_daily_loss is {self.max_daily_loss}; it must lie above 0 and be at most 1")
        if self.max_drawdown is not None and not 0 < self.max_drawdown <= 1:
            raise ValueError(f"max_drawdown is {self.max_drawdown}; it must lie above 0 and be at most 1")


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What one rule says of one order. `reason`: why it refuses; None: the order passes.

    `pauses`: the refusal asks the caller to halt the account, until a person resumes it.
    """

    rule: str
    scope: Scope
    pauses: bool
    reason: str | None


class Gate(ABC):
    """One rule. `pauses`: it may ask to pause the account. `stops_flatten`: an order that closes a position by hand must
    pass it, too."""

    __slots__ = ()
    name: ClassVar[str]
    scope: ClassVar[Scope] = Scope.ORDER
    pauses: ClassVar[bool] = False
    stops_flatten: ClassVar[bool] = True

    @abstractmethod
    def refuse(self, order: GateOrder, facts: GateFacts) -> str | None:
        """Why the order may not be sent, as a sentence; None: it may."""

    def asks_to_pause(self, facts: GateFacts) -> bool:
        """Whether a refusal on these facts asks the caller to halt the account."""
        return self.pauses


class SessionGate(Gate):
    """A rule that asks whether the strategy may trade at all, which says nothing against closing its positions by hand."""

    __slots__ = ()
    scope: ClassVar[Scope] = Scope.SESSION
    stops_flatten: ClassVar[bool] = False

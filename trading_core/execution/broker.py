"""What every broker offers. Adapters never decide; they send, ask and report.

A question that gets no usable answer raises BrokerUnreachableError (BrokerBusyError when the broker asks to wait,
BrokerAccessError when it denies access): an adapter never answers "nothing" for "I could not ask". What became of a sent
order is told by the class of the error of `submit`, see there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol, runtime_checkable

from trading_core.portfolio.late import AppliedAction
from trading_core.portfolio.overnight import QUIET, Night
from trading_core.schema import AccountState, CashFlow, CorporateAction, Fill, Order, OrderKind, OrderState
from trading_core.sessions import Sessions


@dataclass(frozen=True, slots=True)
class BrokerTraits:
    """What a session must know of a broker before it sends.

    `unique_ids`: it refuses a second order with the same client order id by itself, so that an order whose fate is not
    known may be sent again under its id. `one_auction`: sells and buys of a session clear together, sells first, so that
    both are sent before the open; else buys wait for the fills of the sells. `kinds`: the orders it takes.
    """

    unique_ids: bool
    one_auction: bool
    kinds: frozenset[OrderKind]
    fractional: bool = True
    visible_after_s: float = 0.0  # how long a sent order may take until a question for its id finds it


@dataclass(frozen=True, slots=True)
class OrderWindow:
    """When an order of a session may be sent: from `start` (included) until `end` (not included), UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class LastTrade:
    """`price`: currency per share of today's basis. `at`: when it was made, UTC."""

    price: float
    at: datetime


class Broker(Protocol):
    """One account at one broker. `real`: orders reach a real endpoint, so live use needs an explicit switch.

    Money in the market's currency, quantities in shares.
    """

    name: str
    real: bool
    traits: BrokerTraits

    def identity(self) -> str:
        """What tells this account from every other at the broker (its number): two ledger accounts may not share it."""
        ...

    def account(self) -> AccountState:
        """Cash and positions now; positions sorted by symbol, none with quantity zero."""
        ...

    def window(self, kind: OrderKind, session: date, sessions: Sessions) -> OrderWindow:
        """When an order of a kind may be sent for `session`. UnknownNameError for a kind the broker does not take."""
        ...

    def submit(self, order: Order) -> OrderState:
        """Sends an order for its session.

        Errors: DuplicateOrderError (the broker knows the id), OrderRefusedError (it was clearly not taken, and will not
        be), BrokerBusyError and BrokerAccessError (it was certainly not taken), AmbiguousOrderError (nobody knows).
        """
        ...

    def order(self, client_order_id: str) -> OrderState | None:
        """The state of one order; None when the broker has never seen the id."""
        ...

    def orders(self, session: date) -> list[OrderState]:
        """All orders submitted for a session, sorted by client order id."""
        ...

    def open_orders(self) -> list[OrderState]:
        """Every order that may still fill, whatever its session, sorted by client order id."""
        ...

    def fills(self, session: date) -> list[Fill]:
        """All executions of a session, as they stand now: a corrected one keeps its fill id."""
        ...

    def cash_flows(self, session: date) -> list[CashFlow]:
        """Cash that moved without an order since the session before."""
        ...

    def cancel(self, client_order_id: str) -> OrderState:
        """Asks to cancel; returns the state afterwards, which may be FILLED. UnknownNameError for an unknown id."""
        ...


@runtime_checkable
class SimulatedBroker(Protocol):
    """A broker that is told what the market did, session by session, instead of living in it."""

    def settled_through(self) -> date | None:
        """The newest settled session, or None."""
        ...

    def settle_open(
        self,
        session: date,
        opens: Mapping[str, float],
        actions: Sequence[CorporateAction],
        settled_at: datetime,
        night: Night = QUIET,
        earlier: Sequence[CorporateAction] = (),
    ) -> list[Fill]:
        """Lets the night before a session pass, applies its corporate actions, fills its orders at the open. Idempotent.

        `earlier`: all actions of the sessions before; those that were learned of late take effect now.
        """
        ...

    def took_effect(self, session: date) -> list[AppliedAction]:
        """The corporate actions that changed the account in a settled session, in order; late ones included."""
        ...


@runtime_checkable
class CalendarBroker(Protocol):
    """A broker that says itself when its exchange trades: closures at short notice are in no calendar of ours."""

    def trades_on(self, session: date) -> bool:
        """Whether the exchange opens on that date."""
        ...


@runtime_checkable
class QuotingBroker(Protocol):
    """A broker that says what was traded last: nearer to an order than the last close of our bars."""

    def last_trades(self, symbols: Sequence[str]) -> dict[str, LastTrade]:
        """By symbol, on any venue it sees, outside trading hours too; a symbol without one is missing."""
        ...

"""What every broker offers. Adapters never decide; they send, ask and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Protocol, runtime_checkable

from trading_core.portfolio.overnight import QUIET, Night
from trading_core.schema import AccountState, CorporateAction, Fill, Order, OrderState


class Broker(Protocol):
    """One account at one broker. `real`: orders reach a real endpoint, so live use needs an explicit switch.

    Money in the market's currency, quantities in shares.
    """

    name: str
    real: bool

    def account(self) -> AccountState:
        """Cash and positions now; positions sorted by symbol, none with quantity zero."""
        ...

    def submit(self, order: Order) -> OrderState:
        """Sends an order for the open of its session. DuplicateOrderError when the broker knows the client order id."""
        ...

    def order(self, client_order_id: str) -> OrderState | None:
        """The state of one order; None when the broker has never seen the id."""
        ...

    def orders(self, session: date) -> list[OrderState]:
        """All orders submitted for a session, sorted by client order id."""
        ...

    def fills(self, session: date) -> list[Fill]:
        """All executions of a session."""
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
    ) -> list[Fill]:
        """Lets the night before a session pass, applies its corporate actions, fills its orders at the open. Idempotent."""
        ...

"""The exchange as a session sees it: a `Broker` whose answers get lost, come late, twice, in another order, or stale."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypeVar

from exchange import NAME, Exchange, View

from trading_core.errors import (
    AmbiguousOrderError,
    BrokerBusyError,
    BrokerUnreachableError,
    DuplicateOrderError,
    OrderRefusedError,
)
from trading_core.execution.broker import OrderWindow
from trading_core.schema import AccountState, CashFlow, Fill, Order, OrderKind, OrderState, Position
from trading_core.sessions import Sessions

T = TypeVar("T")
STALE_S = 900  # how old an answer about fills, positions or cash may be


@dataclass(frozen=True, slots=True)
class Rates:
    """How often, of 1, a call meets each fault. Of an order: the first five; of a question: the last five."""

    lost_answer: float = 0.0  # the order is taken, nobody learns it
    lost_order: float = 0.0  # it never arrives, nobody learns it
    late_order: float = 0.0  # it arrives some seconds after the answer was given up
    refused: float = 0.0  # a clear no
    busy: float = 0.0  # too many requests: not looked at
    unreachable: float = 0.0  # also of an order: certainly not sent
    stale: float = 0.0  # the answer of some time ago
    duplicated: float = 0.0  # rows come twice
    reordered: float = 0.0


NONE = Rates()


class Faults:
    """Draws the faults of calls from a seed, while `on`; `met` counts them by name."""

    def __init__(self, rates: Rates, seed: int) -> None:
        self.rates, self.on, self.met = rates, rates != NONE, Counter[str]()
        self._dice = random.Random(f"faults|{seed}")

    def meets(self, *names: str) -> str:
        """The fault that this call meets, of those named; "" for none."""
        if not self.on:
            return ""
        for name in names:
            rate = getattr(self.rates, name)
            if rate and self._dice.random() < rate:
                self.met[name] += 1
                return name
        return ""

    def shuffled(self, rows: list[T]) -> list[T]:
        """The rows, perhaps some of them twice, perhaps in another order."""
        if self.meets("duplicated"):
            rows = rows + rows[: self._dice.randint(0, len(rows))]
        if self.meets("reordered"):
            rows = self._dice.sample(rows, len(rows))
        return rows

    def seconds(self, most: int) -> timedelta:
        return timedelta(seconds=self._dice.randint(1, most))


class ExchangeBroker:
    """See `Broker`. `witness` is told of every order in the moment it is sent, whatever becomes of it."""

    name = NAME
    real = False

    def __init__(
        self,
        exchange: Exchange,
        faults: Faults | None = None,
        witness: Callable[[Order], None] = lambda order: None,
        account: str = "account",
    ) -> None:
        self.exchange = exchange
        self.traits = exchange.traits
        self.faults = faults or Faults(NONE, 0)
        self._witness = witness
        self._account = account

    def identity(self) -> str:
        return "exchange:1"

    def window(self, kind: OrderKind, session: date, sessions: Sessions) -> OrderWindow:
        return self.exchange.window(kind, session)

    def submit(self, order: Order) -> OrderState:
        self._witness(order)
        what = self.faults.meets("lost_answer", "lost_order", "late_order", "refused", "busy", "unreachable")
        if what == "busy":
            raise BrokerBusyError(NAME, "an order", "too many requests")
        if what == "unreachable":
            raise BrokerUnreachableError(NAME, "an order", "no connection")
        if what == "refused":
            raise OrderRefusedError(NAME, order.client_order_id, "not today")
        if what == "lost_order":
            raise AmbiguousOrderError(NAME, order.client_order_id, "the connection was reset")
        if what == "late_order":
            at = self.exchange.now + self.faults.seconds(int(self.traits.visible_after_s) or 1)
            self.exchange.later(at, lambda: self._arrive(order))
            raise AmbiguousOrderError(NAME, order.client_order_id, "no answer in time")
        try:
            taken = self.exchange.submit(order)
        except (DuplicateOrderError, OrderRefusedError):
            if what == "lost_answer":
                raise AmbiguousOrderError(NAME, order.client_order_id, "the answer was lost") from None
            raise
        if what == "lost_answer":
            raise AmbiguousOrderError(NAME, order.client_order_id, "the answer was lost")
        return taken.reported()

    def _arrive(self, order: Order) -> None:
        try:
            self.exchange.submit(order)
        except (DuplicateOrderError, OrderRefusedError):
            return

    def account(self) -> AccountState:
        view = self._view("the account", STALE_S)
        positions = tuple(Position(s, float(q), 1.0) for s, q in sorted(view.positions.items()) if q)
        return AccountState(self._account, float(view.cash), positions)

    def order(self, client_order_id: str) -> OrderState | None:
        found = self._view(f"order {client_order_id}").by_client(client_order_id)
        return found[-1].reported() if found else None

    def orders(self, session: date) -> list[OrderState]:
        return self._states(lambda state: state.order.session == session)

    def open_orders(self) -> list[OrderState]:
        return self._states(lambda state: not state.status.terminal)

    def _states(self, wanted: Callable[[OrderState], bool]) -> list[OrderState]:
        states = [held.reported() for held in self._view("the orders").orders.values()]
        chosen = sorted((s for s in states if wanted(s)), key=lambda s: s.order.client_order_id)
        return self.faults.shuffled(chosen)

    def fills(self, session: date) -> list[Fill]:
        made = self._view("the fills", STALE_S).fills.values()
        return self.faults.shuffled([e.reported() for e in made if e.session == session and e.quantity])

    def cash_flows(self, session: date) -> list[CashFlow]:
        return self.faults.shuffled([flow for flow in self._view("the cash", STALE_S).flows if flow.session == session])

    def cancel(self, client_order_id: str) -> OrderState:
        what = self.faults.meets("lost_answer", "busy", "unreachable")
        if what and what != "lost_answer":
            raise BrokerUnreachableError(NAME, f"the cancellation of {client_order_id}", what)
        held = self.exchange.cancel(client_order_id)
        if what:
            raise BrokerUnreachableError(NAME, f"the cancellation of {client_order_id}", "the answer was lost")
        return held.reported()

    def _view(self, question: str, oldest_s: int = 0) -> View:
        """What the answer is taken from. Orders are seen after the time that the broker's traits state, the rest later."""
        what = self.faults.meets("busy", "unreachable", "stale")
        if what == "busy":
            raise BrokerBusyError(NAME, question, "too many requests")
        if what == "unreachable":
            raise BrokerUnreachableError(NAME, question, "no connection")
        if what == "stale":
            since = self.exchange.now - self.faults.seconds(oldest_s or int(self.traits.visible_after_s) or 60)
            return self.exchange.view_at(since)
        return self.exchange.view

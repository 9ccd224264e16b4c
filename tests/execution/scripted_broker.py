"""A broker that does what a test wrote down, and notes what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

from trading_core.errors import (
    AmbiguousOrderError,
    BrokerAccessError,
    BrokerBusyError,
    BrokerUnreachableError,
    DuplicateOrderError,
    LedgerUnreachableError,
    OrderRefusedError,
)
from trading_core.execution.broker import BrokerTraits, OrderWindow
from trading_core.schema import (
    AccountState,
    CashFlow,
    Fill,
    Order,
    OrderKind,
    OrderState,
    OrderStatus,
    Position,
)
from trading_core.sessions import Sessions

VISIBLE_S = 30.0


class Killed(BaseException):
    """The process ends here: nothing catches it, nothing is tidied up."""


class ScriptedBroker:
    """`script`: what the next submits do, in order, "take" afterwards. `taken`: every order that arrived, twice if twice.

    Words of the script: take, fill, refuse, busy, access, unreachable, ledger; "lost answer" and "lost order" (both
    ambiguous), "reset" (the connection, before it arrived); "killed before" and "killed after" it arrived.
    """

    name = "scripted"
    real = False

    def __init__(
        self,
        window: OrderWindow,
        script: Sequence[str] = (),
        unique_ids: bool = True,
        one_auction: bool = True,
        cash: float = 0.0,
    ) -> None:
        self.traits = BrokerTraits(
            unique_ids, one_auction, frozenset(OrderKind), visible_after_s=VISIBLE_S if unique_ids else 0.0
        )
        self.script = list(script)
        self.opens = window
        self.states: dict[str, OrderState] = {}
        self.hidden: set[str] = set()  # arrived, and not to be found yet
        self.taken: list[Order] = []
        self.submits: list[Order] = []
        self.cancels: list[str] = []
        self.executions: list[Fill] = []
        self.flows: list[CashFlow] = []
        self.cash = cash
        self.positions: tuple[Position, ...] = ()
        self.before: Callable[[Order], None] = lambda order: None  # called when an order is about to be looked at
        self.unreachable = False

    # --- what a test says ---------------------------------------------------------------------------------------------

    def say(
        self, key: str, status: OrderStatus, filled: float = 0.0, price: float | None = None, quantity: float = 0.0
    ) -> None:
        """From now on the order is so; `quantity`: restated."""
        order = self.states[key].order
        if quantity:
            order = replace(order, quantity=quantity)
        self.states[key] = OrderState(order, status, filled, price)

    def execute(self, key: str, quantity: float, price: float, number: int = 1) -> None:
        """An execution, or a new version of it."""
        order = self.states[key].order
        fill_id = f"{key}-{number}"
        made = Fill(fill_id, key, order.symbol, order.side, quantity, price, 0.0, order.session, self.opens.end)
        self.executions = [fill for fill in self.executions if fill.fill_id != fill_id] + [made]

    # --- Broker -------------------------------------------------------------------------------------------------------

    def identity(self) -> str:
        return "scripted:1"

    def account(self) -> AccountState:
        return AccountState("scripted", self.cash, self.positions)

    def window(self, kind: OrderKind, session: date, sessions: Sessions) -> OrderWindow:
        # Orders of the day may be sent for an hour longer than those of the opening auction.
        longer = timedelta(hours=1 if kind is OrderKind.MARKET else 0)
        return OrderWindow(self.opens.start, self.opens.end + longer)

    def submit(self, order: Order) -> OrderState:
        self.before(order)
        self.submits.append(order)
        key, word = order.client_order_id, self.script.pop(0) if self.script else "take"
        if self.traits.unique_ids and key in self.states:
            raise DuplicateOrderError(key)
        if word in ("take", "fill", "lost answer", "killed after"):
            self.taken.append(order)
            self.states[key] = OrderState(order, OrderStatus.ACCEPTED)
        if word == "fill":
            self.say(key, OrderStatus.FILLED, order.quantity, order.reference_price)
            self.execute(key, order.quantity, order.reference_price)
        if word in ("take", "fill"):
            return self.states[key]
        raise self._trouble(word, key)

    def _trouble(self, word: str, key: str) -> BaseException:
        return {
            "refuse": OrderRefusedError(self.name, key, "not today"),
            "busy": BrokerBusyError(self.name, key, "too many requests"),
            "access": BrokerAccessError(self.name, key, "the key is not valid"),
            "unreachable": BrokerUnreachableError(self.name, key, "no route"),
            "ledger": LedgerUnreachableError("sqlite:///book", "locked"),
            "lost answer": AmbiguousOrderError(self.name, key, "timed out"),
            "lost order": AmbiguousOrderError(self.name, key, "timed out"),
            "reset": ConnectionResetError("reset by peer"),
            "killed before": Killed(word),
            "killed after": Killed(word),
        }[word]

    def order(self, client_order_id: str) -> OrderState | None:
        self._ask()
        return None if client_order_id in self.hidden else self.states.get(client_order_id)

    def orders(self, session: date) -> list[OrderState]:
        self._ask()
        return [self.states[key] for key in sorted(self.states) if key not in self.hidden]

    def open_orders(self) -> list[OrderState]:
        return [state for state in self.orders(date.min) if not state.status.terminal]

    def fills(self, session: date) -> list[Fill]:
        self._ask()
        return list(self.executions)

    def cash_flows(self, session: date) -> list[CashFlow]:
        return [flow for flow in self.flows if flow.session == session]

    def cancel(self, client_order_id: str) -> OrderState:
        self.cancels.append(client_order_id)
        state = self.states[client_order_id]
        if not state.status.terminal:
            self.states[client_order_id] = replace(state, status=OrderStatus.CANCELED, reason="by us")
        return self.states[client_order_id]

    def _ask(self) -> None:
        if self.unreachable:
            raise BrokerUnreachableError(self.name, "a question", "no route")


def window_around(now: datetime) -> OrderWindow:
    """From an hour before to an hour after."""
    return OrderWindow(now - timedelta(hours=1), now + timedelta(hours=1))

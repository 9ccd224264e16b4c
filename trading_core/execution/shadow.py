"""A broker that may be asked everything and told nothing: what a shadow account decides for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from trading_core.errors import OrderRefusedError
from trading_core.execution.broker import Broker, BrokerTraits, CalendarBroker, LastTrade, OrderWindow, QuotingBroker
from trading_core.schema import AccountState, CashFlow, Fill, Order, OrderKind, OrderState
from trading_core.sessions import Sessions

WHY = "this account is a shadow: it decides and records, and sends nothing"


class ReadOnlyBroker:
    """See `Broker`. Orders and cancellations are refused here, before the broker behind it hears of them."""

    def __init__(self, inner: Broker) -> None:
        self._inner = inner
        self.name = inner.name
        self.real = inner.real
        self.traits: BrokerTraits = inner.traits

    def identity(self) -> str:
        return f"shadow of {self._inner.identity()}"

    def account(self) -> AccountState:
        return self._inner.account()

    def trades_on(self, session: date) -> bool:
        return self._inner.trades_on(session) if isinstance(self._inner, CalendarBroker) else True

    def last_trades(self, symbols: Sequence[str]) -> dict[str, LastTrade]:
        return self._inner.last_trades(symbols) if isinstance(self._inner, QuotingBroker) else {}

    def window(self, kind: OrderKind, session: date, sessions: Sessions) -> OrderWindow:
        return self._inner.window(kind, session, sessions)

    def submit(self, order: Order) -> OrderState:
        raise OrderRefusedError(self.name, order.client_order_id, WHY)

    def order(self, client_order_id: str) -> OrderState | None:
        return self._inner.order(client_order_id)

    def orders(self, session: date) -> list[OrderState]:
        """None: what the real account ordered is not this account's."""
        return []

    def open_orders(self) -> list[OrderState]:
        return []

    def fills(self, session: date) -> list[Fill]:
        return []

    def cash_flows(self, session: date) -> list[CashFlow]:
        return []

    def cancel(self, client_order_id: str) -> OrderState:
        raise OrderRefusedError(self.name, client_order_id, WHY)

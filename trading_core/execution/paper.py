"""The paper broker: a persistent account that fills at the next open by the rule the backtest uses.

Nothing is updated in place. Documents under `paper#<account>`:

    opening                  the starting capital, fixed by the first write
    id#<client id>           the session of an order: makes the id unique in the account
    order#<T>#<client id>    an order for T's open
    cancel#<T>#<client id>   a wish to cancel it
    book#<T>                 the account after T's open: cash, positions, fills, the outcome of every order
    turn#<number>            which book is the number-th: two sessions cannot both follow the same book

The newest book is the account. A book is written once, so settling twice, concurrently or after a crash in the middle
changes nothing. What the market did (opens, corporate actions) is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from trading_core.costs import CostModel
from trading_core.errors import DuplicateOrderError, SessionOrderError, UnknownNameError
from trading_core.execution.codec import LedgerRecordError, from_document, to_document
from trading_core.execution.ids import CLIENT_ORDER_ID_LENGTH
from trading_core.execution.store import DocumentStore, NewDocument
from trading_core.portfolio.actions import adjust_orders, apply_actions
from trading_core.portfolio.auction import AuctionFill, fill_open
from trading_core.portfolio.overnight import QUIET, Night, accrue
from trading_core.schema import (
    AccountState,
    ActionKind,
    CorporateAction,
    Fill,
    Order,
    OrderState,
    OrderStatus,
    Position,
    Side,
)

CANCELED_BY_REQUEST = "canceled before the open"
TOO_LATE = "its session was already settled when it came"


@dataclass(frozen=True, slots=True)
class Book:
    """The account after the open of `session`. `outcomes`: every order of the session, restated for splits."""

    session: date
    number: int  # counts the account's books from 1
    cash: float
    positions: tuple[Position, ...]
    fills: tuple[Fill, ...]
    outcomes: tuple[OrderState, ...]
    settled_at: datetime


class PaperBroker:
    """See `Broker` and `SimulatedBroker`.

    `capital`: cash of a new account (currency); an existing account keeps its own. `short`: whether it may hold negative
    positions. Constructing does no I/O.
    """

    name = "paper"
    real = False

    def __init__(
        self,
        store: DocumentStore,
        account: str,
        capital: float,
        costs: CostModel,
        fractional: bool = True,
        short: bool = False,
    ) -> None:
        self._store = store
        self._account = account
        self._capital = capital
        self._costs = costs
        self._fractional = fractional
        self._short = short
        self._pk = f"paper#{account}"

    def account(self) -> AccountState:
        return self._state_after(self._newest())

    def submit(self, order: Order) -> OrderState:
        """Takes an order; it stays ACCEPTED until its session is settled.

        Errors: DuplicateOrderError; LedgerRecordError for a quantity or id that no broker takes.
        """
        _check(order)
        self._open_account()
        session, order_id = order.session.isoformat(), order.client_order_id
        items = [
            NewDocument(self._pk, f"id#{order_id}", {"session": session, "symbol": order.symbol}),
            NewDocument(self._pk, f"order#{session}#{order_id}", to_document(order)),
        ]
        if not self._store.transact_new(items):
            raise DuplicateOrderError(order_id)
        state = self.order(order_id)
        return state if state is not None else OrderState(order, OrderStatus.ACCEPTED)

    def order(self, client_order_id: str) -> OrderState | None:
        known = self._store.get(self._pk, f"id#{client_order_id}")
        if known is None:
            return None
        states = self._states(date.fromisoformat(known["session"]), client_order_id)
        return states[0] if states else None

    def orders(self, session: date) -> list[OrderState]:
        return self._states(session)

    def fills(self, session: date) -> list[Fill]:
        book = self._book(session)
        return list(book.fills) if book else []

    def cancel(self, client_order_id: str) -> OrderState:
        """Cancels an order whose session is not settled; later, nothing changes."""
        state = self.order(client_order_id)
        if state is None:
            raise UnknownNameError("paper order", client_order_id, ["(an id this account has submitted)"])
        if not state.status.terminal:
            key = f"cancel#{state.order.session.isoformat()}#{client_order_id}"
            self._store.put_new(self._pk, key, {"symbol": state.order.symbol})
            state = self.order(client_order_id) or state
        return state

    def settled_through(self) -> date | None:
        book = self._newest()
        return book.session if book else None

    def settle_open(
        self,
        session: date,
        opens: Mapping[str, float],
        actions: Sequence[CorporateAction],
        settled_at: datetime,
        night: Night = QUIET,
    ) -> list[Fill]:
        """Applies the corporate actions of `session`, fills its orders at `opens`, writes its book; returns the fills.

        `opens`: price per share by symbol; without one an order expires. `settled_at` (aware) is stamped on the fills:
        pass the session's opening time. `night`: what interest, fees, impact and volume caps follow from; without it
        nothing accrues. A settled session returns the fills it has, whatever is handed in.
        Errors: SessionOrderError when a later session is settled already; LedgerRecordError for stray actions.
        """
        strays = sorted(f"{a.symbol} {a.session}" for a in actions if a.session != session)
        if strays:
            raise LedgerRecordError(f"the corporate actions of {session}", f"these are of other sessions: {strays[:5]}")
        self._open_account()
        while True:
            newest = self._newest()
            if newest is not None and newest.session >= session:
                return self._settled_fills(session, newest)
            book = self._fill(session, newest, opens, actions, settled_at, night)
            turn = NewDocument(self._pk, f"turn#{book.number:08d}", {"session": session.isoformat()})
            # False: another process settled a session in between. Look again.
            if self._store.transact_new(
                [turn, NewDocument(self._pk, f"book#{session.isoformat()}", to_document(book))]
            ):
                return list(book.fills)

    def _settled_fills(self, session: date, newest: Book) -> list[Fill]:
        book = self._book(session)
        if book is None:
            reason = "a later session of this paper account is already settled"
            raise SessionOrderError(self._account, session, newest.session, reason)
        return list(book.fills)

    def _fill(
        self,
        session: date,
        before: Book | None,
        opens: Mapping[str, float],
        actions: Sequence[CorporateAction],
        settled_at: datetime,
        night: Night,
    ) -> Book:
        """The book of `session`: a pure function of the book before, the session's orders and what the market did."""
        pending = self._states(session)
        orders = adjust_orders([s.order for s in pending if s.status is OrderStatus.ACCEPTED], actions)
        start = self._state_after(before)
        held = {p.symbol: p.quantity for p in start.positions}
        interest, fee = accrue(held, start.cash, night, self._costs)
        holdings, cash = apply_actions(held, start.cash + (interest - fee), actions)
        result = fill_open(
            orders,
            opens,
            cash,
            holdings,
            self._costs,
            self._fractional,
            liquidity=night.liquidity,
            short=self._short,
        )
        fills = tuple(_fill_of(orders[fill.index], fill, session, settled_at) for fill in result.fills)
        outcomes = {id_: s for s in pending if (id_ := s.order.client_order_id) and s.status.terminal}
        for order, reason in result.unfilled:
            outcomes[order.client_order_id] = OrderState(order, OrderStatus.EXPIRED, reason=reason)
        for fill in result.fills:
            outcomes[orders[fill.index].client_order_id] = _outcome(orders[fill.index], fill)
        return Book(
            session=session,
            number=before.number + 1 if before else 1,
            cash=result.cash_after,
            positions=_positions(start.positions, actions, fills, result.holdings_after),
            fills=fills,
            outcomes=tuple(outcomes[order_id] for order_id in sorted(outcomes)),
            settled_at=settled_at,
        )

    def _states(self, session: date, client_order_id: str = "") -> list[OrderState]:
        """The orders of a session (all, or one) with their states, sorted by id."""
        day = session.isoformat()
        stored = self._store.query(self._pk, f"order#{day}#{client_order_id}")
        orders = [from_document(Order, item.doc) for item in stored]
        book = self._book(session)
        settled = {state.order.client_order_id: state for state in book.outcomes} if book else {}
        newest = book or self._newest()
        canceled = {item.sk.rsplit("#", 1)[1] for item in self._store.query(self._pk, f"cancel#{day}#")}
        states = []
        for order in orders:
            if order.client_order_id in settled:
                states.append(settled[order.client_order_id])
            elif newest is not None and newest.session >= session:
                states.append(OrderState(order, OrderStatus.EXPIRED, reason=TOO_LATE))
            elif order.client_order_id in canceled:
                states.append(OrderState(order, OrderStatus.CANCELED, reason=CANCELED_BY_REQUEST))
            else:
                states.append(OrderState(order, OrderStatus.ACCEPTED))
        return states

    def _state_after(self, book: Book | None) -> AccountState:
        if book is not None:
            return AccountState(self._account, book.cash, book.positions)
        opening = self._store.get(self._pk, "opening")
        return AccountState(self._account, opening["capital"] if opening else float(self._capital), ())

    def _open_account(self) -> None:
        if self._store.get(self._pk, "opening") is None:
            self._store.put_new(self._pk, "opening", {"account": self._account, "capital": float(self._capital)})

    def _book(self, session: date) -> Book | None:
        document = self._store.get(self._pk, f"book#{session.isoformat()}")
        return from_document(Book, document) if document is not None else None

    def _newest(self) -> Book | None:
        found = self._store.query(self._pk, "book#", limit=1, newest_first=True)
        return from_document(Book, found[0].doc) if found else None


def _check(order: Order) -> None:
    if not (math.isfinite(order.quantity) and order.quantity > 0):
        raise LedgerRecordError(f"the order of {order.symbol}", f"its quantity is {order.quantity}; it must be above 0")
    if not 1 <= len(order.client_order_id) <= CLIENT_ORDER_ID_LENGTH or "#" in order.client_order_id:
        reason = f"its client order id must have 1 to {CLIENT_ORDER_ID_LENGTH} characters and no '#'"
        raise LedgerRecordError(f"the order of {order.symbol}", reason)


def _fill_of(order: Order, fill: AuctionFill, session: date, at: datetime) -> Fill:
    return Fill(
        fill_id=f"{order.client_order_id}-1",
        client_order_id=order.client_order_id,
        symbol=fill.symbol,
        side=fill.side,
        quantity=fill.quantity,
        price=fill.price,
        commission=fill.commission,
        session=session,
        filled_at=at,
    )


def _outcome(order: Order, fill: AuctionFill) -> OrderState:
    # An order lives for one auction: what the auction did not fill expires with it.
    whole = fill.quantity == order.quantity
    status = OrderStatus.FILLED if whole else OrderStatus.EXPIRED
    return OrderState(order, status, fill.quantity, fill.price, fill.reason)


def _positions(
    before: Sequence[Position],
    actions: Sequence[CorporateAction],
    fills: Sequence[Fill],
    holdings: Mapping[str, float],
) -> tuple[Position, ...]:
    """Positions with average price per share: a split divides it, a fill that enlarges a position averages in with its
    costs, one that reduces it keeps it, one that crosses zero begins anew."""
    quantity = {p.symbol: p.quantity for p in before}
    cost = {p.symbol: p.average_price for p in before}
    for action in actions:
        if action.kind is ActionKind.SPLIT and action.symbol in cost:
            quantity[action.symbol] *= action.value
            cost[action.symbol] /= action.value
        elif action.kind is ActionKind.DELISTING and action.symbol in cost:
            quantity[action.symbol] = 0.0
    for fill in fills:
        held = quantity.get(fill.symbol, 0.0)
        sign = 1.0 if fill.side is Side.BUY else -1.0
        after = held + sign * fill.quantity
        paid = fill.price + sign * fill.commission / fill.quantity
        if held * sign >= 0.0:
            cost[fill.symbol] = (abs(held) * cost.get(fill.symbol, 0.0) + fill.quantity * paid) / abs(after)
        elif after * sign > 0.0:
            cost[fill.symbol] = paid
        quantity[fill.symbol] = after
    return tuple(Position(symbol, holdings[symbol], cost[symbol]) for symbol in sorted(holdings))

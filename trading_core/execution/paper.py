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
from datetime import date, datetime

from trading_core.costs import CostModel
from trading_core.errors import DuplicateOrderError, OrderRefusedError, SessionOrderError, UnknownNameError
from trading_core.execution.broker import BrokerTraits, OrderWindow
from trading_core.execution.codec import LedgerRecordError, from_document, to_document
from trading_core.execution.ids import CLIENT_ORDER_ID_LENGTH
from trading_core.execution.paper_book import Book, BookRules, OpenMarket, late_actions, missed_actions, next_book
from trading_core.execution.store import DocumentStore, NewDocument
from trading_core.portfolio.late import AppliedAction
from trading_core.portfolio.overnight import QUIET, Night
from trading_core.schema import (
    AccountState,
    CashFlow,
    CorporateAction,
    Fill,
    Order,
    OrderKind,
    OrderState,
    OrderStatus,
)
from trading_core.sessions import Sessions

KINDS = frozenset({OrderKind.OPENING, OrderKind.MARKET, OrderKind.LIMIT})
PAGE = 64  # orders read at once when the open ones are looked for
CANCELED_BY_REQUEST = "canceled before the open"
TOO_LATE = "its session was already settled when it came"


class PaperBroker:
    """See `Broker` and `SimulatedBroker`.

    `capital`: cash of a new account (currency); an existing account keeps its own. `short`: whether it may hold negative
    positions. An order of any kind lives for its session's open; a LIMIT order fills there only when the price it would pay
    (half spread, slippage and impact included, commission not) respects its limit. Constructing does no I/O.
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
        self.traits = BrokerTraits(unique_ids=True, one_auction=True, kinds=KINDS, fractional=fractional)
        self._store = store
        self._account = account
        self._capital = capital
        self._rules = BookRules(costs, fractional, short)
        self._pk = f"paper#{account}"

    def identity(self) -> str:
        return f"paper:{self._account}"

    def account(self) -> AccountState:
        return self._state_after(self._newest())

    def window(self, kind: OrderKind, session: date, sessions: Sessions) -> OrderWindow:
        """From the close of the session before until the deadline of `session`."""
        _check_kind(kind)
        return OrderWindow(sessions.close(sessions.previous(session)), sessions.deadline(session))

    def submit(self, order: Order) -> OrderState:
        """Takes an order; it stays ACCEPTED until its session is settled.

        Errors: DuplicateOrderError; OrderRefusedError when its session is settled already; UnknownNameError for its kind;
        LedgerRecordError for a quantity, limit or id that no broker takes.
        """
        _check(order)
        self._open_account()
        session, order_id = order.session.isoformat(), order.client_order_id
        if self._store.get(self._pk, f"id#{order_id}") is not None:
            raise DuplicateOrderError(order_id)
        newest = self._newest()
        if newest is not None and newest.session >= order.session:
            raise OrderRefusedError(self.name, order_id, TOO_LATE)
        items = [
            NewDocument(self._pk, f"id#{order_id}", {"session": session, "symbol": order.symbol}),
            NewDocument(self._pk, f"order#{session}#{order_id}", to_document(order)),
        ]
        if not self._store.transact_new(items):
            raise DuplicateOrderError(order_id)
        # Its session may have been settled since the question above: then it is EXPIRED.
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

    def open_orders(self) -> list[OrderState]:
        states = [state for session in self._sessions_to_come() for state in self._states(session)]
        return sorted((s for s in states if not s.status.terminal), key=lambda s: s.order.client_order_id)

    def fills(self, session: date) -> list[Fill]:
        book = self._book(session)
        return list(book.fills) if book else []

    def cash_flows(self, session: date) -> list[CashFlow]:
        """Dividends, proceeds of delistings, interest and the fee for borrowed shares, as the book of `session` has them."""
        book = self._book(session)
        return list(book.flows) if book else []

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

    # --- what the market does -----------------------------------------------------------------------------------------

    def opening_cash(self) -> float:
        opening = self._store.get(self._pk, "opening")
        return float(opening["capital"] if opening else self._capital)

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
        earlier: Sequence[CorporateAction] = (),
    ) -> list[Fill]:
        """Applies the corporate actions of `session`, fills its orders at `opens`, writes its book; returns the fills.

        `opens`: price per share by symbol; without one an order expires. `actions`: dated after the session before, up to
        `session`. `settled_at` (aware) is stamped on the fills: pass the session's opening time. `night`: what interest,
        fees, impact and volume caps follow from; without it nothing accrues. `earlier`: every action of the sessions before
        since the account began, of what it holds; those that it has not had take effect now, see `portfolio.late`.
        A settled session returns the fills it has, whatever is handed in.
        Errors: SessionOrderError when a later session is settled already; LedgerRecordError for stray actions.
        """
        self._open_account()
        while True:
            newest = self._newest()
            if newest is not None and newest.session >= session:
                return self._settled_fills(session, newest)
            _check_actions(session, newest, actions, earlier)
            late = self._late(newest, earlier)
            market = OpenMarket(session, opens, actions, settled_at, night, late)
            book = next_book(newest, self._state_after(newest), self._states(session), market, self._rules)
            turn = NewDocument(self._pk, f"turn#{book.number:08d}", {"session": session.isoformat()})
            # False: another process settled a session in between. Look again.
            if self._store.transact_new(
                [turn, NewDocument(self._pk, f"book#{session.isoformat()}", to_document(book))]
            ):
                return list(book.fills)

    def took_effect(self, session: date) -> list[AppliedAction]:
        book = self._book(session)
        return list(book.took_effect) if book else []

    def _late(self, newest: Book | None, earlier: Sequence[CorporateAction]) -> list[AppliedAction]:
        missed = missed_actions(newest, earlier)
        if not missed:
            return []
        books = [from_document(Book, item.doc) for item in self._store.query(self._pk, "book#")]
        # Another process may have settled a session since `newest` was read; that one's turn is lost anyway.
        past = [book for book in books if newest is not None and book.session <= newest.session]
        return late_actions(past, missed, earlier)

    def _settled_fills(self, session: date, newest: Book) -> list[Fill]:
        book = self._book(session)
        if book is None:
            reason = "a later session of this paper account is already settled"
            raise SessionOrderError(self._account, session, newest.session, reason)
        return list(book.fills)

    # --- documents ----------------------------------------------------------------------------------------------------

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

    def _sessions_to_come(self) -> list[date]:
        """The sessions after the newest book that have orders. Newest first and by pages: an old account has thousands."""
        newest, limit = self._newest(), PAGE
        while True:
            stored = self._store.query(self._pk, "order#", limit=limit, newest_first=True)
            days = [date.fromisoformat(item.sk.split("#")[1]) for item in stored]
            if len(stored) < limit or (newest is not None and days[-1] <= newest.session):
                return sorted({day for day in days if newest is None or day > newest.session})
            limit *= 4

    def _state_after(self, book: Book | None) -> AccountState:
        if book is not None:
            return AccountState(self._account, book.cash, book.positions)
        return AccountState(self._account, self.opening_cash(), ())

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
    where = f"the order of {order.symbol}"
    if not (math.isfinite(order.quantity) and order.quantity > 0):
        raise LedgerRecordError(where, f"its quantity is {order.quantity}; it must be above 0")
    if not 1 <= len(order.client_order_id) <= CLIENT_ORDER_ID_LENGTH or "#" in order.client_order_id:
        reason = f"its client order id must have 1 to {CLIENT_ORDER_ID_LENGTH} characters and no '#'"
        raise LedgerRecordError(where, reason)
    _check_kind(order.kind)
    limit = order.limit_price
    if order.kind is OrderKind.LIMIT and not (limit is not None and math.isfinite(limit) and limit > 0):
        raise LedgerRecordError(where, f"its limit price is {limit}; it must be above 0")


def _check_kind(kind: OrderKind) -> None:
    if kind not in KINDS:
        raise UnknownNameError("order kind of the paper broker", kind.value, sorted(k.value for k in KINDS))


def _check_actions(
    session: date, newest: Book | None, actions: Sequence[CorporateAction], earlier: Sequence[CorporateAction]
) -> None:
    """`actions` belong between the newest book and `session`, `earlier` ones before `session`."""
    strays = [a for a in actions if a.session > session or (newest is not None and a.session <= newest.session)]
    strays += [a for a in earlier if a.session >= session]
    if strays:
        named = sorted(f"{a.symbol} {a.session}" for a in strays)
        raise LedgerRecordError(f"the corporate actions of {session}", f"these are of other sessions: {named[:5]}")

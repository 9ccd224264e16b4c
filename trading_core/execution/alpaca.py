"""Alpaca as a broker of US shares: its Trading API (v2), on the paper endpoint or, switched on explicitly, the live one.

An order is sent once, with our client order id, which Alpaca accepts once per account. Every refusal is checked against
that id before it is believed: an order whose first answer was lost holds its own buying power or shares, so its second
sending may be refused for lack of them, and that refusal must not make a living order look dead.

Alpaca takes opening-auction orders from 19:00 in New York until two minutes before the open, closing-auction ones until
ten minutes before the close; both for whole shares. A day order that comes before the open waits for it.

See alpaca_json for what its answers mean and alpaca_calls for how they are asked for. Nothing here has been run against
Alpaca itself (docs/operations.md, Brokers).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from datetime import time as wall_time
from functools import partial
from typing import Any, TypeVar

from trading_core.errors import (
    AmbiguousOrderError,
    BrokerAccessError,
    BrokerBusyError,
    BrokerUnreachableError,
    DuplicateOrderError,
    ExecutionError,
    InvalidConfigError,
    OrderRefusedError,
    UnknownNameError,
)
from trading_core.execution import alpaca_json as answers
from trading_core.execution.alpaca_calls import AlpacaAccess, Calls, Reply, Timeouts, endpoint
from trading_core.execution.alpaca_json import NEW_YORK, Malformed, Unsendable
from trading_core.execution.alpaca_quotes import AlpacaQuotes, data_endpoint
from trading_core.execution.broker import BrokerTraits, LastTrade, OrderWindow
from trading_core.schema import AccountState, CashFlow, Fill, Order, OrderKind, OrderState
from trading_core.sessions import Sessions

T = TypeVar("T")
ORDERS_PER_PAGE, ACTIVITIES_PER_PAGE = 500, 100  # Alpaca's largest
SMALLEST_PAGE = 50  # Alpaca's usual one: fewer rows than that were not cut off, whatever page size it obeys
OPENING_FROM = wall_time(19, 0)  # in New York, the evening before
OPENING_LEAD, CLOSING_LEAD, DAY_LEAD = timedelta(minutes=2), timedelta(minutes=10), timedelta(minutes=15)
ACCOUNT_CHECK_S = 30.0  # so long one look at the account's blocks counts; the rate limit counts requests
# An activity may be posted some days after (or before) the day it is dated.
POSTED_AROUND = timedelta(days=7)
INSTANT = timedelta(microseconds=1)
NO_SUCH_ORDER = 40410000
REFUSALS = frozenset({400, 403, 404, 422})  # with a code of Alpaca's own: it has read the order and does not take it
_DUPLICATE = re.compile(r"client.?order.?id must be unique", re.IGNORECASE)


class AlpacaBroker:
    """See `Broker` and the module's text. `account`: the ledger's name of it. Constructing does no I/O.

    Errors of every call: InvalidConfigError while the keys are not set.
    """

    real = True
    traits = BrokerTraits(
        unique_ids=True,
        one_auction=False,
        kinds=frozenset(OrderKind),
        fractional=True,
        visible_after_s=30.0,  # a request that was given up here may still be on its way
    )

    def __init__(
        self,
        account: str,
        access: AlpacaAccess,
        sessions: Sessions,
        live: bool = False,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        account_check_s: float = ACCOUNT_CHECK_S,
    ) -> None:
        """`live`: the endpoint of real money.

        Errors: InvalidConfigError for a URL that is not allowed, and for a market that never closes.
        """
        self.name = "alpaca-live" if live else "alpaca"
        if sessions.always_open:
            raise InvalidConfigError(f"Broker '{self.name}'", ["calendar: it trades shares, whose market has sessions"])
        self._account = account
        self._sessions = sessions
        self._url = endpoint(access.url, live)
        self._calls = Calls(access, self._url, timeouts)
        self._quotes = AlpacaQuotes(access, data_endpoint(access, self._url), timeouts)
        self._account_check_s = account_check_s
        self._open_until = float("-inf")  # of time.monotonic: until then the account counts as open for orders

    def __repr__(self) -> str:
        return f"AlpacaBroker({self.name!r}, {self._account!r}, {self._url!r})"

    def identity(self) -> str:
        return f"alpaca:{self._ask('the question for its account', '/account', answers.account_of).number}"

    def account(self) -> AccountState:
        """Cash and positions are two questions: the cash is asked for before and after, and must not have moved."""
        what = "the question for its account"
        cash = self._ask(what, "/account", answers.account_of).cash
        for _ in range(3):
            positions = self._ask("the question for its positions", "/positions", answers.positions_of)
            before, cash = cash, self._ask(what, "/account", answers.account_of).cash
            if before == cash:
                return AccountState(self._account, cash, positions)
        raise BrokerUnreachableError(self.name, what, "its cash moved each time while its positions were asked for")

    def trades_on(self, session: date) -> bool:
        day = session.isoformat()
        what = f"the question whether the exchange opens on {day}"
        return self._ask(what, "/calendar", lambda content: answers.opens_on(content, day), {"start": day, "end": day})

    def last_trades(self, symbols: Sequence[str]) -> dict[str, LastTrade]:
        return self._quotes.last_trades(symbols, self._read)

    def window(self, kind: OrderKind, session: date, sessions: Sessions) -> OrderWindow:
        opened, closed = sessions.open(session), sessions.close(session)
        queued_from = sessions.close(sessions.previous(session))
        if kind is OrderKind.OPENING:
            evening = datetime.combine(session - timedelta(days=1), OPENING_FROM, NEW_YORK).astimezone(opened.tzinfo)
            return OrderWindow(max(evening, queued_from), opened - OPENING_LEAD)
        if kind is OrderKind.CLOSING:
            return OrderWindow(opened, closed - CLOSING_LEAD)
        if kind not in self.traits.kinds:
            raise UnknownNameError("order kind", str(kind), sorted(self.traits.kinds))
        return OrderWindow(queued_from, closed - DAY_LEAD)

    # --- orders ------------------------------------------------------------------------------------------------------

    def submit(self, order: Order) -> OrderState:
        """See `Broker.submit`; further errors: BrokerUnreachableError when the order certainly was not sent."""
        key = order.client_order_id
        try:
            body = answers.order_body(order)
        except Unsendable as error:
            raise OrderRefusedError(self.name, key, str(error)) from None
        self._require_open(f"the order {key}")
        reply = self._calls.ask("POST", "/orders", body)
        if reply.trouble:
            raise self._not_taken(order, reply)
        try:
            return answers.taken(order, reply.content, self._sessions)
        except Malformed as error:
            reason = self._calls.cleared(str(error))
        raise AmbiguousOrderError(self.name, key, reason)

    def _require_open(self, what: str) -> None:
        """Errors: BrokerAccessError for an account that takes no orders; those of a question."""
        if time.monotonic() < self._open_until:
            return
        trouble = self._ask(f"{what} (its account was asked for first)", "/account", answers.account_of).trouble
        if trouble:
            raise BrokerAccessError(self.name, what, self._calls.cleared(trouble))
        self._open_until = time.monotonic() + self._account_check_s

    def _not_taken(self, order: Order, reply: Reply) -> ExecutionError:
        """What a reply to an order that is no order means."""
        key = order.client_order_id
        what = f"the order {key}"
        self._open_until = float("-inf")
        if not reply.sent:
            return BrokerUnreachableError(self.name, what, reply.trouble)
        if reply.status in (401, 429) or (reply.status == 403 and reply.code is None):
            return self._unanswered(what, reply)
        if reply.status not in REFUSALS or reply.code is None:
            return AmbiguousOrderError(self.name, key, reply.trouble)
        return DuplicateOrderError(key) if _DUPLICATE.search(reply.trouble) else self._refused(key, reply)

    def _refused(self, key: str, reply: Reply) -> ExecutionError:
        """A refusal, after the question whether an earlier sending of the same id is there."""
        try:
            known = self.order(key)
        except (BrokerUnreachableError, BrokerAccessError):
            reason = f"it refuses it ({reply.trouble}), and does not say whether it took an earlier sending"
            return AmbiguousOrderError(self.name, key, reason)
        return DuplicateOrderError(key) if known else OrderRefusedError(self.name, key, reply.trouble)

    def order(self, client_order_id: str) -> OrderState | None:
        what = f"the question for order {client_order_id}"
        reply = self._calls.ask("GET", "/orders:by_client_order_id", {"client_order_id": client_order_id})
        # A wrong address is told by the same code, and is no word about the order.
        if (reply.status, reply.code) == (404, NO_SUCH_ORDER) and "endpoint" not in reply.trouble:
            return None
        state = self._read(what, reply, self._state)
        if state.order.client_order_id != client_order_id:
            raise BrokerUnreachableError(self.name, what, "the answer speaks of another order")
        return state

    def orders(self, session: date) -> list[OrderState]:
        """Also those that are not ours: all that came in from the close of the session before to the close of this one."""
        start = self._sessions.close(self._sessions.previous(session))
        end = self._sessions.close(session)
        found = self._listed(f"the question for the orders of {session}", {"status": "all", "until": _text(end)}, start)
        return [state for state in found if state.order.session == session]

    def open_orders(self) -> list[OrderState]:
        found = self._listed("the question for its open orders", {"status": "open"}, None)
        return [state for state in found if not state.status.terminal]

    def cancel(self, client_order_id: str) -> OrderState:
        what = f"the cancellation of {client_order_id}"
        state = self.order(client_order_id)
        if state is None:
            raise UnknownNameError(f"{self.name} order", client_order_id, ["(an id this account has submitted)"])
        if state.status.terminal:
            return state
        reply = self._calls.ask("DELETE", f"/orders/{state.broker_id}")
        # 422: it has ended meanwhile, or is in the auction already. What it is now, the order itself says.
        if reply.trouble and reply.status not in (404, 422):
            raise self._unanswered(what, reply)
        after = self.order(client_order_id)
        if after is None:
            raise BrokerUnreachableError(self.name, what, "it does not know the order any more")
        return after

    # --- what happened -----------------------------------------------------------------------------------------------

    def fills(self, session: date) -> list[Fill]:
        what = f"the question for the fills of {session}"
        rows = self._activities(what, "/account/activities/FILL", {"date": session.isoformat()})
        found = [row for row in rows if self._read(what, Reply(row), answers.traded_on) == session]
        owners = {state.broker_id: state.order.client_order_id for state in self.orders(session)} if found else {}
        fills: dict[str, Fill] = {}
        for row in found:
            order_id = self._read(what, Reply(row), partial(answers.id_of, key="order_id"))
            if order_id not in owners:  # of an order of an earlier session
                order = self._ask(what, f"/orders/{order_id}", self._state)
                owners[order_id] = order.order.client_order_id
            client_id = owners[order_id]
            fill = self._read(what, Reply(row), partial(answers.fill_of, client_order_id=client_id, session=session))
            fills[fill.fill_id] = fill
        return sorted(fills.values(), key=lambda fill: (fill.filled_at, fill.fill_id))

    def cash_flows(self, session: date) -> list[CashFlow]:
        """Of activities dated after the session before and up to this one: dividends, interest, fees, transfers ..."""
        what = f"the question for the cash flows of {session}"
        before = self._sessions.previous(session)
        span = {
            "category": "non_trade_activity",
            "after": _text(self._sessions.close(before) - POSTED_AROUND),
            "until": _text(self._sessions.close(session) + POSTED_AROUND),
        }
        rows = self._activities(what, "/account/activities", span)
        return self._read(what, Reply(rows), lambda found: answers.cash_flows_of(found, before, session))

    # --- asking ------------------------------------------------------------------------------------------------------

    def _state(self, row: Any) -> OrderState:
        return answers.order_state(row, self._sessions)

    def _ask(self, what: str, path: str, read: Callable[[Any], T], query: Mapping[str, Any] | None = None) -> T:
        """The answer to a question, read. `what` names it in errors."""
        return self._read(what, self._calls.ask("GET", path, query), read)

    def _read(self, what: str, reply: Reply, read: Callable[[Any], T]) -> T:
        if reply.trouble:
            raise self._unanswered(what, reply)
        try:
            return read(reply.content)
        except Malformed as error:
            reason = self._calls.cleared(str(error))
        raise BrokerUnreachableError(self.name, what, reason)

    def _unanswered(self, what: str, reply: Reply) -> ExecutionError:
        """What a reply to a question that is no answer means."""
        if reply.status == 429:
            wait = reply.retry_after_s
            busy = BrokerBusyError(self.name, what, reply.trouble)
            return busy if wait is None else BrokerBusyError(self.name, what, reply.trouble, wait)
        if reply.status in (401, 403):
            return BrokerAccessError(self.name, what, reply.trouble)
        return BrokerUnreachableError(self.name, what, reply.trouble)

    def _listed(self, what: str, query: Mapping[str, str], since: datetime | None) -> list[OrderState]:
        """Every order of a query that came in at `since` or later, sorted by client order id.

        Alpaca gives the oldest first, and only those after an instant: the next page begins with the last instant of the
        page before, since orders of one instant may lie on both.
        """
        found: dict[str, OrderState] = {}
        fixed = {**query, "limit": str(ORDERS_PER_PAGE), "direction": "asc", "nested": "false"}
        while True:
            after = {"after": _text(since - INSTANT)} if since is not None else {}
            rows = self._ask(what, "/orders", answers.rows_of, {**fixed, **after})
            page = [self._read(what, Reply(row), self._state) for row in rows]
            known = len(found)
            found |= {state.broker_id: state for state in page}
            full = len(rows) >= ORDERS_PER_PAGE
            if len(rows) < SMALLEST_PAGE or (len(found) == known and not full):
                return sorted(found.values(), key=lambda state: state.order.client_order_id)
            stamps = [self._read(what, Reply(row), answers.submitted_at) for row in rows]
            if len(found) == known or stamps != sorted(stamps):
                raise BrokerUnreachableError(self.name, what, f"it lists nothing new, or not in order, after {since}")
            since = stamps[-1]

    def _activities(self, what: str, path: str, query: Mapping[str, str]) -> list[Mapping[str, Any]]:
        """All activities of a query, page by page; a page is asked for by the last id of the page before."""
        found: dict[str, Mapping[str, Any]] = {}
        fixed = {**query, "direction": "asc", "page_size": str(ACTIVITIES_PER_PAGE)}
        token: dict[str, str] = {}
        while True:
            rows = self._ask(what, path, answers.rows_of, {**fixed, **token})
            ids = [self._read(what, Reply(row), partial(answers.text_of, key="id")) for row in rows]
            known = len(found)
            found |= dict(zip(ids, rows, strict=True))
            if len(rows) < SMALLEST_PAGE:
                return list(found.values())
            if len(found) == known:
                raise BrokerUnreachableError(self.name, what, "it gives the same page again")
            token = {"page_token": ids[-1]}


def _text(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # UTC, to the microsecond

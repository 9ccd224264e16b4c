"""The Alpaca broker over HTTP against a local stand-in: what is sent, what an answer means, and what a missing one means."""

from __future__ import annotations

import dataclasses
import logging
import math
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ledger_samples import ACCOUNT, FRI, MON, NOW, STRATEGY, THU, TUE, WED
from pydantic import SecretStr

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # alpaca_trading_server is a program beside the tests, not a package

from alpaca_trading_server import FAULTS, KEY_ID, SECRET_KEY, AlpacaTradingServer  # noqa: E402

from trading_core.costs import FREE  # noqa: E402
from trading_core.errors import (  # noqa: E402
    AmbiguousOrderError,
    BrokerAccessError,
    BrokerBusyError,
    BrokerUnreachableError,
    DuplicateOrderError,
    InvalidConfigError,
    OrderRefusedError,
    UnknownNameError,
)
from trading_core.execution import alpaca_json  # noqa: E402
from trading_core.execution.alpaca import AlpacaBroker  # noqa: E402
from trading_core.execution.alpaca_calls import AlpacaAccess, Calls, Timeouts, endpoint  # noqa: E402
from trading_core.execution.ids import client_order_id  # noqa: E402
from trading_core.execution.registry import BrokerRequest, broker_entry  # noqa: E402
from trading_core.schema import AccountState, CashFlowKind, Order, OrderKind, OrderStatus, Position, Side  # noqa: E402
from trading_core.sessions import Sessions  # noqa: E402

SESSIONS = Sessions("XNYS")
KEYS = (SecretStr(KEY_ID), SecretStr(SECRET_KEY))
DURING = datetime(2024, 1, 9, 15, 0, tzinfo=UTC)  # ten o'clock in New York
SHORT = Timeouts(connect_s=0.3, read_s=0.3)
HANGING = {"hang", "late answer"}


@pytest.fixture
def server() -> Iterator[AlpacaTradingServer]:
    with AlpacaTradingServer(NOW, cash="10000") as running:
        yield running


def broker_at(server: AlpacaTradingServer, timeouts: Timeouts | None = None, **changes: Any) -> AlpacaBroker:
    return AlpacaBroker(ACCOUNT, AlpacaAccess(*KEYS, server.url), SESSIONS, timeouts=timeouts or Timeouts(), **changes)


def order(
    symbol: str = "AAA", side: Side = Side.BUY, quantity: float = 10.0, session: date = TUE, **changes: Any
) -> Order:
    key = client_order_id(ACCOUNT, STRATEGY, session, symbol, side)
    return dataclasses.replace(Order(key, symbol, side, quantity, session, 100.0), **changes)


def at_market(*arguments: Any, **changes: Any) -> Order:
    return order(*arguments, **changes, kind=OrderKind.MARKET)


def said(error: BaseException) -> str:
    """An error's text, after a look for the keys in all that a log could show of it."""
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__)
    assert error.__context__ is None or error.__suppress_context__
    assert KEY_ID not in shown
    assert SECRET_KEY not in shown
    return str(error)


# --- what is sent -----------------------------------------------------------------------------------------------------

SENT = [
    (order(), {"qty": "10", "type": "market", "time_in_force": "opg"}),
    (at_market(quantity=0.1 + 0.2 - 0.05), {"qty": "0.25", "type": "market", "time_in_force": "day"}),
    (at_market(quantity=1e-6), {"qty": "0.000001", "type": "market", "time_in_force": "day"}),
    (order(kind=OrderKind.CLOSING, quantity=3.0), {"qty": "3", "type": "market", "time_in_force": "cls"}),
    (
        order(kind=OrderKind.LIMIT, limit_price=101.25, quantity=1234567.5),
        {"qty": "1234567.5", "type": "limit", "time_in_force": "day", "limit_price": "101.25"},
    ),
]


@pytest.mark.parametrize(("asked", "body"), [pytest.param(*case, id=case[0].kind) for case in SENT])
def test_an_order_is_sent_once_in_decimals_with_our_id(
    server: AlpacaTradingServer, asked: Order, body: dict[str, str]
) -> None:
    server.now = DURING if asked.kind is not OrderKind.OPENING else NOW
    server.cash *= 100_000
    state = broker_at(server).submit(asked)
    assert server.posts == [{"symbol": "AAA", "side": "buy", "client_order_id": asked.client_order_id} | body]
    assert (state.order, state.status, state.filled_quantity, state.average_price) == (
        asked, OrderStatus.ACCEPTED, 0.0, None,
    )  # fmt: skip
    assert state.broker_id == server.of(asked.client_order_id)[0]["id"]


UNSENDABLE = [
    (order(quantity=1.5), "whole shares; use order kind 'market', or set `fractional: false`"),
    (order(quantity=1.5, kind=OrderKind.CLOSING), "1.5 shares: an order in an auction is for whole shares"),
    (at_market(quantity=math.nan), "its quantity is nan; it must be above 0"),
    (at_market(quantity=math.inf), "its quantity is inf"),
    (at_market(quantity=0.0), "its quantity is 0.0"),
    (at_market(quantity=1 / 3), "its quantity is 0.3333333333333333; at most 9 decimals are allowed"),
    (order(kind=OrderKind.LIMIT), "a limit order needs a limit price"),
    (at_market(limit_price=5.0), "a limit order needs a limit price, any other has none"),
    (order(client_order_id="x" * 49), "its id must have 1 to 48 characters"),
]


@pytest.mark.parametrize(("asked", "words"), UNSENDABLE, ids=range(len(UNSENDABLE)))
def test_what_alpaca_cannot_take_is_refused_before_it_is_sent(
    server: AlpacaTradingServer, asked: Order, words: str
) -> None:
    with pytest.raises(OrderRefusedError) as caught:
        broker_at(server).submit(asked)
    assert words in said(caught.value)
    assert server.requests == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trading_blocked": True}, "the account says trading_blocked"),
        ({"account_blocked": True, "trade_suspended_by_user": True}, "account_blocked, trade_suspended_by_user"),
        ({"status": "ONBOARDING"}, "the account's status is ONBOARDING"),
    ],
)
def test_an_account_that_takes_no_orders_is_sent_none(
    server: AlpacaTradingServer, change: dict[str, object], words: str
) -> None:
    server.account |= change
    broker = broker_at(server)
    with pytest.raises(BrokerAccessError) as caught:
        broker.submit(order())
    assert words in said(caught.value)
    assert f"denies the order {order().client_order_id}" in str(caught.value)
    assert (server.posts, broker.account().cash) == ([], 10_000.0)  # it may still be looked at


# --- what becomes of an order that is sent ------------------------------------------------------------------------------

# fault -> the error, words of it, and how many orders lie in Alpaca's book then
SUBMITTED: dict[str, tuple[type[Exception], str, int]] = {
    "lost answer": (AmbiguousOrderError, "the connection broke (ConnectionError)", 1),
    "late answer": (AmbiguousOrderError, "no answer within 0.3 s", 1),
    "cut": (AmbiguousOrderError, "the connection broke (ChunkedEncodingError)", 1),
    "garbage": (AmbiguousOrderError, "the answer is no JSON", 1),
    "empty": (AmbiguousOrderError, "the answer is empty", 1),
    "a list": (AmbiguousOrderError, "the answer is no JSON object", 1),
    "other id": (AmbiguousOrderError, "the answer speaks of another order (of-somebody-else)", 1),
    "other quantity": (AmbiguousOrderError, "the answer speaks of 11 shares, not of 10", 1),
    "unknown status": (AmbiguousOrderError, "the order status 'levitating' is none that we know", 1),
    "no number": (AmbiguousOrderError, "'filled_qty' is no number: 'ten'", 1),
    "504 taken": (AmbiguousOrderError, "HTTP 504: <html>Gateway Time-out</html>", 1),
    "500 taken": (AmbiguousOrderError, "HTTP 500: internal server error", 1),
    "reset": (AmbiguousOrderError, "the connection broke (ConnectionError)", 0),
    "hang": (AmbiguousOrderError, "no answer within 0.3 s", 0),
    "html": (AmbiguousOrderError, "the answer is no JSON", 0),
    "redirect": (AmbiguousOrderError, "it points to another address, which is not followed", 0),
    "404 page": (AmbiguousOrderError, "HTTP 404: 404 page not found", 0),
    "500": (AmbiguousOrderError, "HTTP 500: internal server error", 0),
    "503": (AmbiguousOrderError, "HTTP 503: <html>Service Unavailable</html>", 0),
    "504": (AmbiguousOrderError, "HTTP 504.", 0),
    "401": (BrokerAccessError, "HTTP 401: request is not authorized", 0),
    "403": (BrokerAccessError, "HTTP 403: forbidden.", 0),
    "404": (OrderRefusedError, "HTTP 404: not found", 0),
    "422": (OrderRefusedError, "HTTP 422: stop price must be less than the current price", 0),
    "no funds": (OrderRefusedError, "HTTP 403: insufficient buying power", 0),
    "echo": (OrderRefusedError, "HTTP 400: bad header *** of ***", 0),
    "422 duplicate": (DuplicateOrderError, "it was not sent twice", 0),
    "422 old duplicate": (DuplicateOrderError, "it was not sent twice", 0),
    "429": (BrokerBusyError, "asks to wait 7 s before the order", 0),
}


def test_every_fault_of_the_stand_in_is_in_the_table() -> None:
    assert set(SUBMITTED) == set(FAULTS) - {"closing"}


@pytest.mark.parametrize("fault", SUBMITTED)
def test_a_fault_while_an_order_is_sent(
    server: AlpacaTradingServer, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One request for one submit; the same order again is found, or taken: never a second one."""
    kind, words, taken = SUBMITTED[fault]
    asked, broker = order(), broker_at(server, SHORT if fault in HANGING else None)
    server.inject("submit", fault)
    with caplog.at_level(logging.DEBUG), pytest.raises(kind) as caught:
        broker.submit(asked)
    assert type(caught.value) is kind
    assert words in said(caught.value)
    assert KEY_ID not in caplog.text
    assert SECRET_KEY not in caplog.text
    assert len(server.posts) == 1
    assert len(server.of(asked.client_order_id)) == taken
    found = broker.order(asked.client_order_id)
    assert (found is not None) == bool(taken)
    if taken:
        with pytest.raises(DuplicateOrderError):
            broker.submit(asked)
    else:
        assert broker.submit(asked).status is OrderStatus.ACCEPTED
    assert len(server.of(asked.client_order_id)) == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("503", BrokerUnreachableError),
        ("garbage", BrokerUnreachableError),
        ("empty", BrokerUnreachableError),
        ("hang", BrokerUnreachableError),
        ("429", BrokerBusyError),
        ("403", BrokerAccessError),
    ],
)
def test_an_order_is_not_sent_while_its_account_cannot_be_asked(
    server: AlpacaTradingServer, fault: str, kind: type[Exception]
) -> None:
    server.inject("account", fault)
    with pytest.raises(kind) as caught:
        broker_at(server, SHORT if fault in HANGING else None).submit(order())
    assert type(caught.value) is kind
    assert "its account was asked for first" in said(caught.value)
    assert (server.posts, server.orders) == ([], {})


def test_a_connection_that_is_never_made_has_sent_nothing(server: AlpacaTradingServer) -> None:
    """The account was asked for with the first order; the second finds nobody at the address."""
    broker = broker_at(server)
    server.inject("submit", "closing")
    broker.submit(order())
    server.__exit__(None, None, None)
    with pytest.raises(BrokerUnreachableError) as caught:
        broker.submit(order("BBB"))
    assert "no connection (ConnectionError). Nothing is concluded from it and nothing was sent" in said(caught.value)
    assert len(server.posts) == 1


@pytest.mark.parametrize(
    ("failure", "words", "sent"),
    [
        (socket.gaierror("no such host"), "no connection (ConnectionError)", False),
        (ConnectionRefusedError(), "no connection (ConnectionError)", False),
        (TimeoutError(), "no connection within 0.3 s", False),
    ],
)
def test_what_fails_before_a_connection_stands(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, words: str, sent: bool
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise failure

    monkeypatch.setattr("urllib3.util.connection.create_connection", fail)
    reply = Calls(AlpacaAccess(*KEYS), "http://127.0.0.1:9", SHORT).ask("POST", "/orders", {})
    assert (reply.trouble, reply.sent) == (words, sent)


def test_a_refusal_is_not_believed_while_an_earlier_sending_lives(server: AlpacaTradingServer) -> None:
    """The first sending holds the buying power that the second is refused for."""
    server.prices["AAA"], server.duplicates_last = server.cash / 15, True
    broker, asked = broker_at(server), order()
    server.inject("submit", "lost answer")
    with pytest.raises(AmbiguousOrderError):
        broker.submit(asked)
    with pytest.raises(DuplicateOrderError):
        broker.submit(asked)
    with pytest.raises(OrderRefusedError, match="insufficient buying power"):
        broker.submit(order(session=WED))
    assert len(server.orders) == 1


@pytest.mark.parametrize("fault", ["503", "429", "403", "empty"])
def test_a_refusal_that_cannot_be_checked_stays_open(server: AlpacaTradingServer, fault: str) -> None:
    server.inject("submit", "no funds")
    server.inject("order", fault)
    with pytest.raises(AmbiguousOrderError) as caught:
        broker_at(server).submit(order())
    assert "insufficient buying power), and does not say whether it took an earlier sending" in said(caught.value)


def test_a_block_on_the_account_is_asked_for_again_after_trouble(server: AlpacaTradingServer) -> None:
    broker = broker_at(server)
    broker.submit(order())
    assert len(server.asked("account")) == 1
    broker.submit(order("BBB"))
    assert len(server.asked("account")) == 1  # one look counts for a while
    server.inject("submit", "422")
    with pytest.raises(OrderRefusedError):
        broker.submit(order("CCC"))
    server.account["trading_blocked"] = True
    with pytest.raises(BrokerAccessError):
        broker.submit(order("DDD"))


# --- questions ----------------------------------------------------------------------------------------------------------

KEY = order().client_order_id
QUESTIONS: dict[str, tuple[str, str, Callable[[AlpacaBroker], object]]] = {
    "identity": ("account", "the question for its account", lambda broker: broker.identity()),
    "account": ("account", "the question for its account", lambda broker: broker.account()),
    "positions": ("positions", "the question for its positions", lambda broker: broker.account()),
    "order": ("order", f"the question for order {KEY}", lambda broker: broker.order(KEY)),
    "orders": ("orders", f"the question for the orders of {TUE}", lambda broker: broker.orders(TUE)),
    "open orders": ("orders", "the question for its open orders", lambda broker: broker.open_orders()),
    "fills": ("fills", f"the question for the fills of {TUE}", lambda broker: broker.fills(TUE)),
    "orders of fills": ("orders", f"the question for the orders of {TUE}", lambda broker: broker.fills(TUE)),
    "cash flows": ("activities", f"the question for the cash flows of {TUE}", lambda broker: broker.cash_flows(TUE)),
    "cancel": ("cancel", f"the cancellation of {KEY}", lambda broker: broker.cancel(KEY)),
    "order to cancel": ("order", f"the question for order {KEY}", lambda broker: broker.cancel(KEY)),
}
ANSWERED: dict[str, tuple[type[Exception], str]] = {
    "lost answer": (BrokerUnreachableError, "gave no usable answer to {what}: the connection broke ("),
    "reset": (BrokerUnreachableError, "gave no usable answer to {what}: the connection broke ("),
    "html": (BrokerUnreachableError, "gave no usable answer to {what}: the answer is no JSON. Nothing is concluded"),
    "redirect": (BrokerUnreachableError, "gave no usable answer to {what}: it points to another address"),
    "500": (BrokerUnreachableError, "gave no usable answer to {what}: HTTP 500: internal server error"),
    "503": (BrokerUnreachableError, "gave no usable answer to {what}: HTTP 503"),
    "504": (BrokerUnreachableError, "gave no usable answer to {what}: HTTP 504"),
    "echo": (BrokerUnreachableError, "gave no usable answer to {what}: HTTP 400: bad header *** of ***"),
    "401": (BrokerAccessError, "denies {what}: HTTP 401: request is not authorized"),
    "403": (BrokerAccessError, "denies {what}: HTTP 403: forbidden."),
    "429": (BrokerBusyError, "asks to wait 7 s before {what}: HTTP 429: too many requests."),
}
# Not of a cancellation: it is answered with nothing, and then the order itself is asked.
OF_CONTENT: dict[str, tuple[type[Exception], str]] = {
    "cut": (BrokerUnreachableError, "gave no usable answer to {what}: the connection broke ("),
    "garbage": (BrokerUnreachableError, "gave no usable answer to {what}: the answer is no JSON. Nothing is concluded"),
    "empty": (BrokerUnreachableError, "gave no usable answer to {what}: the answer is empty. Nothing is concluded"),
    "404 page": (BrokerUnreachableError, "gave no usable answer to {what}: HTTP 404: 404 page not found"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_without_a_usable_answer_is_never_answered_with_nothing(
    server: AlpacaTradingServer, question: str
) -> None:
    endpoint_name, what, ask = QUESTIONS[question]
    broker = broker_at(server)
    broker.submit(order())
    if "cancel" not in question:
        server.open_market(TUE, {"AAA": 50.0})  # there is a fill and a position
    (row,) = server.orders.values()
    for fault, (kind, words) in {**ANSWERED, **(OF_CONTENT if question != "cancel" else {})}.items():
        if "cancel" in question:
            row["status"] = "new"
        server.inject(endpoint_name, fault)
        with pytest.raises(kind) as caught:
            ask(broker)
        assert type(caught.value) is kind, fault
        assert words.format(what=what) in said(caught.value), fault
    ask(broker)  # and all is well again
    assert (len(server.posts), len(server.orders)) == (1, 1)


@pytest.mark.parametrize("question", ["account", "order", "fills", "cancel"])
def test_a_question_does_not_wait_for_ever(server: AlpacaTradingServer, question: str) -> None:
    endpoint_name, what, ask = QUESTIONS[question]
    broker = broker_at(server, SHORT)
    broker.submit(order())
    server.inject(endpoint_name, "hang")
    with pytest.raises(BrokerUnreachableError) as caught:
        ask(broker)
    assert f"{what}: no answer within 0.3 s" in said(caught.value)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("a list", "the answer is no JSON object"),
        ("other id", "the answer speaks of another order"),
        ("unknown status", "the order status 'levitating' is none that we know"),
        ("no number", "'filled_qty' is no number: 'ten'"),
    ],
)
def test_an_order_that_is_told_wrongly_is_not_told(server: AlpacaTradingServer, fault: str, words: str) -> None:
    broker = broker_at(server)
    broker.submit(order())
    server.inject("order", fault)
    with pytest.raises(BrokerUnreachableError) as caught:
        broker.order(KEY)
    assert words in said(caught.value)


def test_an_order_nobody_sent_is_none_and_cannot_be_cancelled(server: AlpacaTradingServer) -> None:
    broker = broker_at(server)
    assert broker.order(KEY) is None
    with pytest.raises(UnknownNameError, match=f"Unknown alpaca order '{KEY}'"):
        broker.cancel(KEY)
    # Any other 404 is no word about the order.
    server.inject("order", "404 page")
    with pytest.raises(BrokerUnreachableError):
        broker.order(KEY)


# --- what an answer means -----------------------------------------------------------------------------------------------


def test_every_status_of_the_sdk_is_in_the_table() -> None:
    from alpaca.trading.enums import OrderStatus as Theirs

    assert {status.value for status in Theirs} == set(alpaca_json.STATUSES)
    ended = {name for name, status in alpaca_json.STATUSES.items() if status.terminal}
    assert ended == {"filled", "canceled", "expired", "rejected", "replaced", "done_for_day"}


ROW = {
    "id": "61e69015-8549-4bfd-b9c3-01e75843f47d", "client_order_id": "x", "submitted_at": "2024-01-09T14:00:00.123456789Z",
    "symbol": "AAA", "side": "buy", "type": "market", "time_in_force": "day", "qty": "10", "filled_qty": "0",
    "filled_avg_price": None, "limit_price": None, "notional": None, "status": "new",
}  # fmt: skip
TOLD: list[tuple[dict[str, object], OrderStatus, float, OrderKind]] = [
    ({}, OrderStatus.ACCEPTED, 0.0, OrderKind.MARKET),
    ({"filled_qty": "4", "filled_avg_price": "10.5"}, OrderStatus.PARTIALLY_FILLED, 4.0, OrderKind.MARKET),
    ({"status": "done_for_day"}, OrderStatus.EXPIRED, 0.0, OrderKind.MARKET),
    ({"status": "done_for_day", "time_in_force": "gtc"}, OrderStatus.ACCEPTED, 0.0, OrderKind.MARKET),
    ({"status": "filled", "filled_qty": "10.000", "filled_avg_price": "1"}, OrderStatus.FILLED, 10.0, OrderKind.MARKET),
    ({"status": "canceled", "filled_qty": "3", "filled_avg_price": "1"}, OrderStatus.CANCELED, 3.0, OrderKind.MARKET),
    ({"status": "pending_cancel", "time_in_force": "opg"}, OrderStatus.PENDING_CANCEL, 0.0, OrderKind.OPENING),
    ({"status": "held", "type": "stop", "stop_price": "5"}, OrderStatus.ACCEPTED, 0.0, OrderKind.MARKET),
    ({"type": "limit", "limit_price": "7", "time_in_force": "gtc"}, OrderStatus.ACCEPTED, 0.0, OrderKind.LIMIT),
]


@pytest.mark.parametrize(("change", "status", "filled", "kind"), TOLD, ids=range(len(TOLD)))
def test_an_order_is_told_as_it_stands(
    change: dict[str, object], status: OrderStatus, filled: float, kind: OrderKind
) -> None:
    state = alpaca_json.order_state(ROW | change, SESSIONS)
    assert (state.status, state.filled_quantity, state.order.kind) == (status, filled, kind)
    assert math.isnan(state.order.reference_price)
    ended = status in (OrderStatus.CANCELED, OrderStatus.EXPIRED)
    assert state.reason == (f"Alpaca says '{change['status']}'" if ended else "")


def test_an_order_for_an_amount_has_no_quantity_until_it_fills() -> None:
    bought = {"qty": None, "notional": "100"}
    assert math.isnan(alpaca_json.order_state(ROW | bought, SESSIONS).order.quantity)
    filled = {"filled_qty": "1.5", "filled_avg_price": "66.6", "status": "filled"}
    assert alpaca_json.order_state(ROW | bought | filled, SESSIONS).order.quantity == 1.5


WRONG: list[tuple[dict[str, object], str]] = [
    ({"qty": "1e3"}, "'qty' is no number: '1e3'"),
    ({"qty": "NaN"}, "'qty' is no number"),
    ({"qty": "1_0"}, "'qty' is no number"),
    ({"qty": "١٠"}, "'qty' is no number"),
    ({"qty": True}, "'qty' is no number: True"),
    ({"qty": None}, "neither 'qty' nor 'notional'"),
    ({"filled_qty": "11", "filled_avg_price": "1"}, "an order of 10 has filled_qty 11"),
    ({"filled_qty": "-1"}, "an order of 10 has filled_qty -1"),
    ({"filled_qty": "1"}, "'filled_avg_price' is no number: None"),
    ({"status": "filled", "filled_qty": "9", "filled_avg_price": "1"}, "an order of 10 is 'filled' with filled_qty 9"),
    ({"side": "hold"}, "'side' is 'hold'"),
    ({"symbol": ""}, "the answer has no 'symbol'"),
    ({"id": "../account"}, "'id' is no id"),
    ({"submitted_at": "yesterday"}, "'submitted_at' is no instant"),
    ({"submitted_at": "2024-01-09T14:00:00"}, "'submitted_at' has no zone"),
]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=range(len(WRONG)))
def test_what_is_no_order_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(alpaca_json.Malformed) as caught:
        alpaca_json.order_state(ROW | change, SESSIONS)
    assert words in str(caught.value)


def test_positions_come_with_either_sign(server: AlpacaTradingServer) -> None:
    held = {"avg_entry_price": "10.5"}
    rows = [
        {"symbol": "CCC", "qty": "-3", "side": "short", **held},
        {"symbol": "BBB", "qty": "2.5", "side": "short", **held},
        {"symbol": "AAA", "qty": "0.000001", "side": "long", **held},
        {"symbol": "ZZZ", "qty": "0", "side": "long", **held},
    ]
    assert alpaca_json.positions_of(rows) == (
        Position("AAA", 1e-6, 10.5), Position("BBB", -2.5, 10.5), Position("CCC", -3.0, 10.5),
    )  # fmt: skip
    for row, words in [
        ({"symbol": "A", "qty": "-1", "side": "long", **held}, "a position of A has side 'long' and qty -1"),
        ({"symbol": "A", "qty": "1", "side": "flat", **held}, "a position of A has side 'flat'"),
        ({"symbol": "A", "qty": "1", "side": "long", "avg_entry_price": ""}, "'avg_entry_price' is no number"),
    ]:
        with pytest.raises(alpaca_json.Malformed) as caught:
            alpaca_json.positions_of([row])
        assert words in str(caught.value)
    with pytest.raises(alpaca_json.Malformed, match="BBB has two positions"):
        alpaca_json.positions_of([rows[1], rows[1]])


class MovingServer(AlpacaTradingServer):
    """Its cash moves by a dollar with each of the next `moves` questions for its positions."""

    moves = 0

    def _positions(self) -> Any:
        self.cash += 1 if self.moves > 0 else 0
        self.moves -= 1
        return super()._positions()


def test_cash_and_positions_belong_together() -> None:
    """A fill between the two questions would count twice, or not at all."""
    with MovingServer(NOW, cash="10000") as server:
        server.moves = 2
        assert broker_at(server).account() == AccountState(ACCOUNT, 10_002.0, ())
        server.moves = 3
        with pytest.raises(BrokerUnreachableError, match="its cash moved each time while its positions were asked for"):
            broker_at(server).account()


# --- a session ----------------------------------------------------------------------------------------------------------


def test_a_session_of_sells_at_the_open_and_buys_after_it(server: AlpacaTradingServer) -> None:
    """Figures by hand: 10,000 + 10 x 60 - 7 x 20 - 3 x 21 - 5 x 30.5 (the limit order) = 10,244.5."""
    from decimal import Decimal

    server.positions["AAA"] = [Decimal(10), Decimal(50)]
    broker = broker_at(server)
    selling = order("AAA", Side.SELL)
    broker.submit(selling)
    server.open_market(TUE, {"AAA": 60.0, "BBB": 20.0, "CCC": 30.0})
    buying = at_market("BBB")
    capped = order("CCC", quantity=5.0, kind=OrderKind.LIMIT, limit_price=30.5)
    for asked in (buying, capped):
        broker.submit(asked)
    server.now += timedelta(minutes=1)
    server.trade({"BBB": 20.0, "CCC": 31.0}, liquidity={"BBB": 7.0})
    part = broker.order(buying.client_order_id)
    assert part is not None
    assert (part.status, part.filled_quantity, part.average_price) == (OrderStatus.PARTIALLY_FILLED, 7.0, 20.0)
    open_ids = {state.order.client_order_id for state in broker.open_orders()}
    assert open_ids == {buying.client_order_id, capped.client_order_id}
    server.now += timedelta(minutes=1)
    server.trade({"BBB": 21.0, "CCC": 30.5})
    states = {state.order.symbol: state for state in broker.orders(TUE)}
    assert {symbol: state.status for symbol, state in states.items()} == dict.fromkeys(
        ["AAA", "BBB", "CCC"], OrderStatus.FILLED
    )
    assert states["BBB"].average_price == pytest.approx((7 * 20 + 3 * 21) / 10)
    assert broker.account() == AccountState(
        ACCOUNT, 10_244.5, (Position("BBB", 10.0, 20.3), Position("CCC", 5.0, 30.5))
    )
    fills = broker.fills(TUE)
    assert [(f.symbol, f.side, f.quantity, f.price, f.commission, f.session) for f in fills] == [
        ("AAA", Side.SELL, 10.0, 60.0, 0.0, TUE),
        ("BBB", Side.BUY, 7.0, 20.0, 0.0, TUE),
        ("BBB", Side.BUY, 3.0, 21.0, 0.0, TUE),
        ("CCC", Side.BUY, 5.0, 30.5, 0.0, TUE),
    ]
    assert [f.client_order_id for f in fills] == [
        selling.client_order_id, buying.client_order_id, buying.client_order_id, capped.client_order_id,
    ]  # fmt: skip
    assert fills[0].filled_at == datetime(2024, 1, 9, 14, 30, 1, tzinfo=UTC)
    assert (broker.fills(MON), broker.fills(WED), broker.orders(WED), broker.open_orders()) == ([], [], [], [])


def test_the_closing_auction_prints_after_the_close(server: AlpacaTradingServer) -> None:
    server.now = DURING
    broker, asked = broker_at(server), order(kind=OrderKind.CLOSING)
    broker.submit(asked)
    broker.submit(at_market("BBB"))
    server.close_market(TUE, {"AAA": 50.0})
    assert [(f.symbol, f.filled_at) for f in broker.fills(TUE)] == [("AAA", datetime(2024, 1, 9, 21, 0, 2, tzinfo=UTC))]
    assert {s.order.symbol: (s.status, s.reason) for s in broker.orders(TUE)} == {
        "AAA": (OrderStatus.FILLED, ""),
        "BBB": (OrderStatus.EXPIRED, "Alpaca says 'expired'"),
    }


def test_what_the_auction_does_not_fill_is_cancelled(server: AlpacaTradingServer) -> None:
    broker = broker_at(server)
    broker.submit(order())
    server.open_market(TUE, {"AAA": 50.0}, liquidity={"AAA": 4.0})
    (state,) = broker.orders(TUE)
    assert (state.status, state.filled_quantity, state.average_price) == (OrderStatus.CANCELED, 4.0, 50.0)


def test_a_cancellation_tells_what_the_order_is_afterwards(server: AlpacaTradingServer) -> None:
    broker = broker_at(server)
    broker.submit(order())
    broker.submit(order("BBB"))
    assert broker.cancel(KEY).status is OrderStatus.CANCELED
    assert broker.cancel(KEY).status is OrderStatus.CANCELED
    assert len(server.asked("cancel")) == 1  # an ended order is not cancelled again
    server.inject("cancel", "422")  # in the auction already: it can no longer be cancelled
    assert broker.cancel(order("BBB").client_order_id).status is OrderStatus.ACCEPTED
    server.open_market(TUE, {"BBB": 50.0})
    assert broker.cancel(order("BBB").client_order_id).status is OrderStatus.FILLED


def test_a_session_sees_orders_of_strangers_from_close_to_close(server: AlpacaTradingServer) -> None:
    body = {"symbol": "AAA", "side": "buy", "type": "limit", "time_in_force": "gtc", "qty": "1", "limit_price": "3"}
    close = datetime(2024, 1, 8, 21, 0, tzinfo=UTC)
    for name, instant in [
        ("before", close - timedelta(microseconds=1)),
        ("first", close),
        ("last", datetime(2024, 1, 9, 20, 59, 59, 999_999, tzinfo=UTC)),
        ("after", datetime(2024, 1, 9, 21, 0, tzinfo=UTC)),
    ]:
        server.now = instant
        server.add_order({**body, "client_order_id": name})
    broker = broker_at(server)
    names = [[s.order.client_order_id for s in broker.orders(day)] for day in (MON, TUE, WED)]
    assert names == [["before"], ["first", "last"], ["after"]]
    assert len(broker.open_orders()) == 4


def test_no_page_limit_hides_an_order(server: AlpacaTradingServer) -> None:
    """620 orders, of which 260 came in one instant, on both sides of the first page's end."""
    body = {"symbol": "AAA", "side": "buy", "type": "market", "time_in_force": "day", "qty": "1"}
    for i in range(620):
        server.now = NOW + timedelta(seconds=min(i, 300) if i < 560 else i)
        server.add_order({**body, "client_order_id": f"t{i:03d}"})
    broker = broker_at(server)
    expected = [f"t{i:03d}" for i in range(620)]
    assert [state.order.client_order_id for state in broker.orders(TUE)] == expected
    assert [state.order.client_order_id for state in broker.open_orders()] == expected
    assert all(query["limit"] == "500" for query in server.asked("orders"))
    for i in range(620, 900):
        server.now = NOW + timedelta(seconds=300)
        server.add_order({**body, "client_order_id": f"t{i:03d}"})
    with pytest.raises(BrokerUnreachableError, match="it lists nothing new after 2024-01-09 13:05:00"):
        broker.open_orders()


def test_no_page_limit_hides_a_fill(server: AlpacaTradingServer) -> None:
    server.now = DURING
    broker = broker_at(server)
    broker.submit(at_market(quantity=250.0))
    for _ in range(250):
        server.trade({"AAA": 5.0}, liquidity={"AAA": 1.0})
    fills = broker.fills(TUE)
    assert (len({fill.fill_id for fill in fills}), sum(fill.quantity for fill in fills)) == (250, 250.0)
    assert [query.get("page_token") is None for query in server.asked("fills")] == [True, False, False]


def test_a_restated_fill_keeps_its_id(server: AlpacaTradingServer) -> None:
    broker = broker_at(server)
    broker.submit(order())
    server.open_market(TUE, {"AAA": 50.0})
    (before,) = broker.fills(TUE)
    server.restate(before.fill_id, "49")
    (after,) = broker.fills(TUE)
    assert after == dataclasses.replace(before, price=49.0)
    assert broker.account().cash == 10_000.0 - 490.0


def test_a_fill_of_an_older_order_is_asked_for_and_found(server: AlpacaTradingServer) -> None:
    body = {"symbol": "AAA", "side": "buy", "type": "market", "time_in_force": "day", "qty": "1"}
    server.now = datetime(2024, 1, 4, 15, 0, tzinfo=UTC)
    server.add_order({**body, "client_order_id": "long-ago"})
    server.now = DURING
    server.trade({"AAA": 5.0})
    broker = broker_at(server)
    assert [fill.client_order_id for fill in broker.fills(TUE)] == ["long-ago"]
    server.orders.clear()
    with pytest.raises(BrokerUnreachableError, match="HTTP 404: order not found"):
        broker.fills(TUE)


def test_cash_that_moved_without_an_order(server: AlpacaTradingServer) -> None:
    """Friday 12 to Tuesday 16 January 2024: a weekend and a holiday lie between the two sessions."""
    tuesday = date(2024, 1, 16)
    server.now = datetime(2024, 1, 16, 12, 0, tzinfo=UTC)
    wanted = [
        ("DIV", "2.50", date(2024, 1, 16), "AAA", CashFlowKind.DIVIDEND),
        ("DIVNRA", "-0.38", date(2024, 1, 16), "AAA", CashFlowKind.DIVIDEND),
        ("INT", "1.25", date(2024, 1, 13), "", CashFlowKind.INTEREST),
        ("FEE", "-0.03", date(2024, 1, 16), "", CashFlowKind.FEE),
        ("CSD", "1000", date(2024, 1, 15), "", CashFlowKind.TRANSFER),
        ("CSW", "-400", date(2024, 1, 16), "", CashFlowKind.TRANSFER),
        ("JNLC", "-5", date(2024, 1, 16), "", CashFlowKind.TRANSFER),
        ("MA", "321.5", date(2024, 1, 16), "BBB", CashFlowKind.PROCEEDS),
        ("NEWTYPE", "-7", date(2024, 1, 16), "", CashFlowKind.OTHER),
    ]
    for kind, amount, day, symbol, _ in wanted:
        server.pay(kind, amount, day, symbol)
    server.pay("DIV", "9", FRI, "AAA")  # of the session before
    server.pay("DIV", "9", date(2024, 1, 17), "AAA")  # of the next one
    server.pay("DIV", "9", tuesday, "AAA", status="canceled")
    server.pay("SPLIT", "0", tuesday, "CCC")
    broker = broker_at(server)
    flows = broker.cash_flows(tuesday)
    assert [(f.kind, f.symbol, f.amount, f.session) for f in flows] == [
        (kind, symbol, float(amount), tuesday) for _, amount, _, symbol, kind in wanted
    ]
    assert len({flow.flow_id for flow in flows}) == 9
    assert broker.cash_flows(tuesday) == flows
    assert (broker.cash_flows(THU), len(broker.cash_flows(FRI))) == ([], 1)
    server.activities[0]["net_amount"] = None
    with pytest.raises(BrokerUnreachableError, match="'net_amount' is no number: None"):
        broker.cash_flows(tuesday)


@pytest.mark.parametrize(
    ("kind", "session", "start", "end"),
    [
        (OrderKind.OPENING, TUE, "2024-01-09T00:00", "2024-01-09T14:28"),  # 19:00 and 9:28 in New York's winter
        (OrderKind.OPENING, date(2024, 1, 16), "2024-01-16T00:00", "2024-01-16T14:28"),  # after a weekend and a holiday
        (OrderKind.OPENING, date(2024, 7, 3), "2024-07-02T23:00", "2024-07-03T13:28"),  # summer; closes at 13:00
        (OrderKind.OPENING, date(2024, 3, 11), "2024-03-10T23:00", "2024-03-11T13:28"),  # the clocks went forward
        (OrderKind.CLOSING, TUE, "2024-01-09T14:30", "2024-01-09T20:50"),
        (OrderKind.CLOSING, date(2024, 7, 3), "2024-07-03T13:30", "2024-07-03T16:50"),
        (OrderKind.MARKET, TUE, "2024-01-08T21:00", "2024-01-09T20:45"),
        (OrderKind.LIMIT, date(2024, 7, 5), "2024-07-03T17:00", "2024-07-05T19:45"),
    ],
)
def test_when_an_order_may_be_sent(kind: OrderKind, session: date, start: str, end: str) -> None:
    window = AlpacaBroker(ACCOUNT, AlpacaAccess(), SESSIONS).window(kind, session, SESSIONS)
    assert window.start == datetime.fromisoformat(start + "+00:00")
    assert window.end == datetime.fromisoformat(end + "+00:00")


# --- keys, endpoints and the second switch ------------------------------------------------------------------------------


def test_an_account_is_told_apart_by_its_number(server: AlpacaTradingServer) -> None:
    assert broker_at(server).identity() == "alpaca:PA3CANARY"


def test_wrong_keys_are_denied_and_no_key_is_shown(server: AlpacaTradingServer) -> None:
    wrong = AlpacaAccess(SecretStr(KEY_ID), SecretStr("wrong"), server.url)
    broker = AlpacaBroker(ACCOUNT, wrong, SESSIONS)
    with pytest.raises(BrokerAccessError) as caught:
        broker.submit(order())
    assert "Check the account's keys" in said(caught.value)
    shown = [repr(broker_at(server)), repr(AlpacaAccess(*KEYS, server.url)), repr(vars(broker_at(server)))]
    assert not any(secret in text for text in shown for secret in (KEY_ID, SECRET_KEY))


def test_keys_that_are_missing_or_no_keys_are_named_by_their_variable() -> None:
    with pytest.raises(InvalidConfigError, match="TRADING_ALPACA_KEY_ID: is not set"):
        AlpacaBroker(ACCOUNT, AlpacaAccess(), SESSIONS).identity()
    split = AlpacaAccess(SecretStr(KEY_ID), SecretStr(f"{SECRET_KEY}\n"))
    with pytest.raises(InvalidConfigError) as caught:
        AlpacaBroker(ACCOUNT, split, SESSIONS).identity()
    assert "TRADING_ALPACA_SECRET_KEY: holds a character that no key has" in said(caught.value)


URLS: list[tuple[str, bool, str]] = [
    ("", False, "https://paper-api.alpaca.markets"),
    ("", True, "https://api.alpaca.markets"),
    ("http://127.0.0.1:8000", False, "http://127.0.0.1:8000"),
    ("http://127.0.0.1:8000/", True, "http://127.0.0.1:8000"),
    ("https://paper-api.alpaca.markets", False, "https://paper-api.alpaca.markets"),
    ("https://proxy.example:8443", True, "https://proxy.example:8443"),
]
NO_URLS: list[tuple[str, bool, str]] = [
    ("https://api.alpaca.markets", False, "real money is broker 'alpaca-live'"),
    ("https://API.alpaca.markets.", False, "real money is broker 'alpaca-live'"),
    ("https://proxy.example", False, "speaks to https://paper-api.alpaca.markets or to 127.0.0.1 only"),
    ("http://paper-api.alpaca.markets", False, "only https is spoken, or http to 127.0.0.1"),
    ("http://127.0.0.1.example", True, "only https is spoken"),
    ("https://key:secret@127.0.0.1", False, "give scheme, host and port only"),
    ("https://127.0.0.1/v2", False, "give scheme, host and port only"),
    ("ftp://127.0.0.1", True, "only https is spoken"),
]


@pytest.mark.parametrize(("url", "live", "spoken"), URLS)
def test_the_endpoint_of_a_broker(url: str, live: bool, spoken: str) -> None:
    assert endpoint(url, live) == spoken


@pytest.mark.parametrize(("url", "live", "words"), NO_URLS)
def test_an_endpoint_that_is_not_spoken_to(url: str, live: bool, words: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        endpoint(url, live)
    assert f"TRADING_ALPACA_URL: {words}" in str(caught.value) or words in str(caught.value)
    assert "secret@" not in str(caught.value)


def request(real_money: str = "", calendar: str = "XNYS") -> BrokerRequest:
    return BrokerRequest(None, ACCOUNT, 1.0, FREE, calendar=calendar, alpaca=AlpacaAccess(*KEYS), real_money=real_money)  # type: ignore[arg-type]


@pytest.mark.parametrize("switch", ["", "alpaca", "yes", "ALPACA-LIVE", " alpaca-live"])
def test_real_money_needs_its_own_switch(switch: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        broker_entry("alpaca-live").build(request(switch))
    assert "TRADING_REAL_MONEY: broker 'alpaca-live' trades real money only where this is 'alpaca-live'" in said(
        caught.value
    )


def test_the_switch_changes_nothing_but_the_live_broker() -> None:
    live = broker_entry("alpaca-live").build(request("alpaca-live"))
    assert (repr(live), live.name, live.real) == (
        f"AlpacaBroker('alpaca-live', '{ACCOUNT}', 'https://api.alpaca.markets')", "alpaca-live", True,
    )  # fmt: skip
    paper = broker_entry("alpaca").build(request("alpaca-live"))
    assert "https://paper-api.alpaca.markets" in repr(paper)
    with pytest.raises(InvalidConfigError, match="it trades shares, whose market has sessions"):
        broker_entry("alpaca").build(request(calendar="24/7"))


def test_an_account_is_opened_with_the_keys_of_the_environment(
    server: AlpacaTradingServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from trading_core.config import load_strategy, read_settings
    from trading_core.pipelines.account import open_account
    from trading_core.pipelines.workspace import open_workspace

    values = {
        "ALPACA_KEY_ID": KEY_ID,
        "ALPACA_SECRET_KEY": SECRET_KEY,
        "ALPACA_URL": server.url,
        "VAR_DIR": str(tmp_path),
    }
    for name, value in values.items():
        monkeypatch.setenv(f"TRADING_{name}", value)
    settings = read_settings()
    assert SECRET_KEY not in repr(settings) + str(settings.model_dump())
    ws = open_workspace("simulated", settings)
    account = open_account(ws, "alpaca-simulated-top10", "alpaca", load_strategy("top10", settings))
    assert account.broker.identity() == "alpaca:PA3CANARY"
    with pytest.raises(InvalidConfigError, match="TRADING_REAL_MONEY"):
        open_account(ws, "alpaca-live-simulated-top10", "alpaca-live", load_strategy("top10", settings))

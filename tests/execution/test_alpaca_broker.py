"""The Alpaca broker over HTTP against a local stand-in: what is sent, and what a missing or broken answer means."""

from __future__ import annotations

import logging
import math
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledger_samples import NOW, TUE, WED

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # alpaca_trading_server is a program beside the tests, not a package

from alpaca_samples import (  # noqa: E402
    DURING,
    HANGING,
    KEY,
    KEYS,
    SHORT,
    at_market,
    broker_at,
    order,
    said,
)
from alpaca_trading_server import FAULTS, KEY_ID, SECRET_KEY, AlpacaTradingServer  # noqa: E402

from trading_core.errors import (  # noqa: E402
    AmbiguousOrderError,
    BrokerAccessError,
    BrokerBusyError,
    BrokerUnreachableError,
    DuplicateOrderError,
    OrderRefusedError,
    UnknownNameError,
)
from trading_core.execution.alpaca import AlpacaBroker  # noqa: E402
from trading_core.execution.alpaca_calls import AlpacaAccess, Calls  # noqa: E402
from trading_core.schema import Order, OrderKind, OrderStatus  # noqa: E402


@pytest.fixture
def server() -> Iterator[AlpacaTradingServer]:
    with AlpacaTradingServer(NOW, cash="10000") as running:
        yield running


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
    "late answer": (AmbiguousOrderError, "no answer within 0.5 s", 1),
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
    "hang": (AmbiguousOrderError, "no answer within 0.5 s", 0),
    "html": (AmbiguousOrderError, "the answer is no JSON", 0),
    "redirect": (AmbiguousOrderError, "it points to another address, which is not followed", 0),
    "404 page": (AmbiguousOrderError, "HTTP 404: 404 page not found", 0),
    "500": (AmbiguousOrderError, "HTTP 500: internal server error", 0),
    "503": (AmbiguousOrderError, "HTTP 503: <html>Service Unavailable</html>", 0),
    "504": (AmbiguousOrderError, "HTTP 504.", 0),
    "401": (BrokerAccessError, "HTTP 401: request is not authorized", 0),
    "403": (BrokerAccessError, "HTTP 403: forbidden.", 0),
    "404": (OrderRefusedError, "HTTP 404: not found", 0),
    "404 endpoint": (OrderRefusedError, "HTTP 404: endpoint not found.", 0),
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
        (TimeoutError(), "no connection within 0.5 s", False),
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

QUESTIONS: dict[str, tuple[str, str, Callable[[AlpacaBroker], object]]] = {
    "identity": ("account", "the question for its account", lambda broker: broker.identity()),
    "account": ("account", "the question for its account", lambda broker: broker.account()),
    "calendar": (
        "calendar",
        f"the question whether the exchange opens on {TUE}",
        lambda broker: broker.trades_on(TUE),
    ),
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
    broker_at(server).submit(order())
    server.inject(endpoint_name, "hang")
    with pytest.raises(BrokerUnreachableError) as caught:
        ask(broker_at(server, SHORT))
    assert f"{what}: no answer within 0.5 s" in said(caught.value)


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
    for fault in ("404 page", "404 endpoint"):  # no word about the order
        server.inject("order", fault)
        with pytest.raises(BrokerUnreachableError):
            broker.order(KEY)

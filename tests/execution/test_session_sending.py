"""Sending the orders of a session, and what stops a send, whatever the broker answers and wherever the process ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ledger_samples import ACCOUNT, NOW, TUE
from scripted_broker import VISIBLE_S, Killed
from session_desk import (
    BUY,
    BUY_TOO,
    DECISION,
    SECOND,
    SELL,
    VISIBLE,
    WINDOW,
    desk,
    key_of,
    passes,
    refuses,
)

from trading_core.errors import (
    AmbiguousOrderError,
    BrokerAccessError,
    BrokerBusyError,
    BrokerUnreachableError,
    LedgerUnreachableError,
    OrderWindowClosedError,
    RiskRejectionError,
    TradingHaltedError,
    UnresolvedOrdersError,
)
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import (
    DecidedOrder,
    EventLevel,
    Intent,
    RuleVerdict,
)
from trading_core.execution.session import (
    PollResult,
    SendResult,
    SessionPolicy,
)
from trading_core.execution.store import DocumentStore, open_store
from trading_core.schema import Order, OrderKind, OrderStatus, Side


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DocumentStore]:
    made = open_store(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield made
    made.close()


# --- sending ----------------------------------------------------------------------------------------------------------


def test_intent_and_attempt_are_in_the_ledger_before_an_order_goes_out(store: DocumentStore) -> None:
    d = desk(store)
    seen: list[tuple[str, list[str]]] = []

    def look(order: Order) -> None:
        (mine,) = [o for o in d.ledger.orders(ACCOUNT, TUE) if o.intent.client_order_id == order.client_order_id]
        assert (mine.intent.symbol, mine.intent.quantity) == (order.symbol, order.quantity)
        assert d.ledger.gates(ACCOUNT, TUE)[-1].verdicts
        seen.append(
            (order.symbol, [e.status.value for e in d.ledger.order_history(ACCOUNT, TUE, order.client_order_id)])
        )

    d.broker.before = look
    assert d.send(SELL, BUY) == SendResult(sent=2)
    assert seen == [("BBB", ["submitting"]), ("AAA", ["submitting"])]
    assert d.history(SELL) == ["submitting", "accepted"]
    sent = d.broker.submits[0]
    assert sent == Order(key_of(SELL), "BBB", Side.SELL, 5.0, TUE, 20.0, OrderKind.OPENING, None)


def test_sent_again_nothing_goes_out_twice(store: DocumentStore) -> None:
    d = desk(store, "take", "fill", "refuse")
    assert d.send(SELL, BUY, BUY_TOO) == SendResult(sent=2, refused=1)
    for _ in range(2):
        assert d.send(SELL, BUY, BUY_TOO) == SendResult(known=3)
    assert len(d.broker.submits) == 3
    assert [d.status(o).value for o in (SELL, BUY, BUY_TOO)] == ["accepted", "filled", "rejected"]
    assert d.known(BUY_TOO).reason == "not today"


SUBMITTING, UNKNOWN, ACCEPTED = OrderStatus.SUBMITTING, OrderStatus.UNKNOWN, OrderStatus.ACCEPTED
# (what the broker does, what `send` raises, the state it leaves; then, half a minute later, run again:
#  the result or error at a broker that refuses an id it knows, and at one that does not)
TROUBLES: list[tuple[str, type[BaseException], OrderStatus, SendResult | None, SendResult | None]] = [
    ("lost answer", AmbiguousOrderError, UNKNOWN, SendResult(known=1), SendResult(known=1)),
    ("lost order", AmbiguousOrderError, UNKNOWN, SendResult(sent=1), None),
    ("reset", ConnectionResetError, UNKNOWN, SendResult(sent=1), None),
    ("ledger", LedgerUnreachableError, UNKNOWN, SendResult(sent=1), None),
    ("unreachable", BrokerUnreachableError, SUBMITTING, SendResult(sent=1), None),
    ("killed before", Killed, SUBMITTING, SendResult(sent=1), None),
    ("killed after", Killed, SUBMITTING, SendResult(known=1), SendResult(known=1)),
    # Certainly not taken: it may be sent again anywhere.
    ("busy", BrokerBusyError, SUBMITTING, SendResult(sent=1), SendResult(sent=1)),
    ("access", BrokerAccessError, SUBMITTING, SendResult(sent=1), SendResult(sent=1)),
]


@pytest.mark.parametrize("unique_ids", [True, False], ids=["unique", "any"])
@pytest.mark.parametrize(("word", "error", "left", "unique", "other"), TROUBLES, ids=[row[0] for row in TROUBLES])
def test_what_trouble_leaves_and_what_the_next_run_makes_of_it(
    store: DocumentStore,
    word: str,
    error: type[BaseException],
    left: OrderStatus,
    unique: SendResult | None,
    other: SendResult | None,
    unique_ids: bool,
) -> None:
    d = desk(store, "take", word, unique_ids=unique_ids)
    with pytest.raises(error):
        d.send(SELL, BUY, BUY_TOO)
    assert [order.symbol for order in d.broker.submits] == ["BBB", "AAA"]  # nothing after the trouble
    assert d.status(BUY) is left
    result, later = (unique if unique_ids else other), NOW + VISIBLE
    if result is not None:
        assert d.send(BUY, at=later) == result
        assert d.status(BUY) is ACCEPTED
        assert d.send(BUY, at=later) == SendResult(known=1)
    else:
        for _ in range(2):
            with pytest.raises(UnresolvedOrdersError, match="buy 10 AAA"):
                d.send(BUY, at=later)
        assert d.status(BUY) is UNKNOWN
        (alert,) = d.events("unknown_order")  # told once
        assert (alert.level, "buy 10 AAA" in alert.message) == (EventLevel.ALERT, True)
    taken = [order.client_order_id for order in d.broker.taken]
    assert len(taken) == len(set(taken)) == (2 if result is not None else 1)


def test_an_order_that_is_not_found_waits_until_it_would_be_visible(store: DocumentStore) -> None:
    d = desk(store, "lost order")
    with pytest.raises(AmbiguousOrderError):
        d.send(SELL)
    # Asking meanwhile, by either step, does not put the moment off.
    for seconds in (1, 10, 20, VISIBLE_S - 1):
        d.trading.poll(NOW + seconds * SECOND)
        with pytest.raises(UnresolvedOrdersError):
            d.send(SELL, at=NOW + seconds * SECOND)
    assert d.history() == ["submitting", "unknown", "unknown"]  # no answer; then: not known there, which is told once
    assert d.send(SELL, at=NOW + VISIBLE) == SendResult(sent=1)
    assert d.history() == ["submitting", "unknown", "unknown", "submitting", "accepted"]
    assert [order.client_order_id for order in d.broker.submits] == [key_of(SELL)] * 2


def test_each_attempt_is_waited_for_anew(store: DocumentStore) -> None:
    d = desk(store, "lost order", "killed before")
    with pytest.raises(AmbiguousOrderError):
        d.send(SELL)
    with pytest.raises(Killed):
        d.send(SELL, at=NOW + VISIBLE)
    with pytest.raises(UnresolvedOrdersError):
        d.send(SELL, at=NOW + 2 * VISIBLE - SECOND)
    assert d.send(SELL, at=NOW + 2 * VISIBLE) == SendResult(sent=1)
    assert len(d.broker.taken) == 1


def test_an_order_that_arrived_unseen_is_refused_the_second_time_and_not_doubled(store: DocumentStore) -> None:
    d = desk(store, "lost answer")
    d.broker.hidden = {key_of(SELL)}
    with pytest.raises(AmbiguousOrderError):
        d.send(SELL)
    assert d.send(SELL, at=NOW + VISIBLE) == SendResult(known=1)  # the broker's refusal of a known id says it is there
    assert (len(d.broker.submits), len(d.broker.taken)) == (2, 1)
    d.broker.hidden = set()
    assert d.trading.poll(NOW + VISIBLE) == PollResult(open=1, unknown=0)
    assert d.status() is ACCEPTED


def test_unknown_orders_do_not_stop_the_others_and_are_all_named(store: DocumentStore) -> None:
    d = desk(store, "lost order", "lost order", unique_ids=False)
    for order in (SELL, BUY):
        with pytest.raises(AmbiguousOrderError):
            d.send(order)
    with pytest.raises(UnresolvedOrdersError, match="sell 5 BBB, buy 10 AAA"):
        d.send(SELL, BUY, BUY_TOO)
    assert d.status(BUY_TOO) is ACCEPTED


def test_a_question_without_an_answer_concludes_nothing(store: DocumentStore) -> None:
    d = desk(store, "killed after")
    with pytest.raises(Killed):
        d.send(SELL)
    d.broker.unreachable = True
    for ask in (
        lambda: d.send(SELL, at=NOW + VISIBLE),
        lambda: d.trading.poll(NOW),
        lambda: d.trading.cancel_open(NOW),
    ):
        with pytest.raises(BrokerUnreachableError):
            ask()
    assert d.history() == ["submitting"]
    assert len(d.broker.submits) == 1


# --- what stops a send ------------------------------------------------------------------------------------------------


def test_a_halt_between_two_orders_stops_the_second(store: DocumentStore) -> None:
    d = desk(store)
    d.broker.before = lambda order: None if d.ledger.halted(ACCOUNT) else _halt(d.ledger)
    with pytest.raises(TradingHaltedError, match="odd prices"):
        d.send(SELL, BUY)
    assert [order.symbol for order in d.broker.submits] == ["BBB"]
    assert [o.intent.symbol for o in d.ledger.orders(ACCOUNT, TUE)] == ["BBB"]  # not even an intent
    # What was sent is still found, and closing by hand goes on, as orders of its own.
    assert d.send(SELL) == SendResult(known=1)
    assert d.trading.send(DECISION, [SELL], passes, NOW, flatten="flatten") == SendResult(sent=1)
    assert d.broker.submits[-1].client_order_id == key_of(SELL, "flatten") != key_of(SELL)


def _halt(ledger: Ledger) -> None:
    ledger.halt(ACCOUNT, "odd prices", "ann", NOW)


def test_a_halt_stops_what_may_be_sent_again(store: DocumentStore) -> None:
    d = desk(store, "killed before", "take")
    with pytest.raises(Killed):
        d.send(SELL)
    _halt(d.ledger)
    with pytest.raises(TradingHaltedError):
        d.send(SELL, at=NOW + VISIBLE)
    assert len(d.broker.submits) == 1


@pytest.mark.parametrize("at", [WINDOW.start - SECOND, WINDOW.end, WINDOW.end + SECOND])
def test_outside_its_window_nothing_is_sent(store: DocumentStore, at: datetime) -> None:
    d = desk(store)
    with pytest.raises(OrderWindowClosedError):
        d.send(SELL, at=at)
    assert d.broker.submits == d.ledger.orders(ACCOUNT, TUE) == d.ledger.gates(ACCOUNT, TUE) == []
    assert d.trading.over(at) == (at >= WINDOW.end)


@pytest.mark.parametrize("at", [WINDOW.start, WINDOW.end - SECOND])
def test_inside_its_window_to_the_second_it_is_sent(store: DocumentStore, at: datetime) -> None:
    assert desk(store).send(SELL, at=at) == SendResult(sent=1)


def test_a_replay_has_no_window(store: DocumentStore) -> None:
    d = desk(store, policy=SessionPolicy(replay=True))
    assert d.send(SELL, at=WINDOW.end + timedelta(days=999)) == SendResult(sent=1)
    assert not d.trading.over(WINDOW.end + timedelta(days=999))


def test_a_rules_refusal_is_recorded_and_nothing_is_sent(store: DocumentStore) -> None:
    d = desk(store)
    assert d.trading.send(DECISION, [SELL, BUY], refuses, NOW) == SendResult(refused=2)
    assert d.broker.submits == d.ledger.orders(ACCOUNT, TUE) == []
    assert {g.symbol: g.verdicts[0].reason for g in d.ledger.gates(ACCOUNT, TUE)} == {
        "AAA": "AAA moved",
        "BBB": "BBB moved",
    }
    assert d.trading.unsent(DECISION) == [BUY_TOO]
    assert d.send(SELL) == SendResult(sent=1)  # the price came back, and it is asked again
    assert d.trading.unsent(DECISION) == [BUY_TOO]


def test_a_rule_that_stops_the_session_stops_it_before_the_order(store: DocumentStore) -> None:
    d = desk(store)

    def gate(intent: Intent, at: datetime) -> Sequence[RuleVerdict]:
        if d.broker.submits:
            raise RiskRejectionError(ACCOUNT, TUE, ["max_daily_loss: too much"])
        return passes(intent, at)

    with pytest.raises(RiskRejectionError, match="max_daily_loss"):
        d.trading.send(DECISION, [SELL, BUY], gate, NOW)
    assert len(d.broker.submits) == len(d.ledger.orders(ACCOUNT, TUE)) == 1


def test_an_intent_that_a_rule_refuses_later_is_ended(store: DocumentStore) -> None:
    """A run stopped between the intent and the attempt; else the session of a replay would never end."""
    d = desk(store)
    d.ledger.record_intent(d.trading._intent(DECISION, SELL, NOW, ""))
    assert d.trading.send(DECISION, [SELL], refuses, NOW) == SendResult(refused=1)
    assert (d.status(), d.known().reason) == (OrderStatus.REJECTED, "price_collar: BBB moved")
    assert d.send(SELL) == SendResult(known=1)
    assert d.broker.submits == []


def test_the_rules_judge_what_is_really_sent(store: DocumentStore) -> None:
    """Of an intent that is written already, not of what the order would be now."""
    d = desk(store)
    judged: list[float] = []

    def gate(intent: Intent, at: datetime) -> Sequence[RuleVerdict]:
        judged.append(intent.quantity)
        return passes(intent, at)

    d.ledger.record_intent(d.trading._intent(DECISION, SELL, NOW, ""))
    d.trading.send(DECISION, [replace(SELL, quantity=2.0)], gate, NOW)
    assert judged == [d.broker.submits[0].quantity] == [5.0]


@pytest.mark.parametrize(
    ("kind", "one_auction", "side", "sent", "limit"),
    [
        (OrderKind.OPENING, True, Side.BUY, OrderKind.OPENING, None),
        (OrderKind.OPENING, False, Side.SELL, OrderKind.OPENING, None),
        (OrderKind.OPENING, False, Side.BUY, OrderKind.MARKET, None),  # the auction is over when the sells are filled
        (OrderKind.MARKET, False, Side.BUY, OrderKind.MARKET, None),
        (OrderKind.LIMIT, False, Side.BUY, OrderKind.LIMIT, 100.5),  # 50 bps above 100
        (OrderKind.LIMIT, False, Side.SELL, OrderKind.LIMIT, 99.5),
        (OrderKind.CLOSING, False, Side.BUY, OrderKind.CLOSING, None),
    ],
)
def test_what_kind_of_order_is_sent(
    store: DocumentStore, kind: OrderKind, one_auction: bool, side: Side, sent: OrderKind, limit: float | None
) -> None:
    d = desk(store, one_auction=one_auction, policy=SessionPolicy(kind=kind, collar_bps=50.0))
    d.send(DecidedOrder("AAA", side, 1.0, 100.0))
    (order,) = d.broker.submits
    assert (order.kind, order.limit_price) == (sent, limit)

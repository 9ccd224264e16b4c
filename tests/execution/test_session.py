"""Sending, asking and cancelling, step by step, whatever the broker answers and wherever the process ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ledger_samples import ACCOUNT, MARKET, MON, NOW, STRATEGY, TUE, decided_ledger, make_decision, make_intent
from scripted_broker import VISIBLE_S, Killed, ScriptedBroker, window_around

from trading_core.errors import (
    AmbiguousOrderError,
    BrokerAccessError,
    BrokerBusyError,
    BrokerUnreachableError,
    DuplicateOrderError,
    LeaseLostError,
    LedgerUnreachableError,
    OrderWindowClosedError,
    RiskRejectionError,
    TradingHaltedError,
    UnresolvedOrdersError,
)
from trading_core.execution.ids import client_order_id
from trading_core.execution.lease import FencedStore, Leases
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import (
    ApprovalRecord,
    DecidedOrder,
    Decision,
    EventLevel,
    Intent,
    LedgerEvent,
    OrderRecord,
    RuleVerdict,
)
from trading_core.execution.session import (
    FLATTEN,
    NEVER_ARRIVED,
    NOT_TAKEN,
    PollResult,
    SendResult,
    SessionPolicy,
    TradingSession,
)
from trading_core.execution.store import DocumentStore, open_store
from trading_core.schema import Order, OrderKind, OrderState, OrderStatus, Side
from trading_core.sessions import Sessions

SELL = DecidedOrder("BBB", Side.SELL, 5.0, 20.0)
BUY, BUY_TOO = DecidedOrder("AAA", Side.BUY, 10.0, 100.0), DecidedOrder("CCC", Side.BUY, 20.0, 50.0)
DECISION = replace(make_decision(), orders=(SELL, BUY, BUY_TOO))
SESSIONS = Sessions("XNYS")
WINDOW = window_around(NOW)
SECOND = timedelta(seconds=1)
VISIBLE = VISIBLE_S * SECOND


def key_of(order: DecidedOrder, label: str = STRATEGY) -> str:
    return client_order_id(ACCOUNT, label, TUE, order.symbol, order.side)


def passes(intent: Intent, at: datetime) -> Sequence[RuleVerdict]:
    return [RuleVerdict("price_collar", "approve", "")]


def refuses(intent: Intent, at: datetime) -> Sequence[RuleVerdict]:
    return [RuleVerdict("price_collar", "reject", f"{intent.symbol} moved"), RuleVerdict("restricted", "approve", "")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DocumentStore]:
    made = open_store(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield made
    made.close()


@dataclass(frozen=True, slots=True)
class Desk:
    """A session, its ledger and its broker."""

    ledger: Ledger
    broker: ScriptedBroker
    trading: TradingSession

    def send(self, *orders: DecidedOrder, at: datetime = NOW) -> SendResult:
        return self.trading.send(DECISION, orders, passes, at)

    def known(self, order: DecidedOrder = SELL) -> OrderRecord:
        (found,) = [o for o in self.ledger.orders(ACCOUNT, TUE) if o.intent.client_order_id == key_of(order)]
        return found

    def status(self, order: DecidedOrder = SELL) -> OrderStatus:
        return self.known(order).status

    def history(self, order: DecidedOrder = SELL) -> list[str]:
        return [event.status.value for event in self.ledger.order_history(ACCOUNT, TUE, key_of(order))]

    def events(self, kind: str) -> list[LedgerEvent]:
        return [event for event in self.ledger.events(ACCOUNT, TUE) if event.kind == kind]


def desk(
    store: DocumentStore,
    *script: str,
    unique_ids: bool = True,
    one_auction: bool = True,
    cash: float = 0.0,
    decision: Decision = DECISION,
    policy: SessionPolicy = SessionPolicy(),
) -> Desk:
    ledger = Ledger(store)
    ledger.claim_account(ACCOUNT, STRATEGY, MARKET, NOW)
    ledger.open_session(ACCOUNT, TUE, MON, MON, NOW, "run-1")
    ledger.freeze_decision(decision)
    broker = ScriptedBroker(WINDOW, script, unique_ids, one_auction, cash)
    return Desk(ledger, broker, TradingSession(ledger, broker, SESSIONS, ACCOUNT, TUE, policy))


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


# --- asking -----------------------------------------------------------------------------------------------------------


def test_reports_twice_and_in_the_wrong_order_end_in_the_same_state(store: DocumentStore) -> None:
    d = desk(store)
    d.send(SELL)
    key = key_of(SELL)
    part, most, whole = (
        (OrderStatus.PARTIALLY_FILLED, 2.0),
        (OrderStatus.PARTIALLY_FILLED, 4.0),
        (OrderStatus.FILLED, 5.0),
    )
    for number, quantity in ((1, 2.0), (2, 2.0), (3, 1.0)):
        d.broker.execute(key, quantity, 20.0, number)
    d.broker.executions.reverse()
    for status, filled in (part, part, (ACCEPTED, 0.0), most, part, whole, most, (ACCEPTED, 0.0), whole):
        d.broker.say(key, status, filled, 20.0)
        d.trading.poll(NOW)
    assert d.history() == ["submitting", "accepted", "partially_filled", "partially_filled", "filled"]
    assert d.known().filled_quantity == 5.0
    assert sorted(f.quantity for f in d.ledger.fills(ACCOUNT, TUE)) == [1.0, 2.0, 2.0]
    assert d.trading.fills_missing() == []


def test_fills_that_have_not_been_told_yet_are_missed(store: DocumentStore) -> None:
    d = desk(store)
    d.send(SELL)
    d.broker.say(key_of(SELL), OrderStatus.FILLED, 5.0, 20.0)
    d.broker.execute(key_of(SELL), 3.0, 20.0)
    assert d.trading.poll(NOW) == PollResult(open=0, unknown=0)
    assert d.trading.fills_missing() == ["BBB: 3.0 of 5.0 shares"]
    d.broker.execute(key_of(SELL), 2.0, 20.0, number=2)
    d.trading.poll(NOW)
    assert d.trading.fills_missing() == []


def test_a_restated_fill_makes_the_order_smaller_and_larger_again(store: DocumentStore) -> None:
    d = desk(store, "fill")
    d.send(SELL)
    d.trading.poll(NOW)
    key = key_of(SELL)
    # Another price; one share less, told before and after the order's own state has it; all of it given back.
    d.broker.execute(key, 5.0, 19.0)
    d.broker.say(key, OrderStatus.FILLED, 5.0, 19.0)
    assert d.trading.poll(NOW).corrected == 1
    assert d.known().average_price == 19.0
    d.broker.execute(key, 4.0, 19.0)
    assert d.trading.poll(NOW).corrected == 1
    assert (d.known().filled_quantity, d.trading.fills_missing()) == (5.0, ["BBB: 4.0 of 5.0 shares"])
    d.broker.say(key, OrderStatus.FILLED, 4.0, 19.0)
    assert d.trading.poll(NOW).corrected == 0
    assert (d.status(), d.known().filled_quantity) == (
        OrderStatus.CANCELED,
        4.0,
    )  # it has ended, and the rest is not filled
    assert d.trading.fills_missing() == []
    d.broker.execute(key, 5.0, 19.0)
    d.broker.say(key, OrderStatus.FILLED, 5.0, 19.0)
    d.trading.poll(NOW)
    assert (d.status(), d.known().filled_quantity, d.trading.fills_missing()) == (OrderStatus.FILLED, 5.0, [])
    assert [e.level for e in d.events("fill_corrected")] == [
        EventLevel.WARNING
    ] * 2  # words that were told are not repeated


def test_a_run_that_ended_right_after_a_correction_is_made_up_for(store: DocumentStore) -> None:
    d = desk(store, "fill")
    d.send(SELL)
    d.trading.poll(NOW)
    key = key_of(SELL)
    d.broker.execute(key, 4.0, 20.0)
    d.broker.say(key, OrderStatus.CANCELED, 4.0, 20.0)
    d.ledger.record_fill(ACCOUNT, d.broker.executions[0], NOW)  # and there the run was killed
    d.trading.poll(NOW)
    assert (d.status(), d.known().filled_quantity, d.trading.fills_missing()) == (OrderStatus.CANCELED, 4.0, [])
    assert len(d.events("fill_corrected")) == 1
    d.broker.say(key, OrderStatus.FILLED, 5.0, 20.0)  # an answer from before it all
    d.trading.poll(NOW)
    d.broker.say(key, OrderStatus.CANCELED, 4.0, 20.0)
    d.trading.poll(NOW)
    assert d.trading.fills_missing() == []


def test_a_fill_that_was_restated_before_we_ever_heard_of_it_is_no_riddle(store: DocumentStore) -> None:
    d = desk(store)
    d.send(SELL)
    key = key_of(SELL)
    d.broker.say(key, OrderStatus.FILLED, 5.0, 20.0)
    d.trading.poll(NOW)
    d.broker.say(key, OrderStatus.CANCELED, 3.0, 20.0)  # its fills are not told: it may be an answer from before
    d.trading.poll(NOW)
    assert (d.status(), d.trading.fills_missing()) == (OrderStatus.FILLED, ["BBB: 0.0 of 5.0 shares"])
    d.broker.execute(key, 4.0, 20.0)
    d.broker.say(key, OrderStatus.CANCELED, 4.0, 20.0)
    d.trading.poll(NOW)
    assert (d.status(), d.known().filled_quantity, d.trading.fills_missing()) == (OrderStatus.CANCELED, 4.0, [])


def test_orders_of_strangers_are_named_and_left_alone(store: DocumentStore) -> None:
    d = desk(store)
    d.send(SELL)
    stranger = Order("by-hand-7", "AAA", Side.BUY, 10.0, TUE, 100.0)
    d.broker.states["by-hand-7"] = OrderState(stranger, OrderStatus.FILLED, 10.0, 100.0)
    d.broker.execute("by-hand-7", 10.0, 100.0)
    assert d.trading.poll(NOW) == PollResult(open=1, unknown=0, foreign=("by-hand-7",))
    assert d.ledger.fills(ACCOUNT, TUE) == []
    assert [o.intent.symbol for o in d.ledger.orders(ACCOUNT, TUE)] == ["BBB"]
    assert d.trading.unsent(DECISION) == [BUY, BUY_TOO]  # a stranger's buy of AAA is not ours
    assert d.trading.cancel_open(NOW) == 1
    assert d.broker.cancels == [key_of(SELL)]


def test_what_never_arrived_expires_once_nothing_can_come_any_more(store: DocumentStore) -> None:
    d = desk(store, "lost order")
    with pytest.raises(AmbiguousOrderError):
        d.send(SELL)
    d.ledger.record_intent(d.trading._intent(DECISION, BUY, NOW, ""))  # written, and not sent
    late = WINDOW.end + VISIBLE
    assert d.trading.poll(late - SECOND) == PollResult(open=2, unknown=1)
    assert d.trading.poll(late) == PollResult(open=0, unknown=0)
    assert {(o.status, o.reason) for o in d.ledger.orders(ACCOUNT, TUE)} == {(OrderStatus.EXPIRED, NEVER_ARRIVED)}
    with pytest.raises(OrderWindowClosedError):
        d.send(BUY_TOO, at=late)
    assert d.send(SELL, BUY, at=late) == SendResult(known=2)


def test_where_ids_are_not_unique_it_stays_unknown_for_a_person_who_is_told_once(store: DocumentStore) -> None:
    d = desk(store, "lost order", unique_ids=False)
    with pytest.raises(AmbiguousOrderError):
        d.send(SELL)
    for hours in range(1, 4):
        assert d.trading.poll(WINDOW.end + timedelta(hours=hours)) == PollResult(open=1, unknown=1)
    assert (d.status(), d.history()) == (UNKNOWN, ["submitting", "unknown", "unknown"])
    (alert,) = d.events("unknown_order")
    assert "sell 5 BBB" in alert.message
    # The broker finds it after all.
    d.broker.states[key_of(SELL)] = OrderState(d.broker.submits[0], OrderStatus.FILLED, 5.0, 20.0)
    d.trading.poll(WINDOW.end + timedelta(hours=4))
    assert d.status() is OrderStatus.FILLED


@pytest.mark.parametrize("unique_ids", [True, False])
def test_what_the_broker_did_not_look_at_is_not_called_unknown(store: DocumentStore, unique_ids: bool) -> None:
    d = desk(store, "busy", unique_ids=unique_ids)
    with pytest.raises(BrokerBusyError):
        d.send(SELL)
    assert d.trading.poll(NOW) == PollResult(open=1, unknown=0)
    assert (d.status(), d.known().reason) == (SUBMITTING, NOT_TAKEN)
    assert d.events("unknown_order") == []
    assert d.send(SELL) == SendResult(sent=1)  # at once
    assert d.history() == ["submitting", "submitting", "submitting", "accepted"]


def test_an_order_that_the_broker_took_and_forgot_is_a_persons(store: DocumentStore) -> None:
    d = desk(store, "take", "take")
    d.send(SELL, BUY)
    d.broker.say(key_of(BUY), OrderStatus.PARTIALLY_FILLED, 4.0, 100.0)
    d.trading.poll(NOW)
    d.broker.hidden = {key_of(SELL), key_of(BUY)}
    assert d.trading.poll(NOW) == PollResult(open=2, unknown=0)
    assert d.events("order_gone") == []  # it may be an answer from before
    for hours in (2, 3):
        d.trading.poll(WINDOW.end + timedelta(hours=hours))
    assert [(e.level, "does not know it any more" in e.message) for e in d.events("order_gone")] == [
        (EventLevel.ALERT, True)
    ] * 2
    assert (d.status(SELL), d.status(BUY)) == (ACCEPTED, OrderStatus.PARTIALLY_FILLED)
    d.broker.hidden = set()
    d.broker.say(key_of(SELL), OrderStatus.FILLED, 5.0, 20.0)
    d.trading.poll(WINDOW.end + timedelta(hours=4))
    assert d.status(SELL) is OrderStatus.FILLED


def test_unsent_orders_are_those_nobody_has_taken_or_refused(store: DocumentStore) -> None:
    d = desk(store, "take", "killed after", "refuse")
    assert d.trading.unsent(None) == []
    assert d.trading.unsent(DECISION) == [SELL, BUY, BUY_TOO]
    d.send(SELL)
    with pytest.raises(Killed):
        d.send(BUY)
    assert d.trading.unsent(DECISION) == [BUY_TOO]  # BUY is there, though the ledger does not know yet
    d.broker.states.pop(key_of(BUY))
    assert d.trading.unsent(DECISION) == [BUY, BUY_TOO]
    d.send(BUY_TOO)
    assert d.trading.unsent(DECISION) == [BUY]


def test_the_orders_of_a_flatten_go_by_its_label(store: DocumentStore) -> None:
    decision = replace(DECISION, model=FLATTEN)
    d = desk(store, decision=decision)
    assert d.trading.send(decision, [SELL, BUY], refuses, NOW, flatten=FLATTEN) == SendResult(refused=2)
    assert d.trading.unsent(decision) == [BUY_TOO]


@pytest.mark.parametrize("replay", [True, False])
def test_a_session_that_a_rule_stopped_is_over_where_it_is_a_replay(store: DocumentStore, replay: bool) -> None:
    d = desk(store, policy=SessionPolicy(replay=replay))
    for _ in range(2):
        d.trading.stop("max_drawdown: too deep", NOW)
    assert [(e.level, e.message) for e in d.events("stopped")] == [(EventLevel.ALERT, "max_drawdown: too deep")]
    assert d.trading.unsent(DECISION) == ([] if replay else [SELL, BUY, BUY_TOO])


def test_what_a_person_refused_is_not_unsent(store: DocumentStore) -> None:
    d = desk(store)
    d.ledger.record_approval(ApprovalRecord(ACCOUNT, TUE, DECISION.decision_id, False, "ann", "", NOW))
    assert d.trading.unsent(DECISION) == []


# --- buys with the cash that is there ---------------------------------------------------------------------------------

# AAA 10 x 100 and CCC 20 x 50: 2,000 in all, 2,002 with costs of 10 bps.
RATE = 1.001


@pytest.mark.parametrize(
    ("cash", "margin_bps", "fractional", "expected"),
    [
        (2_002.0, 0.0, True, {"AAA": 10.0, "CCC": 20.0}),  # exactly enough
        (9_999.0, 0.0, True, {"AAA": 10.0, "CCC": 20.0}),  # never more than decided
        (1_001.0, 0.0, True, {"AAA": 5.0, "CCC": 10.0}),  # half of it
        (1_501.5, 0.0, False, {"AAA": 7.0, "CCC": 15.0}),  # three quarters, 7.5 and 15, in whole shares
        (2_002.0, 5_000.0, True, {"AAA": 5.0, "CCC": 10.0}),  # half is kept back
        (100.1, 0.0, False, {"CCC": 1.0}),  # a twentieth: half a share of AAA is none
        (0.0, 0.0, True, {}),
        (-50.0, 50.0, True, {}),
    ],
)
def test_buys_shrink_by_one_factor_to_the_cash_that_is_there(
    store: DocumentStore, cash: float, margin_bps: float, fractional: bool, expected: dict[str, float]
) -> None:
    d = desk(store, one_auction=False, cash=cash, policy=SessionPolicy(cash_margin_bps=margin_bps))
    made = d.trading.affordable([BUY, BUY_TOO], RATE, fractional)
    assert {order.symbol: order.quantity for order in made} == expected
    assert all(order.reference_price == {"AAA": 100.0, "CCC": 50.0}[order.symbol] for order in made)


def test_where_all_clears_in_one_auction_nothing_is_shrunk(store: DocumentStore) -> None:
    assert desk(store, cash=0.0).trading.affordable([BUY, BUY_TOO], RATE, True) == [BUY, BUY_TOO]
    assert desk(store, one_auction=False).trading.affordable([], RATE, True) == []


@pytest.mark.parametrize(
    ("status", "filled", "cash", "expected"),
    [
        # AAA is out: its 1,001 are spoken for. Of 1,501.5 stay 500.5, half of what CCC needs.
        (OrderStatus.ACCEPTED, 0.0, 1_501.5, [10.0, 10.0]),
        (OrderStatus.UNKNOWN, 0.0, 1_501.5, [10.0, 10.0]),
        # 6 of 10 filled and paid: the other 4 need 400.4, and 500.5 stay.
        (OrderStatus.PARTIALLY_FILLED, 6.0, 900.9, [10.0, 10.0]),
        # It has ended: nothing is kept for it.
        (OrderStatus.FILLED, 10.0, 500.5, [10.0, 10.0]),
        (OrderStatus.CANCELED, 6.0, 500.5, [10.0, 10.0]),
        # It alone takes all there is.
        (OrderStatus.ACCEPTED, 0.0, 1_000.0, [10.0]),
    ],
)
def test_a_buy_that_is_out_keeps_its_quantity_and_its_cash(
    store: DocumentStore, status: OrderStatus, filled: float, cash: float, expected: list[float]
) -> None:
    d = desk(store, one_auction=False, cash=cash, policy=SessionPolicy(cash_margin_bps=0.0))
    d.ledger.record_intent(d.trading._intent(DECISION, BUY, NOW, ""))
    d.ledger.record_order_state(ACCOUNT, TUE, key_of(BUY), status, NOW, filled, 100.0)
    made = d.trading.affordable([BUY, BUY_TOO], RATE, True)
    assert [order.quantity for order in made] == expected


def test_a_shrunk_buy_is_sent_as_it_was_shrunk_first(store: DocumentStore) -> None:
    d = desk(store, "killed before", one_auction=False, cash=1_001.0, policy=SessionPolicy(cash_margin_bps=0.0))
    with pytest.raises(Killed):
        d.send(*d.trading.affordable([BUY, BUY_TOO], RATE, True))
    d.broker.cash = 1_501.5  # more came in: 500.5 for AAA's 5, and all that CCC needs
    later = NOW + VISIBLE
    assert d.send(*d.trading.affordable([BUY, BUY_TOO], RATE, True), at=later) == SendResult(sent=2)
    assert [(o.symbol, o.quantity) for o in d.broker.taken] == [("AAA", 5.0), ("CCC", 20.0)]


# --- cancelling -------------------------------------------------------------------------------------------------------


def test_what_is_open_is_cancelled_once_and_what_has_ended_is_not(store: DocumentStore) -> None:
    d = desk(store, "take", "fill", "take")
    d.send(SELL, BUY, BUY_TOO)
    d.broker.say(key_of(BUY_TOO), OrderStatus.PARTIALLY_FILLED, 8.0, 50.0)
    d.broker.execute(key_of(BUY_TOO), 8.0, 50.0)
    assert d.trading.cancel_open(NOW, Side.SELL) == 1
    assert d.broker.cancels == [key_of(SELL)]
    assert d.trading.cancel_open(NOW) == 1
    assert d.trading.cancel_open(NOW) == 0
    assert sorted(d.broker.cancels) == sorted([key_of(SELL), key_of(BUY_TOO)])
    d.trading.poll(NOW)
    assert d.history(SELL) == ["submitting", "accepted", "pending_cancel", "canceled"]
    assert d.history(BUY_TOO) == ["submitting", "accepted", "pending_cancel", "canceled"]
    assert (d.known(BUY_TOO).filled_quantity, d.known(BUY_TOO).reason) == (8.0, "by us")
    assert d.trading.fills_missing() == []


def test_a_fill_after_the_cancellation_counts(store: DocumentStore) -> None:
    d = desk(store)
    d.send(SELL)
    d.trading.cancel_open(NOW)
    d.broker.say(key_of(SELL), OrderStatus.CANCELED, 2.0, 20.0)
    d.broker.execute(key_of(SELL), 2.0, 20.0)
    assert d.trading.poll(NOW) == PollResult(open=0, unknown=0)
    assert (d.status(), d.known().filled_quantity, d.trading.fills_missing()) == (OrderStatus.CANCELED, 2.0, [])


def test_an_order_that_fills_while_it_is_cancelled_is_filled(store: DocumentStore) -> None:
    d = desk(store)
    d.send(SELL)
    d.broker.say(key_of(SELL), OrderStatus.FILLED, 5.0, 20.0)
    d.trading.cancel_open(NOW)
    assert d.history() == ["submitting", "accepted", "filled"]


def test_orders_under_another_label_are_left_alone(store: DocumentStore) -> None:
    d = desk(store)
    d.send(BUY)
    d.trading.send(DECISION, [SELL], passes, NOW, flatten="flatten")
    assert d.trading.cancel_open(NOW, but="flatten") == 1
    assert d.broker.cancels == [key_of(BUY)]


def test_what_a_split_restated_is_cancelled_by_the_brokers_count(store: DocumentStore) -> None:
    d = desk(store)
    d.send(BUY)
    d.broker.say(
        key_of(BUY), OrderStatus.PARTIALLY_FILLED, 10.0, 50.0, quantity=20.0
    )  # 10 shares became 20, 10 are filled
    d.broker.execute(key_of(BUY), 10.0, 50.0)
    d.trading.cancel_open(NOW)
    d.trading.poll(NOW)
    assert (d.status(BUY), d.known(BUY).filled_quantity) == (OrderStatus.CANCELED, 10.0)


def test_what_was_never_sent_is_not_cancelled_at_the_broker(store: DocumentStore) -> None:
    d = desk(store, "killed before")
    with pytest.raises(Killed):
        d.send(SELL)
    assert d.trading.cancel_open(NOW) == 0
    assert d.broker.cancels == []


# --- two processes ----------------------------------------------------------------------------------------------------


def test_a_process_that_was_followed_writes_nothing_and_its_late_order_is_refused(store: DocumentStore) -> None:
    leases, broker = Leases(store), ScriptedBroker(WINDOW)
    slow = Ledger(FencedStore(store, leases, leases.acquire(ACCOUNT, "slow @elsewhere:1:1:a", NOW)))
    slow.claim_account(ACCOUNT, STRATEGY, MARKET, NOW)
    slow.open_session(ACCOUNT, TUE, MON, MON, NOW, "run-1")
    slow.freeze_decision(DECISION)
    later = NOW + timedelta(seconds=200)
    stopped = TradingSession(slow, broker, SESSIONS, ACCOUNT, TUE, SessionPolicy())

    def other_process(order: Order) -> None:
        """The first process stops with its order in hand; another takes the account over and sends two of three."""
        broker.before = lambda order: None
        fast = Ledger(FencedStore(store, leases, leases.acquire(ACCOUNT, "fast @elsewhere:2:2:b", later)))
        session = TradingSession(fast, broker, SESSIONS, ACCOUNT, TUE, SessionPolicy())
        assert session.send(DECISION, [SELL, BUY], passes, later) == SendResult(sent=2)

    broker.before = other_process
    with pytest.raises(LeaseLostError, match="followed by 2 of fast"):
        stopped.send(DECISION, [SELL, BUY, BUY_TOO], passes, NOW)
    assert [order.symbol for order in broker.submits] == ["BBB", "AAA", "BBB"]  # the last one is the late one
    assert [order.symbol for order in broker.taken] == ["BBB", "AAA"]
    with pytest.raises(DuplicateOrderError):
        broker.submit(broker.submits[0])
    histories = [Ledger(store).order_history(ACCOUNT, TUE, key_of(order)) for order in (SELL, BUY)]
    assert [[e.status.value for e in history] for history in histories] == [
        ["submitting", "submitting", "accepted"],
        ["submitting", "accepted"],
    ]
    for write in (
        lambda: stopped.send(DECISION, [BUY_TOO], passes, NOW),
        lambda: stopped.cancel_open(NOW),
        lambda: stopped.event("note", EventLevel.INFO, "x", NOW),
    ):
        with pytest.raises(LeaseLostError):
            write()
    assert (len(broker.taken), broker.cancels) == (2, [])


def test_before_it_sends_a_followed_process_fails_at_the_attempt(store: DocumentStore) -> None:
    """Also where the other one has written the very same intent and attempt."""
    leases, broker = Leases(store), ScriptedBroker(WINDOW, unique_ids=False)
    slow = decided_ledger(FencedStore(store, leases, leases.acquire(ACCOUNT, "slow @elsewhere:1:1:a", NOW)))
    stopped = TradingSession(slow, broker, SESSIONS, ACCOUNT, TUE, SessionPolicy())
    order = DecidedOrder("AAA", Side.BUY, 10.0, 100.0)

    def gate(intent: Intent, at: datetime) -> Sequence[RuleVerdict]:
        """Stopped here, after it has looked whether the order is known."""
        if not broker.submits:
            fast = Ledger(
                FencedStore(store, leases, leases.acquire(ACCOUNT, "fast @elsewhere:2:2:b", NOW + timedelta(hours=1)))
            )
            fast.record_intent(make_intent())
            fast.record_order_state(ACCOUNT, TUE, make_intent().client_order_id, SUBMITTING, NOW)
        return []

    with pytest.raises(LeaseLostError):
        stopped.send(make_decision(), [order], gate, NOW)
    assert broker.submits == []


def test_a_cancellation_of_a_followed_process_does_not_reach_the_broker(store: DocumentStore) -> None:
    leases, broker = Leases(store), ScriptedBroker(WINDOW)
    ledger = decided_ledger(FencedStore(store, leases, leases.acquire(ACCOUNT, "slow @elsewhere:1:1:a", NOW)))
    trading = TradingSession(ledger, broker, SESSIONS, ACCOUNT, TUE, SessionPolicy())
    trading.send(make_decision(), [SELL], passes, NOW)
    leases.acquire(ACCOUNT, "fast @elsewhere:2:2:b", NOW + timedelta(hours=1))
    with pytest.raises(LeaseLostError):
        trading.cancel_open(NOW)
    assert broker.cancels == []

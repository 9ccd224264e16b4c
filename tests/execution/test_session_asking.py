"""Bringing the ledger of a session up to what the broker says, in whatever order it says it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from ledger_samples import ACCOUNT, NOW, TUE
from scripted_broker import Killed
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
    refuses,
)

from trading_core.errors import (
    AmbiguousOrderError,
    BrokerBusyError,
    OrderWindowClosedError,
)
from trading_core.execution.records import (
    ApprovalRecord,
    EventLevel,
)
from trading_core.execution.session import (
    FLATTEN,
    NEVER_ARRIVED,
    NOT_TAKEN,
    PollResult,
    SendResult,
    SessionPolicy,
)
from trading_core.execution.store import DocumentStore, open_store
from trading_core.schema import Order, OrderState, OrderStatus, Side


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DocumentStore]:
    made = open_store(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield made
    made.close()


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
    for status, filled in (
        part,
        part,
        (OrderStatus.ACCEPTED, 0.0),
        most,
        part,
        whole,
        most,
        (OrderStatus.ACCEPTED, 0.0),
        whole,
    ):
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
    assert (d.status(), d.history()) == (OrderStatus.UNKNOWN, ["submitting", "unknown", "unknown"])
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
    assert (d.status(), d.known().reason) == (OrderStatus.SUBMITTING, NOT_TAKEN)
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
    assert (d.status(SELL), d.status(BUY)) == (OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_FILLED)
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

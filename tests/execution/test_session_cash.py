"""Buys for the cash that is there, cancelling what is left, and two processes at one session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ledger_samples import ACCOUNT, MARKET, MON, NOW, STRATEGY, TUE, decided_ledger, make_decision, make_intent
from scripted_broker import Killed, ScriptedBroker
from session_desk import (
    BUY,
    BUY_TOO,
    DECISION,
    SELL,
    SESSIONS,
    VISIBLE,
    WINDOW,
    desk,
    key_of,
    passes,
)

from trading_core.errors import (
    DuplicateOrderError,
    LeaseLostError,
)
from trading_core.execution.lease import FencedStore, Leases
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
    TradingSession,
)
from trading_core.execution.store import DocumentStore, open_store
from trading_core.schema import Order, OrderStatus, Side


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DocumentStore]:
    made = open_store(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield made
    made.close()


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
            fast.record_order_state(ACCOUNT, TUE, make_intent().client_order_id, OrderStatus.SUBMITTING, NOW)
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

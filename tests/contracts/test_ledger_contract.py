"""What the ledger must do, on SQLite and on DynamoDB (moto over HTTP): accounts, sessions, decisions, orders and fills."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest
from ledger_samples import (
    ACCOUNT,
    FRI,
    MARKET,
    MON,
    NOW,
    STORE_KINDS,
    STRATEGY,
    THU,
    TUE,
    WED,
    decided_ledger,
    make_decision,
    make_fill,
    make_intent,
    opened_store,
    reopened,
)

from trading_core.errors import (
    SessionNotSettledError,
    SessionOrderError,
    StrategyConflictError,
    UnknownNameError,
)
from trading_core.execution.codec import LedgerRecordError, from_document
from trading_core.execution.ledger import Ledger
from trading_core.execution.order_records import FillChange
from trading_core.execution.records import (
    OrderRecord,
    SessionStatus,
    SessionSummary,
)
from trading_core.execution.store import DocumentStore
from trading_core.schema import Fill, OrderStatus, Position

LATER = NOW + timedelta(minutes=5)
SUMMARY = SessionSummary(
    cash=1.5, equity=101.5, positions=(Position("AAA", 10.0, 10.0),), orders=1, fills=1, commission=0.5, settled_at=NOW
)


@pytest.fixture(params=STORE_KINDS)
def documents(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DocumentStore]:
    with opened_store(request.param, request, tmp_path) as store:
        yield store


# --- accounts ---------------------------------------------------------------------------------------------------------


def test_an_account_belongs_to_its_first_strategy_and_market(documents: DocumentStore) -> None:
    ledger = Ledger(documents)
    first = ledger.claim_account(ACCOUNT, STRATEGY, MARKET, NOW)
    assert ledger.claim_account(ACCOUNT, STRATEGY, MARKET, LATER) == first
    with pytest.raises(
        StrategyConflictError, match="belongs to strategy 'top10 on simulated'; 'momentum on simulated'"
    ):
        ledger.claim_account(ACCOUNT, "momentum", MARKET, NOW)
    with pytest.raises(StrategyConflictError, match="top10 on us-yahoo"):
        ledger.claim_account(ACCOUNT, STRATEGY, "us-yahoo", NOW)
    with pytest.raises(LedgerRecordError, match="account id 'all'"):
        ledger.claim_account("all", STRATEGY, MARKET, NOW)
    ledger.claim_account("another", STRATEGY, "us-yahoo", NOW)
    assert ledger.accounts(MARKET) == [first]
    assert [record.account for record in ledger.accounts()] == ["another", ACCOUNT]


def test_nothing_happens_on_an_unclaimed_account(documents: DocumentStore) -> None:
    with pytest.raises(UnknownNameError, match=f"Unknown account '{ACCOUNT}'"):
        Ledger(documents).open_session(ACCOUNT, TUE, MON, MON, NOW, "run-1")


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_opening_a_session_twice_finds_the_first(documents: DocumentStore, request: pytest.FixtureRequest) -> None:
    ledger = Ledger(documents)
    ledger.claim_account(ACCOUNT, STRATEGY, MARKET, NOW)
    first = ledger.open_session(ACCOUNT, TUE, MON, MON, NOW, "run-1")
    assert (first.record.session, first.record.number, first.status) == (TUE, 1, SessionStatus.OPEN)
    assert Ledger(reopened(documents, request)).open_session(ACCOUNT, TUE, MON, MON, LATER, "run-2") == first


def test_sessions_never_go_back(documents: DocumentStore) -> None:
    ledger = Ledger(documents)
    ledger.claim_account(ACCOUNT, STRATEGY, MARKET, NOW)
    ledger.open_session(ACCOUNT, TUE, MON, MON, NOW, "run-1")
    ledger.open_session(ACCOUNT, THU, WED, WED, NOW, "run-2")  # live: a missed session is allowed
    with pytest.raises(SessionOrderError, match=r"session 2024-01-10: a later session .*\(last session: 2024-01-11\)"):
        ledger.open_session(ACCOUNT, WED, TUE, TUE, NOW, "run-3")
    assert ledger.open_session(ACCOUNT, TUE, MON, MON, NOW, "run-4").record.run_id == "run-1"  # a re-run of an old one
    assert [record.session for record in ledger.sessions(ACCOUNT)] == [TUE, THU]


def test_a_replay_may_not_skip_a_session(documents: DocumentStore) -> None:
    ledger = Ledger(documents)
    ledger.claim_account(ACCOUNT, STRATEGY, MARKET, NOW)
    ledger.open_session(ACCOUNT, TUE, MON, MON, NOW, "run-1", strict=True)
    with pytest.raises(SessionOrderError, match="the session before it, 2024-01-10, was not traded"):
        ledger.open_session(ACCOUNT, THU, WED, WED, NOW, "run-2", strict=True)
    assert ledger.open_session(ACCOUNT, WED, TUE, TUE, NOW, "run-2", strict=True).record.number == 2


def test_a_session_waits_until_the_orders_of_the_one_before_have_ended(documents: DocumentStore) -> None:
    ledger = decided_ledger(documents)
    intent = make_intent()
    ledger.record_intent(intent)
    with pytest.raises(SessionNotSettledError, match="its session 2024-01-09 still has 1 open order") as caught:
        ledger.open_session(ACCOUNT, WED, TUE, TUE, NOW, "run-2")
    assert (caught.value.session, caught.value.unsettled, caught.value.open_orders) == (WED, TUE, 1)
    for status in (OrderStatus.ACCEPTED, OrderStatus.UNKNOWN):
        ledger.record_order_state(ACCOUNT, TUE, intent.client_order_id, status, NOW)
        with pytest.raises(SessionNotSettledError):
            ledger.open_session(ACCOUNT, WED, TUE, TUE, NOW, "run-2")
        with pytest.raises(SessionNotSettledError):
            ledger.settle_session(ACCOUNT, TUE, SUMMARY)
    ledger.record_order_state(ACCOUNT, TUE, intent.client_order_id, OrderStatus.EXPIRED, NOW)
    assert ledger.settle_session(ACCOUNT, TUE, SUMMARY).status is SessionStatus.SETTLED
    assert ledger.open_session(ACCOUNT, WED, TUE, TUE, NOW, "run-2").record.number == 2


def test_of_eight_runs_opening_different_sessions_the_order_holds(documents: DocumentStore) -> None:
    ledger = Ledger(documents)
    ledger.claim_account(ACCOUNT, STRATEGY, MARKET, NOW)
    barrier = Barrier(8)
    days = [TUE, WED, THU, FRI] * 2

    def run(number: int) -> bool:
        barrier.wait()
        try:
            return bool(ledger.open_session(ACCOUNT, days[number], MON, MON, NOW, f"run-{number}"))
        except SessionOrderError:
            return False

    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(run, range(8)))
    records = ledger.sessions(ACCOUNT)
    assert [record.number for record in records] == list(range(1, len(records) + 1))  # by date, and in that order
    assert opened[3]  # nothing is later than Friday
    assert {record.session for record in records} == {days[n] for n in range(8) if opened[n]}


def test_the_first_summary_of_a_session_stands(documents: DocumentStore, request: pytest.FixtureRequest) -> None:
    ledger = decided_ledger(documents)
    assert ledger.session_state(ACCOUNT, WED) is None
    state = ledger.settle_session(ACCOUNT, TUE, SUMMARY)
    assert state.summary == SUMMARY
    assert ledger.settle_session(ACCOUNT, TUE, replace(SUMMARY, cash=2.0)) == state
    assert Ledger(reopened(documents, request)).session_state(ACCOUNT, TUE) == state
    with pytest.raises(LedgerRecordError, match="was never opened"):
        ledger.settle_session(ACCOUNT, WED, SUMMARY)


# --- the decision -----------------------------------------------------------------------------------------------------


def test_the_first_decision_is_the_decision(documents: DocumentStore, request: pytest.FixtureRequest) -> None:
    ledger = Ledger(documents)
    ledger.claim_account(ACCOUNT, STRATEGY, MARKET, NOW)
    first = make_decision()
    with pytest.raises(LedgerRecordError, match="never opened"):
        ledger.freeze_decision(first)
    ledger.open_session(ACCOUNT, TUE, MON, MON, NOW, "run-1")
    assert ledger.get_decision(ACCOUNT, TUE) is None
    assert ledger.freeze_decision(first) == first
    second = replace(first, cash=1.0, orders=(), run_id="run-2")
    assert ledger.freeze_decision(second) == first
    again = Ledger(reopened(documents, request)).get_decision(ACCOUNT, TUE)
    assert again == first
    assert again.targets[0].score.hex() == (0.1 + 0.2).hex()
    assert ledger.session_state(ACCOUNT, TUE).status is SessionStatus.DECIDED


def test_eight_racing_decisions_all_return_the_same_one(documents: DocumentStore) -> None:
    ledger = Ledger(documents)
    ledger.claim_account(ACCOUNT, STRATEGY, MARKET, NOW)
    ledger.open_session(ACCOUNT, TUE, MON, MON, NOW, "run-1")
    barrier = Barrier(8)

    def decide(number: int) -> str:
        barrier.wait()
        return ledger.freeze_decision(replace(make_decision(), run_id=f"run-{number}")).run_id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(decide, range(8)))) == 1


def test_a_strategy_decides_only_for_its_own_account(documents: DocumentStore) -> None:
    ledger = Ledger(documents)
    ledger.claim_account(ACCOUNT, STRATEGY, MARKET, NOW)
    ledger.open_session(ACCOUNT, TUE, MON, MON, NOW, "run-1")
    with pytest.raises(StrategyConflictError):
        ledger.freeze_decision(replace(make_decision(), strategy="momentum"))


# --- intents, states, fills -------------------------------------------------------------------------------------------


def test_an_intent_is_written_once_and_never_changed(documents: DocumentStore) -> None:
    ledger = decided_ledger(documents)
    intent = make_intent()
    assert ledger.record_intent(intent)
    assert not ledger.record_intent(replace(intent, created_at=LATER))  # a retry, later
    with pytest.raises(LedgerRecordError, match="another order under this id"):
        ledger.record_intent(replace(intent, quantity=11.0))
    (order,) = ledger.orders(ACCOUNT, TUE)
    assert (order.intent, order.status, order.filled_quantity) == (intent, OrderStatus.PLANNED, 0.0)


def test_no_intent_without_its_frozen_decision_nor_after_settlement(documents: DocumentStore) -> None:
    ledger = Ledger(documents)
    ledger.claim_account(ACCOUNT, STRATEGY, MARKET, NOW)
    with pytest.raises(LedgerRecordError, match="never opened"):
        ledger.record_intent(make_intent())
    ledger.open_session(ACCOUNT, TUE, MON, MON, NOW, "run-1")
    with pytest.raises(LedgerRecordError, match="2024-01-09 is open with decision None"):
        ledger.record_intent(make_intent())
    ledger.freeze_decision(make_decision())
    with pytest.raises(LedgerRecordError, match="is decided with decision"):
        ledger.record_intent(replace(make_intent(), decision_id="another"))
    ledger.settle_session(ACCOUNT, TUE, SUMMARY)
    with pytest.raises(LedgerRecordError, match="is settled"):
        ledger.record_intent(make_intent())
    assert ledger.orders(ACCOUNT, TUE) == []


def test_order_states_are_a_history(documents: DocumentStore) -> None:
    ledger = decided_ledger(documents)
    intent = make_intent()
    key = (ACCOUNT, TUE, intent.client_order_id)
    with pytest.raises(LedgerRecordError, match="no intent with this id"):
        ledger.record_order_state(*key, OrderStatus.SUBMITTING, NOW)
    ledger.record_intent(intent)
    assert ledger.record_order_state(*key, OrderStatus.SUBMITTING, NOW).sequence == 1
    accepted = ledger.record_order_state(*key, OrderStatus.ACCEPTED, NOW)
    assert ledger.record_order_state(*key, OrderStatus.ACCEPTED, LATER) == accepted  # nothing new
    filled = ledger.record_order_state(*key, OrderStatus.FILLED, LATER, 10.0, 100.04)
    # Old reports change nothing, and the answer is what stands.
    for status, shares in (
        (OrderStatus.SUBMITTING, 0.0),
        (OrderStatus.ACCEPTED, 0.0),
        (OrderStatus.PARTIALLY_FILLED, 4.0),
        (OrderStatus.CANCELED, 0.0),
        (OrderStatus.UNKNOWN, 0.0),
    ):
        assert ledger.record_order_state(*key, status, LATER, shares) == filled
    history = ledger.order_history(*key)
    assert [(event.sequence, event.status) for event in history] == [
        (1, OrderStatus.SUBMITTING),
        (2, OrderStatus.ACCEPTED),
        (3, OrderStatus.FILLED),
    ]
    assert history[1].at == NOW
    (order,) = ledger.orders(ACCOUNT, TUE)
    assert (order.status, order.filled_quantity, order.average_price) == (OrderStatus.FILLED, 10.0, 100.04)
    assert ledger.order(*key) == order
    other = make_intent("CCC")
    ledger.record_intent(other)
    assert ledger.order(ACCOUNT, TUE, other.client_order_id) == OrderRecord(other, OrderStatus.PLANNED, 0.0, None, "")
    assert ledger.order(ACCOUNT, TUE, "nobody") is None
    assert ledger.order(ACCOUNT, WED, intent.client_order_id) is None


def test_every_attempt_to_send_is_an_event_until_the_broker_has_spoken(documents: DocumentStore) -> None:
    ledger = decided_ledger(documents)
    intent = make_intent()
    key = (ACCOUNT, TUE, intent.client_order_id)
    ledger.record_intent(intent)
    for status in (OrderStatus.SUBMITTING, OrderStatus.SUBMITTING, OrderStatus.UNKNOWN, OrderStatus.SUBMITTING):
        ledger.record_order_state(*key, status, NOW)
    assert [event.status.value for event in ledger.order_history(*key)] == [
        "submitting",
        "submitting",
        "unknown",
        "submitting",
    ]
    ledger.record_order_state(*key, OrderStatus.ACCEPTED, NOW)
    assert ledger.record_order_state(*key, OrderStatus.SUBMITTING, NOW).status is OrderStatus.ACCEPTED


def test_a_quantity_restated_for_a_split_is_measured_by_the_brokers_word(documents: DocumentStore) -> None:
    ledger = decided_ledger(documents)
    intent = make_intent()  # 10 shares, 20 at the broker
    key = (ACCOUNT, TUE, intent.client_order_id)
    ledger.record_intent(intent)
    ledger.record_order_state(*key, OrderStatus.PARTIALLY_FILLED, NOW, 10.0, 50.0, ordered=20.0)
    assert ledger.orders(ACCOUNT, TUE)[0].status is OrderStatus.PARTIALLY_FILLED
    ledger.record_order_state(*key, OrderStatus.PARTIALLY_FILLED, NOW, 20.0, 50.0, ordered=20.0)
    assert ledger.orders(ACCOUNT, TUE)[0].status is OrderStatus.FILLED


def test_eight_threads_telling_the_same_states_leave_each_once(documents: DocumentStore) -> None:
    ledger = decided_ledger(documents)
    intent = make_intent()
    key = (ACCOUNT, TUE, intent.client_order_id)
    ledger.record_intent(intent)
    barrier = Barrier(8)
    told = [(OrderStatus.ACCEPTED, 0.0), (OrderStatus.PARTIALLY_FILLED, 4.0), (OrderStatus.FILLED, 10.0)]

    def tell(number: int) -> None:
        barrier.wait()
        for status, shares in told[number % 3 :] + told[: number % 3]:
            ledger.record_order_state(*key, status, NOW, shares)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tell, range(8)))
    history = ledger.order_history(*key)
    assert [event.sequence for event in history] == list(range(1, len(history) + 1))
    shares = [event.filled_quantity for event in history]
    assert shares == sorted(set(shares))  # each stage once, in order
    assert history[-1].status is OrderStatus.FILLED


def test_a_fill_counts_once(documents: DocumentStore) -> None:
    ledger = decided_ledger(documents)
    intent = make_intent()
    fill = make_fill(intent, 4.0, 100.04)
    with pytest.raises(LedgerRecordError, match="no intent with this id"):
        ledger.record_fill(ACCOUNT, fill)
    ledger.record_intent(intent)
    assert ledger.record_fill(ACCOUNT, fill) is FillChange.NEW
    assert ledger.record_fill(ACCOUNT, fill) is FillChange.SAME
    second = make_fill(intent, 6.0, 100.1, number=2)
    assert ledger.record_fill(ACCOUNT, second) is FillChange.NEW
    assert ledger.fills(ACCOUNT, TUE) == [fill, second]
    assert ledger.fills(ACCOUNT, WED) == []
    assert ledger.corrections(ACCOUNT, TUE) == []


def test_a_corrected_fill_stands_in_place_of_the_first_which_is_kept(
    documents: DocumentStore, request: pytest.FixtureRequest
) -> None:
    ledger = decided_ledger(documents)
    intent = make_intent()
    ledger.record_intent(intent)
    first, other = make_fill(intent, 4.0, 100.04), make_fill(intent, 6.0, 100.1, number=2)
    cheaper, less, gone = replace(first, price=100.0), replace(first, quantity=3.0), replace(first, quantity=0.0)
    for fill in (first, other):
        ledger.record_fill(ACCOUNT, fill)
    assert ledger.record_fill(ACCOUNT, cheaper, LATER) is FillChange.CORRECTED
    assert ledger.record_fill(ACCOUNT, cheaper, LATER) is FillChange.SAME
    assert ledger.fills(ACCOUNT, TUE) == [cheaper, other]
    assert ledger.record_fill(ACCOUNT, less) is FillChange.CORRECTED
    assert ledger.fills(ACCOUNT, TUE) == [less, other]
    assert ledger.record_fill(ACCOUNT, first) is FillChange.CORRECTED  # and back again: that too is a correction
    assert ledger.record_fill(ACCOUNT, gone) is FillChange.CORRECTED
    again = Ledger(reopened(documents, request))
    assert again.fills(ACCOUNT, TUE) == [other]  # an execution of no shares is none
    assert [row.fill_id for row in again.executions(account=ACCOUNT)] == [other.fill_id]
    assert [(c.number, c.fill) for c in again.corrections(ACCOUNT, TUE)] == [
        (1, cheaper),
        (2, less),
        (3, first),
        (4, gone),
    ]
    assert [c.at for c in again.corrections(ACCOUNT, TUE)][:2] == [LATER, first.filled_at]
    assert from_document(Fill, documents.query(f"account#{ACCOUNT}", "fill#")[0].doc) == first


def test_a_correction_makes_an_order_smaller_where_a_report_could_not(documents: DocumentStore) -> None:
    ledger = decided_ledger(documents)
    intent = make_intent()
    key = (ACCOUNT, TUE, intent.client_order_id)
    ledger.record_intent(intent)
    ledger.record_order_state(*key, OrderStatus.CANCELED, NOW, 4.0, 100.0, "by us")
    assert ledger.record_order_state(*key, OrderStatus.CANCELED, NOW, 3.0, 100.0).filled_quantity == 4.0
    made = ledger.record_order_state(*key, OrderStatus.CANCELED, NOW, 3.0, 100.0, "by us", correction=True)
    assert (made.status, made.filled_quantity) == (OrderStatus.CANCELED, 3.0)
    assert len(ledger.order_history(*key)) == 2


def test_eight_threads_correcting_a_fill_alike_write_one_correction(documents: DocumentStore) -> None:
    ledger = decided_ledger(documents)
    intent = make_intent()
    ledger.record_intent(intent)
    ledger.record_fill(ACCOUNT, make_fill(intent, 4.0, 100.04))
    barrier = Barrier(8)

    def correct(_: int) -> FillChange:
        barrier.wait()
        return ledger.record_fill(ACCOUNT, make_fill(intent, 3.0, 100.04), LATER)

    with ThreadPoolExecutor(8) as pool:
        changes = list(pool.map(correct, range(8)))
    assert sorted(changes) == [FillChange.CORRECTED] + [FillChange.SAME] * 7
    assert len(ledger.corrections(ACCOUNT, TUE)) == 1

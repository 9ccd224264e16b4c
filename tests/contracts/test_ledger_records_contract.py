"""What the ledger keeps beside orders, on SQLite and on DynamoDB (moto over HTTP): rules, persons, cash, halts, events."""

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
    StrategyConflictError,
    UnknownNameError,
)
from trading_core.execution.codec import Document, LedgerRecordError
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import (
    AdoptionRecord,
    ApprovalRecord,
    EventLevel,
    Execution,
    GateRecord,
    LedgerEvent,
    RuleVerdict,
    SessionSummary,
)
from trading_core.execution.store import DocumentStore
from trading_core.schema import CashFlow, CashFlowKind, OrderStatus, Position, Side

LATER = NOW + timedelta(minutes=5)
SUMMARY = SessionSummary(
    cash=1.5, equity=101.5, positions=(Position("AAA", 10.0, 10.0),), orders=1, fills=1, commission=0.5, settled_at=NOW
)


@pytest.fixture(params=STORE_KINDS)
def documents(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DocumentStore]:
    with opened_store(request.param, request, tmp_path) as store:
        yield store


# --- gates, cash flows, approvals, adoptions, identities, summaries ---------------------------------------------------


def make_gates(verdict: str = "approve", reason: str = "") -> GateRecord:
    intent = make_intent()
    verdicts = (RuleVerdict("kill_switch", "approve", ""), RuleVerdict("price_collar", verdict, reason))
    return GateRecord(ACCOUNT, TUE, intent.client_order_id, intent.symbol, verdicts, NOW)


def test_what_the_rules_said_is_kept_each_time_it_is_something_else(documents: DocumentStore) -> None:
    ledger = decided_ledger(documents)
    refused, passed = make_gates("reject", "AAA is 12% away"), make_gates()
    for record in (refused, replace(refused, at=LATER), passed, refused):
        ledger.record_gates(record)
    assert ledger.gates(ACCOUNT, TUE) == [refused, passed, refused]
    assert ledger.gates(ACCOUNT, WED) == []


def test_a_cash_flow_counts_once_and_may_not_be_another_amount(documents: DocumentStore) -> None:
    ledger = decided_ledger(documents)
    paid = CashFlow("div-1", TUE, CashFlowKind.DIVIDEND, "AAA", 12.34)
    owed = CashFlow("int-1", TUE, CashFlowKind.INTEREST, "", -0.1)
    assert ledger.record_cash_flow(ACCOUNT, paid)
    assert not ledger.record_cash_flow(ACCOUNT, paid)
    assert ledger.record_cash_flow(ACCOUNT, owed)
    with pytest.raises(LedgerRecordError, match=r"the cash flow div-1.*other content"):
        ledger.record_cash_flow(ACCOUNT, replace(paid, amount=12.35))
    assert ledger.cash_flows(ACCOUNT, TUE) == [paid, owed]
    assert ledger.cash_flows(ACCOUNT, WED) == []


def test_the_first_word_of_a_person_stands(documents: DocumentStore) -> None:
    ledger = decided_ledger(documents)
    assert ledger.approval(ACCOUNT, TUE) is None
    no = ApprovalRecord(ACCOUNT, TUE, make_decision().decision_id, False, "ann", "too much of AAA", NOW)
    assert ledger.record_approval(no) == no
    assert ledger.record_approval(replace(no, approved=True, by="bob", at=LATER)) == no
    assert ledger.approval(ACCOUNT, TUE) == no
    with pytest.raises(LedgerRecordError, match="2024-01-10 was never opened"):
        ledger.record_approval(replace(no, session=WED))


def test_adoptions_are_all_kept(documents: DocumentStore) -> None:
    ledger = decided_ledger(documents)
    first = AdoptionRecord(ACCOUNT, TUE, (Position("AAA", 5.0, 100.0),), 10.0, "ann", "a transfer", NOW)
    second = replace(first, positions=(), cash=0.1, at=LATER)
    for adoption in (first, second):
        assert ledger.adopt(adoption) == adoption
    assert ledger.adoptions(ACCOUNT) == [first, second]
    with pytest.raises(UnknownNameError, match="Unknown account"):
        ledger.adopt(replace(first, account="nobody"))


def test_an_account_at_a_broker_belongs_to_one_of_ours_for_ever(documents: DocumentStore) -> None:
    ledger = Ledger(documents)
    for _ in range(2):
        ledger.claim_identity("broker:77", ACCOUNT)
    with pytest.raises(StrategyConflictError, match=f"'broker:77' belongs to strategy '{ACCOUNT}'; 'another'"):
        ledger.claim_identity("broker:77", "another")
    ledger.claim_identity("broker:78", "another")


def test_of_eight_accounts_claiming_one_identity_one_gets_it(documents: DocumentStore) -> None:
    ledger, barrier = Ledger(documents), Barrier(8)

    def claim(number: int) -> bool:
        barrier.wait()
        try:
            ledger.claim_identity("broker:77", f"account-{number}")
        except StrategyConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(8))) == 1


def test_summaries_come_in_the_order_of_sessions(documents: DocumentStore) -> None:
    ledger = Ledger(documents)
    ledger.claim_account(ACCOUNT, STRATEGY, MARKET, NOW)
    made = []
    for number, (session, decided) in enumerate([(TUE, MON), (WED, TUE), (THU, WED)]):
        ledger.open_session(ACCOUNT, session, decided, decided, NOW, f"run-{number}")
        made.append(replace(SUMMARY, cash=float(number)))
        ledger.settle_session(ACCOUNT, session, made[-1])
    assert ledger.summaries(ACCOUNT) == made
    assert ledger.summaries("nobody") == []


class _Watched:
    """A store that notes every document it is asked to change."""

    def __init__(self, inner: DocumentStore) -> None:
        self.url, self.replaced = inner.url, 0
        self._inner = inner
        self.get, self.find, self.put_new, self.query = inner.get, inner.find, inner.put_new, inner.query
        self.transact_new, self.close = inner.transact_new, inner.close

    def replace(self, pk: str, sk: str, doc: Document, expected_version: int) -> bool:
        self.replaced += 1
        return self._inner.replace(pk, sk, doc, expected_version)


def test_no_document_is_ever_changed(documents: DocumentStore) -> None:
    watched = _Watched(documents)
    ledger = decided_ledger(watched)
    intent, halted = make_intent(), "halt"
    key = (ACCOUNT, TUE, intent.client_order_id)
    before: dict[tuple[str, str], object] = {}

    def grown() -> None:
        """Everything that was there is there still, as it was."""
        now = {
            (pk, item.sk): (item.version, item.doc)
            for pk in (halted, f"account#{ACCOUNT}")
            for item in documents.query(pk)
        }
        assert {place: now.get(place) for place in before} == before
        assert all(version == 1 for version, _ in now.values())
        before.update(now)

    for step in (
        lambda: ledger.claim_identity("broker:77", ACCOUNT),
        lambda: ledger.freeze_decision(replace(make_decision(), cash=1.0)),
        lambda: ledger.record_intent(intent),
        lambda: ledger.record_gates(make_gates()),
        lambda: ledger.record_gates(make_gates("reject", "no")),
        lambda: ledger.record_order_state(*key, OrderStatus.PARTIALLY_FILLED, NOW, 4.0, 100.0),
        lambda: ledger.record_fill(ACCOUNT, make_fill(intent, 4.0, 100.0)),
        lambda: ledger.record_fill(ACCOUNT, make_fill(intent, 3.0, 100.0)),
        lambda: ledger.record_order_state(*key, OrderStatus.CANCELED, NOW, 3.0, 100.0, correction=True),
        lambda: ledger.record_cash_flow(ACCOUNT, CashFlow("f", TUE, CashFlowKind.FEE, "", -1.0)),
        lambda: ledger.record_approval(ApprovalRecord(ACCOUNT, TUE, intent.decision_id, True, "ann", "", NOW)),
        lambda: ledger.record_event(LedgerEvent(ACCOUNT, TUE, "note", EventLevel.INFO, "x", NOW)),
        lambda: ledger.halt(ACCOUNT, "why", "ann", NOW),
        lambda: ledger.resume(ACCOUNT, "ann", LATER),
        lambda: ledger.settle_session(ACCOUNT, TUE, SUMMARY),
        lambda: ledger.settle_session(ACCOUNT, TUE, replace(SUMMARY, cash=9.0)),
        lambda: ledger.adopt(AdoptionRecord(ACCOUNT, TUE, (), 1.0, "ann", "why", NOW)),
        lambda: ledger.open_session(ACCOUNT, WED, TUE, TUE, LATER, "run-2"),
    ):
        step()
        grown()
    kinds = {sk.partition("#")[0] for pk, sk in before if pk.startswith("account#")}
    assert kinds == {
        "adopted", "approval", "cash", "correction", "decision", "event", "fill", "gate", "intent", "session", "settled",
        "state", "turn",
    }  # fmt: skip
    assert watched.replaced == 0


def test_executions_join_what_a_fill_came_from(documents: DocumentStore) -> None:
    ledger = decided_ledger(documents)
    buy, sell = make_intent("AAA", Side.BUY), make_intent("BBB", Side.SELL, 5.0)
    for intent in (buy, sell):
        ledger.record_intent(intent)
        ledger.record_fill(ACCOUNT, make_fill(intent, intent.quantity, 100.04))
    ledger.record_order_state(ACCOUNT, TUE, sell.client_order_id, OrderStatus.FILLED, NOW, 5.0, 100.04)
    rows = ledger.executions(account=ACCOUNT)
    assert rows[0] == Execution(
        symbol="BBB",
        side=Side.SELL,
        quantity=5.0,
        price=100.04,
        commission=0.5,
        session=TUE,
        strategy="top10",
        model="tft",
        model_version="3",
        features_version="bars=4,features_price=7",
        client_order_id=sell.client_order_id,
        fill_id=f"{sell.client_order_id}-1",
        account=ACCOUNT,
        market=MARKET,
        decision_id=make_decision().decision_id,
        filled_at=NOW,
        status=OrderStatus.FILLED,
    )
    assert (rows[1].symbol, rows[1].status) == ("AAA", OrderStatus.UNKNOWN)  # its state was not recorded yet
    assert ledger.executions(market=MARKET, start=TUE, end=TUE) == rows
    assert ledger.executions(market=MARKET, start=MON, end=FRI) == rows
    assert ledger.executions(market=MARKET, start=WED) == []
    assert ledger.executions(market=MARKET, end=MON) == []
    assert ledger.executions(market="us-yahoo") == []


# --- halts and events -------------------------------------------------------------------------------------------------


def test_halts_stop_one_account_or_all_until_resumed(documents: DocumentStore, request: pytest.FixtureRequest) -> None:
    ledger = Ledger(documents)
    for account in (ACCOUNT, "another"):
        ledger.claim_account(account, STRATEGY, MARKET, NOW)
    assert ledger.halted(ACCOUNT) is None
    ledger.halt(ACCOUNT, "odd fills", "ann", NOW)
    other_process = Ledger(reopened(documents, request))
    assert other_process.halted(ACCOUNT) == "odd fills"
    assert other_process.halted("another") is None
    ledger.halt("all", "exchange outage", "bob", NOW)
    ledger.resume(ACCOUNT, "ann", LATER)
    assert ledger.halted(ACCOUNT) == ledger.halted("another") == "exchange outage"
    ledger.resume("all", "bob", LATER)
    assert ledger.halted(ACCOUNT) is None
    ledger.halt("all", "", "bob", LATER)
    assert ledger.halted(ACCOUNT) == "halted by bob"
    assert [(event.halted, event.by) for event in ledger.halt_history("all")] == [
        (True, "bob"),
        (False, "bob"),
        (True, "bob"),
    ]
    with pytest.raises(UnknownNameError, match=f"Did you mean '{ACCOUNT}'"):
        ledger.halt(ACCOUNT + "x", "a typing error must not look like a halt", "ann", NOW)


def test_events_are_kept_once_and_in_order(documents: DocumentStore) -> None:
    ledger = Ledger(documents)
    late = LedgerEvent(ACCOUNT, WED, "missed_session", EventLevel.WARNING, "the open of 2024-01-10 was missed", LATER)
    early = LedgerEvent(ACCOUNT, None, "mismatch", EventLevel.ALERT, "AAA: broker 10, ledger 9", NOW)
    assert ledger.record_event(late)
    assert ledger.record_event(early)
    assert not ledger.record_event(early)
    assert ledger.events(ACCOUNT) == [early, late]
    assert ledger.events(ACCOUNT, WED) == [late]

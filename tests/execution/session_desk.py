"""What the tests of a trading session share: orders, a decision, and a desk with a ledger and a scripted broker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ledger_samples import ACCOUNT, MARKET, MON, NOW, STRATEGY, TUE, make_decision
from scripted_broker import VISIBLE_S, ScriptedBroker, window_around

from trading_core.execution.ids import client_order_id
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import (
    DecidedOrder,
    Decision,
    Intent,
    LedgerEvent,
    OrderRecord,
    RuleVerdict,
)
from trading_core.execution.session import (
    SendResult,
    SessionPolicy,
    TradingSession,
)
from trading_core.execution.store import DocumentStore, open_store
from trading_core.schema import OrderStatus, Side
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

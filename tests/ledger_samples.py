"""What the ledger, store and broker tests share: stores of both kinds, and hand-made records."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from trading_core.execution.ids import client_order_id, decision_id
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import DecidedOrder, Decision, Intent, Rejection, Target
from trading_core.execution.store import DocumentStore, LedgerOptions, open_store
from trading_core.schema import Fill, Order, Side

STORE_KINDS = ("sqlite", "dynamodb")
ACCOUNT, STRATEGY, MARKET = "paper-simulated-top10", "top10", "simulated"
MON, TUE, WED, THU, FRI = (date(2024, 1, day) for day in (8, 9, 10, 11, 12))
NOW = datetime(2024, 1, 9, 13, 0, tzinfo=UTC)


@contextmanager
def atomic_dynamodb() -> Iterator[None]:
    """DynamoDB decides a conditional write atomically; moto checks, then stores, and threads interleave there."""
    from moto.dynamodb.models import DynamoDBBackend

    lock, names = threading.RLock(), ("put_item", "transact_write_items")
    originals = {name: getattr(DynamoDBBackend, name) for name in names}

    def guarded(original: Any) -> Any:
        def call(self: DynamoDBBackend, *args: Any, **kwargs: Any) -> Any:
            with lock:
                return original(self, *args, **kwargs)

        return call

    for name, original in originals.items():
        setattr(DynamoDBBackend, name, guarded(original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(DynamoDBBackend, name, original)


@contextmanager
def opened_store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DocumentStore]:
    """A fresh store of a kind; the DynamoDB endpoint starts only when that kind is asked for."""
    if kind == "sqlite":
        store = open_store(f"sqlite:///{tmp_path / 'ledger' / 'ledger.sqlite'}")
        yield store
        store.close()
        return
    endpoint = request.getfixturevalue("dynamodb_endpoint")
    with atomic_dynamodb():
        store = open_store(f"dynamodb://ledger-{uuid.uuid4().hex[:12]}", dynamodb_options(endpoint))
        yield store
        store.close()


def dynamodb_options(endpoint: str) -> LedgerOptions:
    return LedgerOptions(endpoint, "us-east-1", "testing", "testing")


def reopened(store: DocumentStore, request: pytest.FixtureRequest) -> DocumentStore:
    """The same store as another process would open it."""
    if store.url.startswith("sqlite"):
        return open_store(store.url)
    return open_store(store.url, dynamodb_options(request.getfixturevalue("dynamodb_endpoint")))


def make_decision(
    session: date = TUE, decided_on: date = MON, account: str = ACCOUNT, cash: float = 100_000.0
) -> Decision:
    return Decision(
        decision_id=decision_id(account, session),
        account=account,
        market=MARKET,
        session=session,
        decision_session=decided_on,
        strategy=STRATEGY,
        strategy_hash="0123456789ab",
        model="tft",
        model_version="3",
        model_digest="ab" * 32,
        features_version="bars=4,features_price=7",
        forecasts_version=11,
        run_id="run-1",
        equity=100_000.0,
        cash=cash,
        targets=(Target("AAA", 0.1, 0.30000000000000004), Target("BBB", 0.0, None)),
        orders=(DecidedOrder("AAA", Side.BUY, 99.123457, 100.88), DecidedOrder("BBB", Side.SELL, 5.0, 20.0)),
        held_without_forecast=("CCC",),
        rejected=(Rejection("DDD", Side.BUY, 10.0, "restricted", "on the restricted list"),),
        decided_at=NOW,
        code_version="abc123",
        config_hash="fedcba",
    )


def make_intent(
    symbol: str = "AAA", side: Side = Side.BUY, quantity: float = 10.0, session: date = TUE, account: str = ACCOUNT
) -> Intent:
    return Intent(
        client_order_id=client_order_id(account, STRATEGY, session, symbol, side, 1),
        account=account,
        session=session,
        strategy=STRATEGY,
        symbol=symbol,
        side=side,
        quantity=quantity,
        reference_price=100.0,
        attempt=1,
        decision_id=decision_id(account, session),
        created_at=NOW,
    )


def make_fill(intent: Intent, quantity: float, price: float, number: int = 1) -> Fill:
    return Fill(
        fill_id=f"{intent.client_order_id}-{number}",
        client_order_id=intent.client_order_id,
        symbol=intent.symbol,
        side=intent.side,
        quantity=quantity,
        price=price,
        commission=0.5,
        session=intent.session,
        filled_at=NOW,
    )


def make_order(symbol: str, side: Side, quantity: float, session: date = TUE, account: str = ACCOUNT) -> Order:
    order_id = client_order_id(account, STRATEGY, session, symbol, side, 1)
    return Order(order_id, symbol, side, quantity, session, 100.0)


def decided_ledger(store: DocumentStore) -> Ledger:
    """A ledger whose account has its first session open, with the decision frozen."""
    ledger = Ledger(store)
    ledger.claim_account(ACCOUNT, STRATEGY, MARKET, NOW)
    ledger.open_session(ACCOUNT, TUE, MON, MON, NOW, "run-1")
    ledger.freeze_decision(make_decision())
    return ledger

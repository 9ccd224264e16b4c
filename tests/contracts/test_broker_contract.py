"""What every broker must do. A new broker brings one entry in `PLAY_OPEN`: how its market opens in a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from threading import Barrier

import pytest
from ledger_samples import ACCOUNT, NOW, STORE_KINDS, TUE, WED, make_order, opened_store, reopened

from trading_core.costs import FREE
from trading_core.errors import DuplicateOrderError, UnknownNameError
from trading_core.execution.broker import Broker, SimulatedBroker
from trading_core.execution.registry import BROKERS, BrokerRequest, broker_entry
from trading_core.execution.store import DocumentStore
from trading_core.schema import AccountState, OrderStatus, Position, Side


def open_on_paper(broker: Broker, session: date, opens: Mapping[str, float]) -> None:
    assert isinstance(broker, SimulatedBroker)
    broker.settle_open(session, opens, (), NOW)


PLAY_OPEN: dict[str, Callable[[Broker, date, Mapping[str, float]], None]] = {"paper": open_on_paper}


@pytest.fixture(params=STORE_KINDS)
def documents(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DocumentStore]:
    with opened_store(request.param, request, tmp_path) as store:
        yield store


@pytest.fixture(params=sorted(BROKERS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def build(name: str, documents: DocumentStore) -> Broker:
    return broker_entry(name).build(BrokerRequest(documents, ACCOUNT, capital=10_000.0, costs=FREE))


def test_every_broker_is_tested_and_says_what_it_is(name: str, documents: DocumentStore) -> None:
    broker = build(name, documents)
    assert set(PLAY_OPEN) == set(BROKERS)
    assert (broker.name, broker.real) == (name, BROKERS[name].real)
    with pytest.raises(UnknownNameError, match="Unknown broker 'ibkr'"):
        broker_entry("ibkr")


def test_a_new_account_holds_its_capital(name: str, documents: DocumentStore) -> None:
    assert build(name, documents).account() == AccountState(ACCOUNT, 10_000.0, ())


def test_an_order_is_accepted_filled_and_remembered(
    name: str, documents: DocumentStore, request: pytest.FixtureRequest
) -> None:
    broker = build(name, documents)
    order = make_order("AAA", Side.BUY, 10.0)
    assert broker.order(order.client_order_id) is None
    assert broker.submit(order).status is OrderStatus.ACCEPTED
    assert (broker.fills(TUE), broker.account().cash) == ([], 10_000.0)
    PLAY_OPEN[name](broker, TUE, {"AAA": 50.0})
    again = build(name, reopened(documents, request))  # another process
    state = again.order(order.client_order_id)
    assert state is not None
    assert (state.order, state.status, state.filled_quantity, state.average_price) == (
        order,
        OrderStatus.FILLED,
        10.0,
        50.0,
    )
    assert again.orders(TUE) == [state]
    (fill,) = again.fills(TUE)
    assert (fill.client_order_id, fill.symbol, fill.side, fill.quantity, fill.price, fill.commission, fill.session) == (
        *(order.client_order_id, "AAA", Side.BUY, 10.0, 50.0, 0.0, TUE),
    )
    assert again.account() == AccountState(ACCOUNT, 9_500.0, (Position("AAA", 10.0, 50.0),))
    assert again.account().quantity("AAA") == 10.0


def test_a_known_id_is_refused_whatever_it_asks_for(name: str, documents: DocumentStore) -> None:
    broker = build(name, documents)
    order = make_order("AAA", Side.BUY, 10.0)
    broker.submit(order)
    other_session = type(order)(order.client_order_id, "BBB", Side.BUY, 1.0, WED, 10.0)
    for again in (order, other_session):
        with pytest.raises(DuplicateOrderError, match="it was not sent twice"):
            broker.submit(again)
    PLAY_OPEN[name](broker, TUE, {"AAA": 50.0})
    with pytest.raises(DuplicateOrderError):
        broker.submit(order)
    assert len(broker.fills(TUE)) == 1
    assert broker.orders(WED) == []


def test_of_eight_racing_submits_of_one_id_one_goes_through(name: str, documents: DocumentStore) -> None:
    broker, barrier = build(name, documents), Barrier(8)
    order = make_order("AAA", Side.BUY, 10.0)

    def submit(_: int) -> bool:
        barrier.wait()
        try:
            return broker.submit(order).status is OrderStatus.ACCEPTED
        except DuplicateOrderError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(submit, range(8))) == 1
    assert len(broker.orders(TUE)) == 1


def test_a_canceled_order_is_not_filled_and_a_filled_one_not_canceled(name: str, documents: DocumentStore) -> None:
    broker = build(name, documents)
    keep, drop = make_order("AAA", Side.BUY, 10.0), make_order("BBB", Side.BUY, 10.0)
    broker.submit(keep)
    broker.submit(drop)
    assert broker.cancel(drop.client_order_id).status is OrderStatus.CANCELED
    PLAY_OPEN[name](broker, TUE, {"AAA": 50.0, "BBB": 50.0})
    assert broker.cancel(drop.client_order_id).status is OrderStatus.CANCELED
    assert broker.cancel(keep.client_order_id).status is OrderStatus.FILLED
    assert [fill.symbol for fill in broker.fills(TUE)] == ["AAA"]
    with pytest.raises(UnknownNameError, match="never-sent"):
        broker.cancel("never-sent")

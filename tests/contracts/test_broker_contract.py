"""What every broker must do, whatever market it lives in. A new broker brings a bench (broker_benches.BENCHES)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest
from broker_benches import BENCHES, CASH, BrokerBench
from ledger_samples import NOW, TUE, WED, make_order

from trading_core.errors import DuplicateOrderError, UnknownNameError
from trading_core.execution.registry import BROKERS, broker_entry
from trading_core.schema import Fill, OrderKind, OrderStatus, Side
from trading_core.sessions import Sessions

XNYS = Sessions("XNYS")


# The same brokers elsewhere: on a slow store, and at another address.
ELSEWHERE = {"paper on dynamodb", "alpaca-live"}
NAMES = [pytest.param(name, marks=pytest.mark.thorough if name in ELSEWHERE else ()) for name in sorted(BENCHES)]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bench(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerBench]:
    with BENCHES[name](request, tmp_path) as made:
        yield made


def bought(bench: BrokerBench, *symbols: str) -> None:
    """10 shares of each, at 50 at Tuesday's open."""
    for symbol in symbols:
        bench.broker().submit(make_order(symbol, Side.BUY, 10.0))
    bench.play_open(TUE, dict.fromkeys(symbols, 50.0))


def paid(fills: list[Fill]) -> float:
    """The cash that fills brought."""
    sign = {Side.BUY: -1.0, Side.SELL: 1.0}
    return math.fsum(sign[fill.side] * fill.quantity * fill.price - fill.commission for fill in fills)


# --- what it says of itself -------------------------------------------------------------------------------------------


def test_every_broker_has_a_bench() -> None:
    assert {name.split()[0] for name in BENCHES} == set(BROKERS)
    with pytest.raises(UnknownNameError, match="Unknown broker 'ibkr'"):
        broker_entry("ibkr")


def test_it_says_what_it_is_and_which_account_it_speaks_for(name: str, bench: BrokerBench) -> None:
    broker, entry = bench.broker(), BROKERS[name.split()[0]]
    assert (broker.name, broker.real) == (name.split()[0], entry.real)
    assert broker.identity()
    assert broker.identity() == bench.broker().identity()
    assert {OrderKind.OPENING, OrderKind.MARKET, OrderKind.LIMIT} <= broker.traits.kinds
    assert broker.traits == bench.broker().traits


def test_its_windows_lie_between_the_close_before_and_the_close(bench: BrokerBench) -> None:
    broker = bench.broker()
    for kind in broker.traits.kinds:
        window = broker.window(kind, TUE, XNYS)
        assert XNYS.close(XNYS.previous(TUE)) <= window.start < window.end <= XNYS.close(TUE)
        assert window.start.utcoffset() == timedelta(0)
    opening = broker.window(OrderKind.OPENING, TUE, XNYS)
    assert opening.start <= NOW < opening.end <= XNYS.open(TUE)


def test_a_kind_it_does_not_take_is_refused_by_name(bench: BrokerBench) -> None:
    broker = bench.broker()
    for kind in set(OrderKind) - broker.traits.kinds:
        order = replace(make_order("AAA", Side.BUY, 10.0), kind=kind)
        with pytest.raises(UnknownNameError, match=rf"'{kind.value}'.*Allowed: limit, market, opening"):
            broker.submit(order)
        with pytest.raises(UnknownNameError, match=rf"'{kind.value}'"):
            broker.window(kind, TUE, XNYS)
        assert broker.order(order.client_order_id) is None


def test_a_new_account_holds_its_cash_and_nothing_else(bench: BrokerBench) -> None:
    broker = bench.broker()
    assert (broker.account().cash, broker.account().positions) == (CASH, ())
    assert (broker.orders(TUE), broker.open_orders(), broker.fills(TUE), broker.cash_flows(TUE)) == ([], [], [], [])


# --- an order's life --------------------------------------------------------------------------------------------------


def test_an_order_is_accepted_filled_and_remembered(bench: BrokerBench) -> None:
    broker = bench.broker()
    order = make_order("AAA", Side.BUY, 10.0)
    assert broker.order(order.client_order_id) is None
    assert broker.submit(order).status is OrderStatus.ACCEPTED
    assert (broker.fills(TUE), broker.account().cash) == ([], CASH)
    bench.play_open(TUE, {"AAA": 50.0})
    again = bench.broker()  # another process
    state = again.order(order.client_order_id)
    assert state is not None
    assert (state.status, state.filled_quantity, state.average_price) == (OrderStatus.FILLED, 10.0, 50.0)
    sent = state.order
    assert (sent.client_order_id, sent.symbol, sent.side, sent.quantity) == (
        *(order.client_order_id, "AAA", Side.BUY, 10.0),
    )
    assert again.orders(TUE) == [state]
    (fill,) = again.fills(TUE)
    assert (fill.client_order_id, fill.symbol, fill.side, fill.quantity, fill.price, fill.commission, fill.session) == (
        *(order.client_order_id, "AAA", Side.BUY, 10.0, 50.0, 0.0, TUE),
    )
    (position,) = again.account().positions
    assert (again.account().cash, position.symbol, position.quantity, position.average_price) == (
        *(CASH - 500.0, "AAA", 10.0, 50.0),
    )


@pytest.mark.parametrize("kind", [OrderKind.MARKET, OrderKind.LIMIT])
def test_other_kinds_fill_from_the_open_on(bench: BrokerBench, kind: OrderKind) -> None:
    limit = 51.0 if kind is OrderKind.LIMIT else None
    order = replace(make_order("AAA", Side.BUY, 10.0), kind=kind, limit_price=limit)
    bench.broker().submit(order)
    bench.play_open(TUE, {"AAA": 50.0})
    state = bench.broker().order(order.client_order_id)
    assert state is not None
    assert (state.status, state.average_price, state.order.kind) == (OrderStatus.FILLED, 50.0, kind)
    assert state.order.limit_price == limit


def test_a_limit_is_never_passed(bench: BrokerBench) -> None:
    limits = {"AAA": 49.0, "BBB": 50.0}
    orders = [
        replace(make_order(symbol, Side.BUY, 10.0), kind=OrderKind.LIMIT, limit_price=limit)
        for symbol, limit in limits.items()
    ]
    for order in orders:
        bench.broker().submit(order)
    bench.play_open(TUE, {"AAA": 50.0, "BBB": 50.0})
    assert [(fill.symbol, fill.price) for fill in bench.broker().fills(TUE)] == [("BBB", 50.0)]
    state = bench.broker().order(orders[0].client_order_id)
    assert state is not None
    assert (state.filled_quantity, state.average_price) == (0.0, None)


def test_a_sale_brings_its_cash_and_a_closed_position_is_gone(bench: BrokerBench) -> None:
    bought(bench, "BBB", "AAA")
    held = bench.broker().account()
    assert [(p.symbol, p.quantity) for p in held.positions] == [("AAA", 10.0), ("BBB", 10.0)]
    first = bench.broker().fills(TUE)
    assert {state.order.client_order_id for state in bench.broker().orders(TUE)} == {f.client_order_id for f in first}
    for symbol, quantity in (("AAA", 10.0), ("BBB", 4.0)):
        bench.broker().submit(replace(make_order(symbol, Side.SELL, quantity, WED), kind=OrderKind.OPENING))
    bench.play_open(WED, {"AAA": 60.0, "BBB": 40.0})
    account = bench.broker().account()
    assert [(p.symbol, p.quantity) for p in account.positions] == [("BBB", 6.0)]
    assert account.quantity("AAA") == 0.0
    assert account.cash == pytest.approx(CASH - 1_000.0 + 600.0 + 160.0, abs=1e-6)
    fills = bench.broker().fills(WED)
    assert account.cash == pytest.approx(CASH + paid(first) + paid(fills), abs=1e-6)
    filled = {f.client_order_id: f.quantity for f in fills}
    assert {s.order.client_order_id: s.filled_quantity for s in bench.broker().orders(WED)} == filled
    assert bench.broker().fills(TUE) == first


def test_open_orders_are_those_that_may_still_fill(bench: BrokerBench) -> None:
    orders = [make_order(symbol, Side.BUY, 10.0) for symbol in ("AAA", "BBB", "CCC")]
    for order in orders:
        bench.broker().submit(order)
    ids = sorted(order.client_order_id for order in orders)
    assert [state.order.client_order_id for state in bench.broker().open_orders()] == ids
    assert [state.order.client_order_id for state in bench.broker().orders(TUE)] == ids
    bench.broker().cancel(orders[0].client_order_id)
    left = sorted(order.client_order_id for order in orders[1:])
    assert [state.order.client_order_id for state in bench.broker().open_orders()] == left
    bench.play_open(TUE, {"AAA": 50.0, "BBB": 50.0, "CCC": 50.0})
    assert bench.broker().open_orders() == []
    assert [state.order.client_order_id for state in bench.broker().orders(TUE)] == ids


# --- one order, one id ------------------------------------------------------------------------------------------------


def test_a_known_id_is_refused_whatever_it_asks_for(bench: BrokerBench) -> None:
    broker = bench.broker()
    order = make_order("AAA", Side.BUY, 10.0)
    broker.submit(order)
    other = type(order)(order.client_order_id, "BBB", Side.BUY, 1.0, WED, 10.0)
    for again in (order, other):
        with pytest.raises(DuplicateOrderError, match="it was not sent twice"):
            broker.submit(again)
    bench.play_open(TUE, {"AAA": 50.0, "BBB": 50.0})
    with pytest.raises(DuplicateOrderError):
        broker.submit(order)
    assert [fill.symbol for fill in broker.fills(TUE)] == ["AAA"]
    assert broker.orders(WED) == []


def test_of_eight_racing_submits_of_one_id_one_goes_through(bench: BrokerBench) -> None:
    broker, barrier = bench.broker(), Barrier(8)
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


def test_a_canceled_order_is_not_filled_and_a_filled_one_not_canceled(bench: BrokerBench) -> None:
    broker = bench.broker()
    keep, drop = make_order("AAA", Side.BUY, 10.0), make_order("BBB", Side.BUY, 10.0)
    broker.submit(keep)
    broker.submit(drop)
    assert broker.cancel(drop.client_order_id).status is OrderStatus.CANCELED
    bench.play_open(TUE, {"AAA": 50.0, "BBB": 50.0})
    assert broker.cancel(drop.client_order_id).status is OrderStatus.CANCELED
    assert broker.cancel(keep.client_order_id).status is OrderStatus.FILLED
    assert [fill.symbol for fill in broker.fills(TUE)] == ["AAA"]
    with pytest.raises(UnknownNameError, match="never-sent"):
        broker.cancel("never-sent")

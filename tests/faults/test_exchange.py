"""The exchange keeps exact books: what it does to orders, by hand."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from exchange import CALM, Exchange, Habits
from exchange_broker import ExchangeBroker, Faults, Rates
from world import NYSE, SYMBOLS

from trading_core.errors import AmbiguousOrderError, DuplicateOrderError, OrderRefusedError
from trading_core.schema import Order, OrderKind, OrderStatus, Side

DAY = date(2024, 3, 5)
MORNING = NYSE.open(DAY) - timedelta(hours=1)


def exchange(habits: Habits = CALM, **traits: bool) -> Exchange:
    made = Exchange(
        NYSE, SYMBOLS, DAY, NYSE.close(NYSE.previous(DAY)) + timedelta(minutes=1), 1, habits=habits, **traits
    )
    made.advance(MORNING)
    return made


def order(quantity: float = 100.0, side: Side = Side.BUY, key: str = "one", **more: object) -> Order:
    return Order(key, "AAA", side, quantity, DAY, 100.0, **more)  # type: ignore[arg-type]


def test_a_buy_fills_at_the_open_and_cash_is_exact() -> None:
    market = exchange()
    market.submit(order())
    market.advance(NYSE.open(DAY))
    (fill,) = market.view.fills.values()
    assert market.view.positions == {"AAA": Decimal(100)}
    assert market.view.cash == Decimal(100_000) - 100 * fill.price
    assert market.view.orders["b1"].status is OrderStatus.FILLED


def test_an_id_is_taken_once_where_ids_are_unique() -> None:
    market = exchange()
    market.submit(order())
    with pytest.raises(DuplicateOrderError):
        market.submit(order())
    twice = exchange(unique_ids=False)
    twice.submit(order())
    twice.submit(order())
    assert len(twice.view.orders) == 2


def test_out_of_its_window_or_without_shares_an_order_is_refused() -> None:
    market = exchange()
    with pytest.raises(OrderRefusedError, match="0 shares are free"):
        market.submit(order(side=Side.SELL))
    market.advance(NYSE.open(DAY) - timedelta(minutes=2))
    with pytest.raises(OrderRefusedError, match="outside its window"):
        market.submit(order())
    assert [s.outcome for s in market.submissions] == ["refused", "late"]
    market.submit(order(kind=OrderKind.MARKET))  # which may still be sent


def test_a_split_restates_positions_and_open_orders() -> None:
    market = exchange(Habits(split=1.0, ratios=("3",)))
    market.submit(order())
    market.advance(NYSE.open(DAY))
    shares = market.view.positions["AAA"]
    market.advance(NYSE.open(NYSE.next(DAY)))
    assert market.view.positions["AAA"] == 3 * shares


def test_an_execution_after_a_cancellation_counts() -> None:
    market = exchange(Habits(unfilled=1.0, late_fill=1.0))
    market.submit(order(kind=OrderKind.MARKET))
    market.advance(NYSE.open(DAY) + timedelta(minutes=1))
    assert market.cancel("one").status is OrderStatus.PENDING_CANCEL
    market.advance(NYSE.open(DAY) + timedelta(minutes=10))
    held = market.view.orders["b1"]
    assert (held.status, held.filled) == (OrderStatus.CANCELED, Decimal(50))


def test_a_corrected_execution_keeps_its_id_and_moves_the_cash() -> None:
    market = exchange(Habits(corrected=1.0))
    market.submit(order())
    market.advance(NYSE.open(DAY))
    (before,) = market.view.fills.values()
    market.advance(NYSE.open(DAY) + timedelta(hours=1))
    (after,) = market.view.fills.values()
    assert after.fill_id == before.fill_id
    assert abs(after.price - before.price) == Decimal("0.01")
    assert market.view.cash == Decimal(100_000) - after.quantity * after.price


@pytest.mark.parametrize(("fault", "there"), [("lost_answer", 1), ("lost_order", 0)])
def test_a_lost_answer_is_an_order_and_a_lost_order_is_none(fault: str, there: int) -> None:
    market = exchange()
    broker = ExchangeBroker(market, Faults(Rates(**{fault: 1.0}), 1))
    with pytest.raises(AmbiguousOrderError):
        broker.submit(order())
    assert len(market.view.orders) == there


def test_a_late_order_arrives_after_its_sender_gave_up() -> None:
    market = exchange(visible_after_s=60.0)  # type: ignore[arg-type]
    broker = ExchangeBroker(market, Faults(Rates(late_order=1.0), 1))
    with pytest.raises(AmbiguousOrderError):
        broker.submit(order())
    assert broker.order("one") is None
    market.advance(MORNING + timedelta(minutes=2))
    assert broker.order("one") is not None


def test_a_stale_answer_is_what_was_true_before() -> None:
    market = exchange()
    market.submit(order())
    market.advance(MORNING + timedelta(minutes=5))
    assert market.view_at(MORNING - timedelta(seconds=1)).orders == {}
    assert len(market.view_at(MORNING + timedelta(seconds=1)).orders) == 1

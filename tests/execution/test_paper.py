"""The paper broker: hand-computed accounts, corporate actions, and everything that may happen twice."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from ledger_samples import ACCOUNT, FRI, MON, NOW, THU, TUE, WED, make_order

from trading_core.costs import FREE, CostModel
from trading_core.errors import LedgerUnreachableError, SessionOrderError
from trading_core.execution.codec import LedgerRecordError
from trading_core.execution.paper import PaperBroker
from trading_core.execution.store import DocumentStore, open_store
from trading_core.schema import ActionKind, CorporateAction, Order, OrderStatus, Position, Side

BUY, SELL = Side.BUY, Side.SELL
COSTS = CostModel(commission_bps=10.0, half_spread_bps=5.0, slippage_bps=5.0)


@pytest.fixture
def documents(tmp_path: Path) -> Iterator[DocumentStore]:
    store = open_store(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield store
    store.close()


def new_broker(
    documents: DocumentStore, capital: float = 1_000.0, costs: CostModel = FREE, fractional: bool = True
) -> PaperBroker:
    return PaperBroker(documents, ACCOUNT, capital, costs, fractional)


def holding_ten_aaa(documents: DocumentStore) -> PaperBroker:
    """1,000 of cash, 10 AAA bought at 50 on Tuesday: cash 500."""
    broker = new_broker(documents)
    broker.submit(make_order("AAA", BUY, 10.0))
    broker.settle_open(TUE, {"AAA": 50.0}, (), NOW)
    return broker


def test_costs_and_average_cost_by_hand(documents: DocumentStore) -> None:
    broker = new_broker(documents, 10_000.0, COSTS)
    # Buy 10 at 100: price 100 * 1.001 = 100.1, commission 0.001 * 1001 = 1.001, paid 1002.001.
    broker.submit(make_order("AAA", BUY, 10.0, TUE))
    (fill,) = broker.settle_open(TUE, {"AAA": 100.0}, (), NOW)
    assert (fill.price, fill.commission) == (pytest.approx(100.1, abs=1e-12), pytest.approx(1.001, abs=1e-12))
    assert fill.filled_at == NOW
    account = broker.account()
    assert account.cash == pytest.approx(8_997.999, abs=1e-9)
    assert account.positions == (Position("AAA", 10.0, pytest.approx(100.2001, abs=1e-12)),)
    # Sell 4 at 110: price 109.89, commission 0.43956, received 439.12044; the cost of the rest stays.
    broker.submit(make_order("AAA", SELL, 4.0, WED))
    broker.settle_open(WED, {"AAA": 110.0}, (), NOW)
    assert broker.account().cash == pytest.approx(9_437.11944, abs=1e-9)
    assert broker.account().positions == (Position("AAA", 6.0, pytest.approx(100.2001, abs=1e-12)),)
    # Buy 6 at 90: price 90.09, commission 0.54054, paid 541.08054; (6 * 100.2001 + 541.08054) / 12 = 95.190095.
    broker.submit(make_order("AAA", BUY, 6.0, THU))
    broker.settle_open(THU, {"AAA": 90.0}, (), NOW)
    assert broker.account().cash == pytest.approx(8_896.0389, abs=1e-9)
    assert broker.account().positions == (Position("AAA", 12.0, pytest.approx(95.190095, abs=1e-9)),)


def test_sells_pay_for_buys_and_short_cash_shrinks_all_buys_alike(documents: DocumentStore) -> None:
    broker = holding_ten_aaa(documents)
    sell = make_order("AAA", SELL, 10.0, WED)
    buys = [make_order("BBB", BUY, 20.0, WED), make_order("CCC", BUY, 10.0, WED)]
    for order in (*buys, sell):
        broker.submit(order)
    broker.settle_open(WED, {"AAA": 60.0, "BBB": 40.0, "CCC": 40.0}, (), NOW)
    # Cash 500 + 600 = 1,100 for buys of 1,200: each takes 11/12, rounded down to 1e-6 shares.
    assert broker.account().positions == (Position("BBB", 18.333333, 40.0), Position("CCC", 9.166666, 40.0))
    assert broker.account().cash == pytest.approx(0.00004, abs=1e-9)
    states = {state.order.symbol: state for state in broker.orders(WED)}
    assert states["AAA"].status is OrderStatus.FILLED
    assert (states["BBB"].status, states["BBB"].filled_quantity) == (OrderStatus.EXPIRED, 18.333333)
    assert "cash was short" in states["BBB"].reason
    assert sum(fill.quantity for fill in broker.fills(WED) if fill.symbol == "CCC") == states["CCC"].filled_quantity


def test_whole_shares_shrink_to_whole_shares(documents: DocumentStore) -> None:
    broker = new_broker(documents, 100.0, fractional=False)
    broker.submit(make_order("AAA", BUY, 3.0))
    broker.settle_open(TUE, {"AAA": 40.0}, (), NOW)
    assert broker.account().positions == (Position("AAA", 2.0, 40.0),)
    assert broker.account().cash == 20.0


def test_an_order_is_pending_until_its_session_is_settled_and_expires_without_a_bar(documents: DocumentStore) -> None:
    broker = new_broker(documents)
    order = make_order("AAA", BUY, 10.0, TUE)
    broker.submit(order)
    broker.settle_open(MON, {"AAA": 50.0}, (), NOW)  # the session before: not its open
    assert broker.order(order.client_order_id).status is OrderStatus.ACCEPTED
    assert broker.settle_open(TUE, {"BBB": 50.0, "AAA": float("nan")}, (), NOW) == []
    state = broker.order(order.client_order_id)
    assert (state.status, state.filled_quantity, state.reason) == (OrderStatus.EXPIRED, 0.0, "no trade at the open")
    assert broker.account().cash == 1_000.0


def test_settling_again_changes_nothing(documents: DocumentStore) -> None:
    broker = holding_ten_aaa(documents)
    fills, account = broker.fills(TUE), broker.account()
    dividend = CorporateAction("AAA", TUE, ActionKind.DIVIDEND, 1.0)
    assert broker.settle_open(TUE, {"AAA": 99.0}, (dividend,), NOW) == fills
    assert new_broker(documents).settle_open(TUE, {}, (), NOW) == fills
    assert broker.account() == account
    assert broker.settled_through() == TUE


def test_eight_settlements_at_once_are_one(documents: DocumentStore) -> None:
    broker, barrier = new_broker(documents), Barrier(8)
    broker.submit(make_order("AAA", BUY, 10.0))

    def settle(number: int) -> float:
        barrier.wait()
        (fill,) = new_broker(documents).settle_open(TUE, {"AAA": 50.0 + number}, (), NOW)
        return fill.price

    with ThreadPoolExecutor(8) as pool:
        prices = set(pool.map(settle, range(8)))
    assert len(prices) == 1
    assert broker.account().cash == 1_000.0 - 10.0 * prices.pop()


def test_two_sessions_settled_at_once_never_follow_the_same_book(documents: DocumentStore) -> None:
    broker, barrier = new_broker(documents), Barrier(4)
    days = [TUE, WED, THU, FRI]
    for day in days:
        broker.submit(make_order("AAA", BUY, 1.0, day))

    def settle(number: int) -> bool:
        barrier.wait()
        try:
            return len(new_broker(documents).settle_open(days[number], {"AAA": 10.0}, (), NOW)) == 1
        except SessionOrderError:
            return False

    with ThreadPoolExecutor(4) as pool:
        settled = sum(pool.map(settle, range(4)))
    assert broker.account().quantity("AAA") == settled  # every book that was written counts
    assert broker.account().cash == 1_000.0 - 10.0 * settled
    assert broker.settled_through() == FRI


def test_a_crash_before_the_book_is_written_leaves_the_account_as_it_was(documents: DocumentStore) -> None:
    broker = new_broker(documents)
    broker.submit(make_order("AAA", BUY, 10.0))

    class Dying:
        """The store of a process that dies at its transaction."""

        url = documents.url
        get, query, put_new = documents.get, documents.query, documents.put_new

        def transact_new(self, items: object) -> bool:
            raise LedgerUnreachableError(self.url, "killed")

    with pytest.raises(LedgerUnreachableError):
        new_broker(Dying()).settle_open(TUE, {"AAA": 50.0}, (), NOW)
    assert broker.settled_through() is None
    assert broker.order(make_order("AAA", BUY, 10.0).client_order_id).status is OrderStatus.ACCEPTED
    broker.settle_open(TUE, {"AAA": 50.0}, (), NOW)
    assert broker.account().positions == (Position("AAA", 10.0, 50.0),)


def test_a_split_overnight_converts_holdings_orders_and_cost(documents: DocumentStore) -> None:
    broker = holding_ten_aaa(documents)
    order = make_order("AAA", SELL, 5.0, WED)  # half of it, decided at 100 a share
    broker.submit(order)
    split = CorporateAction("AAA", WED, ActionKind.SPLIT, 2.0)
    (fill,) = broker.settle_open(WED, {"AAA": 30.0}, (split,), NOW)
    assert (fill.quantity, fill.price) == (10.0, 30.0)
    assert broker.account().positions == (Position("AAA", 10.0, 25.0),)
    assert broker.account().cash == 800.0
    state = broker.order(order.client_order_id)
    assert (state.status, state.order.quantity, state.order.reference_price) == (OrderStatus.FILLED, 10.0, 50.0)


def test_dividends_and_delistings_pay_cash_without_any_order(documents: DocumentStore) -> None:
    broker = holding_ten_aaa(documents)
    events = (
        CorporateAction("AAA", WED, ActionKind.DIVIDEND, 1.5),
        CorporateAction("ZZZ", WED, ActionKind.DIVIDEND, 9.0),
    )
    assert broker.settle_open(WED, {"AAA": 48.5}, events, NOW) == []
    assert broker.account().cash == 515.0
    sell = make_order("AAA", SELL, 10.0, THU)
    broker.submit(sell)
    broker.settle_open(THU, {}, (CorporateAction("AAA", THU, ActionKind.DELISTING, 7.0),), NOW)
    assert broker.account().positions == ()
    assert broker.account().cash == 585.0
    assert broker.order(sell.client_order_id).status is OrderStatus.EXPIRED


def test_another_sessions_actions_are_refused(documents: DocumentStore) -> None:
    broker = holding_ten_aaa(documents)
    with pytest.raises(LedgerRecordError, match=r"of other sessions: .*AAA 2024-01-09"):
        broker.settle_open(WED, {}, (CorporateAction("AAA", TUE, ActionKind.SPLIT, 2.0),), NOW)
    assert broker.settled_through() == TUE


def test_sessions_settle_in_order(documents: DocumentStore) -> None:
    broker = holding_ten_aaa(documents)
    broker.settle_open(THU, {}, (), NOW)
    with pytest.raises(SessionOrderError, match="a later session of this paper account is already settled"):
        broker.settle_open(WED, {}, (), NOW)


def test_an_order_for_a_settled_session_comes_too_late(documents: DocumentStore) -> None:
    broker = holding_ten_aaa(documents)
    late = broker.submit(make_order("BBB", BUY, 1.0, TUE))
    assert (late.status, late.reason) == (OrderStatus.EXPIRED, "its session was already settled when it came")
    assert [state.order.symbol for state in broker.orders(TUE) if state.status is OrderStatus.FILLED] == ["AAA"]
    assert broker.account().quantity("BBB") == 0.0


def test_an_account_keeps_the_capital_it_was_opened_with(documents: DocumentStore) -> None:
    new_broker(documents, 1_000.0).submit(make_order("AAA", BUY, 10.0))
    assert new_broker(documents, 5_000.0).account().cash == 1_000.0
    new_broker(documents, 5_000.0).settle_open(TUE, {"AAA": 50.0}, (), NOW)
    assert new_broker(documents, 7_000.0).account().cash == 500.0


@pytest.mark.parametrize(
    ("quantity", "order_id"), [(0.0, "a"), (-1.0, "a"), (float("nan"), "a"), (1.0, ""), (1.0, "x" * 49)]
)
def test_orders_no_broker_would_take_are_refused(documents: DocumentStore, quantity: float, order_id: str) -> None:
    with pytest.raises(LedgerRecordError, match="order of AAA"):
        new_broker(documents).submit(Order(order_id, "AAA", BUY, quantity, TUE, 100.0))

"""The paper broker: hand-computed accounts, corporate actions, and everything that may happen twice."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest
from ledger_samples import ACCOUNT, FRI, MON, NOW, THU, TUE, WED, make_order

from trading_core.costs import FREE, CostModel
from trading_core.errors import DuplicateOrderError, LedgerUnreachableError, OrderRefusedError, SessionOrderError
from trading_core.execution import paper
from trading_core.execution.broker import OrderWindow
from trading_core.execution.codec import LedgerRecordError
from trading_core.execution.paper import PaperBroker
from trading_core.execution.store import DocumentStore, open_store
from trading_core.portfolio.auction import Liquidity
from trading_core.portfolio.overnight import Night
from trading_core.schema import ActionKind, CorporateAction, Order, OrderKind, OrderStatus, Position, Side
from trading_core.sessions import Sessions

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


def test_an_order_for_a_settled_session_is_refused_and_leaves_no_trace(documents: DocumentStore) -> None:
    broker = holding_ten_aaa(documents)
    late = make_order("BBB", BUY, 1.0, TUE)
    with pytest.raises(OrderRefusedError, match=r"'paper' refuses the order .*: its session was already settled"):
        broker.submit(late)
    assert broker.order(late.client_order_id) is None
    assert [state.order.symbol for state in broker.orders(TUE)] == ["AAA"]
    with pytest.raises(DuplicateOrderError):  # a replay that sends again what it sent before is told so, as ever
        broker.submit(make_order("AAA", BUY, 10.0))


def test_an_order_that_arrives_while_its_session_is_settled_expires(documents: DocumentStore) -> None:
    broker = new_broker(documents)
    order = make_order("AAA", BUY, 10.0)

    class Overtaken:
        """The store of a process that is overtaken by a settlement right before it writes its order."""

        url = documents.url
        get, query, put_new = documents.get, documents.query, documents.put_new

        def transact_new(self, items: object) -> bool:
            new_broker(documents).settle_open(TUE, {"AAA": 50.0}, (), NOW)
            return documents.transact_new(items)

    state = new_broker(Overtaken()).submit(order)
    assert (state.status, state.reason) == (OrderStatus.EXPIRED, "its session was already settled when it came")
    assert (broker.open_orders(), broker.fills(TUE), broker.account().positions) == ([], [], ())


def test_open_orders_of_every_session_to_come_are_found_behind_many_old_ones(
    documents: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper, "PAGE", 2)  # so that five orders take three pages
    broker = new_broker(documents)
    for symbol in ("AAA", "BBB", "CCC"):
        broker.submit(make_order(symbol, BUY, 1.0, TUE))
    broker.settle_open(TUE, dict.fromkeys(("AAA", "BBB", "CCC"), 10.0), (), NOW)
    assert broker.open_orders() == []
    to_come = [make_order("AAA", SELL, 1.0, WED), make_order("DDD", BUY, 1.0, THU), make_order("EEE", BUY, 1.0, THU)]
    for order in to_come:
        broker.submit(order)
    broker.cancel(to_come[2].client_order_id)
    found = [state.order.client_order_id for state in broker.open_orders()]
    assert found == sorted(order.client_order_id for order in to_come[:2])


# --- kinds of orders --------------------------------------------------------------------------------------------------


def at_limit(symbol: str, side: Side, limit: float, session: date = TUE, quantity: float = 10.0) -> Order:
    return replace(make_order(symbol, side, quantity, session), kind=OrderKind.LIMIT, limit_price=limit)


def test_a_limit_binds_the_price_paid_with_its_costs(documents: DocumentStore) -> None:
    """10 bps of half spread and slippage: a buy at an open of 100 pays 100.1, a sale brings 99.9. The commission of 10 bps
    comes on top and is no part of the price."""
    broker = new_broker(documents, 10_000.0, COSTS)
    broker.submit(make_order("SOLD", BUY, 20.0, MON))
    broker.settle_open(MON, {"SOLD": 100.0}, (), NOW)
    orders = [at_limit("HIGH", BUY, 100.11), at_limit("LOW", BUY, 100.09), at_limit("SOLD", SELL, 99.91)]
    for order in orders:
        broker.submit(order)
    broker.settle_open(TUE, dict.fromkeys(("HIGH", "LOW", "SOLD"), 100.0), (), NOW)
    (fill,) = broker.fills(TUE)
    assert (fill.symbol, fill.price) == ("HIGH", pytest.approx(100.1, abs=1e-12))
    states = {state.order.symbol: state for state in broker.orders(TUE)}
    assert {symbol: state.status for symbol, state in states.items()} == {
        "HIGH": OrderStatus.FILLED, "LOW": OrderStatus.EXPIRED, "SOLD": OrderStatus.EXPIRED,
    }  # fmt: skip
    assert states["LOW"].reason == "the open was above its limit: 100.1 with its costs, the limit 100.09"
    assert states["SOLD"].reason == "the open was below its limit: 99.9 with its costs, the limit 99.91"
    assert states["LOW"].filled_quantity == 0.0
    broker.submit(at_limit("SOLD", SELL, 99.89, WED))
    assert [f.price for f in broker.settle_open(WED, {"SOLD": 100.0}, (), NOW)] == [pytest.approx(99.9, abs=1e-12)]


def test_the_impact_counts_for_a_limit_and_the_volume_cap_for_its_size(documents: DocumentStore) -> None:
    # A tenth of 1,000 shares can be had: their impact is 2 % * sqrt(100 / 10000) = 0.2 %; that of all 400 is 0.4 %.
    costs = CostModel(0, 0, 0, impact_coefficient=1.0, max_participation=0.1)
    known = {"AAA": Liquidity(sigma=0.02, adv=10_000.0, volume=1_000.0)}
    for number, (limit, filled) in enumerate([(100.19, 0.0), (100.21, 100.0)]):
        broker = PaperBroker(documents, f"cap-{number}", 1e6, costs)
        broker.submit(at_limit("AAA", BUY, limit, quantity=400.0))
        broker.settle_open(TUE, {"AAA": 100.0}, (), NOW, Night(liquidity=known))
        (state,) = broker.orders(TUE)
        assert (state.status, state.filled_quantity) == (OrderStatus.EXPIRED, filled)


def test_cash_that_a_limit_keeps_out_is_there_for_the_other_buys(documents: DocumentStore) -> None:
    broker = new_broker(documents, 1_000.0)
    broker.submit(at_limit("AAA", BUY, 49.0, quantity=20.0))
    broker.submit(make_order("BBB", BUY, 20.0))
    broker.settle_open(TUE, {"AAA": 50.0, "BBB": 50.0}, (), NOW)
    assert broker.account().positions == (Position("BBB", 20.0, 50.0),)


def test_a_split_overnight_restates_a_limit(documents: DocumentStore) -> None:
    broker = holding_ten_aaa(documents)
    broker.submit(at_limit("AAA", SELL, 58.0, WED, quantity=5.0))  # 29 a share after the split
    split = CorporateAction("AAA", WED, ActionKind.SPLIT, 2.0)
    (fill,) = broker.settle_open(WED, {"AAA": 29.5}, (split,), NOW)
    assert (fill.quantity, fill.price) == (10.0, 29.5)
    (state,) = broker.orders(WED)
    assert state.order.limit_price == 29.0


def test_a_limit_order_whose_symbol_did_not_trade_expires_as_any_other(documents: DocumentStore) -> None:
    broker = new_broker(documents)
    broker.submit(at_limit("AAA", BUY, 50.0))
    broker.settle_open(TUE, {}, (), NOW)
    assert [state.reason for state in broker.orders(TUE)] == ["no trade at the open"]


@pytest.mark.parametrize("limit", [None, 0.0, float("nan")])
def test_a_limit_order_without_a_limit_is_refused(documents: DocumentStore, limit: float | None) -> None:
    order = replace(make_order("AAA", BUY, 1.0), kind=OrderKind.LIMIT, limit_price=limit)
    with pytest.raises(LedgerRecordError, match=rf"order of AAA: its limit price is {limit}; it must be above 0"):
        new_broker(documents).submit(order)


def test_its_window_reaches_from_the_close_before_to_the_deadline(documents: DocumentStore) -> None:
    class Lenient(Sessions):
        """As a market that never closes: what trades at the open may be sent for a while after it."""

        def deadline(self, session: date) -> datetime:
            return self.open(session) + timedelta(hours=2)

    closed, opened = datetime(2024, 1, 8, 21, 0, tzinfo=UTC), datetime(2024, 1, 9, 14, 30, tzinfo=UTC)
    broker = new_broker(documents)
    assert broker.window(OrderKind.OPENING, TUE, Sessions("XNYS")) == OrderWindow(closed, opened)
    assert broker.window(OrderKind.LIMIT, TUE, Lenient("XNYS")) == OrderWindow(closed, opened + timedelta(hours=2))


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

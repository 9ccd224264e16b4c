"""What Alpaca's answers mean, and whole sessions against a local stand-in."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ledger_samples import ACCOUNT, FRI, MON, NOW, THU, TUE, WED

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # alpaca_trading_server is a program beside the tests, not a package

from alpaca_samples import (  # noqa: E402
    DURING,
    KEY,
    SESSIONS,
    at_market,
    broker_at,
    order,
)
from alpaca_trading_server import AlpacaTradingServer  # noqa: E402

from trading_core.errors import (  # noqa: E402
    BrokerUnreachableError,
)
from trading_core.execution import alpaca_json  # noqa: E402
from trading_core.execution.alpaca import AlpacaBroker  # noqa: E402
from trading_core.execution.alpaca_calls import AlpacaAccess  # noqa: E402
from trading_core.schema import AccountState, CashFlowKind, OrderKind, OrderStatus, Position, Side  # noqa: E402


@pytest.fixture
def server() -> Iterator[AlpacaTradingServer]:
    with AlpacaTradingServer(NOW, cash="10000") as running:
        yield running


# --- what an answer means -----------------------------------------------------------------------------------------------


def test_every_status_of_the_sdk_is_in_the_table() -> None:
    from alpaca.trading.enums import OrderStatus as Theirs

    assert {status.value for status in Theirs} == set(alpaca_json.STATUSES)
    ended = {name for name, status in alpaca_json.STATUSES.items() if status.terminal}
    assert ended == {"filled", "canceled", "expired", "rejected", "replaced", "done_for_day"}


ROW = {
    "id": "61e69015-8549-4bfd-b9c3-01e75843f47d", "client_order_id": "x", "submitted_at": "2024-01-09T14:00:00.123456789Z",
    "symbol": "AAA", "side": "buy", "type": "market", "time_in_force": "day", "qty": "10", "filled_qty": "0",
    "filled_avg_price": None, "limit_price": None, "notional": None, "status": "new",
}  # fmt: skip
TOLD: list[tuple[dict[str, object], OrderStatus, float, OrderKind]] = [
    ({}, OrderStatus.ACCEPTED, 0.0, OrderKind.MARKET),
    ({"filled_qty": "4", "filled_avg_price": "10.5"}, OrderStatus.PARTIALLY_FILLED, 4.0, OrderKind.MARKET),
    ({"status": "done_for_day"}, OrderStatus.EXPIRED, 0.0, OrderKind.MARKET),
    ({"status": "done_for_day", "time_in_force": "gtc"}, OrderStatus.ACCEPTED, 0.0, OrderKind.MARKET),
    ({"status": "filled", "filled_qty": "10.000", "filled_avg_price": "1"}, OrderStatus.FILLED, 10.0, OrderKind.MARKET),
    ({"status": "canceled", "filled_qty": "3", "filled_avg_price": "1"}, OrderStatus.CANCELED, 3.0, OrderKind.MARKET),
    ({"status": "pending_cancel", "time_in_force": "opg"}, OrderStatus.PENDING_CANCEL, 0.0, OrderKind.OPENING),
    ({"status": "held", "type": "stop", "stop_price": "5"}, OrderStatus.ACCEPTED, 0.0, OrderKind.MARKET),
    ({"type": "limit", "limit_price": "7", "time_in_force": "gtc"}, OrderStatus.ACCEPTED, 0.0, OrderKind.LIMIT),
]


@pytest.mark.parametrize(("change", "status", "filled", "kind"), TOLD, ids=range(len(TOLD)))
def test_an_order_is_told_as_it_stands(
    change: dict[str, object], status: OrderStatus, filled: float, kind: OrderKind
) -> None:
    state = alpaca_json.order_state(ROW | change, SESSIONS)
    assert (state.status, state.filled_quantity, state.order.kind) == (status, filled, kind)
    assert math.isnan(state.order.reference_price)
    ended = status in (OrderStatus.CANCELED, OrderStatus.EXPIRED)
    assert state.reason == (f"Alpaca says '{change['status']}'" if ended else "")


def test_an_order_for_an_amount_has_no_quantity_until_it_fills() -> None:
    bought = {"qty": None, "notional": "100"}
    assert math.isnan(alpaca_json.order_state(ROW | bought, SESSIONS).order.quantity)
    filled = {"filled_qty": "1.5", "filled_avg_price": "66.6", "status": "filled"}
    assert alpaca_json.order_state(ROW | bought | filled, SESSIONS).order.quantity == 1.5


WRONG: list[tuple[dict[str, object], str]] = [
    ({"qty": "1e3"}, "'qty' is no number: '1e3'"),
    ({"qty": "NaN"}, "'qty' is no number"),
    ({"qty": "1_0"}, "'qty' is no number"),
    ({"qty": "١٠"}, "'qty' is no number"),
    ({"qty": True}, "'qty' is no number: True"),
    ({"qty": None}, "neither 'qty' nor 'notional'"),
    ({"filled_qty": "11", "filled_avg_price": "1"}, "an order of 10 has filled_qty 11"),
    ({"filled_qty": "-1"}, "an order of 10 has filled_qty -1"),
    ({"filled_qty": "1"}, "'filled_avg_price' is no number: None"),
    ({"status": "filled", "filled_qty": "9", "filled_avg_price": "1"}, "an order of 10 is 'filled' with filled_qty 9"),
    ({"side": "hold"}, "'side' is 'hold'"),
    ({"symbol": ""}, "the answer has no 'symbol'"),
    ({"id": "../account"}, "'id' is no id"),
    ({"submitted_at": "yesterday"}, "'submitted_at' is no instant"),
    ({"submitted_at": "2024-01-09T14:00:00"}, "'submitted_at' has no zone"),
]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=range(len(WRONG)))
def test_what_is_no_order_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(alpaca_json.Malformed) as caught:
        alpaca_json.order_state(ROW | change, SESSIONS)
    assert words in str(caught.value)


def test_positions_come_with_either_sign(server: AlpacaTradingServer) -> None:
    held = {"avg_entry_price": "10.5"}
    rows = [
        {"symbol": "CCC", "qty": "-3", "side": "short", **held},
        {"symbol": "BBB", "qty": "2.5", "side": "short", **held},
        {"symbol": "AAA", "qty": "0.000001", "side": "long", **held},
        {"symbol": "ZZZ", "qty": "0", "side": "long", **held},
    ]
    assert alpaca_json.positions_of(rows) == (
        Position("AAA", 1e-6, 10.5), Position("BBB", -2.5, 10.5), Position("CCC", -3.0, 10.5),
    )  # fmt: skip
    for row, words in [
        ({"symbol": "A", "qty": "-1", "side": "long", **held}, "a position of A has side 'long' and qty -1"),
        ({"symbol": "A", "qty": "1", "side": "flat", **held}, "a position of A has side 'flat'"),
        ({"symbol": "A", "qty": "1", "side": "long", "avg_entry_price": ""}, "'avg_entry_price' is no number"),
    ]:
        with pytest.raises(alpaca_json.Malformed) as caught:
            alpaca_json.positions_of([row])
        assert words in str(caught.value)
    with pytest.raises(alpaca_json.Malformed, match="BBB has two positions"):
        alpaca_json.positions_of([rows[1], rows[1]])


class MovingServer(AlpacaTradingServer):
    """Its cash moves by a dollar with each of the next `moves` questions for its positions."""

    moves = 0

    def _positions(self) -> Any:
        self.cash += 1 if self.moves > 0 else 0
        self.moves -= 1
        return super()._positions()


def test_cash_and_positions_belong_together() -> None:
    """A fill between the two questions would count twice, or not at all."""
    with MovingServer(NOW, cash="10000") as server:
        server.moves = 2
        assert broker_at(server).account() == AccountState(ACCOUNT, 10_002.0, ())
        server.moves = 3
        with pytest.raises(BrokerUnreachableError, match="its cash moved each time while its positions were asked for"):
            broker_at(server).account()


# --- a session ----------------------------------------------------------------------------------------------------------


def test_a_session_of_sells_at_the_open_and_buys_after_it(server: AlpacaTradingServer) -> None:
    """Figures by hand: 10,000 + 10 x 60 - 7 x 20 - 3 x 21 - 5 x 30.5 (the limit order) = 10,244.5."""
    from decimal import Decimal

    server.positions["AAA"] = [Decimal(10), Decimal(50)]
    broker = broker_at(server)
    selling = order("AAA", Side.SELL)
    broker.submit(selling)
    server.open_market(TUE, {"AAA": 60.0, "BBB": 20.0, "CCC": 30.0})
    buying = at_market("BBB")
    capped = order("CCC", quantity=5.0, kind=OrderKind.LIMIT, limit_price=30.5)
    for asked in (buying, capped):
        broker.submit(asked)
    server.now += timedelta(minutes=1)
    server.trade({"BBB": 20.0, "CCC": 31.0}, liquidity={"BBB": 7.0})
    part = broker.order(buying.client_order_id)
    assert part is not None
    assert (part.status, part.filled_quantity, part.average_price) == (OrderStatus.PARTIALLY_FILLED, 7.0, 20.0)
    open_ids = {state.order.client_order_id for state in broker.open_orders()}
    assert open_ids == {buying.client_order_id, capped.client_order_id}
    server.now += timedelta(minutes=1)
    server.trade({"BBB": 21.0, "CCC": 30.5})
    states = {state.order.symbol: state for state in broker.orders(TUE)}
    assert {symbol: state.status for symbol, state in states.items()} == dict.fromkeys(
        ["AAA", "BBB", "CCC"], OrderStatus.FILLED
    )
    assert states["BBB"].average_price == pytest.approx((7 * 20 + 3 * 21) / 10)
    assert broker.account() == AccountState(
        ACCOUNT, 10_244.5, (Position("BBB", 10.0, 20.3), Position("CCC", 5.0, 30.5))
    )
    fills = broker.fills(TUE)
    assert [(f.symbol, f.side, f.quantity, f.price, f.commission, f.session) for f in fills] == [
        ("AAA", Side.SELL, 10.0, 60.0, 0.0, TUE),
        ("BBB", Side.BUY, 7.0, 20.0, 0.0, TUE),
        ("BBB", Side.BUY, 3.0, 21.0, 0.0, TUE),
        ("CCC", Side.BUY, 5.0, 30.5, 0.0, TUE),
    ]
    assert [f.client_order_id for f in fills] == [
        selling.client_order_id, buying.client_order_id, buying.client_order_id, capped.client_order_id,
    ]  # fmt: skip
    assert fills[0].filled_at == datetime(2024, 1, 9, 14, 30, 1, tzinfo=UTC)
    assert (broker.fills(MON), broker.fills(WED), broker.orders(WED), broker.open_orders()) == ([], [], [], [])


def test_the_closing_auction_prints_after_the_close(server: AlpacaTradingServer) -> None:
    server.now = DURING
    broker, asked = broker_at(server), order(kind=OrderKind.CLOSING)
    broker.submit(asked)
    broker.submit(at_market("BBB"))
    server.close_market(TUE, {"AAA": 50.0})
    assert [(f.symbol, f.filled_at) for f in broker.fills(TUE)] == [("AAA", datetime(2024, 1, 9, 21, 0, 2, tzinfo=UTC))]
    assert {s.order.symbol: (s.status, s.reason) for s in broker.orders(TUE)} == {
        "AAA": (OrderStatus.FILLED, ""),
        "BBB": (OrderStatus.EXPIRED, "Alpaca says 'expired'"),
    }


def test_what_the_auction_does_not_fill_is_cancelled(server: AlpacaTradingServer) -> None:
    broker = broker_at(server)
    broker.submit(order())
    server.open_market(TUE, {"AAA": 50.0}, liquidity={"AAA": 4.0})
    (state,) = broker.orders(TUE)
    assert (state.status, state.filled_quantity, state.average_price) == (OrderStatus.CANCELED, 4.0, 50.0)


def test_a_cancellation_tells_what_the_order_is_afterwards(server: AlpacaTradingServer) -> None:
    broker = broker_at(server)
    broker.submit(order())
    broker.submit(order("BBB"))
    assert broker.cancel(KEY).status is OrderStatus.CANCELED
    assert broker.cancel(KEY).status is OrderStatus.CANCELED
    assert len(server.asked("cancel")) == 1  # an ended order is not cancelled again
    server.inject("cancel", "422")  # in the auction already: it can no longer be cancelled
    assert broker.cancel(order("BBB").client_order_id).status is OrderStatus.ACCEPTED
    server.open_market(TUE, {"BBB": 50.0})
    assert broker.cancel(order("BBB").client_order_id).status is OrderStatus.FILLED


def test_a_session_sees_orders_of_strangers_from_close_to_close(server: AlpacaTradingServer) -> None:
    body = {"symbol": "AAA", "side": "buy", "type": "limit", "time_in_force": "gtc", "qty": "1", "limit_price": "3"}
    close = datetime(2024, 1, 8, 21, 0, tzinfo=UTC)
    for name, instant in [
        ("before", close - timedelta(microseconds=1)),
        ("first", close),
        ("last", datetime(2024, 1, 9, 20, 59, 59, 999_999, tzinfo=UTC)),
        ("after", datetime(2024, 1, 9, 21, 0, tzinfo=UTC)),
    ]:
        server.now = instant
        server.add_order({**body, "client_order_id": name})
    broker = broker_at(server)
    names = [[s.order.client_order_id for s in broker.orders(day)] for day in (MON, TUE, WED)]
    assert names == [["before"], ["first", "last"], ["after"]]
    assert len(broker.open_orders()) == 4


def test_no_page_limit_hides_an_order(server: AlpacaTradingServer) -> None:
    """620 orders, of which 260 came in one instant, on both sides of the first page's end."""
    body = {"symbol": "AAA", "side": "buy", "type": "market", "time_in_force": "day", "qty": "1"}
    for i in range(620):
        server.now = NOW + timedelta(seconds=min(i, 300) if i < 560 else i)
        server.add_order({**body, "client_order_id": f"t{i:03d}"})
    broker = broker_at(server)
    expected = [f"t{i:03d}" for i in range(620)]
    assert [state.order.client_order_id for state in broker.orders(TUE)] == expected
    assert [state.order.client_order_id for state in broker.open_orders()] == expected
    assert all(query["limit"] == "500" for query in server.asked("orders"))
    server.largest_page = 300
    assert len(broker.orders(TUE)) == 620  # it gives fewer than are asked for
    server.largest_page = 500
    for i in range(620, 900):
        server.now = NOW + timedelta(seconds=300)
        server.add_order({**body, "client_order_id": f"t{i:03d}"})
    with pytest.raises(
        BrokerUnreachableError, match="it lists nothing new, or not in order, after 2024-01-09 13:05:00"
    ):
        broker.open_orders()


def test_no_page_limit_hides_a_fill(server: AlpacaTradingServer) -> None:
    server.now = DURING
    broker = broker_at(server)
    broker.submit(at_market(quantity=250.0))
    for _ in range(250):
        server.trade({"AAA": 5.0}, liquidity={"AAA": 1.0})
    fills = broker.fills(TUE)
    assert (len({fill.fill_id for fill in fills}), sum(fill.quantity for fill in fills)) == (250, 250.0)
    assert [query.get("page_token") is None for query in server.asked("fills")] == [True, False, False, False]


def test_a_restated_fill_keeps_its_id(server: AlpacaTradingServer) -> None:
    broker = broker_at(server)
    broker.submit(order())
    server.open_market(TUE, {"AAA": 50.0})
    (before,) = broker.fills(TUE)
    server.restate(before.fill_id, "49")
    (after,) = broker.fills(TUE)
    assert after == dataclasses.replace(before, price=49.0)
    assert broker.account().cash == 10_000.0 - 490.0


def test_a_fill_of_an_older_order_is_asked_for_and_found(server: AlpacaTradingServer) -> None:
    body = {"symbol": "AAA", "side": "buy", "type": "market", "time_in_force": "day", "qty": "1"}
    server.now = datetime(2024, 1, 4, 15, 0, tzinfo=UTC)
    server.add_order({**body, "client_order_id": "long-ago"})
    server.now = DURING
    server.trade({"AAA": 5.0})
    broker = broker_at(server)
    assert [fill.client_order_id for fill in broker.fills(TUE)] == ["long-ago"]
    server.orders.clear()
    with pytest.raises(BrokerUnreachableError, match="HTTP 404: order not found"):
        broker.fills(TUE)


def test_cash_that_moved_without_an_order(server: AlpacaTradingServer) -> None:
    """Friday 12 to Tuesday 16 January 2024: a weekend and a holiday lie between the two sessions."""
    tuesday = date(2024, 1, 16)
    server.now = datetime(2024, 1, 16, 12, 0, tzinfo=UTC)
    wanted = [
        ("DIV", "2.50", date(2024, 1, 16), "AAA", CashFlowKind.DIVIDEND),
        ("DIVNRA", "-0.38", date(2024, 1, 16), "AAA", CashFlowKind.DIVIDEND),
        ("INT", "1.25", date(2024, 1, 13), "", CashFlowKind.INTEREST),
        ("FEE", "-0.03", date(2024, 1, 16), "", CashFlowKind.FEE),
        ("CSD", "1000", date(2024, 1, 15), "", CashFlowKind.TRANSFER),
        ("CSW", "-400", date(2024, 1, 16), "", CashFlowKind.TRANSFER),
        ("JNLC", "-5", date(2024, 1, 16), "", CashFlowKind.TRANSFER),
        ("MA", "321.5", date(2024, 1, 16), "BBB", CashFlowKind.PROCEEDS),
        ("NEWTYPE", "-7", date(2024, 1, 16), "", CashFlowKind.OTHER),
    ]
    for kind, amount, day, symbol, _ in wanted:
        server.pay(kind, amount, day, symbol)
    server.pay("DIV", "9", FRI, "AAA")  # of the session before
    server.pay("DIV", "9", date(2024, 1, 17), "AAA")  # of the next one
    server.pay("DIV", "9", tuesday, "AAA", status="canceled")
    server.pay("SPLIT", "0", tuesday, "CCC")
    broker = broker_at(server)
    flows = broker.cash_flows(tuesday)
    assert [(f.kind, f.symbol, f.amount, f.session) for f in flows] == [
        (kind, symbol, float(amount), tuesday) for _, amount, _, symbol, kind in wanted
    ]
    assert len({flow.flow_id for flow in flows}) == 9
    assert broker.cash_flows(tuesday) == flows
    assert (broker.cash_flows(THU), len(broker.cash_flows(FRI))) == ([], 1)
    server.activities[0]["net_amount"] = None
    with pytest.raises(BrokerUnreachableError, match="'net_amount' is no number: None"):
        broker.cash_flows(tuesday)


@pytest.mark.parametrize(
    ("kind", "session", "start", "end"),
    [
        (OrderKind.OPENING, TUE, "2024-01-09T00:00", "2024-01-09T14:28"),  # 19:00 and 9:28 in New York's winter
        (OrderKind.OPENING, date(2024, 1, 16), "2024-01-16T00:00", "2024-01-16T14:28"),  # after a weekend and a holiday
        (OrderKind.OPENING, date(2024, 7, 3), "2024-07-02T23:00", "2024-07-03T13:28"),  # summer; closes at 13:00
        (OrderKind.OPENING, date(2024, 3, 11), "2024-03-10T23:00", "2024-03-11T13:28"),  # the clocks went forward
        (OrderKind.CLOSING, TUE, "2024-01-09T14:30", "2024-01-09T20:50"),
        (OrderKind.CLOSING, date(2024, 7, 3), "2024-07-03T13:30", "2024-07-03T16:50"),
        (OrderKind.MARKET, TUE, "2024-01-08T21:00", "2024-01-09T20:45"),
        (OrderKind.LIMIT, date(2024, 7, 5), "2024-07-03T17:00", "2024-07-05T19:45"),
    ],
)
def test_when_an_order_may_be_sent(kind: OrderKind, session: date, start: str, end: str) -> None:
    window = AlpacaBroker(ACCOUNT, AlpacaAccess(), SESSIONS).window(kind, session, SESSIONS)
    assert window.start == datetime.fromisoformat(start + "+00:00")
    assert window.end == datetime.fromisoformat(end + "+00:00")

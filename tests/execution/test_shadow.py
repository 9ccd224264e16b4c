"""A shadow sees everything of the real account and can do nothing to it."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_samples import ACCOUNT, NOW, TUE, decided_ledger, make_decision, make_order
from scripted_broker import ScriptedBroker, window_around

from trading_core.costs import CostModel
from trading_core.errors import OrderRefusedError
from trading_core.execution.broker import Broker, CalendarBroker, QuotingBroker, SimulatedBroker
from trading_core.execution.paper import PaperBroker
from trading_core.execution.session import PollResult, SendResult, SessionPolicy, TradingSession
from trading_core.execution.shadow import WHY, ReadOnlyBroker
from trading_core.execution.store import open_store
from trading_core.schema import CashFlow, CashFlowKind, OrderKind, OrderStatus, Position, Side
from trading_core.sessions import Sessions

WINDOW = window_around(NOW)
SESSIONS = Sessions("XNYS")


@pytest.fixture
def real() -> ScriptedBroker:
    """A broker where somebody trades: one order is filled, one is open, cash has moved."""
    broker = ScriptedBroker(WINDOW, ["fill", "take"], cash=123.45)
    broker.submit(make_order("AAA", Side.BUY, 10.0))
    broker.submit(make_order("BBB", Side.SELL, 5.0))
    broker.positions = (Position("AAA", 10.0, 100.0),)
    broker.flows = [CashFlow("f1", TUE, CashFlowKind.DIVIDEND, "AAA", 5.0)]
    return broker


def test_questions_go_through(real: ScriptedBroker) -> None:
    shadow = ReadOnlyBroker(real)
    assert shadow.account() == real.account()
    assert shadow.window(OrderKind.OPENING, TUE, SESSIONS) == WINDOW
    assert shadow.identity() == "shadow of scripted:1"
    assert (shadow.name, shadow.real, shadow.traits) == (real.name, real.real, real.traits)
    key = make_order("AAA", Side.BUY, 10.0).client_order_id
    assert shadow.order(key) == real.order(key)
    assert shadow.order("nobody") is None


def test_what_the_real_account_did_is_not_the_shadows(real: ScriptedBroker) -> None:
    shadow = ReadOnlyBroker(real)
    assert real.orders(TUE) != []
    assert real.fills(TUE) != []
    assert real.cash_flows(TUE) != []
    assert shadow.orders(TUE) == shadow.open_orders() == shadow.fills(TUE) == shadow.cash_flows(TUE) == []


def test_orders_and_cancellations_are_refused_before_the_broker_hears_of_them(real: ScriptedBroker) -> None:
    shadow, before = ReadOnlyBroker(real), dict(real.states)
    order = make_order("CCC", Side.BUY, 1.0)
    with pytest.raises(OrderRefusedError, match="sends nothing") as caught:
        shadow.submit(order)
    assert (caught.value.client_order_id, caught.value.reason) == (order.client_order_id, WHY)
    open_order = make_order("BBB", Side.SELL, 5.0).client_order_id
    with pytest.raises(OrderRefusedError, match="sends nothing"):
        shadow.cancel(open_order)
    assert (len(real.submits), real.cancels, real.states) == (2, [], before)


def test_it_offers_every_call_of_a_broker_and_no_way_round() -> None:
    protocols = (Broker, CalendarBroker, QuotingBroker)
    members = [name for protocol in protocols for name, _ in inspect.getmembers(protocol, inspect.isfunction)]
    calls = {name for name in members if not name.startswith("_")}
    offered = {name for name, _ in inspect.getmembers(ReadOnlyBroker, inspect.isfunction) if not name.startswith("_")}
    assert offered == calls


def test_a_shadow_of_a_simulated_market_is_not_told_what_the_market_did(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    paper = PaperBroker(store, "paper-1", 1_000.0, CostModel())
    assert isinstance(paper, SimulatedBroker)
    assert not isinstance(ReadOnlyBroker(paper), SimulatedBroker)
    store.close()


def test_a_session_that_is_sent_to_a_shadow_ends_refused_and_leaves_the_account_alone(
    real: ScriptedBroker, tmp_path: Path
) -> None:
    """The pipelines do not send for a shadow; if they did, nothing would go out."""
    store = open_store(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    ledger = decided_ledger(store)
    decision = replace(make_decision(), strategy="top10")
    trading = TradingSession(ledger, ReadOnlyBroker(real), SESSIONS, ACCOUNT, TUE, SessionPolicy())
    orders = [order for order in decision.orders if order.symbol == "AAA"]
    real.states.clear()  # so that the ids of the real account's orders are not known
    assert trading.send(decision, orders, lambda intent, at: [], NOW) == SendResult(refused=1)
    assert trading.poll(NOW) == PollResult(open=0, unknown=0)
    (order,) = ledger.orders(ACCOUNT, TUE)
    assert (order.status, order.reason) == (OrderStatus.REJECTED, WHY)
    assert len(real.submits) == 2
    store.close()

"""The paper broker that fails on purpose: which faults there are, that they are always the same ones, and that they pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledger_samples import ACCOUNT, NOW, TUE, make_order

from trading_core.costs import FREE
from trading_core.errors import (
    AmbiguousOrderError,
    BrokerBusyError,
    BrokerUnreachableError,
    DuplicateOrderError,
    ExecutionError,
    InvalidConfigError,
    OrderRefusedError,
)
from trading_core.execution.broker import Broker, SimulatedBroker
from trading_core.execution.faulty import MOST_FAULTS, FaultPlan, FaultyBroker, parse_faults
from trading_core.execution.paper import PaperBroker
from trading_core.execution.registry import BrokerRequest, broker_entry
from trading_core.execution.store import DocumentStore, open_store
from trading_core.schema import OrderKind, OrderStatus, Side
from trading_core.sessions import Sessions

SYMBOLS = [f"S{number:03d}" for number in range(200)]
QUESTIONS: dict[str, Callable[[Broker], object]] = {
    "identity": lambda broker: broker.identity(),
    "account": lambda broker: broker.account(),
    "order": lambda broker: broker.order("some-id"),
    "orders": lambda broker: broker.orders(TUE),
    "open orders": lambda broker: broker.open_orders(),
    "fills": lambda broker: broker.fills(TUE),
    "cash flows": lambda broker: broker.cash_flows(TUE),
}


@pytest.fixture
def documents(tmp_path: Path) -> Iterator[DocumentStore]:
    store = open_store(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield store
    store.close()


def paper(documents: DocumentStore) -> PaperBroker:
    return PaperBroker(documents, ACCOUNT, 10_000.0, FREE)


def faulty(documents: DocumentStore, text: str, counted: bool = False) -> FaultyBroker:
    return FaultyBroker(paper(documents), parse_faults(text), documents if counted else None)


def outcome(call: Callable[[], object]) -> str:
    """The name of the error of a call, "" for an answer."""
    try:
        call()
    except ExecutionError as error:
        return type(error).__name__
    return ""


def submitted(broker: FaultyBroker, symbol: str = "AAA") -> str:
    return outcome(lambda: broker.submit(make_order(symbol, Side.BUY, 1.0)))


# --- each fault -------------------------------------------------------------------------------------------------------


def test_a_lost_answer_leaves_the_order_at_the_broker_and_the_second_sending_finds_it(documents: DocumentStore) -> None:
    broker, order = faulty(documents, "lost_answer=1"), make_order("AAA", Side.BUY, 1.0)
    with pytest.raises(AmbiguousOrderError, match=rf"whether broker 'paper' took the order {order.client_order_id}"):
        broker.submit(order)
    found = broker.order(order.client_order_id)
    assert found is not None
    assert found.status is OrderStatus.ACCEPTED
    assert [submitted(broker) for _ in range(MOST_FAULTS)] == ["AmbiguousOrderError"] * 2 + ["DuplicateOrderError"]
    assert len(broker.orders(TUE)) == 1


def test_a_lost_order_looks_the_same_and_is_not_there(documents: DocumentStore) -> None:
    broker, order = faulty(documents, "lost_order=1"), make_order("AAA", Side.BUY, 1.0)
    for _ in range(MOST_FAULTS):
        with pytest.raises(AmbiguousOrderError):
            broker.submit(order)
        assert broker.order(order.client_order_id) is None
    assert broker.submit(order).status is OrderStatus.ACCEPTED


def test_a_refusal_is_clear_and_stays(documents: DocumentStore) -> None:
    broker = faulty(documents, "seed=3,refuse=0.5")
    first = {symbol: submitted(broker, symbol) for symbol in SYMBOLS[:20]}
    assert set(first.values()) == {"OrderRefusedError", ""}
    again = {symbol: submitted(faulty(documents, "seed=3,refuse=0.5"), symbol) for symbol in SYMBOLS[:20]}
    assert again == {symbol: error or "DuplicateOrderError" for symbol, error in first.items()}
    assert {state.order.symbol for state in broker.orders(TUE)} == {
        symbol for symbol, error in first.items() if not error
    }


def test_an_order_that_was_taken_before_is_not_refused_but_known(documents: DocumentStore) -> None:
    order = make_order("AAA", Side.BUY, 1.0)
    paper(documents).submit(order)
    with pytest.raises(DuplicateOrderError):
        faulty(documents, "refuse=1").submit(order)
    with pytest.raises(OrderRefusedError, match="on purpose"):
        faulty(documents, "refuse=1").submit(make_order("BBB", Side.BUY, 1.0))


def test_a_busy_broker_has_not_taken_the_order(documents: DocumentStore) -> None:
    broker, order = faulty(documents, "busy=1"), make_order("AAA", Side.BUY, 1.0)
    with pytest.raises(BrokerBusyError, match=r"asks to wait 0\.05 s before the order"):
        broker.submit(order)
    assert paper(documents).order(order.client_order_id) is None


@pytest.mark.parametrize(
    ("text", "error"), [("unreachable=1", "BrokerUnreachableError"), ("busy=1", "BrokerBusyError")]
)
@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_fails_and_then_is_answered(
    documents: DocumentStore, text: str, error: str, question: str
) -> None:
    broker, ask = faulty(documents, text), QUESTIONS[question]
    assert [outcome(lambda: ask(broker)) for _ in range(MOST_FAULTS + 1)] == [error] * MOST_FAULTS + [""]
    assert ask(broker) == ask(paper(documents))


def test_an_unreachable_broker_still_takes_orders(documents: DocumentStore) -> None:
    """What is not known of a sent order has its own class of error: `unreachable` is for questions."""
    assert submitted(faulty(documents, "unreachable=1")) == ""


@pytest.mark.parametrize(
    ("text", "error", "canceled"),
    [
        ("unreachable=1", BrokerUnreachableError, False),
        ("lost_answer=1", BrokerUnreachableError, True),
        ("busy=1", BrokerBusyError, False),
    ],
)
def test_a_cancellation_may_be_lost_before_or_after_it_is_carried_out(
    documents: DocumentStore, text: str, error: type[Exception], canceled: bool
) -> None:
    order = make_order("AAA", Side.BUY, 1.0)
    paper(documents).submit(order)
    broker = faulty(documents, text)
    with pytest.raises(error):
        broker.cancel(order.client_order_id)
    assert (paper(documents).open_orders() == []) == canceled
    for _ in range(MOST_FAULTS - 1):
        outcome(lambda: broker.cancel(order.client_order_id))
    assert broker.cancel(order.client_order_id).status is OrderStatus.CANCELED


# --- how often, and always the same -----------------------------------------------------------------------------------


def test_the_shares_are_those_of_the_plan(documents: DocumentStore) -> None:
    broker = faulty(documents, "seed=5,refuse=0.2,lost_answer=0.2,lost_order=0.2,busy=0.2")
    counts = Counter(submitted(broker, symbol) for symbol in SYMBOLS)
    # Of 200 orders a fifth is refused; of the rest 40 % lose their way or answer, 20 % meet a busy broker. Four standard
    # deviations of a binomial count lie within these bounds.
    assert 40 - 23 <= counts["OrderRefusedError"] <= 40 + 23
    assert 64 - 27 <= counts["AmbiguousOrderError"] <= 64 + 27
    assert 32 - 21 <= counts["BrokerBusyError"] <= 32 + 21
    assert sum(counts.values()) == 200


def test_the_same_seed_fails_the_same_way_and_another_does_not(documents: DocumentStore, tmp_path: Path) -> None:
    def day(name: str, seed: int) -> list[str]:
        store = open_store(f"sqlite:///{tmp_path / name}.sqlite")
        broker = faulty(store, f"seed={seed},lost_answer=0.3,lost_order=0.2,unreachable=0.3,busy=0.2")
        made = [submitted(broker, symbol) for symbol in SYMBOLS[:12] for _ in range(2)]
        made += [outcome(lambda ask=ask: ask(broker)) for ask in QUESTIONS.values() for _ in range(3)]
        store.close()
        return made

    assert day("one", 1) == day("again", 1)
    assert day("one more", 1) != day("other", 2)


def test_counted_in_the_store_a_fault_passes_for_every_new_process(documents: DocumentStore) -> None:
    """Each broker is a process that starts anew: counted in memory alone it would fail at the same place for ever."""
    ask = QUESTIONS["account"]
    anew = [outcome(lambda: ask(faulty(documents, "unreachable=1"))) for _ in range(MOST_FAULTS + 2)]
    assert anew == ["BrokerUnreachableError"] * (MOST_FAULTS + 2)
    counted = [outcome(lambda: ask(faulty(documents, "unreachable=1", counted=True))) for _ in range(MOST_FAULTS + 2)]
    assert counted == ["BrokerUnreachableError"] * MOST_FAULTS + ["", ""]


def test_the_market_reaches_it_whatever_fails(documents: DocumentStore) -> None:
    broker = faulty(documents, "unreachable=1")
    assert isinstance(broker, SimulatedBroker)
    broker.submit(make_order("AAA", Side.BUY, 1.0))
    (fill,) = broker.settle_open(TUE, {"AAA": 50.0}, (), NOW)
    assert (fill.symbol, broker.settled_through(), broker.took_effect(TUE)) == ("AAA", TUE, [])
    assert broker.window(OrderKind.OPENING, TUE, Sessions("XNYS")) == paper(documents).window(
        OrderKind.OPENING, TUE, Sessions("XNYS")
    )
    assert (broker.name, broker.real, broker.traits) == ("paper", False, paper(documents).traits)


# --- the setting ------------------------------------------------------------------------------------------------------


def test_a_plan_is_read_from_a_text() -> None:
    text = "seed=7, refuse=0.05,lost_answer=0.1,lost_order=0.1, unreachable=0.1,busy=0.05"
    assert parse_faults(text) == FaultPlan(7, 0.05, 0.1, 0.1, 0.1, 0.05)
    assert parse_faults("busy=1") == FaultPlan(busy=1.0)
    assert parse_faults("") == FaultPlan()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lost=0.1", "'lost' is no key; allowed: seed, refuse, lost_answer, lost_order, unreachable, busy"),
        ("busy=1.5", "busy is '1.5'; give a number from 0 to 1"),
        ("busy=", "busy is ''; give a number from 0 to 1"),
        ("busy=nan", "busy is 'nan'; give a number from 0 to 1"),
        ("refuse=-0.1", "refuse is '-0.1'"),
        ("seed=1.5", "seed is '1.5'; give a whole number of at least 0"),
        ("seed=inf", "seed is 'inf'"),
        ("busy=0.1,busy=0.2", "'busy' is given twice"),
        ("lost_answer=0.6,lost_order=0.5", "adds up to more than 1"),
        ("unreachable=0.6,busy=0.5", "adds up to more than 1"),
        ("lost_answer=0.6,unreachable=0.5", "adds up to more than 1"),  # of a cancellation
    ],
)
def test_a_plan_that_is_none_is_refused_with_what_is_allowed(text: str, words: str) -> None:
    with pytest.raises(InvalidConfigError) as refused:
        parse_faults(text)
    assert words in str(refused.value)


def test_the_setting_is_for_the_paper_broker_and_off_by_default(documents: DocumentStore) -> None:
    request = BrokerRequest(documents, ACCOUNT, 10_000.0, FREE)
    assert isinstance(broker_entry("paper").build(request), PaperBroker)
    broken = BrokerRequest(documents, ACCOUNT, 10_000.0, FREE, paper_faults="unreachable=1")
    ask = QUESTIONS["account"]
    outcomes = [outcome(lambda: ask(broker_entry("paper").build(broken))) for _ in range(MOST_FAULTS + 1)]
    assert outcomes == ["BrokerUnreachableError"] * MOST_FAULTS + [""]  # counted in the ledger's store
    with pytest.raises(InvalidConfigError, match="'oops' is no key"):
        broker_entry("paper").build(BrokerRequest(documents, ACCOUNT, 10_000.0, FREE, paper_faults="oops=1"))

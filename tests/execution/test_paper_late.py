"""The paper broker and corporate actions that are learned of late, and the cash that moves without an order: by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import pytest
from ledger_samples import ACCOUNT, FRI, MON, NOW, THU, TUE, WED, make_order

from trading_core.costs import FREE, CostModel
from trading_core.execution.codec import LedgerRecordError, to_document
from trading_core.execution.paper import PaperBroker
from trading_core.execution.paper_book import Book
from trading_core.execution.store import DocumentStore, open_store
from trading_core.portfolio.late import AppliedAction, Step, kept_since
from trading_core.portfolio.overnight import QUIET, Night
from trading_core.schema import ActionKind, CashFlow, CashFlowKind, CorporateAction, Position, Side

BUY, SELL = Side.BUY, Side.SELL
SPLIT, DIVIDEND, DELISTING = ActionKind.SPLIT, ActionKind.DIVIDEND, ActionKind.DELISTING
SATURDAY, NEXT_MON = date(2024, 1, 13), date(2024, 1, 15)
PRICE = 50.0


@pytest.fixture
def documents(tmp_path: Path) -> Iterator[DocumentStore]:
    store = open_store(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield store
    store.close()


@pytest.fixture
def broker(documents: DocumentStore) -> PaperBroker:
    return PaperBroker(documents, ACCOUNT, 100_000.0, FREE, short=True)


def event(kind: ActionKind, session: date, value: float, symbol: str = "AAA") -> CorporateAction:
    return CorporateAction(symbol, session, kind, value)


def opened(
    broker: PaperBroker,
    session: date,
    trades: float = 0.0,
    actions: Sequence[CorporateAction] = (),
    earlier: Sequence[CorporateAction] = (),
    night: Night = QUIET,
) -> float:
    """One session in which AAA is traded at 50 (bought, or sold where `trades` is below 0); the cash it changed by."""
    before = broker.account().cash
    if trades:
        broker.submit(make_order("AAA", BUY if trades > 0 else SELL, abs(trades), session))
    broker.settle_open(session, {"AAA": PRICE}, actions, NOW, night, earlier)
    return broker.account().cash - before + trades * PRICE


def held(broker: PaperBroker) -> float:
    return broker.account().quantity("AAA")


# --- late actions -----------------------------------------------------------------------------------------------------


def test_a_late_split_multiplies_what_was_held_since_before_it(broker: PaperBroker) -> None:
    opened(broker, MON, 100.0)
    opened(broker, TUE)
    opened(broker, WED, earlier=[event(SPLIT, TUE, 2.0)])
    assert broker.account().positions == (Position("AAA", 200.0, 25.0),)
    assert broker.took_effect(WED) == [AppliedAction(event(SPLIT, TUE, 2.0), 100.0, late=True)]
    opened(broker, THU, earlier=[event(SPLIT, TUE, 2.0)])  # it is told of every evening, and counts once
    assert held(broker) == 200.0
    assert broker.took_effect(THU) == []


def test_one_of_the_newest_session_itself_is_late_too(broker: PaperBroker) -> None:
    opened(broker, MON, 100.0)
    opened(broker, TUE, 20.0)  # bought at a price that knew of the split
    opened(broker, WED, earlier=[event(SPLIT, TUE, 3.0)])
    assert held(broker) == 3.0 * 100.0 + 20.0
    (position,) = broker.account().positions
    assert position.average_price == pytest.approx(120.0 * 50.0 / 320.0, rel=1e-12)  # the cost is that of 120 shares


def test_what_was_bought_later_or_sold_since_has_no_part_in_it(broker: PaperBroker) -> None:
    opened(broker, MON, 100.0)
    opened(broker, TUE)
    opened(broker, WED, -60.0)
    opened(broker, THU, 100.0)
    assert held(broker) == 140.0
    # 40 of the 140 shares have been held since before Tuesday.
    assert opened(broker, FRI, earlier=[event(DIVIDEND, TUE, 1.5)]) == pytest.approx(40.0 * 1.5)
    assert held(broker) == 140.0


@pytest.mark.parametrize("kind", list(ActionKind))
def test_a_position_closed_or_opened_since_is_left_alone(broker: PaperBroker, kind: ActionKind) -> None:
    opened(broker, MON, 100.0)
    opened(broker, TUE, -100.0)
    opened(broker, WED, 30.0)
    known = [event(kind, TUE, 2.0), event(kind, WED, 2.0)]  # while nothing was held, and on the day it was bought
    assert opened(broker, THU, earlier=known) == 0.0
    assert held(broker) == 30.0
    assert broker.took_effect(THU) == []


def test_a_position_that_turned_round_begins_anew(broker: PaperBroker) -> None:
    opened(broker, MON, 100.0)
    opened(broker, TUE)
    opened(broker, WED, -130.0)
    assert opened(broker, THU, earlier=[event(DIVIDEND, TUE, 1.0)]) == 0.0
    assert broker.took_effect(THU) == []
    # The short of Wednesday owes what comes after it.
    assert opened(broker, FRI, earlier=[event(DIVIDEND, TUE, 1.0), event(DIVIDEND, THU, 1.0)]) == -30.0


def test_a_late_delisting_pays_and_removes(broker: PaperBroker) -> None:
    opened(broker, MON, 100.0)
    opened(broker, TUE)
    assert opened(broker, WED, earlier=[event(DELISTING, TUE, 7.0)]) == 700.0
    assert broker.account().positions == ()
    assert broker.cash_flows(WED) == [
        CashFlow("2024-01-10-proceeds-AAA-of-2024-01-09", WED, CashFlowKind.PROCEEDS, "AAA", 700.0)
    ]


def test_a_late_dividend_is_paid_per_share_of_its_own_day(broker: PaperBroker) -> None:
    """1.50 for each of 100 shares of Tuesday, which Wednesday's split made 200; 1 for each of 200 shares of Thursday."""
    opened(broker, MON, 100.0)
    opened(broker, TUE)
    opened(broker, WED, actions=[event(SPLIT, WED, 2.0)])
    opened(broker, THU)
    known = [event(SPLIT, WED, 2.0), event(DIVIDEND, TUE, 1.5), event(DIVIDEND, THU, 1.0)]
    assert opened(broker, FRI, earlier=known) == pytest.approx(150.0 + 200.0)
    # On the day of a split the dividend is per new share: split first, then dividend.
    known += [event(DIVIDEND, WED, 1.0)]
    assert opened(broker, NEXT_MON, earlier=known) == pytest.approx(200.0)
    assert held(broker) == 200.0


def test_two_that_come_late_together_are_taken_in_the_order_of_their_days(broker: PaperBroker) -> None:
    opened(broker, MON, 100.0)
    for day in (TUE, WED, THU):
        opened(broker, day)
    both = [event(DIVIDEND, WED, 1.0), event(SPLIT, TUE, 2.0)]
    assert opened(broker, FRI, earlier=both) == 200.0  # a dividend on what the split had made of it
    assert held(broker) == 200.0


def test_with_a_part_sold_the_later_of_two_reaches_all_that_was_held_before_it(broker: PaperBroker) -> None:
    opened(broker, MON, 100.0)
    opened(broker, TUE, 50.0)  # on the day of the split: 50 new shares
    for day in (WED, THU):
        opened(broker, day)
    both = [event(SPLIT, TUE, 2.0), event(DIVIDEND, THU, 1.0)]
    assert opened(broker, FRI, earlier=both) == 2.0 * 100.0 + 50.0
    assert held(broker) == 250.0


def test_interest_of_the_night_is_earned_on_what_came_late(documents: DocumentStore) -> None:
    costs = CostModel(0, 0, 0, interest_bps_annual=365.0)
    broker = PaperBroker(documents, ACCOUNT, 10_000.0, costs)
    opened(broker, MON, 200.0)
    opened(broker, TUE)
    assert broker.account().cash == 0.0
    change = opened(broker, WED, earlier=[event(DIVIDEND, TUE, 5.0)], night=Night(1.0 / 365.0))
    assert change == pytest.approx(1_000.0 * (1.0 + 0.0365 / 365.0), abs=1e-9)


def test_an_order_of_today_is_not_restated_for_a_split_of_before(broker: PaperBroker) -> None:
    """It was sized on a close that is after the split; only a split of its own session restates it."""
    opened(broker, MON, 100.0)
    opened(broker, TUE)
    opened(broker, WED, -10.0, earlier=[event(SPLIT, TUE, 2.0)])
    assert held(broker) == 190.0


def test_an_action_under_another_date_is_not_taken_twice(broker: PaperBroker) -> None:
    opened(broker, MON, 100.0)
    opened(broker, TUE, actions=[event(SPLIT, TUE, 2.0)])
    opened(broker, WED)
    opened(broker, THU, earlier=[event(SPLIT, WED, 2.0)])  # the source moved it: Tuesday's is there no more
    assert held(broker) == 200.0
    assert broker.took_effect(THU) == [AppliedAction(event(SPLIT, WED, 2.0), 0.0, late=True)]
    # Where Tuesday's is still there it is another split.
    opened(broker, FRI, earlier=[event(SPLIT, WED, 2.0), event(SPLIT, TUE, 2.0), event(SPLIT, THU, 2.0)])
    assert held(broker) == 400.0


def test_a_value_that_is_corrected_later_changes_nothing(broker: PaperBroker) -> None:
    opened(broker, MON, 100.0)
    opened(broker, TUE, actions=[event(DIVIDEND, TUE, 1.0)])
    assert opened(broker, WED, earlier=[event(DIVIDEND, TUE, 1.2)]) == 0.0


def test_one_of_a_weekend_belongs_to_the_next_session(broker: PaperBroker) -> None:
    opened(broker, FRI, 100.0)
    assert opened(broker, NEXT_MON, actions=[event(SPLIT, SATURDAY, 2.0), event(DIVIDEND, NEXT_MON, 1.0)]) == 200.0
    assert held(broker) == 200.0
    assert opened(broker, date(2024, 1, 16), earlier=[event(SPLIT, SATURDAY, 2.0)]) == 0.0
    assert held(broker) == 200.0


def test_a_book_of_before_late_actions_were_known_is_read_and_never_looked_behind(
    broker: PaperBroker, documents: DocumentStore
) -> None:
    opened(broker, MON, 100.0)
    old = Book(TUE, 2, broker.account().cash, broker.account().positions, (), (), NOW)
    document = {
        key: value for key, value in to_document(old).items() if key not in ("flows", "took_effect", "since", "applied")
    }
    assert documents.put_new(f"paper#{ACCOUNT}", f"book#{TUE}", document)
    assert (broker.account().quantity("AAA"), broker.cash_flows(TUE)) == (100.0, [])
    opened(broker, WED, earlier=[event(SPLIT, TUE, 2.0)])  # the old book may have had it: nobody knows
    assert held(broker) == 100.0
    opened(broker, THU, earlier=[event(SPLIT, TUE, 2.0), event(SPLIT, WED, 2.0)])
    assert held(broker) == 200.0


def test_actions_of_other_sessions_are_refused(broker: PaperBroker) -> None:
    opened(broker, MON, 100.0)
    opened(broker, TUE)
    for actions, earlier in (
        ([event(SPLIT, TUE, 2.0)], []),
        ([event(SPLIT, THU, 2.0)], []),
        ([], [event(SPLIT, WED, 2.0)]),
    ):
        with pytest.raises(
            LedgerRecordError, match=r"the corporate actions of 2024-01-10: these are of other sessions"
        ):
            opened(broker, WED, actions=actions, earlier=earlier)
    assert broker.settled_through() == TUE


@pytest.mark.parametrize(
    ("before", "steps", "kept"),
    [
        (100.0, [], 100.0),
        (100.0, [Step(1.0, 80.0), Step(1.0, 120.0)], 80.0),
        (100.0, [Step(1.0, 50.0), Step(3.0, 200.0)], 150.0),  # 50 old shares are 150 new ones
        (100.0, [Step(0.1, 10.0)], 10.0),
        (100.0, [Step(1.0, 0.0), Step(1.0, 100.0)], 0.0),
        (-100.0, [Step(1.0, -40.0), Step(1.0, -90.0)], -40.0),
        (-100.0, [Step(1.0, 40.0)], 0.0),
        (0.0, [Step(1.0, 40.0)], 0.0),
    ],
)
def test_what_is_kept_is_the_smallest_quantity_on_the_way(before: float, steps: list[Step], kept: float) -> None:
    assert kept_since(before, steps) == pytest.approx(kept)


# --- cash without an order --------------------------------------------------------------------------------------------


def test_every_cent_that_moved_is_an_order_or_a_flow(documents: DocumentStore) -> None:
    costs = CostModel(10, 5, 5, borrow_bps_annual=365.0, interest_bps_annual=730.0)
    broker = PaperBroker(documents, ACCOUNT, 10_000.0, costs, short=True)
    for symbol, side in (("AAA", BUY), ("BBB", SELL), ("CCC", BUY)):
        broker.submit(make_order(symbol, side, 10.0, TUE))
    broker.settle_open(TUE, {"AAA": 50.0, "BBB": 40.0, "CCC": 20.0}, (), NOW)
    before, night = broker.account().cash, Night(1.0 / 365.0, {"BBB": 41.0})
    actions = [event(DIVIDEND, WED, 1.5), event(DIVIDEND, WED, 2.0, "BBB"), event(DELISTING, WED, 19.0, "CCC")]
    broker.settle_open(WED, {"AAA": 49.0}, [*actions, event(DIVIDEND, WED, 9.0, "ZZZ")], NOW, night)
    expected = [
        ("2024-01-10-interest", CashFlowKind.INTEREST, "", before * 0.073 / 365.0),
        ("2024-01-10-borrow", CashFlowKind.BORROW, "", -410.0 * 0.0365 / 365.0),
        ("2024-01-10-dividend-AAA", CashFlowKind.DIVIDEND, "AAA", 15.0),
        ("2024-01-10-dividend-BBB", CashFlowKind.DIVIDEND, "BBB", -20.0),
        ("2024-01-10-proceeds-CCC", CashFlowKind.PROCEEDS, "CCC", 190.0),
    ]
    flows = broker.cash_flows(WED)
    assert [(f.flow_id, f.kind, f.symbol, f.session) for f in flows] == [(*row[:3], WED) for row in expected]
    assert [f.amount for f in flows] == pytest.approx([row[3] for row in expected], abs=1e-9)
    assert broker.account().cash == pytest.approx(before + sum(f.amount for f in flows), abs=1e-9)
    assert PaperBroker(documents, ACCOUNT, 0.0, costs).cash_flows(WED) == flows
    assert broker.cash_flows(TUE) == []

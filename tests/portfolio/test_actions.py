from datetime import date

import pytest

from trading_core.errors import WrongTypeError
from trading_core.portfolio.actions import adjust_orders, apply_actions
from trading_core.portfolio.planner import PlannedOrder
from trading_core.schema import ActionKind, CorporateAction, Side

DAY = date(2020, 8, 31)


def action(kind, value, symbol="A"):
    return CorporateAction(symbol, DAY, kind, value)


def test_a_split_multiplies_shares_and_leaves_cash():
    assert apply_actions({"A": 10.0, "B": 1.0}, 5.0, [action(ActionKind.SPLIT, 4.0)]) == ({"A": 40.0, "B": 1.0}, 5.0)


def test_a_dividend_on_the_day_of_a_split_is_paid_on_the_new_shares():
    # 10 shares become 20, each of which is paid 0.50: 10.00, whatever the order in which the events are listed.
    events = [action(ActionKind.DIVIDEND, 0.5), action(ActionKind.SPLIT, 2.0)]
    assert apply_actions({"A": 10.0}, 0.0, events) == ({"A": 20.0}, 10.0)


def test_a_delisting_pays_out_and_removes():
    assert apply_actions({"A": 10.0}, 1.0, [action(ActionKind.DELISTING, 3.0)]) == ({}, 31.0)


def test_events_of_symbols_not_held_change_nothing():
    assert apply_actions({"B": 1.0}, 2.0, [action(ActionKind.DIVIDEND, 9.0)]) == ({"B": 1.0}, 2.0)


def test_the_arguments_are_left_alone():
    holdings = {"A": 1.0}
    apply_actions(holdings, 0.0, [action(ActionKind.DELISTING, 1.0)])
    assert holdings == {"A": 1.0}


SPLIT, DIVIDEND, DELISTING = ActionKind.SPLIT, ActionKind.DIVIDEND, ActionKind.DELISTING


@pytest.mark.parametrize(
    ("kind", "value"), [(SPLIT, 0.0), (SPLIT, float("nan")), (DIVIDEND, -1.0), (DELISTING, float("inf"))]
)
def test_impossible_values_are_refused_with_the_event_named(kind, value):
    with pytest.raises(WrongTypeError, match=f"The {kind.value} of A on 2020-08-31"):
        apply_actions({"A": 1.0}, 0.0, [action(kind, value)])


def test_open_orders_are_restated_for_splits():
    order, other = PlannedOrder("A", Side.SELL, 10.0, 100.0), PlannedOrder("B", Side.BUY, 1.0, 7.0)
    events = [action(ActionKind.SPLIT, 2.0), action(ActionKind.DIVIDEND, 1.0, "B")]
    assert adjust_orders([order, other], events) == (PlannedOrder("A", Side.SELL, 20.0, 50.0), other)

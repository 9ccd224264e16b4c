import numpy as np
import pytest

from trading_core.costs import FREE, CostModel
from trading_core.portfolio.planner import PlannedOrder, floor_quantity, plan
from trading_core.schema import Side

COSTS = CostModel(commission_bps=10, half_spread_bps=5, slippage_bps=5)


def planned(now, target, closes, held, equity=1000.0, costs=FREE, symbols=None, **options):
    symbols = symbols or tuple("ABCDEFG"[: len(now)])
    arrays = [np.array(values, dtype=float) for values in (now, target, closes, held)]
    return plan(symbols, *arrays, equity, costs, **options)


@pytest.mark.parametrize(
    ("quantity", "fractional", "expected"),
    [(1.23456789, True, 1.234567), (0.29, True, 0.29), (2.9999, False, 2.0), (3.0, False, 3.0), (0.9, False, 0.0)],
)
def test_quantities_are_rounded_down(quantity, fractional, expected):
    assert floor_quantity(quantity, fractional) == expected


def test_sells_come_before_buys_each_by_symbol():
    orders = planned([0, 0.5, 0, 0.5], [0.5, 0, 0.5, 0], [10] * 4, [0, 50, 0, 50], symbols=("D", "C", "B", "A"))
    assert [(o.side, o.symbol) for o in orders] == [
        (Side.SELL, "A"),
        (Side.SELL, "C"),
        (Side.BUY, "B"),
        (Side.BUY, "D"),
    ]


def test_an_unchanged_weight_gives_no_order():
    assert planned([1 / 3, 0.5], [1 / 3, 0.5], [10, 10], [33.3, 50]) == ()


def test_a_target_of_zero_sells_the_entire_quantity_however_small():
    odd = 0.1 + 0.2
    orders = planned([0.0003], [0.0], [1.0], [odd], fractional=False, min_order_notional=100.0)
    assert orders == (PlannedOrder("A", Side.SELL, odd, 1.0),)


def test_a_lower_weight_sells_the_difference():
    # From 50 % to 20 % of 1000 at 8 a share: 300 / 8 = 37.5 shares, 37 whole ones.
    assert planned([0.5], [0.2], [8], [62.5])[0].quantity == 37.5
    assert planned([0.5], [0.2], [8], [62.0], fractional=False)[0].quantity == 37.0


def test_buys_include_their_costs():
    # 1000 of cash; a share at 100 costs 100 * 1.001 * 1.001 = 100.2001: 1000 / 100.2001 = 9.98003.
    orders = planned([0.0], [1.0], [100.0], [0.0], costs=COSTS)
    assert orders[0].quantity == pytest.approx(9.98003, abs=1e-6)
    assert orders[0].quantity * 100.2001 <= 1000.0


def test_buys_fit_into_the_cash_and_the_proceeds_after_costs():
    orders = planned([0.6, 0.0, 0.0], [0.0, 0.5, 0.5], [10.0, 20.0, 5.0], [60.0, 0, 0], costs=COSTS)
    have = 400.0 + 60 * 10 * 0.999 * 0.999
    need = sum(o.quantity * o.reference_price * 1.001 * 1.001 for o in orders[1:])
    assert have - 0.001 < need <= have
    assert orders[1].quantity * 20 == pytest.approx(orders[2].quantity * 5, abs=1e-3)


def test_small_orders_are_dropped():
    assert planned([0.5, 0.0], [0.4995, 0.0005], [10, 10], [50, 0], min_order_notional=1.0) == ()


def test_a_symbol_without_a_close_is_not_ordered():
    assert planned([0.0], [1.0], [np.nan], [0.0]) == ()

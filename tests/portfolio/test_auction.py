"""The fill rule, against fills worked out by hand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_core.costs import FREE, CostModel
from trading_core.portfolio.auction import NO_TRADE_AT_OPEN, REASONS, fill_open
from trading_core.portfolio.kernels.types import NO_CASH, NOTHING_HELD
from trading_core.portfolio.planner import PlannedOrder
from trading_core.schema import Side

COSTS = CostModel(commission_bps=10, half_spread_bps=20, slippage_bps=30)  # executes 0.5 % away, 0.1 % commission


def buy(symbol, quantity):
    return PlannedOrder(symbol, Side.BUY, quantity, 1.0)


def sell(symbol, quantity):
    return PlannedOrder(symbol, Side.SELL, quantity, 1.0)


def test_sells_pay_for_buys_and_costs_are_taken_on_both_sides():
    result = fill_open([buy("B", 19.0), sell("A", 10.0)], {"A": 100.0, "B": 50.0}, 0.0, {"A": 10.0}, COSTS)
    sold, bought = result.fills
    # Sell 10 at 100 * 0.995 = 99.5: 995 less 0.995. Buy 19 at 50 * 1.005 = 50.25: 954.75 and 0.95475.
    assert (sold.symbol, sold.side, sold.index) == ("A", Side.SELL, 1)
    assert sold.price == pytest.approx(99.5)
    assert sold.commission == pytest.approx(0.995)
    assert (bought.symbol, bought.quantity, bought.index) == ("B", 19.0, 0)
    assert bought.price == pytest.approx(50.25)
    assert bought.commission == pytest.approx(0.95475)
    assert result.cash_after == pytest.approx(994.005 - 955.70475)
    assert result.holdings_after == {"B": 19.0}
    assert result.unfilled == ()


def test_a_gap_up_shrinks_all_buys_by_the_same_factor():
    # 5 A at 110 and 10 B at 60 need 1150; 1000 is there: 1000 / 1150 = 0.8695652.
    result = fill_open([buy("A", 5.0), buy("B", 10.0)], {"A": 110.0, "B": 60.0}, 1000.0, {}, FREE)
    assert [f.quantity for f in result.fills] == [4.347826, 8.695652]
    assert result.cash_after == pytest.approx(1000 - 4.347826 * 110 - 8.695652 * 60, abs=1e-9)
    assert 0 <= result.cash_after < 1e-3
    assert all("86.96%" in f.reason for f in result.fills)


def test_the_shrunk_buy_leaves_cash_for_its_costs():
    # 10 A sold bring 994.005; a share of B costs 50.25 * 1.001 = 50.30025: 994.005 / 50.30025 = 19.7614326.
    result = fill_open([sell("A", 10.0), buy("B", 20.0)], {"A": 100.0, "B": 50.0}, 0.0, {"A": 10.0}, COSTS)
    assert result.fills[1].quantity == 19.761432
    assert result.cash_after == pytest.approx(0.000030042, abs=1e-8)


def test_whole_shares_shrink_to_whole_shares():
    result = fill_open([buy("A", 5.0), buy("B", 10.0)], {"A": 110.0, "B": 60.0}, 1000.0, {}, FREE, fractional=False)
    assert [f.quantity for f in result.fills] == [4.0, 8.0]
    assert result.cash_after == 80.0


@pytest.mark.parametrize("price", [None, math.nan, 0.0])
def test_a_symbol_without_an_open_stays_unfilled(price):
    order = sell("A", 1.0)
    opens = {} if price is None else {"A": price}
    result = fill_open([order], opens, 7.0, {"A": 3.0}, COSTS)
    assert result.unfilled == ((order, NO_TRADE_AT_OPEN),)
    assert result.fills == ()
    assert (result.cash_after, result.holdings_after) == (7.0, {"A": 3.0})


def test_sells_are_capped_at_what_is_held():
    first, second = sell("A", 4.0), sell("A", 4.0)
    result = fill_open([first, second, sell("Z", 1.0)], {"A": 10.0, "Z": 1.0}, 0.0, {"A": 5.0}, FREE)
    assert [f.quantity for f in result.fills] == [4.0, 1.0]
    assert "only 1 shares" in result.fills[1].reason
    assert [reason for _, reason in result.unfilled] == [REASONS[NOTHING_HELD]]
    assert result.holdings_after == {}
    assert result.cash_after == 50.0


def test_without_cash_nothing_is_bought():
    result = fill_open([buy("A", 1.0)], {"A": 10.0}, 0.0, {}, FREE)
    assert [reason for _, reason in result.unfilled] == [REASONS[NO_CASH]]
    assert result.cash_after == 0.0


def test_a_sale_of_everything_leaves_exactly_nothing():
    held = 0.1 + 0.2
    assert fill_open([sell("A", held)], {"A": 10.0}, 0.0, {"A": held}, FREE).holdings_after == {}


quantity = st.floats(0.01, 1e4)
price = st.floats(0.5, 2000.0)


@settings(max_examples=150, deadline=None)
@given(
    buys=st.lists(st.tuples(quantity, price), min_size=1, max_size=5),
    sells=st.lists(st.tuples(quantity, price, quantity), max_size=4),
    cash=st.floats(0.0, 1e6),
    fractional=st.booleans(),
)
def test_cash_never_falls_below_zero_and_value_only_leaves_as_costs(buys, sells, cash, fractional):
    orders = [buy(f"B{i}", q) for i, (q, _) in enumerate(buys)] + [
        sell(f"S{i}", q) for i, (q, _, _) in enumerate(sells)
    ]
    opens = {f"B{i}": p for i, (_, p) in enumerate(buys)} | {f"S{i}": p for i, (_, p, _) in enumerate(sells)}
    holdings = {f"S{i}": h for i, (_, _, h) in enumerate(sells)}
    result = fill_open(orders, opens, cash, holdings, COSTS, fractional)
    assert result.cash_after >= 0.0
    costs = sum(f.quantity * abs(f.price - opens[f.symbol]) + f.commission for f in result.fills)
    before = cash + sum(q * opens[s] for s, q in holdings.items())
    after = result.cash_after + sum(q * opens[s] for s, q in result.holdings_after.items())
    assert after + costs == pytest.approx(before, rel=1e-9)
    backwards = fill_open(orders[::-1], opens, cash, holdings, COSTS, fractional)
    assert backwards.cash_after == result.cash_after
    assert backwards.holdings_after == result.holdings_after

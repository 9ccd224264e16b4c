"""Costs against sums done by hand."""

from __future__ import annotations

import math

import pytest

from trading_core.costs import FREE, CostModel
from trading_core.schema import Side

COSTS = CostModel(commission_bps=1.0, half_spread_bps=2.0, slippage_bps=3.0)


def test_a_buy_executes_above_the_open_and_a_sell_below() -> None:
    # 2 + 3 bps of 100 are 0.05
    assert COSTS.execution_price(Side.BUY, 100.0) == pytest.approx(100.05, abs=1e-12)
    assert COSTS.execution_price(Side.SELL, 100.0) == pytest.approx(99.95, abs=1e-12)


def test_commission_is_paid_on_the_notional_whatever_its_sign() -> None:
    assert COSTS.commission(20_000.0) == pytest.approx(2.0, abs=1e-12)
    assert COSTS.commission(-20_000.0) == pytest.approx(2.0, abs=1e-12)


def test_cash_per_share_holds_spread_slippage_and_commission() -> None:
    # buy: 100.05 + 1 bps of it (0.010005); sell: 99.95 - 0.009995
    assert COSTS.cash_per_share(Side.BUY, 100.0) == pytest.approx(100.060005, abs=1e-12)
    assert COSTS.cash_per_share(Side.SELL, 100.0) == pytest.approx(99.940005, abs=1e-12)


def test_a_round_trip_costs_about_twice_the_total() -> None:
    assert COSTS.total_bps == 6.0
    paid = COSTS.cash_per_share(Side.BUY, 100.0) - COSTS.cash_per_share(Side.SELL, 100.0)
    assert paid == pytest.approx(0.12, abs=1e-9)  # 12 bps of 100


def test_the_defaults_are_five_bps_a_side() -> None:
    assert CostModel().total_bps == 5.0


def test_free_is_free() -> None:
    assert FREE.total_bps == 0.0
    assert FREE.cash_per_share(Side.BUY, 12.34) == FREE.cash_per_share(Side.SELL, 12.34) == 12.34


RATES = [
    "commission_bps", "half_spread_bps", "slippage_bps", "impact_coefficient", "borrow_bps_annual", "interest_bps_annual",
]  # fmt: skip


@pytest.mark.parametrize("name", RATES)
def test_rates_are_finite_and_not_below_zero(name: str) -> None:
    for rate in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"{name} is .*a finite number of at least 0"):
            CostModel(**{name: rate})
    for rate in (0.0, 20_000.0):  # what is plausible is bounded in a market's config
        assert getattr(CostModel(**{name: rate}), name) == rate


@pytest.mark.parametrize("share", [0.0, -0.2, 1.1, float("nan")])
def test_a_share_of_the_volume_lies_above_zero_and_is_at_most_all_of_it(share: float) -> None:
    with pytest.raises(ValueError, match=r"max_participation is .* above 0 and be at most 1"):
        CostModel(max_participation=share)
    assert CostModel(max_participation=1.0).max_participation == 1.0


def test_rates_are_the_same_as_fractions() -> None:
    rates = CostModel(1.0, 2.0, 3.0, 0.7, None, 50.0, 200.0).rates
    assert (rates.commission, rates.concession) == pytest.approx((1e-4, 5e-4))
    assert (rates.impact, rates.borrow, rates.interest, rates.participation) == pytest.approx(
        (0.7, 5e-3, 2e-2, math.inf)
    )
    # As in the test of cash per share: 100.060005 and 99.940005 for 100.
    assert (rates.buy, rates.sell) == pytest.approx((1.00060005, 0.99940005), abs=1e-12)
    assert CostModel(max_participation=0.1).rates.participation == 0.1


def test_scaled_costs_leave_interest_and_the_volume_cap_alone() -> None:
    twice = CostModel(1.0, 2.0, 3.0, 0.7, 0.1, 50.0, 200.0).scaled(2.0)
    assert twice == CostModel(2.0, 4.0, 6.0, 1.4, 0.1, 100.0, 200.0)
    assert CostModel(1.0, 2.0, 3.0, 0.7, 0.1, 50.0, 200.0).scaled(0.0) == CostModel(0, 0, 0, 0, 0.1, 0, 200.0)


def test_what_needs_volumes_and_what_needs_a_calendar() -> None:
    assert not CostModel().needs_liquidity
    assert CostModel(impact_coefficient=0.5).needs_liquidity
    assert not CostModel(max_participation=0.1).needs_liquidity  # the volume of the session is enough
    assert not CostModel().accrues
    assert CostModel(borrow_bps_annual=1.0).accrues
    assert CostModel(interest_bps_annual=1.0).accrues

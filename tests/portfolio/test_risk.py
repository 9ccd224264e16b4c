import math

import pytest

from trading_core.portfolio.planner import PlannedOrder
from trading_core.portfolio.risk import RISK_RULES, RiskLimits, approved, check
from trading_core.schema import Side

LOOSE = RiskLimits(max_position=1.0, max_gross=1.0)


def buy(symbol, quantity):
    return PlannedOrder(symbol, Side.BUY, quantity, 10.0)


def sell(symbol, quantity):
    return PlannedOrder(symbol, Side.SELL, quantity, 10.0)


def one(order, limits, closes=None, holdings=None, equity=1000.0, fractional=True):
    return check([order], equity, closes or {"A": 10.0}, holdings or {}, limits, fractional)[0]


def test_an_order_within_all_limits_passes_unchanged():
    verdict = one(buy("A", 25.0), RiskLimits())
    assert (verdict.verdict, verdict.quantity, verdict.rule, verdict.reason) == ("approve", 25.0, "", "")


@pytest.mark.parametrize("closes", [{"B": 1.0}, {"A": math.nan}, {"A": 0.0}])
def test_unknown_price_rejects(closes):
    verdict = one(sell("A", 1.0), LOOSE, closes)
    assert (verdict.verdict, verdict.quantity, verdict.rule) == ("reject", 0.0, "unknown_price")
    assert "A" in verdict.reason


def test_restricted_rejects_both_sides():
    limits = RiskLimits(restricted=frozenset({"A"}))
    assert [one(order, limits, holdings={"A": 5.0}).rule for order in (buy("A", 1.0), sell("A", 1.0))] == [
        "restricted"
    ] * 2


def test_max_order_notional_clips():
    verdict = one(buy("A", 25.0), RiskLimits(max_order_notional=123.0))
    assert (verdict.verdict, verdict.quantity, verdict.rule) == ("clip", 12.3, "max_order_notional")


def test_max_position_counts_what_is_held_and_lets_sells_through():
    limits = RiskLimits(max_position=0.25)  # 250 of 1000: 25 shares, 20 are held
    assert one(buy("A", 9.0), limits, holdings={"A": 20.0}).quantity == 5.0
    assert one(buy("A", 9.0), limits, holdings={"A": 30.0}).verdict == "reject"
    assert one(sell("A", 30.0), limits, holdings={"A": 90.0}).verdict == "approve"


def test_max_gross_scales_all_buys_alike_after_the_sells():
    # Gross 800 less 300 sold leaves room for 500; 400 + 600 are wanted: half of each.
    orders = [sell("C", 30.0), buy("A", 40.0), buy("B", 60.0)]
    verdicts = check(orders, 1000.0, {"A": 10.0, "B": 10.0, "C": 10.0}, {"C": 80.0}, LOOSE)
    assert [v.quantity for v in verdicts] == [30.0, 20.0, 30.0]
    assert [v.rule for v in verdicts] == ["", "max_gross", "max_gross"]
    assert approved(verdicts) == (sell("C", 30.0), buy("A", 20.0), buy("B", 30.0))


def test_whole_shares_are_clipped_to_whole_shares():
    assert one(buy("A", 25.0), RiskLimits(max_order_notional=123.0), fractional=False).quantity == 12.0


def test_every_reason_is_told_and_rejected_orders_are_not_sent():
    verdict = one(buy("A", 90.0), RiskLimits(max_position=0.25, max_order_notional=500.0))
    assert verdict.quantity == 25.0
    assert verdict.reason.count(";") == 1
    assert approved([one(buy("A", 1.0), LOOSE, {"B": 1.0})]) == ()


def test_rules_never_raise_a_quantity():
    assert list(RISK_RULES) == ["unknown_price", "restricted", "max_order_notional", "max_position", "max_gross"]
    assert one(buy("A", 0.5), RiskLimits()).quantity == 0.5


@pytest.mark.parametrize(
    "wrong", [{"max_position": 0.0}, {"max_position": 1.5}, {"max_gross": 0.0}, {"max_order_notional": 0.0}]
)
def test_limits_state_their_bounds(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RiskLimits(**wrong)

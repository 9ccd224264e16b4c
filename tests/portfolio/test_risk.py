import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    assert list(RISK_RULES) == [
        "unknown_price", "restricted", "max_order_notional", "max_volume_share", "max_position", "max_names", "max_gross",
        "max_turnover", "max_net", "min_order_notional",
    ]  # fmt: skip
    assert [rule.code for rule in RISK_RULES.values()] == list(range(len(RISK_RULES)))
    assert one(buy("A", 0.5), RiskLimits()).quantity == 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_position": 0.0}, {"max_position": 1.5}, {"max_gross": 0.0}, {"max_order_notional": 0.0},
        {"max_net": 0.0}, {"max_net": math.nan}, {"max_names": 0}, {"max_turnover": -1.0}, {"max_turnover": math.inf},
        {"max_volume_share": 1.01},
    ],
)  # fmt: skip
def test_limits_state_their_bounds(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RiskLimits(**wrong)


# --- all orders together, and what depends on more than the order: equity is 1000, every share costs 10 ----------------------

WIDE = {"max_position": 1.0, "max_gross": 10.0}
TEN = dict.fromkeys("ABCDEF", 10.0)


def checked(orders, holdings=None, volumes=None, fractional=True, least=0.0, **limits):
    return check(orders, 1000.0, TEN, holdings or {}, RiskLimits(**(WIDE | limits)), fractional, volumes, least)


def left(verdicts):
    return {v.order.symbol: v.quantity for v in verdicts}


def cut(verdicts):
    return {v.order.symbol: v.rule for v in verdicts if v.rule}


def test_rules_that_are_off_ask_for_nothing():
    orders = [sell("A", 30.0), buy("B", 90.0), sell("C", 90.0)]
    assert [v.verdict for v in checked(orders, {"A": 30.0})] == ["approve"] * 3
    assert RiskLimits().numbers[4:] == (math.inf,) * 4
    assert not RiskLimits().needs_volumes


def test_max_net_scales_the_side_that_leans_too_far():
    # 200 long are held and 400 + 200 are bought, 100 sold short: 700 net. At most 500: 200 of the 600 are too much.
    orders = [sell("D", 10.0), buy("B", 40.0), buy("C", 20.0)]
    verdicts = checked(orders, {"A": 20.0}, max_net=0.5)
    assert left(verdicts) == pytest.approx({"D": 10.0, "B": 40 * 2 / 3, "C": 20 * 2 / 3}, abs=1e-6)
    assert cut(verdicts) == {"B": "max_net", "C": "max_net"}
    assert verdicts[1].reason == "long less short may not exceed 50.0% of equity either way"
    assert not cut(checked(orders, {"A": 20.0}, max_net=0.7))


def test_max_net_holds_for_shorts_too():
    verdicts = checked([sell("A", 60.0), buy("B", 20.0)], max_net=0.25)  # -600 + 200: 150 too much
    assert left(verdicts) == {"A": 45.0, "B": 20.0}


def test_max_net_lets_through_what_reduces_and_what_closes():
    # 800 net long already: selling passes, so does selling short; covering a short passes although net rises by it.
    assert not cut(checked([sell("A", 20.0), sell("C", 10.0)], {"A": 80.0}, max_net=0.5))
    assert not cut(checked([buy("B", 10.0)], {"A": 80.0, "B": -10.0}, max_net=0.5))
    # ... and of an order that covers and goes on, the part that covers.
    assert left(checked([buy("B", 25.0)], {"A": 80.0, "B": -10.0}, max_net=0.5)) == {"B": 10.0}


def test_max_names_keeps_the_largest_new_names_and_ties_go_by_symbol():
    orders = [buy("C", 9.0), buy("A", 9.0), buy("B", 12.0), buy("E", 8.0)]
    verdicts = checked(orders, {"F": 5.0}, max_names=3)
    assert left(verdicts) == {"B": 12.0, "A": 9.0, "C": 0.0, "E": 0.0}
    assert cut(verdicts) == {"C": "max_names", "E": "max_names"}
    assert verdicts[0].reason == "C would be a position more than the 3 allowed"


def test_max_names_counts_what_is_sold_exactly_as_gone_and_nothing_else():
    new = buy("C", 5.0)
    assert not cut(checked([sell("A", 20.0), new], {"A": 20.0, "B": 5.0}, max_names=2))
    assert cut(checked([sell("A", 19.0), new], {"A": 20.0, "B": 5.0}, max_names=2)) == {"C": "max_names"}
    # A sale that another rule cuts leaves a name; one that turns a position around does, too.
    assert cut(checked([sell("A", 20.0), new], {"A": 20.0, "B": 5.0}, max_names=2, max_order_notional=150.0)) == {
        "A": "max_order_notional", "C": "max_names",
    }  # fmt: skip
    assert cut(checked([sell("A", 25.0), new], {"A": 20.0, "B": 5.0}, max_names=2)) == {"C": "max_names"}
    # With too many held already nothing held is touched.
    assert left(checked([buy("A", 1.0), sell("B", 2.0), new], {"A": 2.0, "B": 5.0}, max_names=1)) == {
        "A": 1.0, "B": 2.0, "C": 0.0,
    }  # fmt: skip


def test_max_names_ranks_by_what_was_planned():
    # B is planned larger than C and clipped below it: it keeps its place.
    orders = [buy("B", 50.0), buy("C", 40.0)]
    verdicts = checked(orders, max_names=1, max_volume_share=0.1, volumes={"B": 100.0, "C": 1000.0})
    assert left(verdicts) == {"B": 10.0, "C": 0.0}


def test_max_turnover_counts_sales_and_scales_what_opens():
    # 300 are sold of 500 allowed: 200 are left for 400 + 100.
    orders = [sell("A", 30.0), buy("B", 40.0), buy("C", 10.0)]
    verdicts = checked(orders, {"A": 50.0}, max_turnover=0.5)
    assert left(verdicts) == {"A": 30.0, "B": 16.0, "C": 4.0}
    assert cut(verdicts) == {"B": "max_turnover", "C": "max_turnover"}
    assert verdicts[1].reason == "all orders together may not exceed 50.0% of equity"
    assert not cut(checked(orders, {"A": 50.0}, max_turnover=0.8))
    # What closes positions passes, be it above the limit; then nothing else does.
    verdicts = checked([sell("A", 60.0), buy("B", 1.0)], {"A": 60.0}, max_turnover=0.5)
    assert left(verdicts) == {"A": 60.0, "B": 0.0}


def test_max_volume_share_clips_both_sides_and_refuses_what_is_not_known():
    orders = [sell("A", 30.0), buy("B", 10.0), buy("C", 10.0), buy("D", 10.0), buy("E", 10.0)]
    volumes = {"A": 200.0, "B": 100.0, "C": math.nan, "D": 0.0}
    verdicts = checked(orders, {"A": 30.0}, volumes, max_volume_share=0.1)
    assert left(verdicts) == {"A": 20.0, "B": 10.0, "C": 0.0, "D": 0.0, "E": 0.0}
    assert set(cut(verdicts).values()) == {"max_volume_share"}
    assert verdicts[2].reason == "an order may not exceed 10.00% of the average daily volume, which must be known"
    assert left(checked(orders[:1], {"A": 30.0}, None, max_volume_share=0.1)) == {"A": 0.0}
    assert left(checked([buy("A", 9.0)], volumes={"A": 75.0}, fractional=False, max_volume_share=0.1)) == {"A": 7.0}


def test_what_a_rule_leaves_below_the_least_notional_is_not_sent():
    # 1,000 of equity at most: 990 are held, 10 are left for an order of 50.
    held = {"A": 99.0}
    limits = {"max_gross": 1.0}
    verdicts = checked([buy("B", 5.0)], held, least=10.01, **limits)
    assert (verdicts[0].verdict, verdicts[0].rule) == ("reject", "min_order_notional")
    assert verdicts[0].reason == (
        "all positions together may not exceed 100.0% of equity; what is left of it lies below the least notional of an order"
    )
    assert left(checked([buy("B", 5.0)], held, least=10.0, **limits)) == {"B": 1.0}
    assert left(checked([buy("B", 0.5)], {}, least=10.0, **limits)) == {"B": 0.5}  # no rule has cut it


def test_what_closes_a_position_exactly_may_be_small():
    # Of an order that turns one share around, the part that closes is left, worth 10 of at least 50.
    assert left(checked([sell("A", 30.0)], {"A": 1.0, "B": -100.0}, least=50.0, max_gross=1.0)) == {"A": 1.0}
    assert left(checked([sell("A", 2.0)], {"A": 2.0}, least=50.0, max_order_notional=10.0)) == {"A": 0.0}


def test_a_rule_that_drops_an_order_leaves_its_room_to_the_next_rules():
    # B's 5 are clipped to 4, worth 40, and dropped: C may turn over all of the 50.
    verdicts = checked(
        [buy("B", 5.0), buy("C", 5.0)],
        volumes={"B": 40.0, "C": 1e6},
        least=45.0,
        max_volume_share=0.1,
        max_turnover=0.05,
    )
    assert left(verdicts) == {"B": 0.0, "C": 5.0}


SIZES = st.floats(-80.0, 80.0).map(lambda x: round(x, 2))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.dictionaries(st.sampled_from("ABCDEF"), SIZES.filter(bool)), st.dictionaries(st.sampled_from("ABCDEF"), SIZES),
    st.floats(0.05, 1.5), st.integers(1, 5), st.floats(0.05, 2.0), st.sampled_from([0.0, 30.0]),
)  # fmt: skip
def test_the_limits_hold_of_what_is_left(ordered, holdings, net, names, turnover, least):
    """By their own definitions, whatever is ordered and held: what is above a limit after the orders was not opened by them."""
    orders = [buy(s, q) if q > 0 else sell(s, -q) for s, q in ordered.items()]
    held = {s: q for s, q in holdings.items() if q}
    limits = {"max_net": net, "max_names": names, "max_turnover": turnover, "max_gross": 1.5}
    verdicts = checked(orders, held, least=least, **limits)
    signed = {v.order.symbol: math.copysign(v.quantity, v.order.signed) for v in verdicts if v.quantity > 0}
    after = {s: held.get(s, 0.0) + signed.get(s, 0.0) for s in TEN}
    opened = {
        s: q for s, q in signed.items() if abs(after[s]) > abs(held.get(s, 0.0)) or after[s] * held.get(s, 0.0) < 0
    }
    tolerance = 1e-4
    assert all(v.quantity <= v.order.quantity for v in verdicts)
    assert all(v.quantity * 10.0 >= least for v in verdicts if v.verdict == "clip" and after[v.order.symbol] != 0.0)
    if opened:
        assert sum(map(abs, after.values())) * 10 <= 1500.0 + tolerance
        assert sum(map(abs, signed.values())) * 10 <= turnover * 1000.0 + tolerance
    if set(opened) - set(held):
        assert sum(q != 0.0 for q in after.values()) <= names
    total = sum(after.values()) * 10
    if abs(total) > net * 1000.0 + tolerance:
        assert not [s for s, q in opened.items() if q * total > 0]
    turned = check(orders[::-1], 1000.0, TEN, held, RiskLimits(**(WIDE | limits)), True, None, least)
    assert [v.quantity for v in turned[::-1]] == [v.quantity for v in verdicts]


def test_the_order_of_orders_changes_no_bit():
    rng = np.random.default_rng(3)
    symbols = [f"S{i:02d}" for i in range(30)]
    closes = dict(zip(symbols, rng.uniform(1, 300, 30).tolist(), strict=True))
    orders = [
        PlannedOrder(s, Side.BUY if rng.random() < 0.8 else Side.SELL, float(rng.uniform(1, 50)), 1.0) for s in symbols
    ]
    limits = RiskLimits(max_gross=0.7, max_net=0.01, max_turnover=0.6, max_names=20)
    one = check(orders, 1e5, closes, {}, limits)
    other = check(orders[15:] + orders[:15], 1e5, closes, {}, limits)
    assert one == other[15:] + other[:15]
    assert {v.rule for v in one} >= {"max_names", "max_turnover", "max_net"}

"""What the strategies decide, against weights worked out by hand."""

from datetime import date

import numpy as np
import pytest

from trading_core.errors import UnknownNameError
from trading_core.portfolio.buy_and_hold import BuyAndHold, BuyAndHoldParams
from trading_core.portfolio.equal_weight import EqualWeight, EqualWeightParams
from trading_core.portfolio.registry import strategy_entry
from trading_core.portfolio.strategy import session_view
from trading_core.portfolio.threshold_long_flat import ThresholdLongFlat, ThresholdLongFlatParams
from trading_core.portfolio.top_k import TopK, TopKParams

NAN = np.nan


def view(score, weights, closes=None, ordinal=0, p_up=None):
    count = len(score)
    closes = np.full((1, count), 10.0) if closes is None else np.array([closes], dtype=float)
    weights = np.array(weights, dtype=float)
    return session_view(
        date(2020, 1, 2),
        date(2020, 1, 3),
        ordinal,
        tuple("ABCDEFG"[:count]),
        np.array(score, dtype=float),
        np.full((count, 7), NAN),
        np.full(count, NAN) if p_up is None else np.array(p_up, dtype=float),
        closes,
        np.ones_like(closes),
        weights,
        1.0 - weights.sum(),
    )


def top(k, reweight=False):
    return TopK(TopKParams(k, reweight))


def test_top_k_buys_the_highest_scores_in_equal_parts():
    assert top(2).decide(view([0.1, 0.4, 0.2, -0.3], [0, 0, 0, 0])).tolist() == [0.0, 0.5, 0.5, 0.0]


def test_ties_go_to_the_first_symbol():
    assert top(1).decide(view([0.2, 0.2, 0.2], [0, 0, 0])).tolist() == [1.0, 0.0, 0.0]


def test_names_that_stay_keep_their_weight_to_the_bit_and_the_new_ones_share_the_rest():
    # B stays at 0.35; A (0.4) is sold, 0.25 is cash: C gets 0.65.
    target = top(2).decide(view([0.0, 0.9, 0.8], [0.4, 0.35, 0.0]))
    assert target[1] == 0.35
    assert target[0] == 0.0
    assert target[2] == pytest.approx(0.65)


def test_a_held_name_without_a_forecast_is_held_and_takes_a_place():
    # k = 2: A is held without a forecast, so one place is open, for C; B is sold.
    target = top(2).decide(view([NAN, 0.1, 0.9], [0.3, 0.3, 0.0]))
    assert target[0] == 0.3
    assert target[1] == 0.0
    assert target[2] == pytest.approx(0.7)


def test_a_held_name_without_a_bar_is_held_whatever_its_score():
    target = top(1).decide(view([-9.0, 0.5], [0.3, 0.0], closes=[NAN, 10.0]))
    assert target.tolist() == [0.3, 0.0]


def test_a_name_without_a_bar_is_not_bought():
    assert top(1).decide(view([9.0, 0.5], [0, 0], closes=[NAN, 10.0])).tolist() == [0.0, 1.0]


def test_without_any_forecast_nothing_is_traded():
    assert top(2).decide(view([NAN] * 3, [0.2, 0.3, 0.0])).tolist() == [0.2, 0.3, 0.0]


def test_the_share_of_empty_places_stays_in_cash():
    assert top(4).decide(view([0.5, NAN, 0.1], [0, 0, 0])).tolist() == [0.25, 0.0, 0.25]


def test_reweight_brings_every_chosen_name_to_equal_weight():
    assert top(2, reweight=True).decide(view([0.5, 0.4, 0.1], [0.7, 0.0, 0.3])).tolist() == [0.5, 0.5, 0.0]


def test_reweight_shares_what_a_held_name_without_a_forecast_leaves():
    # A drifted to 0.7 and has no forecast: the other place gets 0.3, not 0.5.
    target = top(2, reweight=True).decide(view([NAN, 0.4, 0.1], [0.7, 0.0, 0.3]))
    assert target[0] == 0.7
    assert target[1] == pytest.approx(0.3)
    assert target[2] == 0.0


def test_buy_and_hold_buys_once():
    strategy = BuyAndHold(BuyAndHoldParams())
    assert strategy.decide(view([NAN] * 3, [0, 0, 0], closes=[1, NAN, 1])).tolist() == [0.5, 0.0, 0.5]
    held = view([NAN] * 3, [0.5, 0.0, 0.3], ordinal=40)
    assert strategy.decide(held).tolist() == held.weights.tolist()


def test_equal_weight_rebalances_on_its_sessions_only():
    strategy = EqualWeight(EqualWeightParams(rebalance_sessions=5))
    weights = [0.6, 0.1, 0.3]
    assert strategy.decide(view([NAN] * 3, weights, ordinal=4)).tolist() == weights
    assert strategy.decide(view([NAN] * 3, weights, ordinal=5)) == pytest.approx([1 / 3] * 3)


def test_equal_weight_holds_what_has_no_bar():
    target = EqualWeight(EqualWeightParams()).decide(view([NAN] * 3, [0.6, 0.4, 0.0], closes=[NAN, 1, 1]))
    assert target == pytest.approx([0.6, 0.2, 0.2])


@pytest.mark.parametrize("make", [lambda: TopKParams(0), lambda: TopKParams(1001), lambda: EqualWeightParams(0)])
def test_parameters_state_their_bounds(make):
    with pytest.raises(ValueError, match="must lie between 1 and"):
        make()


def test_an_unknown_strategy_names_the_known_ones():
    with pytest.raises(UnknownNameError, match="Did you mean 'top_k'"):
        strategy_entry("topk")


# --- threshold, long or flat ------------------------------------------------------------------------------------------


def long_flat(p_up, weights, closes=None, threshold=0.55):
    strategy = ThresholdLongFlat(ThresholdLongFlatParams(threshold))
    return strategy.decide(view([0.0] * len(p_up), weights, closes, p_up=p_up)).tolist()


def test_one_symbol_is_all_or_nothing():
    assert long_flat([0.55], [0.0]) == [1.0]
    assert long_flat([0.5499], [1.0]) == [0.0]
    assert long_flat([0.6], [0.97]) == [0.97]  # what is held and stays is left alone


def test_every_symbol_has_a_slot_and_what_is_not_likely_to_rise_leaves_it_in_cash():
    assert long_flat([0.6, 0.5, 0.7, 0.1], [0.0, 0.0, 0.0, 0.0]) == [0.25, 0.0, 0.25, 0.0]
    # A has drifted to 0.4 and stays; B (0.3) is sold: C gets its slot of 1/3, not all that is spare.
    assert long_flat([0.6, 0.5, 0.7], [0.4, 0.3, 0.0]) == pytest.approx([0.4, 0.0, 1 / 3])


def test_where_drift_has_left_less_than_a_slot_the_new_ones_share_it():
    # A stays at 0.8; 0.2 is spare for B and C, whose slots would be 1/3 each.
    assert long_flat([0.6, 0.7, 0.7], [0.8, 0.0, 0.0]) == pytest.approx([0.8, 0.1, 0.1])


def test_what_has_no_probability_or_no_bar_stays_and_leaves_the_slots_the_rest():
    # A has no forecast, B no bar; together 0.6. C and D have slots of 0.2; only C is likely enough.
    target = long_flat([NAN, 0.9, 0.9, 0.2], [0.4, 0.2, 0.0, 0.0], closes=[10.0, NAN, 10.0, 10.0])
    assert target == pytest.approx([0.4, 0.2, 0.2, 0.0])
    assert target[:2] == [0.4, 0.2]


@pytest.mark.parametrize("threshold", [-0.01, 1.01, NAN, True])
def test_a_threshold_is_a_probability(threshold):
    with pytest.raises(ValueError, match="must be a number between 0 and 1"):
        ThresholdLongFlatParams(threshold)

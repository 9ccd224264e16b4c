"""Strategies that turn a row of forecasts into weights, against weights worked out by hand."""

import numpy as np
import pytest
from strategy_samples import view

from trading_core.features.registry import FEATURES
from trading_core.portfolio.kernels.allocation import allocate
from trading_core.portfolio.kernels.types import WEIGHTS, Allocation
from trading_core.portfolio.long_short import LongShort, LongShortParams
from trading_core.portfolio.macd_confirmed import MACDConfirmed, MACDConfirmedParams
from trading_core.portfolio.mean_reversion import MeanReversionParams
from trading_core.portfolio.mean_variance import MeanVarianceParams
from trading_core.portfolio.minimum_variance import MinimumVarianceParams
from trading_core.portfolio.momentum import MomentumParams
from trading_core.portfolio.proportional import Proportional, ProportionalParams, capped_shares
from trading_core.portfolio.quantile_aware import QuantileAware, QuantileAwareParams
from trading_core.portfolio.random_same_turnover import RandomSameTurnoverParams
from trading_core.portfolio.sma_cross import SMACrossParams
from trading_core.portfolio.strategy import SignalInputs
from trading_core.portfolio.threshold_long_short import ThresholdLongShort, ThresholdLongShortParams
from trading_core.portfolio.top_k import TopK, TopKParams
from trading_core.portfolio.volatility_target import VolatilityTargetParams

NAN = np.nan


def decided(strategy, count, weights=None, closes=None, **known):
    return strategy.decide(view(strategy, [[10.0] * count] if closes is None else [closes], weights, **known))


# --- top k with a buffer ------------------------------------------------------------------------------------------------


def test_a_held_name_stays_while_it_is_among_the_best_k_and_the_buffer():
    buffered = TopK(TopKParams(k=1, buffer=1))
    assert decided(buffered, 3, [0, 0.8, 0], score=[0.9, 0.5, 0.1]).tolist() == [0, 0.8, 0]
    assert decided(buffered, 3, [0, 0, 0.8], score=[0.9, 0.5, 0.1]).tolist() == [1, 0, 0]
    assert decided(TopK(TopKParams(k=1)), 3, [0, 0.8, 0], score=[0.9, 0.5, 0.1]).tolist() == [1, 0, 0]


def test_a_place_that_the_buffer_does_not_keep_goes_to_the_best_name_that_is_not_held():
    # k = 2, buffer = 1: C (third) stays, D (fourth) leaves; A gets D's 0.4 and the 0.1 of cash.
    target = decided(TopK(TopKParams(k=2, buffer=1)), 4, [0, 0, 0.5, 0.4], score=[4, 3, 2, 1])
    assert target == pytest.approx([0.5, 0, 0.5, 0])
    assert target[2] == 0.5


def test_with_a_buffer_no_more_than_k_are_held_and_reweighting_works_on_those_that_stay():
    held = [0, 0.3, 0.3, 0.4]  # three are held, two places: the worse of them leaves
    assert decided(TopK(TopKParams(k=2, buffer=2)), 4, held, score=[4, 3, 2, 1]).tolist() == [0, 0.3, 0.3, 0]
    assert decided(TopK(TopKParams(2, True, 2)), 4, held, score=[4, 3, 2, 1]).tolist() == [0, 0.5, 0.5, 0]


# --- long short -----------------------------------------------------------------------------------------------------------


def test_the_best_fifth_is_owned_and_the_worst_fifth_is_short():
    score = [0.5, 0.1, -0.2, 0.3, -0.4]
    assert decided(LongShort(LongShortParams()), 5, score=score).tolist() == [0.5, 0, 0, 0, -0.5]
    # 0.3 of ten names are three on each side, which share half of a gross of 0.6.
    three = LongShort(LongShortParams(fraction=0.3, gross=0.6))
    assert decided(three, 10, score=range(10)) == pytest.approx([-0.1] * 3 + [0] * 4 + [0.1] * 3)


def test_float_noise_takes_no_name_away():
    assert 0.29 * 100 < 29
    score, ones = np.arange(100.0)[None], np.ones((1, 100))
    names = tuple(f"S{s:02d}" for s in range(100))
    inputs = SignalInputs(names, (), (0,), score, score[..., None], score, ones, ones, ones, {})
    target = LongShort(LongShortParams(fraction=0.29)).signals(inputs)
    assert ((target > 0).sum(), (target < 0).sum()) == (29, 29)


def test_ties_go_to_the_first_symbols_and_no_name_is_on_both_sides():
    assert decided(LongShort(LongShortParams(fraction=0.25)), 4, score=[1, 1, 1, 1]).tolist() == [0.5, -0.5, 0, 0]


def test_a_single_ranked_name_has_no_other_side():
    assert decided(LongShort(LongShortParams()), 2, [0, 0.4], score=[1.0, NAN]).tolist() == [0, 0.4]


def test_what_is_not_known_stays_and_leaves_both_sides_the_rest():
    # C is held short without a forecast, D has a forecast but no bar: 0.4 of the gross of 1 are gone, A and B share 0.6.
    target = decided(LongShort(LongShortParams()), 4, [0, 0.9, -0.2, 0.2], [1, 1, 1, NAN], score=[0.1, -0.1, NAN, 9.0])
    assert target == pytest.approx([0.3, -0.3, -0.2, 0.2])


def test_names_within_the_band_are_left_alone_and_those_between_two_rebalancings_too():
    banded = LongShort(LongShortParams(band=0.06, rebalance_sessions=5))
    assert decided(banded, 2, [0.45, -0.1], score=[1, 0]) == pytest.approx([0.45, -0.5])
    assert decided(banded, 2, [0.45, -0.1], score=[1, 0], ordinal=4).tolist() == [0.45, -0.1]


def test_what_a_band_leaves_above_its_goal_is_taken_from_what_moves():
    # Goals of 0.25: three names at 0.26 are within 0.015 of it. The fourth may grow to 1 - 0.78, or equity would be exceeded.
    weights = np.array([0.26, 0.26, 0.26, 0.20])
    target = allocate(Allocation(WEIGHTS, band=0.015), np.full(4, 0.25), np.ones(4, dtype=bool), weights, 0)
    assert target == pytest.approx([0.26, 0.26, 0.26, 0.22])


# --- threshold, long or short -------------------------------------------------------------------------------------------


def test_every_known_name_has_a_slot_that_is_long_short_or_cash():
    strategy = ThresholdLongShort(ThresholdLongShortParams(upper=0.55, lower=0.45))
    assert decided(strategy, 3, p_up=[0.55, 0.5, 0.45], score=[0] * 3) == pytest.approx([1 / 3, 0, -1 / 3])
    assert decided(strategy, 1, p_up=[0.3], score=[0]).tolist() == [-1.0]
    target = decided(strategy, 3, [0, 0.5, 0], p_up=[0.7, NAN, 0.1], score=[0, NAN, 0])
    assert target == pytest.approx([0.25, 0.5, -0.25])  # slots of a half each, of which half of equity is left


def test_where_both_thresholds_are_met_the_position_is_long():
    strategy = ThresholdLongShort(ThresholdLongShortParams(upper=0.5, lower=0.5, gross=0.8))
    assert decided(strategy, 2, p_up=[0.5, 0.49], score=[0, 0]).tolist() == [0.4, -0.4]


# --- proportional ---------------------------------------------------------------------------------------------------------


def test_weights_follow_the_predicted_return_whatever_the_score_is():
    known = {"quantiles": [0.02, -0.01, 0.01], "score": [1.0, 3.0, 2.0]}
    assert decided(Proportional(ProportionalParams(cap=1.0)), 3, **known) == pytest.approx([0.5, -0.25, 0.25])
    assert decided(Proportional(ProportionalParams(cap=1.0, long_only=True)), 3, **known) == pytest.approx(
        [2 / 3, 0, 1 / 3]
    )
    # A is cut to 0.4, and B and C share 0.6; with a cap of 0.3 all reach it and 0.1 is left.
    assert decided(Proportional(ProportionalParams(cap=0.4)), 3, **known) == pytest.approx([0.4, -0.3, 0.3])
    assert decided(Proportional(ProportionalParams(cap=0.3)), 3, **known) == pytest.approx([0.3, -0.3, 0.3])


def test_what_a_cap_takes_may_bring_another_name_to_it():
    # 8 : 4 : 2 : 2 of 1 under 0.3. The first is capped; of 0.7 the second would get 0.35, so it is capped too.
    assert capped_shares(np.array([[8.0, 4.0, 2.0, 2.0]]), 1.0, 0.3) == pytest.approx(np.array([[0.3, 0.3, 0.2, 0.2]]))


def test_without_any_predicted_move_nothing_is_held():
    strategy = Proportional(ProportionalParams())
    assert decided(strategy, 3, [0.5, 0.2, 0.0], quantiles=[0, NAN, 0], score=[1, NAN, 2]).tolist() == [0, 0.2, 0]
    assert strategy.short
    assert not Proportional(ProportionalParams(long_only=True)).short


# --- quantile aware -------------------------------------------------------------------------------------------------------


def levels(median, half_width):
    return median + half_width * np.array([-1.0, -0.8, -0.5, 0.0, 0.5, 0.8, 1.0])


def test_the_best_is_what_promises_most_for_its_interval():
    # Ratios 0.01 / 0.1 = 0.1, 0.005 / 0.02 = 0.25 and 0.02 / 0.4 = 0.05.
    quantiles = [levels(0.01, 0.05), levels(0.005, 0.01), levels(0.02, 0.2)]
    one, two = (QuantileAware(QuantileAwareParams(k)) for k in (1, 2))
    assert decided(one, 3, quantiles=quantiles, score=[1, 1, 9]).tolist() == [0, 1, 0]
    assert decided(two, 3, quantiles=quantiles, score=[1, 1, 9]).tolist() == [0.5, 0.5, 0]


def test_crossing_quantiles_and_intervals_without_width_say_nothing():
    crossing = levels(9.0, 0.1)
    crossing[2:4] = crossing[3], crossing[2]
    quantiles = [crossing, levels(9.0, 0.0), levels(0.01, 0.1), levels(9.0, -0.1)]
    strategy = QuantileAware(QuantileAwareParams(k=2))
    assert decided(strategy, 4, quantiles=quantiles, score=[1] * 4).tolist() == [0, 0, 0.5, 0]
    # A and B are held, are not known, and take both places.
    assert decided(strategy, 4, [0.3, 0.2, 0.1, 0], quantiles=quantiles, score=[1] * 4).tolist() == [0.3, 0.2, 0, 0]


# --- MACD confirmed -------------------------------------------------------------------------------------------------------


def confirmed(histogram, weights=None, score=(0.9, 0.5, 0.1), k=1):
    strategy = MACDConfirmed(MACDConfirmedParams(k))
    return decided(strategy, 3, weights, score=score, columns={"macd_hist": [histogram]}).tolist()


def test_only_what_the_histogram_confirms_is_held():
    assert confirmed([-0.1, 0.2, 0.3]) == [0, 1, 0]
    assert confirmed([0.0, 0.2, 0.3], [0.7, 0, 0]) == [0, 1, 0]  # 0 is no confirmation; what is held of it is sold
    assert confirmed([-0.1, -0.2, -0.3], [0.7, 0, 0]) == [0, 0, 0]
    assert confirmed([-0.1, 0.2, 0.0], k=2) == [0, 0.5, 0]


def test_without_the_feature_or_a_forecast_what_is_held_stays():
    assert confirmed([NAN, 0.2, 0.3], [0.7, 0, 0]) == [0.7, 0, 0]
    assert confirmed([0.1, -0.2, 0.3], [0, 0.7, 0], score=[NAN, NAN, 0.1]) == [0, 0.7, 0]


def test_the_feature_it_declares_is_in_the_registry():
    assert set(MACDConfirmed.columns) <= set(FEATURES)


# --- parameters -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "name", "value"),
    [
        (TopKParams, "buffer", -1),
        (LongShortParams, "fraction", 0.51),
        (LongShortParams, "gross", 0),
        (LongShortParams, "band", NAN),
        (ThresholdLongShortParams, "lower", 0.53),
        (ThresholdLongShortParams, "upper", 1.1),
        (ThresholdLongShortParams, "gross", 1.1),
        (ProportionalParams, "cap", 0),
        (QuantileAwareParams, "k", 0),
        (MACDConfirmedParams, "buffer", 1001),
        (MomentumParams, "skip", 252),
        (MeanReversionParams, "window", 0),
        (SMACrossParams, "fast", 200),
        (VolatilityTargetParams, "target_annual", 0),
        (MinimumVarianceParams, "names", 1),
        (MeanVarianceParams, "risk_aversion", 0),
        (RandomSameTurnoverParams, "replace_share", 1.01),
    ],
)
def test_a_parameter_out_of_bounds_is_named_with_what_it_may_be(params, name, value):
    with pytest.raises(ValueError, match=rf"^{name} is {value}; it must lie (between|above) \S+ and "):
        params(**{name: value})

"""Strategies that look at past prices, against returns, averages and volatilities worked out by hand or by numpy."""

from datetime import date, timedelta

import numpy as np
import pytest
from strategy_samples import view

from trading_core.portfolio.mean_reversion import MeanReversion, MeanReversionParams
from trading_core.portfolio.momentum import Momentum, MomentumParams
from trading_core.portfolio.signals import carried, trailing_mean, trailing_return, window
from trading_core.portfolio.sma_cross import SMACross, SMACrossParams
from trading_core.portfolio.strategy import SignalInputs
from trading_core.portfolio.volatility_target import VolatilityTarget, VolatilityTargetParams

NAN = np.nan


def inputs(closes, split_factor=None, decisions=None):
    """Prices [T, S] as traded, of which the last `decisions` rows are decided on."""
    closes = np.array(closes, dtype=float)
    shape = (decisions or len(closes), closes.shape[1])
    nothing = np.full(shape, NAN)
    factor = np.ones_like(closes) if split_factor is None else np.array(split_factor, dtype=float)
    days = tuple(date(2020, 1, 1) + timedelta(days=t) for t in range(shape[0]))
    symbols = tuple(f"S{i}" for i in range(shape[1]))
    quantiles = np.full((*shape, 7), NAN)
    ordinals = tuple(range(shape[0]))
    return SignalInputs(symbols, days, ordinals, nothing, quantiles, nothing, closes, closes * 2, factor, {})


def split_market(seed=0, sessions=60, symbols=5):
    """Prices as traded with splits by 3, 0.1 and 7, and gaps."""
    rng = np.random.default_rng(seed)
    closes = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, (sessions, symbols)), axis=0))
    ratio = np.ones_like(closes)
    ratio[20, 0], ratio[25, 0], ratio[31, 2], ratio[33, 3] = 3.0, 0.1, 7.0, 3.0
    factor = np.cumprod(ratio, axis=0)
    closes = closes / factor
    closes[rng.random(closes.shape) < 0.05] = NAN
    return closes, factor


# --- what is read of prices ---------------------------------------------------------------------------------------------


def test_a_return_over_a_split_is_that_of_an_owner():
    # 10, then 12, then two for one: 6.5 are 13 of before. From the first row: 30%; from the second: 13 / 12 - 1.
    made = trailing_return(inputs([[10], [12], [6.5]], [[1], [1], [2]]), 2)
    assert made[:, 0].tolist() == pytest.approx([NAN, NAN, 0.3], nan_ok=True)
    assert trailing_return(inputs([[10], [12], [6.5]], [[1], [1], [2]], 1), 1)[0, 0] == pytest.approx(13 / 12 - 1)
    # Two sessions ago, the last one skipped: 12 / 10.
    assert trailing_return(inputs([[10], [12], [6.5]], [[1], [1], [2]]), 2, 1)[2, 0] == pytest.approx(0.2)


def test_a_return_needs_its_two_ends_and_carries_a_price_over_a_gap():
    closes = [[10, NAN, 10, 10], [11, 11, 11, 11], [NAN, 12, 12, 12], [13, 13, 13, NAN]]
    assert trailing_return(inputs(closes), 3, 1)[3].tolist() == pytest.approx([0.1, NAN, 0.2, NAN], nan_ok=True)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 13])
@pytest.mark.parametrize("decisions", [60, 30])
def test_means_are_those_of_numpy_over_what_a_view_shows(rows, decisions):
    closes, factor = split_market()
    panel = inputs(closes, factor, decisions)
    means = trailing_mean(panel, carried(panel), rows)
    for row in range(decisions):
        shown = window(panel, row, rows).closes
        for s in range(closes.shape[1]):
            prices = shown[:, s]
            if len(prices) == rows and np.isfinite(prices[0]) and np.isfinite(prices[-1]):
                held = prices[np.maximum.accumulate(np.where(np.isfinite(prices), np.arange(rows), 0))]
                assert means[row, s] == pytest.approx(held.mean(), rel=1e-12)


def test_a_history_shorter_than_the_window_has_no_mean():
    panel = inputs([[1.0], [2.0], [3.0]], [[1], [2], [2]])
    assert np.isnan(trailing_mean(panel, carried(panel), 5)).all()


def test_a_window_shows_prices_and_volumes_in_the_basis_of_its_last_row():
    seen = window(inputs([[10.0], [12.0], [6.5]], [[1], [1], [2]]), 2, 3)
    assert seen.closes[:, 0].tolist() == [5.0, 6.0, 6.5]
    assert seen.volumes[:, 0].tolist() == [40.0, 48.0, 13.0]


# --- momentum and mean reversion ----------------------------------------------------------------------------------------


def test_momentum_holds_what_rose_most_before_the_sessions_it_skips():
    strategy = Momentum(MomentumParams(k=1, lookback=3, skip=1, rebalance_sessions=2))
    # From t - 3 to t - 1: A 20%, B 10%, C 50%, but C has no bar to begin with. What A did since does not matter.
    closes = [[10, 10, NAN], [11, 10, 10], [12, 11, 15], [5, 40, 40]]
    assert strategy.lookback == 4
    assert strategy.decide(view(strategy, closes)).tolist() == [1, 0, 0]
    held = view(strategy, closes, [0, 0.5, 0.2], ordinal=1)
    assert strategy.decide(held).tolist() == [0, 0.5, 0.2]  # between two rebalancings
    held = view(strategy, closes, [0, 0.5, 0.2], ordinal=2)
    assert strategy.decide(held).tolist() == [0, 0, 0.2]  # C is held, is not known, and takes the only place


def test_momentum_restores_equal_weights_when_it_rebalances():
    strategy = Momentum(MomentumParams(k=2, lookback=2, skip=0))
    closes = [[10, 10, 10], [10, 10, 10], [12, 11, 9]]
    assert strategy.decide(view(strategy, closes, [0.6, 0.3, 0.0])).tolist() == [0.5, 0.5, 0]


def test_mean_reversion_holds_what_fell_most():
    strategy = MeanReversion(MeanReversionParams(k=1, window=2, rebalance_sessions=1))
    closes = [[10, 10, 10], [1, 10, 10], [9, 8, 11]]  # -10%, -20%, +10%
    assert strategy.decide(view(strategy, closes)).tolist() == [0, 1, 0]
    assert strategy.decide(view(strategy, closes, [0.7, 0, 0])).tolist() == [0, 1, 0]


# --- moving averages ----------------------------------------------------------------------------------------------------


def test_what_is_above_its_slow_average_is_held_in_slots():
    strategy = SMACross(SMACrossParams(fast=2, slow=4))
    # Fast and slow: A 3.5 and 2.5; B 1.5 and 2.5; C 2 and 2, which is not above; D is not known.
    closes = [[1, 4, 2, NAN], [2, 3, 2, 2], [3, 2, 2, 3], [4, 1, 2, 4]]
    assert strategy.decide(view(strategy, closes)) == pytest.approx([1 / 3, 0, 0, 0])
    held = view(strategy, closes, [0, 0.2, 0, 0.4])  # D stays; of the 0.6 it leaves A has a third
    assert strategy.decide(held) == pytest.approx([0.2, 0, 0, 0.4])


# --- volatility target --------------------------------------------------------------------------------------------------


def prices(returns):
    """Closes [W + 1, S] from returns [W, S]."""
    moves = np.array(returns, dtype=float)
    return 100 * np.vstack([np.ones(moves.shape[1]), np.cumprod(1 + moves, axis=0)])


ZIGZAG = np.array([0.02, -0.02, 0.02, -0.02])
DEVIATION = 0.02 * np.sqrt(4 / 3)  # its standard deviation with n - 1: the mean is 0


def targeting(target, k=1, weighting="equal", window=4, band=0.0, per_year=1):
    return VolatilityTarget(VolatilityTargetParams(k, target, window, weighting, per_year, band=band))


def test_the_basket_is_scaled_down_to_the_target_and_never_up():
    closes = prices(np.column_stack([ZIGZAG, ZIGZAG / 4]))
    for target, weight in ((0.01, 0.01 / DEVIATION), (0.5, 1.0)):
        strategy = targeting(target)
        assert strategy.decide(view(strategy, closes, score=[2, 1])) == pytest.approx([weight, 0])
    # A year of 4 sessions has twice the volatility of one.
    strategy = targeting(0.01, per_year=4)
    assert strategy.decide(view(strategy, closes, score=[2, 1])) == pytest.approx([0.005 / DEVIATION, 0])


def test_what_moves_against_each_other_has_no_volatility_together():
    strategy = targeting(0.001, k=2)
    closes = prices(np.column_stack([ZIGZAG, -ZIGZAG]))
    assert strategy.decide(view(strategy, closes, score=[1, 1])) == pytest.approx([0.5, 0.5])


def test_by_inverse_volatility_the_calmer_name_gets_more_and_one_that_never_moves_nothing():
    strategy = targeting(5.0, k=3, weighting="inverse_volatility")
    closes = prices(np.column_stack([2 * ZIGZAG, ZIGZAG, 0 * ZIGZAG]))
    closes[2, 2] = np.nextafter(100.0, 101.0)  # as a split leaves it
    assert strategy.decide(view(strategy, closes, score=[1, 1, 1])) == pytest.approx([1 / 3, 2 / 3, 0])


def test_the_volatility_is_that_of_the_sample_covariance():
    returns = np.random.default_rng(4).normal(0, 0.02, (30, 6))
    strategy = targeting(0.1, k=4, weighting="inverse_volatility", window=30, per_year=252)
    weights = strategy.decide(view(strategy, prices(returns), score=[6, 5, 4, 3, 2, 1]))
    assert np.sqrt(252 * weights @ np.cov(returns, rowvar=False) @ weights) == pytest.approx(0.1, rel=1e-9)
    own = returns.std(axis=0, ddof=1)[:4]
    assert weights[:4] / weights.sum() == pytest.approx(1 / own / (1 / own).sum(), rel=1e-9)
    assert weights[4:].tolist() == [0, 0]


def test_a_name_without_the_window_is_no_part_of_the_basket_and_small_moves_are_left_alone():
    closes = prices(np.column_stack([ZIGZAG, ZIGZAG]))
    closes[0, 0] = NAN
    strategy = targeting(0.01, band=0.05)
    goal = 0.01 / DEVIATION
    assert strategy.decide(view(strategy, closes, [0.3, 0.0], score=[2, 1])) == pytest.approx([0.3, goal])
    near = view(strategy, closes, [0, 0.4], score=[2, 1])  # within 0.05 of 0.433
    assert strategy.decide(near).tolist() == [0, 0.4]

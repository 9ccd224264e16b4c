"""Return metrics against numbers worked out by hand, and scipy where a hand would tire."""

import math

import numpy as np
import pytest
from scipy import stats

from trading_core.errors import InvalidConfigError, WrongTypeError
from trading_core.metrics import returns as m

CURVE = np.array([100.0, 120.0, 90.0, 110.0, 130.0, 125.0])


def test_simple_returns_and_growth():
    assert m.simple_returns(np.array([100.0, 110.0, 99.0])).tolist() == pytest.approx([0.1, -0.1])
    assert m.total_return(CURVE) == 0.25
    assert m.cagr(np.array([1.0] + [1.1] * 126)) == pytest.approx(0.21)  # 10 % in half a year of 126 sessions
    assert math.isnan(m.cagr(np.array([1.0])))
    assert m.cagr(np.array([1.0, 0.5, 0.0])) == -1.0


def test_after_ruin_nothing_has_a_return():
    ruined = np.array([100.0, 50.0, -10.0, -20.0])
    np.testing.assert_allclose(m.simple_returns(ruined), [-0.5, -1.2, np.nan])
    summary = m.summarize(ruined, np.zeros(4))
    assert summary.total_return == summary.cagr == -1.0
    assert m.total_return(np.array([100.0, -10.0, 110.0])) == -1.0  # nobody lends the way back
    assert summary.max_drawdown == pytest.approx(-1.2)
    for figure in ("volatility_annual", "sharpe_annual", "sortino_annual", "calmar", "hit_ratio"):
        assert math.isnan(getattr(summary, figure)), figure
    for figure in ("value_at_risk", "conditional_value_at_risk", "skewness", "kurtosis"):
        assert math.isnan(getattr(summary, figure)), figure


def test_volatility_and_sharpe():
    r = np.array([0.01, 0.03])  # mean 0.02, standard deviation (n - 1) 0.0141421
    assert m.volatility_annual(r) == pytest.approx(0.0141421356 * 15.8745079)
    assert m.sharpe_annual(r) == pytest.approx(0.02 / 0.0141421356 * 15.8745079)


def test_sortino():
    # Downside deviation of (0.1, -0.1, 0.2) is sqrt(0.01 / 3) = 0.0577350; the mean is 0.0666667.
    assert m.sortino_annual(np.array([0.1, -0.1, 0.2])) == pytest.approx(1.1547005 * 15.8745079)
    assert math.isnan(m.sortino_annual(np.array([0.1, 0.2])))


def test_drawdown():
    assert m.drawdowns(CURVE).tolist() == pytest.approx([0, 0, -0.25, -10 / 120, 0, -5 / 130])
    assert m.max_drawdown(CURVE) == m.Drawdown(-0.25, 1, 2, 4)
    assert m.max_drawdown(np.array([3.0, 2.0])).recovered is None
    assert m.max_drawdown(np.array([1.0, 2.0])) == m.Drawdown(0.0, 0, 0, 0)
    assert m.max_drawdown(CURVE).sessions == 3
    assert m.max_drawdown(np.array([3.0, 2.0])).sessions is None
    idle = np.array([1.0, 1.0, 1.0, 0.9, 1.0])  # it begins to fall when it leaves the high, not when it got there
    assert m.max_drawdown(idle) == m.Drawdown(pytest.approx(-0.1), 2, 3, 4)


def test_longest_under_water():
    #                  0    1    2    3    4     5     6    7    8     9
    curve = np.array([1.0, 0.5, 1.0, 1.0, 0.99, 0.98, 1.0, 1.1, 1.05, 1.2])
    assert m.longest_under_water(curve) == m.UnderWater(3, 3, 6)  # not the deepest one, which took two sessions
    assert m.longest_under_water(curve[:6]) == m.UnderWater(2, 0, 2)  # two of equal length: the first
    assert m.longest_under_water(np.array([2.0, 3.0, 1.0, 1.0, 2.0])) == m.UnderWater(3, 1, None)
    assert m.longest_under_water(np.array([1.0, 1.0, 2.0])) == m.UnderWater(0, 0, 0)
    assert m.longest_under_water(np.ones(1)) == m.UnderWater(0, 0, 0)


def test_skewness_and_kurtosis_equal_scipys():
    skewed = np.random.default_rng(2).exponential(0.01, 400) - 0.009
    assert m.skewness(skewed) == pytest.approx(stats.skew(skewed))
    assert m.kurtosis(skewed) == pytest.approx(stats.kurtosis(skewed, fisher=False))
    for nothing in (np.zeros(0), np.ones(1), np.full(9, 0.1)):
        assert math.isnan(m.skewness(nothing))
        assert math.isnan(m.kurtosis(nothing))


def test_value_at_risk_by_hand():
    returns = np.random.default_rng(0).permutation(np.arange(-5.0, 25.0)) / 100.0  # -5 %, -4 % ... 24 %
    assert m.value_at_risk(returns) == pytest.approx(0.04)  # 5 % of 30 is 1.5: the second worst
    assert m.conditional_value_at_risk(returns) == pytest.approx((0.05 + 0.5 * 0.04) / 1.5)
    assert m.value_at_risk(returns, 0.1) == pytest.approx(0.03)
    assert m.conditional_value_at_risk(returns, 0.1) == pytest.approx(0.04)
    assert m.value_at_risk(returns[:1]) == m.conditional_value_at_risk(returns[:1]) == pytest.approx(-returns[0])
    assert m.value_at_risk(np.arange(1.0, 101.0), 0.07) == -7.0  # although 100 * 0.07 is above 7 in floats
    assert m.value_at_risk(np.full(40, 0.01)) == pytest.approx(-0.01)  # a gain even there
    for nothing in (np.zeros(0), np.array([0.1, np.nan])):
        assert math.isnan(m.value_at_risk(nothing))
        assert math.isnan(m.conditional_value_at_risk(nothing))
    with pytest.raises(InvalidConfigError, match="level: 1 is"):
        m.value_at_risk(returns, 1)


@pytest.mark.parametrize(("count", "level"), [(500, 0.05), (501, 0.05), (250, 0.2), (30, 0.01)])
def test_value_at_risk_against_numpy_and_the_minimum_of_rockafellar_and_uryasev(count, level):
    returns = np.random.default_rng(count).standard_t(4, count) * 0.01
    quantile = np.quantile(returns, level, method="inverted_cdf")
    assert m.value_at_risk(returns, level) == pytest.approx(-quantile)
    # CVaR is the least c + mean(max(-r - c, 0)) / level (Rockafellar & Uryasev 2000), attained at one of the losses.
    least = min(c + np.mean(np.maximum(-returns - c, 0.0)) / level for c in -returns)
    assert m.conditional_value_at_risk(returns, level) == pytest.approx(least)


def test_calmar():
    half_year = np.concatenate([[1.0, 0.8], np.full(125, 1.1)])
    assert m.calmar(half_year) == pytest.approx(0.21 / 0.2)
    assert math.isnan(m.calmar(np.array([1.0, 2.0])))


def test_hit_ratio_and_turnover():
    assert m.hit_ratio(np.array([0.1, 0.0, -0.1, 0.2])) == 0.5
    assert m.turnover_annual(np.array([0.01, 0.03])) == pytest.approx(0.02 * 252)
    assert math.isnan(m.hit_ratio(np.array([0.1, np.nan])))


def test_exposure():
    values, equity = np.array([[np.nan, np.nan], [60.0, np.nan], [80.0, -40.0]]), np.array([100.0, 100.0, 80.0])
    assert m.gross_exposure(values, equity).tolist() == [0.0, 0.6, 1.5]
    assert m.net_exposure(values, equity).tolist() == [0.0, 0.6, 0.5]


def test_against_a_benchmark():
    rng = np.random.default_rng(0)
    market = rng.normal(0, 0.01, 300)
    r = 0.0002 + 1.3 * market + rng.normal(0, 0.004, 300)
    line = stats.linregress(market, r)
    assert m.beta(r, market) == pytest.approx(line.slope)
    assert m.alpha_annual(r, market) == pytest.approx(line.intercept * 252)
    active = r - market
    assert m.information_ratio(r, market) == pytest.approx(active.mean() / active.std(ddof=1) * math.sqrt(252))
    assert m.tracking_error_annual(r, market) == pytest.approx(active.std(ddof=1) * math.sqrt(252))
    assert math.isnan(m.alpha_annual(r[:1], market[:1]))


@pytest.mark.parametrize("flat", [np.zeros(50), np.full(50, 0.001), np.full(50, 0.1 + 0.2)])
def test_returns_that_do_not_vary_have_no_ratio(flat):
    assert math.isnan(m.sharpe_annual(flat))
    assert math.isnan(m.beta(np.arange(50.0), flat))
    assert math.isnan(m.information_ratio(flat, flat))


def test_a_summary_holds_the_same_figures():
    bench = np.array([100.0, 101.0, 99.0, 104.0, 103.0, 106.0])
    turnover, exposure = np.array([0.0, 0.5, 0.1, 0.1, 0.1, 0.2]), np.array([0.0, 1.0, 0.9, 0.8, 0.7, 0.6])
    summary = m.summarize(CURVE, turnover, bench, gross=exposure, net=-exposure[1:])
    assert summary.total_return == 0.25
    assert summary.max_drawdown == -0.25
    assert summary.turnover_annual == pytest.approx(0.2 * 252)  # the first row is before the first return
    assert summary.active_cagr == pytest.approx(m.cagr(CURVE) - m.cagr(bench))
    fall = (summary.drawdown_peak, summary.drawdown_trough, summary.drawdown_recovered, summary.drawdown_sessions)
    assert fall == (1, 2, 4, 3)
    assert summary.under_water_sessions == 3
    assert summary.value_at_risk == summary.conditional_value_at_risk == pytest.approx(0.25)
    returns, other = m.simple_returns(CURVE), m.simple_returns(bench)
    assert summary.skewness == pytest.approx(stats.skew(returns))
    assert summary.kurtosis == pytest.approx(stats.kurtosis(returns, fisher=False))
    assert summary.tracking_error_annual == pytest.approx(np.std(returns - other, ddof=1) * math.sqrt(252))
    assert summary.mean_gross_exposure == pytest.approx(0.8)
    assert summary.mean_net_exposure == pytest.approx(-0.8)
    alone = m.summarize(CURVE[:3], turnover[1:3])
    assert alone.turnover_annual == pytest.approx(0.3 * 252)
    assert (alone.drawdown_recovered, alone.drawdown_sessions) == (None, 1)
    for figure in ("beta", "active_cagr", "tracking_error_annual", "mean_gross_exposure", "mean_net_exposure"):
        assert math.isnan(getattr(alone, figure)), figure
    assert math.isnan(m.summarize(np.ones(1), np.zeros(1)).sharpe_annual)


@pytest.mark.parametrize(
    ("equity", "turnover", "benchmark", "problem"),
    [
        (np.zeros(0), np.zeros(0), None, "'equity' is empty"),
        (np.array([1.0, np.nan]), np.zeros(2), None, "'equity' is not finite at position 1"),
        (np.ones(4), np.zeros(2), None, "'turnover' is 2 long, expected 4 or 3"),
        (np.ones(4), np.zeros(4), np.ones(5), "'benchmark' is 5 long, expected 4"),
    ],
)
def test_a_curve_that_cannot_be_judged_is_refused(equity, turnover, benchmark, problem):
    with pytest.raises(WrongTypeError, match=problem):
        m.summarize(equity, turnover, benchmark)

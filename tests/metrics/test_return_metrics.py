"""Return metrics against numbers worked out by hand, and scipy where a hand would tire."""

import math

import numpy as np
import pytest
from scipy.stats import linregress

from trading_core.metrics import returns as m

CURVE = np.array([100.0, 120.0, 90.0, 110.0, 130.0, 125.0])


def test_simple_returns_and_growth():
    assert m.simple_returns(np.array([100.0, 110.0, 99.0])).tolist() == pytest.approx([0.1, -0.1])
    assert m.total_return(CURVE) == 0.25
    assert m.cagr(np.array([1.0] + [1.1] * 126)) == pytest.approx(0.21)  # 10 % in half a year of 126 sessions
    assert math.isnan(m.cagr(np.array([1.0])))


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
    assert m.max_drawdown(np.array([1.0, 2.0])).depth == 0.0


def test_calmar():
    half_year = np.concatenate([[1.0, 0.8], np.full(125, 1.1)])
    assert m.calmar(half_year) == pytest.approx(0.21 / 0.2)
    assert math.isnan(m.calmar(np.array([1.0, 2.0])))


def test_hit_ratio_and_turnover():
    assert m.hit_ratio(np.array([0.1, 0.0, -0.1, 0.2])) == 0.5
    assert m.turnover_annual(np.array([0.01, 0.03])) == pytest.approx(0.02 * 252)


def test_against_a_benchmark():
    rng = np.random.default_rng(0)
    market = rng.normal(0, 0.01, 300)
    r = 0.0002 + 1.3 * market + rng.normal(0, 0.004, 300)
    line = linregress(market, r)
    assert m.beta(r, market) == pytest.approx(line.slope)
    assert m.alpha_annual(r, market) == pytest.approx(line.intercept * 252)
    active = r - market
    assert m.information_ratio(r, market) == pytest.approx(active.mean() / active.std(ddof=1) * math.sqrt(252))


@pytest.mark.parametrize("flat", [np.zeros(50), np.full(50, 0.001), np.full(50, 0.1 + 0.2)])
def test_returns_that_do_not_vary_have_no_ratio(flat):
    assert math.isnan(m.sharpe_annual(flat))
    assert math.isnan(m.beta(np.arange(50.0), flat))
    assert math.isnan(m.information_ratio(flat, flat))


def test_a_summary_holds_the_same_figures():
    bench = np.array([100.0, 101.0, 99.0, 104.0, 103.0, 106.0])
    turnover = np.array([0.0, 0.5, 0.1, 0.1, 0.1, 0.2])
    summary = m.summarize(CURVE, turnover, bench)
    assert summary.total_return == 0.25
    assert summary.max_drawdown == -0.25
    assert summary.turnover_annual == pytest.approx(0.2 * 252)  # the first row is before the first return
    assert summary.active_cagr == pytest.approx(m.cagr(CURVE) - m.cagr(bench))
    alone = m.summarize(CURVE, turnover[1:])
    assert alone.turnover_annual == summary.turnover_annual
    assert math.isnan(alone.beta)

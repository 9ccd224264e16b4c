"""Sharpe ratio tests against published examples, scipy and statsmodels."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from trading_core.metrics import significance as s

RNG = np.random.default_rng(11)


def test_bailey_and_lopez_de_prado_2012():
    """Their example: 24 monthly returns with mean 3.6 %, standard deviation 7.9 %, skew -2.448, kurtosis 10.164. The
    probability that the true Sharpe ratio is above 0 is 0.982 if the returns were normal, and 0.913 as they are."""
    sharpe = 0.458
    normal = sharpe / s.sharpe_standard_error(sharpe, 0.0, 3.0, 24)
    real = sharpe / s.sharpe_standard_error(sharpe, -2.448, 10.164, 24)
    assert stats.norm.cdf(normal) == pytest.approx(0.982, abs=5e-4)
    assert stats.norm.cdf(real) == pytest.approx(0.913, abs=5e-4)


@pytest.mark.parametrize(("sharpe", "count", "expected"), [(0.5, 60, 0.137), (1.0, 12, 0.354), (3.0, 60, 0.303)])
def test_lo_2002(sharpe, count, expected):
    """His standard errors of a Sharpe ratio of normal returns, sqrt((1 + SR^2 / 2) / n)."""
    assert s.sharpe_standard_error(sharpe, 0.0, 3.0, count + 1) == pytest.approx(expected, abs=5e-4)


def test_moments_are_those_of_scipy():
    r = RNG.standard_t(5, 400)
    assert s.skewness(r) == pytest.approx(stats.skew(r))
    assert s.kurtosis(r) == pytest.approx(stats.kurtosis(r, fisher=False))


@pytest.mark.parametrize("lags", [0, 3, 8])
def test_the_robust_error_is_statsmodels(lags):
    r = ar1(0.3)
    sharpe = r.mean() / r.std(ddof=1)
    z = (r - r.mean()) / r.std()
    psi = z - sharpe / 2 * (z**2 - 1)
    fitted = sm.OLS(psi, np.ones(len(psi))).fit(cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False})
    assert s.sharpe_standard_error_hac(r, lags) == pytest.approx(fitted.bse[0], rel=1e-9)


def ar1(rho, count=500):
    noise = RNG.normal(0.05, 1, count)
    values = np.empty(count)
    values[0] = noise[0]
    for t in range(1, count):
        values[t] = rho * values[t - 1] + noise[t]
    return values


def test_trending_returns_make_the_robust_error_larger():
    r = ar1(0.5, 2000)
    sharpe = r.mean() / r.std(ddof=1)
    assert s.sharpe_standard_error_hac(r) > 1.3 * s.sharpe_standard_error(sharpe, s.skewness(r), s.kurtosis(r), len(r))


def test_without_lags_both_errors_agree():
    r = RNG.normal(0.1, 1, 4000)
    sharpe = r.mean() / r.std(ddof=1)
    independent = s.sharpe_standard_error(sharpe, s.skewness(r), s.kurtosis(r), len(r))
    assert s.sharpe_standard_error_hac(r, 0) == pytest.approx(independent, rel=1e-3)


def test_lags():
    assert [s.newey_west_lags(n) for n in (100, 252, 2520)] == [4, 4, 8]


@pytest.mark.parametrize("method", ["moments", "hac"])
def test_p_values_of_noise_are_uniform(method):
    """A test that is honest rejects 5 % of true hypotheses at the 5 % level; 1,500 tries leave 3.4 % .. 6.9 %."""
    rng = np.random.default_rng(5)
    p = np.array([s.sharpe_p_value(rng.normal(0, 0.01, 252), method) for _ in range(1500)])
    assert 0.034 < (p < 0.05).mean() < 0.069
    assert p.mean() == pytest.approx(0.5, abs=0.03)


def test_the_result_is_annual_and_one_sided():
    r = RNG.normal(0.001, 0.01, 600)
    test = s.sharpe_test(r, "moments")
    assert test.sharpe_annual == pytest.approx(r.mean() / r.std(ddof=1) * math.sqrt(252))
    assert test.statistic == pytest.approx(test.sharpe_annual / test.standard_error_annual)
    assert test.p_value == pytest.approx(stats.norm.sf(test.statistic))
    assert s.sharpe_p_value(-r, "hac") > 0.5


def test_too_few_returns_give_no_p_value_but_a_reason():
    test = s.sharpe_test(RNG.normal(0, 1, 29))
    assert math.isnan(test.p_value)
    assert math.isfinite(test.sharpe_annual)
    assert test.reason == "only 29 returns; at least 30 are needed"


@pytest.mark.parametrize(
    ("returns", "reason"),
    [(np.full(60, 0.001), "do not vary"), (np.append(np.arange(59.0), np.nan), "not finite"), (np.array([]), "only 0")],
)
def test_returns_that_cannot_be_tested(returns, reason):
    test = s.sharpe_test(returns)
    assert math.isnan(test.p_value)
    assert reason in test.reason

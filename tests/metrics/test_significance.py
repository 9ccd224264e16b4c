"""Sharpe ratio tests against published examples and scipy; test_significance_peers.py has statsmodels and arch."""

import math

import numpy as np
import pytest
from scipy import stats

from trading_core.errors import InvalidConfigError
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


def ar1(rho, count=500, rng=RNG, mean=0.05):
    noise = rng.normal(mean, 1, count)
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


# --- the bootstrap ----------------------------------------------------------------------------------------------------


def rejected(method, draw, tries=300):
    """The share of true hypotheses that a test at the 5 % level rejects."""
    p = [s.sharpe_test(draw(seed), method, seed=seed, resamples=400).p_value for seed in range(tries)]
    return np.mean(np.array(p) < 0.05)


def test_the_bootstrap_keeps_its_level():
    """300 tries at 5 % leave 1.3 % .. 9.7 % (the central 99.9 %)."""
    assert 0.013 < rejected("bootstrap", lambda seed: np.random.default_rng(seed).normal(0, 0.01, 252)) < 0.097


def test_the_bootstrap_is_not_fooled_by_trends_as_the_moments_are():
    def trending(seed):
        return ar1(0.4, 400, np.random.default_rng(seed), 0.0)

    assert rejected("moments", trending) > 0.12
    assert rejected("bootstrap", trending) < 0.10


def test_the_bootstrapped_error_of_independent_returns_is_that_of_the_moments():
    r = np.random.default_rng(3).standard_t(6, 1000) + 0.1
    moments, bootstrap = s.sharpe_test(r, "moments"), s.sharpe_test(r, "bootstrap", seed=1, block_length=1.0)
    assert bootstrap.standard_error_annual == pytest.approx(moments.standard_error_annual, rel=0.03)
    assert bootstrap.sharpe_annual == moments.sharpe_annual
    assert bootstrap.p_value == pytest.approx(moments.p_value, abs=0.005)
    assert (bootstrap.block_length, bootstrap.resamples) == (1.0, 10_000)


def test_the_bootstrap_is_a_function_of_its_seed():
    r = np.random.default_rng(4).normal(0.0005, 0.01, 300)
    first, again, other = (s.sharpe_test(r, "bootstrap", seed=seed, resamples=500) for seed in (1, 1, 2))
    assert first == again
    assert first.standard_error_annual != other.standard_error_annual
    assert first.block_length == other.block_length >= 1.0


def test_returns_that_hardly_ever_vary_cannot_be_resampled():
    test = s.sharpe_test(np.append(np.full(39, 0.001), 0.2), "bootstrap", resamples=200)
    assert math.isnan(test.p_value)
    assert test.reason == "in some resamples the returns do not vary"


# --- what must never look brilliant -----------------------------------------------------------------------------------

METHODS = ("moments", "hac", "bootstrap")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_losing_strategy_is_never_significant(method, sign):
    """Skewed either way: the median of a skewed null lies on the other side of its mean, and alone would be no guard."""
    rng = np.random.default_rng(17)
    for loss in (0.0, 0.001, 0.05, 0.5):
        r = sign * (rng.lognormal(0, 1.2, 120) - 1.0)
        r = r - r.mean() - loss
        assert s.sharpe_test(r, method, resamples=300).p_value >= 0.5 - 1e-12  # a mean of 0 is 0 but for a rounding


def bills(count=1260):
    """What bills accrue a day: near 4 % a year, the yield moving by a basis point or two."""
    shocks = np.random.default_rng(8).normal(0, 1e-4, count)
    return (0.04 + np.cumsum(shocks)) / 252


@pytest.mark.parametrize("method", METHODS)
def test_what_accrues_like_interest_is_not_brilliant(method):
    test = s.sharpe_test(bills(), method)
    assert math.isnan(test.p_value)
    assert math.isnan(test.standard_error_annual)
    assert test.volatility_annual < 0.005
    assert test.reason.startswith("the volatility is below 0.5% a year")
    # Without the floor each method would call it a wonder: the reason for the floor.
    assert s.sharpe_test(bills(), method, volatility_floor=0.0, resamples=1000).p_value < 0.001


def test_a_cash_rate_is_subtracted():
    cash = bills()
    assert s.sharpe_test(cash, cash=cash).reason == "the returns do not vary"
    r = np.random.default_rng(9).normal(0.0004, 0.01, len(cash))
    assert s.sharpe_test(r, cash=cash) == s.sharpe_test(r - cash)
    assert s.sharpe_test(r, cash=0.0001).sharpe_annual == pytest.approx((r.mean() - 1e-4) / r.std(ddof=1) * 252**0.5)
    assert s.sharpe_test(r, cash=cash).p_value > s.sharpe_test(r).p_value


def test_what_cannot_be_meant_is_an_error():
    r = RNG.normal(0, 0.01, 60)
    with pytest.raises(InvalidConfigError, match="59 values for 60 returns"):
        s.sharpe_test(r, cash=np.zeros(59))
    with pytest.raises(InvalidConfigError, match="method: magic"):
        s.sharpe_test(r, "magic")


def test_moments_that_no_returns_have_give_no_error():
    assert math.isnan(s.sharpe_standard_error(2.0, 3.0, 1.0, 100))
    assert math.isnan(s.sharpe_standard_error(0.1, 0.0, 3.0, 1))

"""Two strategies over the same sessions. The robust error is checked by hand in test_significance_peers.py."""

import math

import numpy as np
import pytest
from scipy import stats

from trading_core.errors import InvalidConfigError
from trading_core.metrics import paired as p
from trading_core.metrics.significance import sharpe_test

METHODS = ("hac", "bootstrap")


def pair(seed, count=300, better=0.0):
    rng = np.random.default_rng(seed)
    market = rng.normal(0.0004, 0.01, count)
    return market + rng.normal(better, 0.004, count), market + rng.normal(0, 0.004, count)


@pytest.mark.parametrize("method", METHODS)
def test_equal_strategies_are_rarely_told_apart(method):
    """300 tries at 5 % leave 1.3 % .. 9.7 % (the central 99.9 %)."""
    tests = [p.sharpe_difference_test(*pair(seed), method, seed=seed, resamples=300) for seed in range(300)]
    assert 0.013 < np.mean([t.p_value < 0.05 for t in tests]) < 0.097
    assert 0.013 < np.mean([t.p_two_sided < 0.05 for t in tests]) < 0.097


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("test", [p.sharpe_difference_test, p.active_return_test])
def test_a_better_one_is_found_where_its_own_return_says_little(test, method):
    """What both share cancels: the difference is significant though neither Sharpe ratio is."""
    better, worse = pair(1, 500, 0.001)
    found = test(better, worse, method, resamples=2000)
    assert found.p_value < 0.001 <= found.p_two_sided + 0.001
    assert sharpe_test(worse).p_value > 0.05
    assert test(worse, better, method, resamples=2000).p_value > 0.99
    assert found.difference_annual == pytest.approx(found.first_annual - found.second_annual)
    assert found.statistic == pytest.approx(found.difference_annual / found.standard_error_annual)


def test_figures_are_annual():
    a, b = pair(2)
    ratios = p.sharpe_difference_test(a, b)
    assert ratios.first_annual == pytest.approx(a.mean() / a.std(ddof=1) * math.sqrt(252))
    means = p.active_return_test(a, b, per_year=365)
    assert means.difference_annual == pytest.approx((a - b).mean() * 365)


def test_without_lags_the_mean_is_students_test_but_for_the_degrees_of_freedom():
    a, b = pair(3, 2000)
    known = stats.ttest_rel(a, b, alternative="greater")
    found = p.active_return_test(a, b, lags=0)
    assert found.statistic == pytest.approx(known.statistic, rel=1e-3)
    assert found.p_value == pytest.approx(known.pvalue, rel=1e-2)


def test_both_methods_agree_on_long_records():
    a, b = pair(4, 2000, 0.0001)
    for test in (p.sharpe_difference_test, p.active_return_test):
        hac, boot = test(a, b, "hac", 0), test(a, b, "bootstrap", seed=2, block_length=1.0)
        assert boot.standard_error_annual == pytest.approx(hac.standard_error_annual, rel=0.03)
        assert boot.p_value == pytest.approx(hac.p_value, abs=0.02)
        assert boot.p_two_sided == pytest.approx(hac.p_two_sided, abs=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_a_worse_one_is_never_significantly_better(method):
    rng = np.random.default_rng(5)
    skewed = rng.lognormal(0, 1.2, 200) * 0.01
    other = rng.normal(0, 0.01, 200)
    other += skewed.mean() - other.mean() + 1e-6
    assert p.active_return_test(skewed, other, method, resamples=500).p_value >= 0.5


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_compared_has_a_reason(method):
    a, b = pair(6)
    for found, reason in (
        (p.sharpe_difference_test(a, a, method), "the two do not differ in what is compared"),
        (p.sharpe_difference_test(a, 2 * a, method), "the two do not differ in what is compared"),
        (p.sharpe_difference_test(a[:20], b[:20], method), "the first: only 20 returns; at least 30 are needed"),
        (p.sharpe_difference_test(a, b * 1e-3, method), "the second: the volatility is below 0.5% a year"),
        (p.active_return_test(a, a, method), "the differences do not vary"),
        (p.active_return_test(a, a + 0.001, method), "the differences do not vary"),
        (p.active_return_test(a, np.append(b[:-1], np.nan), method), "some differences are not finite"),
        (p.active_return_test(a[:0], b[:0], method), "only 0 differences; at least 30 are needed"),
    ):
        assert found.reason.startswith(reason)
        assert math.isnan(found.p_value)
        assert math.isnan(found.p_two_sided)


def test_errors():
    a, b = pair(7)
    with pytest.raises(InvalidConfigError, match="300 and 299 returns"):
        p.active_return_test(a, b[1:])
    with pytest.raises(InvalidConfigError, match="method: moments"):
        p.sharpe_difference_test(a, b, "moments")

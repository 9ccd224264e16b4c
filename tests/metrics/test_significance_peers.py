"""statsmodels and arch as the answer sheets of significance, bootstrap, superior, paired and multiple. In one file: both take
seconds to import, and a file's tests share a worker."""

import math

import numpy as np
import pytest
from arch import bootstrap as arch
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.sandwich_covariance import S_hac_simple

from trading_core.metrics import bootstrap, significance
from trading_core.metrics.multiple import adjusted_p_values
from trading_core.metrics.paired import sharpe_difference_test
from trading_core.metrics.superior import superior_ability


def ar1(rho, count, seed):
    noise = np.random.default_rng(seed).normal(0.05, 1, count)
    values = noise.copy()
    for t in range(1, count):
        values[t] += rho * values[t - 1]
    return values


@pytest.mark.parametrize("lags", [0, 3, 8])
def test_the_robust_error_is_statsmodels(lags):
    r = ar1(0.3, 500, 1)
    sharpe = r.mean() / r.std(ddof=1)
    z = (r - r.mean()) / r.std()
    psi = z - sharpe / 2 * (z**2 - 1)
    fitted = OLS(psi, np.ones(len(psi))).fit(cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False})
    assert significance.sharpe_standard_error_hac(r, lags) == pytest.approx(fitted.bse[0], rel=1e-9)


def test_the_paired_error_is_that_of_ledoit_and_wolf():
    """Their section 3.1: the gradient of the difference by both means and both second moments, and the long-run covariance
    of those (Bartlett weights, statsmodels)."""
    a, b = ar1(0.3, 600, 2), ar1(0.1, 600, 3)
    a = a + 0.5 * b
    moments = np.column_stack([a, b, a**2, b**2])
    mean_a, mean_b, square_a, square_b = moments.mean(axis=0)
    cube_a, cube_b = (square_a - mean_a**2) ** 1.5, (square_b - mean_b**2) ** 1.5
    gradient = np.array([square_a / cube_a, -square_b / cube_b, -mean_a / 2 / cube_a, mean_b / 2 / cube_b])
    covariance = S_hac_simple(moments - moments.mean(axis=0), nlags=6) / len(a)
    error = math.sqrt(gradient @ covariance @ gradient / len(a))
    test = sharpe_difference_test(a, b, lags=6, per_year=1)
    assert test.standard_error_annual == pytest.approx(error, rel=1e-3)  # they take n where we take n - 1


@pytest.mark.parametrize("seed", range(6))
def test_block_lengths_are_those_of_arch(seed):
    for values in (ar1(0.6, 700, seed), ar1(-0.3, 150, seed), np.random.default_rng(seed).standard_t(3, 400)):
        known = float(arch.optimal_block_length(values)["stationary"].iloc[0])
        assert bootstrap.optimal_block_length(values) == pytest.approx(max(known, 1.0), rel=1e-9)


def test_the_bootstrapped_error_is_that_of_arch():
    """The Sharpe ratio of a trending series; 600 of their resamples leave a standard error of 3 % on theirs."""
    r = ar1(0.5, 400, 4)
    theirs = arch.StationaryBootstrap(12, r, seed=1).apply(lambda x: x.mean() / x.std(ddof=1), reps=600)
    ours = significance.sharpe_test(r, "bootstrap", per_year=1, block_length=12.0, seed=1)
    assert ours.standard_error_annual == pytest.approx(theirs.std(ddof=1), rel=0.1)
    independent = significance.sharpe_test(r, "moments", per_year=1).standard_error_annual
    assert ours.standard_error_annual > 1.4 * independent


@pytest.mark.parametrize(("better", "found"), [((0.09, 0.02, -0.03, -0.5), ()), ((0.4, 0.3, 0.0, -0.3), ("a", "b"))])
def test_superior_ability_is_that_of_arch(better, found):
    """Given differences that are studentised already, as it compares means. 1,000 resamples of each: 3 standard errors of
    two shares near one half are 0.07."""
    rng = np.random.default_rng(5)
    benchmark = rng.normal(0, 1, 250)
    returns = benchmark[:, None] + rng.normal(better, (1.0, 2.0, 1.0, 1.0), (250, 4))
    ours = superior_ability(returns, benchmark, tuple("abcd"), resamples=1000, block_length=5.0)
    differences = returns - benchmark[:, None]
    studentised = differences / np.sqrt(bootstrap.stationary_variance(differences, 5.0))
    theirs = arch.StepM(np.zeros(250), -studentised, size=0.05, block_size=5, reps=1000, seed=1)
    theirs.compute()
    assert tuple("abcd"[k] for k in theirs.superior_models) == ours.superior == found
    theirs.spa.compute()
    p_values = theirs.spa.pvalues
    assert ours.p_lower == pytest.approx(p_values["lower"], abs=0.07)
    assert ours.p_consistent == pytest.approx(p_values["consistent"], abs=0.07)
    assert ours.p_upper == pytest.approx(p_values["upper"], abs=0.07)


@pytest.mark.parametrize(("ours", "theirs"), [("holm", "holm"), ("bh", "fdr_bh"), ("by", "fdr_by")])
def test_adjusted_p_values_are_statsmodels(ours, theirs):
    p = np.random.default_rng(6).uniform(size=30) ** 4
    np.testing.assert_allclose(adjusted_p_values(p, ours), multipletests(p, method=theirs)[1])

"""PSR, MinTRL and DSR against the examples of the papers, and against scipy's normal distribution."""

import math

import numpy as np
import pytest
from scipy import stats

from trading_core.errors import InvalidConfigError
from trading_core.metrics import deflated as d
from trading_core.metrics.significance import sharpe_test

R = np.random.default_rng(2).standard_t(5, 500) * 0.01 + 0.002


def test_psr_of_bailey_and_lopez_de_prado_2012():
    """24 monthly returns, Sharpe ratio 0.458: 0.982 if they were normal, 0.913 with their skew and kurtosis."""
    assert d.probabilistic_sharpe(0.458, 0.0, 0.0, 3.0, 24) == pytest.approx(0.982, abs=5e-4)
    assert d.probabilistic_sharpe(0.458, 0.0, -2.448, 10.164, 24) == pytest.approx(0.913, abs=5e-4)


@pytest.mark.parametrize(
    ("per_year", "skew", "kurt", "years"),
    [(250, 0.0, 3.0, 2.73), (52, 0.0, 3.0, 2.83), (12, 0.0, 3.0, 3.24), (12, -0.72, 5.78, 4.99)],
)
def test_track_records_of_bailey_and_lopez_de_prado_2012(per_year, skew, kurt, years):
    """How long until an annual Sharpe ratio of 2 is above 1 with 95 % confidence."""
    unit = math.sqrt(per_year)
    assert d.minimum_track_record(2 / unit, 1 / unit, skew, kurt) / per_year == pytest.approx(years, abs=5e-3)


def test_the_track_record_is_where_the_psr_reaches_the_confidence():
    needed = d.minimum_track_record(0.1, 0.02, -0.5, 6.0, 0.9)
    assert d.probabilistic_sharpe(0.1, 0.02, -0.5, 6.0, needed) == pytest.approx(0.9)


def test_no_track_record_is_long_enough_for_what_lies_below_the_mark():
    assert math.isnan(d.minimum_track_record(0.05, 0.05, 0.0, 3.0))
    with pytest.raises(InvalidConfigError, match=r"confidence: 0\.5"):
        d.minimum_track_record(0.1, 0.0, 0.0, 3.0, 0.5)


@pytest.mark.parametrize(
    ("trials", "skew", "kurt", "expected"),
    [(100, -3.0, 10.0, 0.9004), (46, -3.0, 10.0, 0.9505), (88, 0.0, 3.0, 0.9505)],
)
def test_dsr_of_bailey_and_lopez_de_prado_2014(trials, skew, kurt, expected):
    """Their example: the best of 100 trials has an annual Sharpe ratio of 2.5 over 1,250 of 250 days a year, the variance
    of the trials' annual ones is 0.5. Of 46 trials, or of 88 with normal returns, it would have held at 95 %."""
    threshold = d.expected_maximum_sharpe(trials, 0.5 / 250)
    assert d.probabilistic_sharpe(2.5 / math.sqrt(250), threshold, skew, kurt, 1250) == pytest.approx(
        expected, abs=5e-5
    )
    if trials == 100:
        assert threshold == pytest.approx(0.1132, abs=5e-5)


def test_the_expected_maximum():
    """Bailey, Borwein, Lopez de Prado & Zhu (2014): the best of 10 years without skill has a Sharpe ratio of 1.57. For many
    trials the formula comes close to the true mean of the maximum of normal variables."""
    assert d.expected_maximum_sharpe(10, 1.0) == pytest.approx(1.57, abs=5e-3)
    x = np.linspace(-8, 8, 20_001)
    for trials in (50, 1000):
        density = trials * stats.norm.pdf(x) * stats.norm.cdf(x) ** (trials - 1)
        assert d.expected_maximum_sharpe(trials, 4.0) == pytest.approx(2 * np.trapezoid(x * density, x), rel=0.015)
    assert d.expected_maximum_sharpe(1, math.nan) == 0.0
    assert d.expected_maximum_sharpe(1.05, 1.0) == 0.0
    assert math.isnan(d.expected_maximum_sharpe(2, math.nan))
    with pytest.raises(InvalidConfigError, match="trials: 0"):
        d.expected_maximum_sharpe(0, 1.0)


def test_psr_of_returns():
    found = d.probabilistic_sharpe_test(R, 0.5, 0.9)
    sharpe, mark = R.mean() / R.std(ddof=1), 0.5 / math.sqrt(252)
    skew, kurt = stats.skew(R), stats.kurtosis(R, fisher=False)
    spread = 1 - skew * sharpe + (kurt - 1) / 4 * sharpe**2
    assert found.probability == pytest.approx(stats.norm.cdf((sharpe - mark) / math.sqrt(spread / 499)))
    needed = 1 + spread * (stats.norm.ppf(0.9) / (sharpe - mark)) ** 2
    assert found.minimum_track_record == pytest.approx(needed)
    assert (found.skewness, found.kurtosis, found.returns) == (pytest.approx(skew), pytest.approx(kurt), 500)
    assert d.probabilistic_sharpe_test(R).probability == pytest.approx(1 - sharpe_test(R, "moments").p_value)
    lower = d.probabilistic_sharpe_test(R, cash=0.0005)
    assert lower.sharpe_annual == pytest.approx((R.mean() - 0.0005) / R.std(ddof=1) * math.sqrt(252))


@pytest.mark.parametrize(
    ("returns", "reason"),
    [
        (R[:29], "only 29 returns"),
        (np.append(R, np.inf), "not finite"),
        (np.full(50, 0.001), "do not vary"),
        (R * 1e-3, "the volatility is below 0.5% a year"),
    ],
)
def test_returns_that_cannot_be_judged(returns, reason):
    trials = d.trials_of(np.array([1.0, 0.0]))
    for found in (d.probabilistic_sharpe_test(returns), d.deflated_sharpe(returns, trials)):
        assert math.isnan(found.probability)
        assert reason in found.reason


def test_all_trials_count_those_without_a_value_too():
    trials = d.trials_of(np.array([1.0, np.nan, 0.2, -0.4, np.inf]))
    assert (trials.count, trials.valued, trials.best_annual) == (5, 3, 1.0)
    assert trials.mean_annual == pytest.approx(0.8 / 3)
    assert trials.variance_annual == pytest.approx(np.var([1.0, 0.2, -0.4], ddof=1))
    assert math.isnan(trials.effective)
    none = d.trials_of(np.array([]))
    assert none.count == 0
    assert math.isnan(none.best_annual)


def test_dsr_of_returns():
    values = np.array([1.5, 0.3, -0.2, 0.9, np.nan])
    found = d.deflated_sharpe(R, d.trials_of(values, effective=2.5))
    variance = np.nanvar(values, ddof=1) / 252
    sharpe = R.mean() / R.std(ddof=1)
    spread = 1 - stats.skew(R) * sharpe + (stats.kurtosis(R, fisher=False) - 1) / 4 * sharpe**2
    for count, probability in ((5, found.probability), (2.5, found.probability_effective)):
        luck = 0.42278433 * stats.norm.ppf(1 - 1 / count) + 0.57721566 * stats.norm.ppf(1 - 1 / (count * math.e))
        expected = stats.norm.cdf((sharpe - math.sqrt(variance) * luck) / math.sqrt(spread / 499))
        assert probability == pytest.approx(expected, rel=1e-6)
    assert found.trials == 5
    assert found.threshold_annual == pytest.approx(d.expected_maximum_sharpe(5, np.nanvar(values, ddof=1)))
    assert found.probability < d.probabilistic_sharpe_test(R).probability


def test_several_trials_without_values_give_no_dsr_and_one_is_not_deflated():
    found = d.deflated_sharpe(R, d.trials_of(np.array([1.2, np.nan, np.nan]), effective=2.0))
    assert math.isnan(found.probability)
    assert math.isnan(found.probability_effective)
    assert found.reason == "1 of 3 trials have a Sharpe ratio; its variance needs two"
    alone = d.deflated_sharpe(R, d.trials_of(np.array([1.2])))
    assert alone.probability == d.probabilistic_sharpe_test(R).probability
    assert alone.threshold_annual == 0.0
    with pytest.raises(InvalidConfigError, match="trials: 0"):
        d.deflated_sharpe(R, d.trials_of(np.array([])))


def test_independent_trials_among_copies():
    """Sines of 64 days are uncorrelated. Two pairs of copies: mean correlation 4 / 12, so 1 / 3 + 2 / 3 * 4 = 3 trials by
    the average; two eigenvalues of 2, so 2 by rank."""
    t = np.arange(64) * 2 * np.pi / 64
    waves = np.column_stack([np.sin(k * t) for k in (1, 2, 3, 4)])
    apart = d.effective_trials(waves)
    assert (apart.by_average_correlation, apart.by_effective_rank) == (pytest.approx(4.0), pytest.approx(4.0))
    pairs = d.effective_trials(waves[:, [0, 0, 1, 1]] * [1.0, 3.0, 1.0, 0.5] + 0.1)
    assert pairs.by_average_correlation == pytest.approx(3.0)
    assert pairs.by_effective_rank == pytest.approx(2.0)
    assert pairs.average_correlation == pytest.approx(1 / 3)


def test_trials_that_have_no_correlation_are_left_out():
    t = np.arange(64) * 2 * np.pi / 64
    flat, broken = np.zeros(64), np.append(np.zeros(63), np.nan)
    one = d.effective_trials(np.column_stack([np.sin(t), flat, broken]))
    assert (one.trials, one.by_average_correlation, one.by_effective_rank, one.left_out) == (1, 1.0, 1.0, 2)
    none = d.effective_trials(np.column_stack([flat, broken]))
    assert math.isnan(none.by_effective_rank)
    assert none.reason == "no trial has finite returns that vary"
    assert d.effective_trials(np.ones((9, 2))).reason == "only 9 returns; at least 30 are needed"

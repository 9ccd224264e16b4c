"""Portfolios of the optimiser, against a closed form and against scipy's own solver."""

import warnings

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.covariance import ledoit_wolf
from strategy_samples import view

from trading_core.portfolio.mean_variance import MeanVariance, MeanVarianceParams
from trading_core.portfolio.minimum_variance import MinimumVariance, MinimumVarianceParams

NAN = np.nan
SESSIONS = 60


def market(symbols, seed=1):
    """Simple returns [L, S] with a common part, and the closes [L + 1, S] they make."""
    rng = np.random.default_rng(seed)
    returns = rng.normal(0, 0.015, (SESSIONS, symbols)) * rng.uniform(0.5, 2, symbols) + rng.normal(
        0, 0.01, (SESSIONS, 1)
    )
    return returns, 100 * np.vstack([np.ones(symbols), np.cumprod(1 + returns, axis=0)])


def least_variance(names=20, max_weight=1.0, every=21):
    return MinimumVariance(MinimumVarianceParams(names, SESSIONS, max_weight, every))


def best_utility(names=20, max_weight=1.0, risk_aversion=5.0, horizon=1):
    return MeanVariance(MeanVarianceParams(names, SESSIONS, max_weight, risk_aversion, horizon))


def by_scipy(covariance, expected, aversion, cap, invested):
    """The weights with the least aversion / 2 w' C w - m' w in 0 .. cap that add up to 1, or to at most 1."""
    scale = 1 / np.diag(covariance).mean()
    spare = {"type": "eq" if invested else "ineq", "fun": lambda w: 1 - w.sum()}
    found = minimize(
        lambda w: scale * (aversion / 2 * w @ covariance @ w - expected @ w),
        np.full(len(expected), 1 / len(expected)),
        jac=lambda w: scale * (aversion * covariance @ w - expected),
        bounds=[(0, cap)] * len(expected),
        constraints=[spare],
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return found.x


def test_two_names_have_a_closed_form():
    returns, closes = market(2)
    (a, both), (_, b) = ledoit_wolf(returns)[0]
    first = (b - both) / (a + b - 2 * both)
    assert 0.05 < first < 0.95
    strategy = least_variance()
    assert strategy.decide(view(strategy, closes)) == pytest.approx([first, 1 - first], abs=1e-5)


def test_many_names_under_a_cap_are_what_scipy_finds():
    returns, closes = market(8)
    covariance, nothing = ledoit_wolf(returns)[0], np.zeros(8)
    strategy = least_variance(max_weight=0.2)
    weights = strategy.decide(view(strategy, closes))
    assert weights == pytest.approx(by_scipy(covariance, nothing, 2.0, 0.2, True), abs=1e-4)
    assert weights.sum() == pytest.approx(1.0, abs=1e-6)
    assert weights.max() == pytest.approx(0.2, abs=1e-6)


@pytest.mark.parametrize(("aversion", "horizon"), [(5.0, 1), (2.0, 5)])
def test_forecasts_are_traded_for_variance_as_scipy_does(aversion, horizon):
    returns, closes = market(8)
    expected = np.random.default_rng(2).normal(0.0005, 0.001, 8)
    strategy = best_utility(max_weight=0.3, risk_aversion=aversion, horizon=horizon)
    weights = strategy.decide(view(strategy, closes, quantiles=expected, score=np.arange(8)))
    reference = by_scipy(horizon * ledoit_wolf(returns)[0], expected, aversion, 0.3, False)
    assert weights == pytest.approx(reference, abs=1e-4)
    assert 0.05 < weights.sum() < 1


def test_what_is_forecast_to_fall_leaves_cash():
    _, closes = market(4)
    strategy = best_utility()
    falling = view(strategy, closes, [0.5, 0, 0, 0], quantiles=[-0.01] * 4, score=[1] * 4)
    assert strategy.decide(falling).tolist() == [0, 0, 0, 0]


def test_the_universe_is_the_most_traded_or_the_highest_forecasts_with_a_whole_window():
    _, closes = market(5)
    closes[30, 0] = NAN  # A lacks one bar, and stays as it is held
    volumes = np.ones_like(closes) * [9e6, 1e6, 1e3, 2e6, 1e2]
    strategy = least_variance(names=2)
    weights = strategy.decide(view(strategy, closes, [0.2, 0, 0.3, 0, 0], volumes=volumes))
    assert weights[0] == 0.2
    assert weights[[1, 3]].sum() == pytest.approx(0.8, abs=1e-6)
    assert weights[[2, 4]].tolist() == [0, 0]
    other = best_utility(names=2, risk_aversion=0.01)
    forecast = [0.9, 0.01, 0.02, 0.03, NAN]
    held = view(other, closes, [0.2, 0.1, 0, 0, 0.3], quantiles=forecast, score=forecast)
    weights = other.decide(held)
    assert weights[[0, 4]].tolist() == [0.2, 0.3]
    assert weights[1] == 0
    assert weights[[2, 3]].sum() == pytest.approx(0.5, abs=1e-6)


def test_where_the_caps_do_not_reach_1_all_are_at_the_cap_and_the_rest_is_cash():
    _, closes = market(4)
    strategy = least_variance(max_weight=0.2)
    assert strategy.decide(view(strategy, closes)).tolist() == [0.2] * 4


def test_between_rebalancings_and_with_too_short_a_history_nothing_is_traded():
    _, closes = market(3)
    strategy = least_variance(every=5)
    for shown, ordinal in ((closes, 4), (closes[1:], 5)):
        assert strategy.decide(view(strategy, shown, [0.5, 0, 0.2], ordinal=ordinal)).tolist() == [0.5, 0, 0.2]


@pytest.mark.parametrize("how", ["no optimum", "inaccurate", "no name moves"])
@pytest.mark.parametrize("make", [least_variance, best_utility])
def test_without_an_optimum_the_portfolio_stays_as_it_is(monkeypatch, make, how):
    from skfolio.exceptions import ConvexOptimizationError
    from skfolio.optimization import MeanRisk

    fit = MeanRisk.fit

    def refused(self, returns):
        raise ConvexOptimizationError("Solver 'CLARABEL' failed")

    def stopped_early(self, returns):
        warnings.warn("Solution may be inaccurate. Try changing the solver params or the scale.", stacklevel=2)
        return fit(self, returns)

    _, closes = market(3)
    if how == "no name moves":
        closes = np.full_like(closes, 7.0)
    else:
        monkeypatch.setattr(MeanRisk, "fit", refused if how == "no optimum" else stopped_early)
    strategy = make()
    seen = view(strategy, closes, [0.5, 0, 0.2], quantiles=[0.01, 0.02, 0.03], score=[1, 2, 3])
    assert strategy.decide(seen).tolist() == [0.5, 0, 0.2]

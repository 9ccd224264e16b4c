"""Portfolios that solve a quadratic programme over a shrunk covariance; the only file that uses skfolio.

The covariance is that of Ledoit & Wolf (2004), "A well-conditioned estimator for large-dimensional covariance matrices".
The programme is solved by Clarabel, an interior-point method, to about 1e-7 of a weight.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trading_core.schema import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from skfolio.optimization import MeanRisk

_NOTHING = 1e-6  # a weight below it is what an interior point leaves of zero
_STILL = 1e-18  # a variance below it is float noise of prices that never moved: a split restates them
# cvxpy numbers its variables by a counter that threads would share: two solved at once could mix up their variables.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class Utility:
    """Expected returns [N] and the aversion to the variance of the returns that the covariance is made of."""

    expected: FloatArray
    risk_aversion: float


def minimum_variance_weights(returns: FloatArray, max_weight: float) -> FloatArray:
    """[N] the weights w in 0 .. max_weight with the least w' C w that add up to 1; C from `returns` [L, N], simple.

    Where even N x max_weight is not above 1, all are at max_weight and the rest is cash. NaN where the solver finds no
    optimum, or where no symbol has moved (every portfolio is then as good).
    """
    count = returns.shape[1]
    if count * max_weight <= 1.0:
        return np.full(count, max_weight)
    return _solved(returns, max_weight, None)


def utility_weights(returns: FloatArray, utility: Utility, max_weight: float) -> FloatArray:
    """[N] the weights w in 0 .. max_weight, together at most 1, with the highest m' w - risk_aversion / 2 w' C w.

    m: the expected returns; C from `returns` [L, N], simple. The rest is cash, which earns nothing. Where m is of h times
    as many sessions as the returns, h times the aversion stands for h times the covariance. NaN as for
    `minimum_variance_weights`.
    """
    return _solved(returns, max_weight, utility)


def _solved(returns: FloatArray, max_weight: float, utility: Utility | None) -> FloatArray:
    from skfolio.exceptions import OptimizationError

    failed = np.full(returns.shape[1], np.nan)
    variance = float(np.mean(np.var(returns, axis=0)))
    if not variance > _STILL:
        return failed
    # In units of the typical variance: the solver's tolerances are absolute, and variances of a day are about as small.
    scaled = np.array(returns / np.sqrt(variance), dtype=np.float64, order="C")
    try:
        with _ONE_AT_A_TIME, warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            weights = np.asarray(_problem(max_weight, utility, variance).fit(scaled).weights_, dtype=np.float64)
    except OptimizationError:
        return failed
    if any("inaccurate" in str(warning.message) for warning in said):  # what it was stopped at, not an optimum
        return failed
    weights = np.clip(weights, 0.0, max_weight)
    weights[weights < _NOTHING] = 0.0
    return weights


def _problem(max_weight: float, utility: Utility | None, variance: float) -> MeanRisk:
    from skfolio.moments import LedoitWolf
    from skfolio.optimization import MeanRisk, ObjectiveFunction
    from skfolio.prior import EmpiricalPrior

    prior = EmpiricalPrior(covariance_estimator=LedoitWolf())
    if utility is None:
        return MeanRisk(prior_estimator=prior, max_weights=max_weight)
    expected = utility.expected / variance
    return MeanRisk(
        objective_function=ObjectiveFunction.MAXIMIZE_UTILITY,
        risk_aversion=utility.risk_aversion / 2.0,  # skfolio's is of the variance, not of half of it
        prior_estimator=prior,
        max_weights=max_weight,
        budget=None,
        min_budget=0.0,
        max_budget=1.0,
        overwrite_expected_return=lambda weights: expected @ weights,
    )


def complete_returns(closes: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Simple returns [L, S] of closes [L + 1, S], and [S] whether all of a symbol's are known."""
    prices = np.where(np.isfinite(closes) & (closes > 0), closes, np.nan)
    returns = prices[1:] / prices[:-1] - 1.0
    return returns, np.asarray(np.isfinite(returns).all(axis=0), dtype=np.bool_)


def highest(values: FloatArray, allowed: BoolArray, count: int) -> IntArray:
    """The columns of the `count` highest of the allowed values [S], best first; of equal ones the first columns."""
    order = np.argsort(np.where(allowed, -values, np.inf), kind="stable")
    return order[: min(count, int(allowed.sum()))]

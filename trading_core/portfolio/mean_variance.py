"""Mean variance: of the names with the highest forecasts, the portfolio with the best trade of return for variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.portfolio.bounds import require_above, require_between
from trading_core.portfolio.kernels.types import WEIGHTS, Allocation
from trading_core.portfolio.optimisation import Utility, complete_returns, highest, utility_weights
from trading_core.portfolio.signals import median_forecast, rebalanced, window
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class MeanVarianceParams:
    """`names`, 2 .. 200, whose covariance is estimated from `lookback` (20 .. 1260) returns.

    `max_weight`, above 0 .. 1: of one name. `risk_aversion`, above 0 .. 1000: the more, the more cash and spread. `horizon`,
    1 .. 63: the sessions that the forecasts look ahead; it must be that of the strategy's config. `rebalance_sessions`,
    1 .. 2520; 21 is about a month.
    """

    names: int = 50
    lookback: int = 252
    max_weight: float = 0.1
    risk_aversion: float = 5.0
    horizon: int = 1
    rebalance_sessions: int = 21

    def __post_init__(self) -> None:
        require_between("names", self.names, 2, 200)
        require_between("lookback", self.lookback, 20, 1260)
        require_above("max_weight", self.max_weight, 0, 1)
        require_above("risk_aversion", self.risk_aversion, 0, 1000)
        require_between("horizon", self.horizon, 1, 63)
        require_between("rebalance_sessions", self.rebalance_sessions, 1, 2520)


class MeanVariance(SignalStrategy):
    """Long-only weights w with the highest m' w - risk_aversion / 2 w' C w, on the first decision and every
    `rebalance_sessions` after it.

    m: the medians of the forecast log returns, never means of past ones. C: the covariance of one-session returns times
    `horizon`. Its universe: of the names with a bar in each of the last `lookback` + 1 sessions, the `names` with the
    highest m. Weights add up to at most 1, none above `max_weight`; the rest is cash, all of it where nothing is forecast
    to rise. A name with a forecast and all these bars that is not in the universe is sold; one without them is not known
    and stays as it is held. Where the solver finds no optimum the portfolio stays as it is until the next rebalancing.
    Source: Markowitz (1952), "Portfolio Selection"; the covariance is shrunk, see `portfolio.optimisation`.
    """

    def __init__(self, params: MeanVarianceParams) -> None:
        self.params = params
        self.lookback = params.lookback + 1
        self.allocation = Allocation(WEIGHTS, every=params.rebalance_sessions)

    def signals(self, inputs: SignalInputs) -> FloatArray:
        signals = np.full(inputs.score.shape, np.nan)
        forecast = median_forecast(inputs)
        for row in rebalanced(inputs, self.params.rebalance_sessions):
            signals[row] = self._weights(inputs, row, forecast[row])
        return signals

    def _weights(self, inputs: SignalInputs, row: int, forecast: FloatArray) -> FloatArray:
        weights = np.full(len(inputs.symbols), np.nan)
        seen = window(inputs, row, self.lookback)
        if len(seen.closes) < self.lookback:
            return weights
        returns, known = complete_returns(seen.closes)
        known &= np.isfinite(forecast)
        chosen = highest(forecast, known, self.params.names)
        if not len(chosen):
            return weights
        utility = Utility(forecast[chosen], self.params.risk_aversion * self.params.horizon)
        found = utility_weights(returns[:, chosen], utility, self.params.max_weight)
        if np.isfinite(found).all():
            weights[known] = 0.0
            weights[chosen] = found
        return weights

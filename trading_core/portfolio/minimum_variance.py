"""Minimum variance: of the most traded names, the portfolio that moves least."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.portfolio.bounds import require_above, require_between
from trading_core.portfolio.kernels.types import WEIGHTS, Allocation
from trading_core.portfolio.optimisation import complete_returns, highest, minimum_variance_weights
from trading_core.portfolio.signals import rebalanced, window
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class MinimumVarianceParams:
    """`names`, 2 .. 200, whose covariance is estimated from `lookback` (20 .. 1260) returns.

    `max_weight`, above 0 .. 1: of one name. `rebalance_sessions`, 1 .. 2520; 21 is about a month.
    """

    names: int = 50
    lookback: int = 252
    max_weight: float = 0.1
    rebalance_sessions: int = 21

    def __post_init__(self) -> None:
        require_between("names", self.names, 2, 200)
        require_between("lookback", self.lookback, 20, 1260)
        require_above("max_weight", self.max_weight, 0, 1)
        require_between("rebalance_sessions", self.rebalance_sessions, 1, 2520)


class MinimumVariance(SignalStrategy):
    """Long-only weights with the least variance, on the first decision and every `rebalance_sessions` after it.

    Its universe: of the names with a bar in each of the last `lookback` + 1 sessions, the `names` with the largest median
    dollar volume in that time. Weights add up to 1, none above `max_weight`. A name with all these bars that is not in the
    universe is sold; one without them is not known and stays as it is held. Where the solver finds no optimum the
    portfolio stays as it is until the next rebalancing. Source: Markowitz (1952); the covariance is shrunk, see
    `portfolio.optimisation`.
    """

    needs_forecasts = False

    def __init__(self, params: MinimumVarianceParams) -> None:
        self.params = params
        self.lookback = params.lookback + 1
        self.allocation = Allocation(WEIGHTS, every=params.rebalance_sessions)

    def signals(self, inputs: SignalInputs) -> FloatArray:
        signals = np.full(inputs.score.shape, np.nan)
        for row in rebalanced(inputs, self.params.rebalance_sessions):
            signals[row] = self._weights(inputs, row)
        return signals

    def _weights(self, inputs: SignalInputs, row: int) -> FloatArray:
        weights = np.full(len(inputs.symbols), np.nan)
        seen = window(inputs, row, self.lookback)
        if len(seen.closes) < self.lookback:
            return weights
        returns, known = complete_returns(seen.closes)
        known &= np.isfinite(seen.volumes).all(axis=0)
        traded = np.median(np.where(known, seen.closes * seen.volumes, 0.0), axis=0)
        chosen = highest(traded, known, self.params.names)
        found = minimum_variance_weights(returns[:, chosen], self.params.max_weight)
        if len(chosen) and np.isfinite(found).all():
            weights[known] = 0.0
            weights[chosen] = found
        return weights

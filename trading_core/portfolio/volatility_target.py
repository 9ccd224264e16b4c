"""Volatility target: the k highest forecasts, as much of them as a wanted volatility allows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trading_core.portfolio.bounds import require_above, require_between
from trading_core.portfolio.kernels.signals import best_of, target_volatility_weights
from trading_core.portfolio.kernels.types import WEIGHTS, Allocation
from trading_core.portfolio.signals import carried, spanned
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class VolatilityTargetParams:
    """`k` symbols, 1 .. 1000. `target_annual`, above 0 .. 5: the volatility wanted, per year of `sessions_per_year` (1 .. 366;
    365 where a market never closes). `window`, 2 .. 2520: the sessions whose returns it is measured by.

    `weighting` of the basket before it is scaled: equal, or inversely to each name's volatility. `rebalance_sessions`,
    1 .. 2520. `band`, 0 .. 1: what is within it of its weight is left alone.
    """

    k: int = 10
    target_annual: float = 0.15
    window: int = 60
    weighting: Literal["equal", "inverse_volatility"] = "equal"
    sessions_per_year: int = 252
    rebalance_sessions: int = 1
    band: float = 0.01

    def __post_init__(self) -> None:
        require_between("k", self.k, 1, 1000)
        require_above("target_annual", self.target_annual, 0, 5)
        require_between("window", self.window, 2, 2520)
        require_between("sessions_per_year", self.sessions_per_year, 1, 366)
        require_between("rebalance_sessions", self.rebalance_sessions, 1, 2520)
        require_between("band", self.band, 0, 1)


class VolatilityTarget(SignalStrategy):
    """Holds the `k` highest scores, scaled down so that the basket's volatility meets the target; the rest is cash.

    The volatility is the standard deviation (n - 1) of what the basket, at today's weights, would have returned in each of
    the last `window` sessions: w' C w with the sample covariance C. A calm basket is never scaled up: gross is at most 1.
    A name is known with a forecast, a bar at t and one at t - window; in between a missing bar counts as a price that did
    not move. What is not known stays as it is held, is no part of the basket, and leaves it the rest of equity.
    """

    def __init__(self, params: VolatilityTargetParams) -> None:
        self.params = params
        self.lookback = params.window + 1
        self.allocation = Allocation(WEIGHTS, band=params.band, every=params.rebalance_sessions)

    def signals(self, inputs: SignalInputs) -> FloatArray:
        known = np.isfinite(inputs.score) & spanned(inputs, self.lookback)
        chosen = best_of(np.where(known, inputs.score, np.nan), np.full(len(known), self.params.k))
        last = carried(inputs)
        weights = target_volatility_weights(
            np.array(last.closes),
            np.array(last.factor),
            np.array(inputs.split_factor[inputs.first :]),
            chosen,
            self.params.window,
            self.params.target_annual / math.sqrt(self.params.sessions_per_year),
            self.params.weighting == "inverse_volatility",
        )
        return np.where(known, weights, np.nan)

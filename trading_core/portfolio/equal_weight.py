"""Equal weight: the benchmark that owns everything alike and rebalances now and then."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trading_core.portfolio.strategy import SessionView
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class EqualWeightParams:
    """Sessions between rebalancings, 1 .. 2520; 21 is about a month."""

    rebalance_sessions: int = 21

    def __post_init__(self) -> None:
        if not 1 <= self.rebalance_sessions <= 2520:
            raise ValueError(f"rebalance_sessions is {self.rebalance_sessions}; it must lie between 1 and 2520")


class EqualWeight:
    """Equal weights of every symbol with a bar, on the first decision and every `rebalance_sessions` after it.

    What is held without a bar keeps its weight; the others share the rest. Between rebalancings nothing is traded.
    """

    lookback = 1
    needs_forecasts = False

    def __init__(self, params: EqualWeightParams) -> None:
        self.params = params

    def decide(self, view: SessionView) -> FloatArray:
        target = np.array(view.weights)
        names = view.tradable
        if view.ordinal % self.params.rebalance_sessions == 0 and names.any():
            left = max(1.0 - math.fsum(view.weights[~names].tolist()), 0.0)
            target[names] = left / int(names.sum())
        return target

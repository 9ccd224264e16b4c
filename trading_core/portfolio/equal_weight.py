"""Equal weight: the benchmark that owns everything alike and rebalances now and then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.portfolio.kernels.types import WEIGHTS, Allocation
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class EqualWeightParams:
    """Sessions between rebalancings, 1 .. 2520; 21 is about a month."""

    rebalance_sessions: int = 21

    def __post_init__(self) -> None:
        if not 1 <= self.rebalance_sessions <= 2520:
            raise ValueError(f"rebalance_sessions is {self.rebalance_sessions}; it must lie between 1 and 2520")


class EqualWeight(SignalStrategy):
    """Equal weights of every symbol with a bar, on the first decision and every `rebalance_sessions` after it.

    What is held without a bar keeps its weight; the others share the rest. Between rebalancings nothing is traded.
    """

    needs_forecasts = False

    def __init__(self, params: EqualWeightParams) -> None:
        self.params = params
        self.allocation = Allocation(WEIGHTS, every=params.rebalance_sessions)

    def signals(self, inputs: SignalInputs) -> FloatArray:
        closes = inputs.closes[inputs.first :]
        there = np.isfinite(closes) & (closes > 0)
        return np.where(there, 1.0 / np.maximum(there.sum(axis=1, keepdims=True), 1), np.nan)

"""Threshold: hold what is likely enough to rise, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from trading_core.portfolio.kernels.types import SLOTS, Allocation
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class ThresholdLongFlatParams:
    """`threshold` on the calibrated probability of a rise, 0 .. 1, or what it was searched for: then it is the one that the
    model's card holds for the strategy's horizon, chosen on the validation part (pipelines.strategies puts it here)."""

    threshold: float | Literal["f1", "net_sharpe_annual"] = 0.5

    def __post_init__(self) -> None:
        known = isinstance(self.threshold, str) or (
            not isinstance(self.threshold, bool) and 0.0 <= self.threshold <= 1.0
        )
        if not known:
            raise ValueError(f"threshold is {self.threshold}; it must be a number between 0 and 1")


class ThresholdLongFlat(SignalStrategy):
    """Holds every symbol whose probability of a rise is at least the threshold, each in a slot of equal size.

    There is one slot for each symbol with a forecast; the slots of the others stay in cash. What is held and stays is left
    alone; what is new gets its slot, or an equal share of the cash and the sales where drift has left less. A held symbol
    without a forecast or without a bar is left alone and leaves the slots the rest of equity. With one symbol this is
    "all or nothing".
    """

    allocation = Allocation(SLOTS)

    def __init__(self, params: ThresholdLongFlatParams) -> None:
        if isinstance(params.threshold, str):
            raise ValueError(f"threshold is still '{params.threshold}'; take the number from the model's card")
        self.threshold = params.threshold

    def signals(self, inputs: SignalInputs) -> FloatArray:
        known = np.isfinite(inputs.score) & np.isfinite(inputs.p_up)
        return np.where(known, (inputs.p_up >= self.threshold).astype(np.float64), np.nan)

"""Moving averages that cross: the trend-following benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.portfolio.bounds import require_between
from trading_core.portfolio.kernels.types import SLOTS, Allocation
from trading_core.portfolio.signals import carried, spanned, trailing_mean
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class SMACrossParams:
    """Sessions of the two averages: `slow`, 2 .. 2520, and `fast`, 1 .. slow - 1."""

    fast: int = 50
    slow: int = 200

    def __post_init__(self) -> None:
        require_between("slow", self.slow, 2, 2520)
        require_between("fast", self.fast, 1, self.slow - 1)


class SMACross(SignalStrategy):
    """Holds every symbol whose fast simple moving average of the close is above its slow one, in slots of equal size.

    One slot for each symbol whose averages are known; the slots of those that are out stay in cash. Known: a bar at t and
    at t - slow + 1; in between a missing bar counts as a price that did not move. What is not known stays as it is held.
    Source: Brock, Lakonishok & LeBaron (1992), "Simple Technical Trading Rules and the Stochastic Properties of Stock
    Returns", the variable-length moving average of (50, 200) without a band and without its short side.
    """

    needs_forecasts = False
    allocation = Allocation(SLOTS)

    def __init__(self, params: SMACrossParams) -> None:
        self.params = params
        self.lookback = params.slow

    def signals(self, inputs: SignalInputs) -> FloatArray:
        last = carried(inputs)
        fast, slow = (trailing_mean(inputs, last, rows) for rows in (self.params.fast, self.params.slow))
        return np.where(spanned(inputs, self.params.slow), (fast > slow).astype(np.float64), np.nan)

"""Buy and hold: the benchmark that decides once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.portfolio.kernels.types import HOLD, Allocation
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class BuyAndHoldParams:
    """No parameters."""


class BuyAndHold(SignalStrategy):
    """Buys equal weights of every symbol with a bar while it holds nothing, and never trades again.

    Cash that comes later (dividends, delistings, orders the first open did not fill) stays cash. "Holds nothing" rather
    than the first session: a first session that was halted, or on which nothing opened, is made good on the next.
    """

    needs_forecasts = False
    allocation = Allocation(HOLD)

    def __init__(self, params: BuyAndHoldParams) -> None:
        self.params = params

    def signals(self, inputs: SignalInputs) -> FloatArray:
        return np.ones_like(inputs.score)

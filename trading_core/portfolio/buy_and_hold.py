"""Buy and hold: the benchmark that decides once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.portfolio.strategy import SessionView
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class BuyAndHoldParams:
    """No parameters."""


class BuyAndHold:
    """Buys equal weights of every symbol with a bar while it holds nothing, and never trades again.

    Cash that comes later (dividends, delistings, orders the first open did not fill) stays cash. "Holds nothing" rather
    than the first session: a first session that was halted, or on which nothing opened, is made good on the next.
    """

    lookback = 1
    needs_forecasts = False

    def __init__(self, params: BuyAndHoldParams) -> None:
        self.params = params

    def decide(self, view: SessionView) -> FloatArray:
        target = np.array(view.weights)
        names = view.tradable
        if not (view.weights > 0).any() and names.any():
            target[names] = 1.0 / int(names.sum())
        return target

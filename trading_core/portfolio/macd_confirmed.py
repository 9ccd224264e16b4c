"""MACD confirmed: hold the k highest forecasts among the symbols whose price trend agrees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.portfolio.bounds import require_between
from trading_core.portfolio.kernels.types import TOP_K, Allocation
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray

HISTOGRAM = "macd_hist"  # the feature: MACD minus its signal line, over the close


@dataclass(frozen=True, slots=True)
class MACDConfirmedParams:
    """`k` symbols, 1 .. 1000. `reweight`: bring all of them to equal weight every session (more trading).

    `buffer`, 0 .. 1000: against churn, a name that is held stays while it is among the best k + buffer.
    """

    k: int = 10
    reweight: bool = False
    buffer: int = 0

    def __post_init__(self) -> None:
        require_between("k", self.k, 1, 1000)
        require_between("buffer", self.buffer, 0, 1000)


class MACDConfirmed(SignalStrategy):
    """Holds the `k` highest scores among the names whose MACD histogram is above 0, as `TopK` holds scores.

    A name whose histogram is 0 or below is not bought, and sold where it is held, however high its score. Where the score
    or the histogram is not known, what is held stays. Places that no confirmed name takes stay in cash.
    Source of the indicator: Appel (1979); docs/features.md.
    """

    columns: tuple[str, ...] = (HISTOGRAM,)

    def __init__(self, params: MACDConfirmedParams) -> None:
        self.params = params
        self.allocation = Allocation(TOP_K, k=params.k, buffer=params.buffer, reweight=params.reweight)

    def signals(self, inputs: SignalInputs) -> FloatArray:
        histogram = inputs.columns[HISTOGRAM][inputs.first :]
        known = np.isfinite(inputs.score) & np.isfinite(histogram)
        return np.where(known, np.where(histogram > 0, inputs.score, -np.inf), np.nan)

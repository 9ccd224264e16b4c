"""Quantile aware: hold the k symbols that promise most for the uncertainty of the promise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.portfolio.bounds import require_between
from trading_core.portfolio.kernels.types import TOP_K, Allocation
from trading_core.portfolio.signals import HIGHEST, LOWEST, median_forecast
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class QuantileAwareParams:
    """`k` symbols, 1 .. 1000. `reweight`: bring all of them to equal weight every session (more trading).

    `buffer`, 0 .. 1000: against churn, a name that is held stays while it is among the best k + buffer.
    """

    k: int = 10
    reweight: bool = False
    buffer: int = 0

    def __post_init__(self) -> None:
        require_between("k", self.k, 1, 1000)
        require_between("buffer", self.buffer, 0, 1000)


class QuantileAware(SignalStrategy):
    """Holds the `k` highest ratios of predicted return to predicted uncertainty, q50 / (q95 - q05), as `TopK` holds scores.

    Quantiles that cross each other (any of the seven), or an interval without width, say nothing of the uncertainty: such
    a forecast counts as none, and what is held stays.
    """

    def __init__(self, params: QuantileAwareParams) -> None:
        self.params = params
        self.allocation = Allocation(TOP_K, k=params.k, buffer=params.buffer, reweight=params.reweight)

    def signals(self, inputs: SignalInputs) -> FloatArray:
        q = inputs.quantiles
        width = q[..., HIGHEST] - q[..., LOWEST]
        # False too where one of them is NaN.
        in_order = np.logical_and.reduce([q[..., i] <= q[..., i + 1] for i in range(LOWEST, HIGHEST)])
        usable = in_order & (width > 0) & np.isfinite(width)
        return np.where(usable, median_forecast(inputs) / np.where(usable, width, 1.0), np.nan)

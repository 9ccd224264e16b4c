"""Threshold: own what is likely to rise, sell short what is likely to fall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.portfolio.bounds import require_above, require_between
from trading_core.portfolio.kernels.types import WEIGHTS, Allocation
from trading_core.portfolio.signals import has_bar
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class ThresholdLongShortParams:
    """Of the calibrated probability of a rise, 0 <= `lower` <= `upper` <= 1: long from `upper` up, short from `lower` down.

    `gross`, above 0 .. 1: what the absolute weights add up to where every name is long or short. `band`, 0 .. 1: what is
    within it of its weight is left alone.
    """

    upper: float = 0.52
    lower: float = 0.48
    gross: float = 1.0
    band: float = 0.0

    def __post_init__(self) -> None:
        require_between("upper", self.upper, 0, 1)
        require_between("lower", self.lower, 0, self.upper)
        require_above("gross", self.gross, 0, 1)
        require_between("band", self.band, 0, 1)


class ThresholdLongShort(SignalStrategy):
    """A slot of equal size, gross / (names with a forecast and a bar), for each of them: long, short or in cash.

    Where both thresholds are met (they are equal, and so is the probability) the position is long. What is held without a
    forecast or without a bar stays and leaves the others the rest of `gross`. With one symbol this is "all, nothing, or
    all of it short".
    """

    short = True

    def __init__(self, params: ThresholdLongShortParams) -> None:
        self.params = params
        self.allocation = Allocation(WEIGHTS, band=params.band, gross=params.gross)

    def signals(self, inputs: SignalInputs) -> FloatArray:
        known = np.isfinite(inputs.score) & np.isfinite(inputs.p_up) & has_bar(inputs)
        slot = self.params.gross / np.maximum(known.sum(axis=1, keepdims=True), 1)
        long, short = inputs.p_up >= self.params.upper, inputs.p_up <= self.params.lower
        return np.where(known, np.where(long, slot, np.where(short, -slot, 0.0)), np.nan)

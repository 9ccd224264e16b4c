"""Long short: own the best part of the market, sell the worst part short."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.portfolio.bounds import require_above, require_between
from trading_core.portfolio.kernels.signals import best_of
from trading_core.portfolio.kernels.types import WEIGHTS, Allocation
from trading_core.portfolio.signals import has_bar
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class LongShortParams:
    """`fraction` of the ranked names on each side, above 0 .. 0.5; 0.2 are the best and the worst fifth.

    `gross`, above 0 .. 10: absolute weights together, half of it long and half short; above 1 needs a risk limit as high.
    `rebalance_sessions`, 1 .. 2520. `band`, 0 .. 1: what is within it of its weight is left alone.
    """

    fraction: float = 0.2
    gross: float = 1.0
    rebalance_sessions: int = 1
    band: float = 0.0

    def __post_init__(self) -> None:
        require_above("fraction", self.fraction, 0, 0.5)
        require_above("gross", self.gross, 0, 10)
        require_between("rebalance_sessions", self.rebalance_sessions, 1, 2520)
        require_between("band", self.band, 0, 1)


class LongShort(SignalStrategy):
    """Equal weights of the highest scores, and as much in equal weights of the lowest ones sold short.

    Ranked is what has a forecast and a bar. Each side holds `fraction` of it, rounded down, but at least one name where
    two are ranked. Ties go to the symbol that comes first in the alphabet, and no name is on both sides. What is held
    without a forecast or without a bar stays and leaves the others the rest of `gross`.
    """

    short = True

    def __init__(self, params: LongShortParams) -> None:
        self.params = params
        self.allocation = Allocation(WEIGHTS, band=params.band, gross=params.gross, every=params.rebalance_sessions)

    def signals(self, inputs: SignalInputs) -> FloatArray:
        known = np.isfinite(inputs.score) & has_bar(inputs)
        score = np.where(known, inputs.score, np.nan)
        ranked = known.sum(axis=1)
        # A share of 0.29 of 100 names is 28.999999999999996: float noise is no reason to hold one name less.
        side = np.minimum(np.maximum(np.floor(self.params.fraction * ranked + 1e-9).astype(np.int64), 1), ranked // 2)
        best = best_of(score, side)
        worst = best_of(np.where(best, np.nan, -score), side)
        weight = self.params.gross / 2.0 / np.maximum(side, 1)[:, None]
        return np.where(known, weight * best - weight * worst, np.nan)

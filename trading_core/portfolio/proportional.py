"""Proportional: as much of a name as is expected of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.portfolio.bounds import require_above, require_between
from trading_core.portfolio.kernels.types import WEIGHTS, Allocation
from trading_core.portfolio.signals import has_bar, median_forecast, row_sums
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class ProportionalParams:
    """`gross`, above 0 .. 10: the absolute weights together; above 1 needs a risk limit as high. `cap`, above 0 .. 1: of one
    weight. `long_only`: what is expected to fall gets nothing, instead of being sold short.

    `rebalance_sessions`, 1 .. 2520. `band`, 0 .. 1: what is within it of its weight is left alone.
    """

    gross: float = 1.0
    cap: float = 0.1
    long_only: bool = False
    rebalance_sessions: int = 1
    band: float = 0.0

    def __post_init__(self) -> None:
        require_above("gross", self.gross, 0, 10)
        require_above("cap", self.cap, 0, 1)
        require_between("rebalance_sessions", self.rebalance_sessions, 1, 2520)
        require_between("band", self.band, 0, 1)


class Proportional(SignalStrategy):
    """Weights proportional to the predicted return, sign and size, that add up to `gross` in absolute terms.

    The predicted return is the median of the forecast log return, never the score: a model may rank by something that is
    no return (a probability, a rank). What the cap takes from a name goes to the others in the same proportion; what all
    caps together do not allow stays in cash. Where all that is known is predicted not to move at all, nothing is held. What
    is held without a forecast or without a bar stays and leaves the others the rest of `gross`.
    """

    def __init__(self, params: ProportionalParams) -> None:
        self.params = params
        self.short = not params.long_only
        self.allocation = Allocation(WEIGHTS, band=params.band, gross=params.gross, every=params.rebalance_sessions)

    def signals(self, inputs: SignalInputs) -> FloatArray:
        forecast = median_forecast(inputs)
        known = np.isfinite(forecast) & has_bar(inputs)
        forecast = np.where(known, forecast, 0.0)
        if self.params.long_only:
            forecast = np.maximum(forecast, 0.0)
        shares = capped_shares(np.abs(forecast), self.params.gross, self.params.cap)
        return np.where(known, np.sign(forecast) * shares, np.nan)


def capped_shares(strength: FloatArray, gross: float, cap: float) -> FloatArray:
    """[R, S] shares in proportion to `strength` [R, S], 0 or more, that add up to `gross` in each row with none above `cap`.

    A row of too few strengths above 0 adds up to the caps of these; a row of none to 0.
    """
    capped = np.zeros(strength.shape, dtype=np.bool_)
    while True:
        free = np.where(capped, 0.0, strength)
        total, room = row_sums(free), np.maximum(gross - cap * capped.sum(axis=1, keepdims=True), 0.0)
        # Divided before it is multiplied: a part of the whole is at most 1, however small the whole is.
        shares = np.where(capped, cap, room * (free / np.where(total > 0, total, 1.0)))
        above = shares > cap
        if not above.any():
            return shares
        capped |= above  # of these the others get what is above the cap: more of them may then reach it

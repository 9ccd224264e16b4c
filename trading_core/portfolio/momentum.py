"""Momentum: hold what has risen most over the last year, the last month left out."""

from __future__ import annotations

from dataclasses import dataclass

from trading_core.portfolio.bounds import require_between
from trading_core.portfolio.kernels.types import TOP_K, Allocation
from trading_core.portfolio.signals import trailing_return
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class MomentumParams:
    """`k` symbols, 1 .. 1000, by their return from `lookback` (2 .. 2520) to `skip` (0 .. lookback - 1) sessions ago.

    `rebalance_sessions`, 1 .. 2520; 21 is about a month. `reweight`: bring all of them to equal weight whenever that is due.
    """

    k: int = 10
    lookback: int = 252
    skip: int = 21
    rebalance_sessions: int = 21
    reweight: bool = True

    def __post_init__(self) -> None:
        require_between("k", self.k, 1, 1000)
        require_between("lookback", self.lookback, 2, 2520)
        require_between("skip", self.skip, 0, self.lookback - 1)
        require_between("rebalance_sessions", self.rebalance_sessions, 1, 2520)


class Momentum(SignalStrategy):
    """Holds the `k` highest returns from t - lookback to t - skip, on the first decision and every `rebalance_sessions` after.

    The last month is left out because over so short a time returns tend to reverse. Splits are taken out of the prices,
    dividends are not put in. Unknown without a bar at t and at t - lookback: what is held stays.
    Source: Jegadeesh & Titman (1993), "Returns to Buying Winners and Selling Losers".
    """

    needs_forecasts = False

    def __init__(self, params: MomentumParams) -> None:
        self.params = params
        self.lookback = params.lookback + 1
        self.allocation = Allocation(TOP_K, k=params.k, reweight=params.reweight, every=params.rebalance_sessions)

    def signals(self, inputs: SignalInputs) -> FloatArray:
        return trailing_return(inputs, self.params.lookback, self.params.skip)

"""Mean reversion: hold what has fallen most over the last days."""

from __future__ import annotations

from dataclasses import dataclass

from trading_core.portfolio.bounds import require_between
from trading_core.portfolio.kernels.types import TOP_K, Allocation
from trading_core.portfolio.signals import trailing_return
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class MeanReversionParams:
    """`k` symbols, 1 .. 1000, by their return over `window` sessions, 1 .. 252.

    `rebalance_sessions`, 1 .. 2520. `reweight`: bring all of them to equal weight whenever that is due.
    """

    k: int = 10
    window: int = 5
    rebalance_sessions: int = 5
    reweight: bool = False

    def __post_init__(self) -> None:
        require_between("k", self.k, 1, 1000)
        require_between("window", self.window, 1, 252)
        require_between("rebalance_sessions", self.rebalance_sessions, 1, 2520)


class MeanReversion(SignalStrategy):
    """Holds the `k` lowest returns over the last `window` sessions, on the first decision and every `rebalance_sessions` after.

    Splits are taken out of the prices, dividends are not put in. Unknown without a bar at t and at t - window: what is held
    stays. Source: Lehmann (1990), "Fads, Martingales, and Market Efficiency", without its short side.
    """

    needs_forecasts = False

    def __init__(self, params: MeanReversionParams) -> None:
        self.params = params
        self.lookback = params.window + 1
        self.allocation = Allocation(TOP_K, k=params.k, reweight=params.reweight, every=params.rebalance_sessions)

    def signals(self, inputs: SignalInputs) -> FloatArray:
        return -trailing_return(inputs, self.params.window)

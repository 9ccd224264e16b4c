"""Top k: hold the k symbols with the highest forecasts."""

from __future__ import annotations

from dataclasses import dataclass

from trading_core.portfolio.kernels.types import TOP_K, Allocation
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class TopKParams:
    """`k` symbols, 1 .. 1000. `reweight`: bring all of them to equal weight every session (more trading).

    `buffer`, 0 .. 1000: against churn, a name that is held stays while it is among the best k + buffer.
    """

    k: int = 10
    reweight: bool = False
    buffer: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.k <= 1000:
            raise ValueError(f"k is {self.k}; it must lie between 1 and 1000")
        if not 0 <= self.buffer <= 1000:
            raise ValueError(f"buffer is {self.buffer}; it must lie between 0 and 1000")


class TopK(SignalStrategy):
    """Holds the `k` highest scores; ties go to the symbol that comes first in the alphabet.

    A held symbol without a forecast or without a bar is left alone and takes up one of the k places. Of the open
    places each gets an equal share of the spare cash and of the weights sold; names that stay keep their weight to the
    bit. When fewer symbols have a forecast than there are places, the share of the empty places stays in cash.
    With `reweight` every chosen symbol goes to 1/k, or to an equal share of what those without a forecast leave.
    """

    def __init__(self, params: TopKParams) -> None:
        self.params = params
        self.allocation = Allocation(TOP_K, k=params.k, buffer=params.buffer, reweight=params.reweight)

    def signals(self, inputs: SignalInputs) -> FloatArray:
        return inputs.score

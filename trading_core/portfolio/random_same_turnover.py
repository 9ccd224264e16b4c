"""Random: the benchmark that trades as much as a strategy and knows nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trading_core.portfolio.bounds import require_between
from trading_core.portfolio.kernels.signals import best_of
from trading_core.portfolio.kernels.types import TOP_K, Allocation
from trading_core.portfolio.signals import has_bar
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray

UIntArray = npt.NDArray[np.uint64]

# Steele, Lea & Flood (2014), "Fast Splittable Pseudorandom Number Generators": splitmix64.
_GAMMA, _MULTIPLIER_1, _MULTIPLIER_2 = (
    np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_SHIFT_1, _SHIFT_2, _SHIFT_3, _TO_53_BITS = (np.uint64(bits) for bits in (30, 27, 31, 11))


@dataclass(frozen=True, slots=True)
class RandomSameTurnoverParams:
    """`k` symbols, 1 .. 1000. `replace_share`, 0 .. 1: the share of the names held that leaves on average per session.

    With N names to draw from at most 1 - k / N of them can leave: some of the k best of a new draw are held already.
    `seed`, 0 .. 2**63 - 1.
    """

    k: int = 10
    replace_share: float = 0.1
    seed: int = 7

    def __post_init__(self) -> None:
        require_between("k", self.k, 1, 1000)
        require_between("replace_share", self.replace_share, 0, 1)
        require_between("seed", self.seed, 0, 2**63 - 1)


class RandomSameTurnover(SignalStrategy):
    """Holds `k` names drawn at random; on each session a name leaves with probability `replace_share` and another comes.

    Every name gets a number, uniform in 0 .. 1, from (seed, symbol, date of D) alone. What is held leaves where its number
    is below `replace_share`, unless it is one of the k highest, and its place goes to the highest number that is not held.
    Shares of the cash and of the weights sold as in `TopK`.

    Drawn are names with a forecast and a bar, and what is held without one of them stays: the names that the strategy it is
    compared with can rank, treated as that one treats them. Without any forecast it does nothing.
    """

    def __init__(self, params: RandomSameTurnoverParams) -> None:
        self.params = params
        self.allocation = Allocation(TOP_K, k=params.k, keep_share=1.0)  # what leaves is said by the signal alone

    def signals(self, inputs: SignalInputs) -> FloatArray:
        symbols = np.array([_key_of(symbol) for symbol in inputs.symbols], dtype=np.uint64)
        days = np.array([day.toordinal() for day in inputs.days], dtype=np.uint64)
        seed = _mixed(np.full((1, 1), self.params.seed, dtype=np.uint64))
        drawn = _mixed(_mixed(seed ^ symbols[None]) ^ days[:, None])
        uniform = (drawn >> _TO_53_BITS).astype(np.float64) * 2.0**-53
        number = np.where(np.isfinite(inputs.score) & has_bar(inputs), uniform, np.nan)
        highest = best_of(number, np.full(len(number), self.params.k))
        return np.where((number < self.params.replace_share) & ~highest, -np.inf, number)


def _key_of(symbol: str) -> int:
    """64 bits of a hash of the symbol's bytes, the same in every process (which Python's own hash is not)."""
    return int.from_bytes(hashlib.sha256(symbol.encode()).digest()[:8], "little")


def _mixed(state: UIntArray) -> UIntArray:
    """The output of splitmix64 for each state; arithmetic modulo 2**64."""
    z = state + _GAMMA
    z = (z ^ (z >> _SHIFT_1)) * _MULTIPLIER_1
    z = (z ^ (z >> _SHIFT_2)) * _MULTIPLIER_2
    return z ^ (z >> _SHIFT_3)

"""The strategies by name. Adding one is one file and one line here; the contract tests run over this registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trading_core.errors import UnknownNameError
from trading_core.portfolio.buy_and_hold import BuyAndHold, BuyAndHoldParams
from trading_core.portfolio.equal_weight import EqualWeight, EqualWeightParams
from trading_core.portfolio.strategy import Strategy
from trading_core.portfolio.threshold_long_flat import ThresholdLongFlat, ThresholdLongFlatParams
from trading_core.portfolio.top_k import TopK, TopKParams


@dataclass(frozen=True, slots=True)
class StrategyEntry:
    """`params`: the frozen dataclass of its parameters (bounds in `__post_init__`); `build` makes it from one."""

    params: type
    build: Callable[[Any], Strategy]
    benchmark: bool = False  # judged against, rather than judged


STRATEGIES: dict[str, StrategyEntry] = {
    "top_k": StrategyEntry(TopKParams, TopK),
    "threshold_long_flat": StrategyEntry(ThresholdLongFlatParams, ThresholdLongFlat),
    "buy_and_hold": StrategyEntry(BuyAndHoldParams, BuyAndHold, benchmark=True),
    "equal_weight": StrategyEntry(EqualWeightParams, EqualWeight, benchmark=True),
}


def strategy_entry(name: str) -> StrategyEntry:
    """The entry of a strategy; UnknownNameError names the allowed ones."""
    if name not in STRATEGIES:
        raise UnknownNameError("strategy", name, sorted(STRATEGIES))
    return STRATEGIES[name]

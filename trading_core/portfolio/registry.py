"""The strategies by name. Adding one is one file and one line here; the contract tests run over this registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trading_core.errors import UnknownNameError
from trading_core.portfolio.buy_and_hold import BuyAndHold, BuyAndHoldParams
from trading_core.portfolio.equal_weight import EqualWeight, EqualWeightParams
from trading_core.portfolio.long_short import LongShort, LongShortParams
from trading_core.portfolio.macd_confirmed import MACDConfirmed, MACDConfirmedParams
from trading_core.portfolio.mean_reversion import MeanReversion, MeanReversionParams
from trading_core.portfolio.mean_variance import MeanVariance, MeanVarianceParams
from trading_core.portfolio.minimum_variance import MinimumVariance, MinimumVarianceParams
from trading_core.portfolio.momentum import Momentum, MomentumParams
from trading_core.portfolio.proportional import Proportional, ProportionalParams
from trading_core.portfolio.quantile_aware import QuantileAware, QuantileAwareParams
from trading_core.portfolio.random_same_turnover import RandomSameTurnover, RandomSameTurnoverParams
from trading_core.portfolio.sma_cross import SMACross, SMACrossParams
from trading_core.portfolio.strategy import Strategy
from trading_core.portfolio.threshold_long_flat import ThresholdLongFlat, ThresholdLongFlatParams
from trading_core.portfolio.threshold_long_short import ThresholdLongShort, ThresholdLongShortParams
from trading_core.portfolio.top_k import TopK, TopKParams
from trading_core.portfolio.volatility_target import VolatilityTarget, VolatilityTargetParams


@dataclass(frozen=True, slots=True)
class StrategyEntry:
    """`params`: the frozen dataclass of its parameters (bounds in `__post_init__`); `build` makes it from one."""

    params: type
    build: Callable[[Any], Strategy]
    benchmark: bool = False  # judged against, rather than judged


STRATEGIES: dict[str, StrategyEntry] = {
    "top_k": StrategyEntry(TopKParams, TopK),
    "threshold_long_flat": StrategyEntry(ThresholdLongFlatParams, ThresholdLongFlat),
    "threshold_long_short": StrategyEntry(ThresholdLongShortParams, ThresholdLongShort),
    "long_short": StrategyEntry(LongShortParams, LongShort),
    "proportional": StrategyEntry(ProportionalParams, Proportional),
    "quantile_aware": StrategyEntry(QuantileAwareParams, QuantileAware),
    "macd_confirmed": StrategyEntry(MACDConfirmedParams, MACDConfirmed),
    "momentum": StrategyEntry(MomentumParams, Momentum),
    "mean_reversion": StrategyEntry(MeanReversionParams, MeanReversion),
    "volatility_target": StrategyEntry(VolatilityTargetParams, VolatilityTarget),
    "minimum_variance": StrategyEntry(MinimumVarianceParams, MinimumVariance),
    "mean_variance": StrategyEntry(MeanVarianceParams, MeanVariance),
    "buy_and_hold": StrategyEntry(BuyAndHoldParams, BuyAndHold, benchmark=True),
    "equal_weight": StrategyEntry(EqualWeightParams, EqualWeight, benchmark=True),
    "sma_cross": StrategyEntry(SMACrossParams, SMACross, benchmark=True),
    "random_same_turnover": StrategyEntry(RandomSameTurnoverParams, RandomSameTurnover, benchmark=True),
}


def strategy_entry(name: str) -> StrategyEntry:
    """The entry of a strategy; UnknownNameError names the allowed ones."""
    if name not in STRATEGIES:
        raise UnknownNameError("strategy", name, sorted(STRATEGIES))
    return STRATEGIES[name]

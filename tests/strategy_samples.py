"""A small sample of every strategy, for the tests that run over the registry, and the features that they read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from trading_core.portfolio.buy_and_hold import BuyAndHoldParams
from trading_core.portfolio.equal_weight import EqualWeightParams
from trading_core.portfolio.long_short import LongShortParams
from trading_core.portfolio.macd_confirmed import MACDConfirmedParams
from trading_core.portfolio.mean_reversion import MeanReversionParams
from trading_core.portfolio.mean_variance import MeanVarianceParams
from trading_core.portfolio.minimum_variance import MinimumVarianceParams
from trading_core.portfolio.momentum import MomentumParams
from trading_core.portfolio.proportional import ProportionalParams
from trading_core.portfolio.quantile_aware import QuantileAwareParams
from trading_core.portfolio.random_same_turnover import RandomSameTurnoverParams
from trading_core.portfolio.registry import STRATEGIES
from trading_core.portfolio.sma_cross import SMACrossParams
from trading_core.portfolio.strategy import SessionView, Strategy, session_view
from trading_core.portfolio.threshold_long_flat import ThresholdLongFlatParams
from trading_core.portfolio.threshold_long_short import ThresholdLongShortParams
from trading_core.portfolio.top_k import TopKParams
from trading_core.portfolio.volatility_target import VolatilityTargetParams
from trading_core.schema import QUANTILES, FloatArray

# A new member of STRATEGIES brings one here: windows of a few sessions, so that a panel of 40 has room for them.
PARAMS: dict[str, Any] = {
    "top_k": TopKParams(k=4, buffer=2),
    "threshold_long_flat": ThresholdLongFlatParams(),
    "threshold_long_short": ThresholdLongShortParams(),
    "long_short": LongShortParams(band=0.02),
    "proportional": ProportionalParams(cap=0.2),
    "quantile_aware": QuantileAwareParams(k=4),
    "macd_confirmed": MACDConfirmedParams(k=4),
    "momentum": MomentumParams(k=4, lookback=9, skip=2, rebalance_sessions=3),
    "mean_reversion": MeanReversionParams(k=4, rebalance_sessions=2),
    "volatility_target": VolatilityTargetParams(k=4, window=7, weighting="inverse_volatility", target_annual=0.1),
    "minimum_variance": MinimumVarianceParams(names=5, lookback=20, max_weight=0.4, rebalance_sessions=6),
    "mean_variance": MeanVarianceParams(names=5, lookback=20, max_weight=0.4, rebalance_sessions=6),
    "buy_and_hold": BuyAndHoldParams(),
    "equal_weight": EqualWeightParams(),
    "sma_cross": SMACrossParams(fast=3, slow=11),
    "random_same_turnover": RandomSameTurnoverParams(k=4),
}


def sample(name: str) -> Strategy:
    return STRATEGIES[name].build(PARAMS[name])


def any_columns(strategy: Strategy, shape: tuple[int, ...], seed: int) -> Mapping[str, FloatArray]:
    """A random value of each feature that the strategy declares, one in ten missing."""
    rng = np.random.default_rng(seed)
    return {name: np.where(rng.random(shape) < 0.1, np.nan, rng.normal(size=shape)) for name in strategy.columns}


def view(
    strategy: Strategy,
    closes: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    score: npt.ArrayLike | None = None,
    quantiles: npt.ArrayLike | None = None,
    p_up: npt.ArrayLike | None = None,
    volumes: npt.ArrayLike | None = None,
    ordinal: int = 0,
    columns: Mapping[str, npt.ArrayLike] | None = None,
) -> SessionView:
    """A view of symbols A, B, C ... with `closes` [L, S], of which the last `lookback` are shown. What is not given is not
    known; weights: nothing is held. quantiles: [S, 7], or the medians [S]."""
    shown = np.array(closes, dtype=float)[-strategy.lookback :]
    count = shown.shape[1]

    def row(values: npt.ArrayLike | None, missing: float = np.nan) -> FloatArray:
        return np.full(count, missing) if values is None else np.array(values, dtype=float)

    held, levels = row(weights, 0.0), row(quantiles)
    return session_view(
        date(2020, 1, 2),
        date(2020, 1, 3),
        ordinal,
        tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:count]),
        row(score),
        np.repeat(levels[:, None], len(QUANTILES), axis=1) if levels.ndim == 1 else levels,
        row(p_up),
        shown,
        np.ones_like(shown) if volumes is None else np.array(volumes, dtype=float)[-strategy.lookback :],
        held,
        1.0 - float(held.sum()),
        {name: np.array(values, dtype=float) for name, values in (columns or {}).items()},
    )

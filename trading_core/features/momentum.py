"""Oscillators and momentum of the price. Feature contract: `trading_core.features.registry`."""

from __future__ import annotations

import numpy as np

from trading_core.features.common import WILDER_14
from trading_core.features.kernels import diff, ewm_mean, ewm_window, ratio, rolling_max, rolling_min, shift
from trading_core.features.registry import BarBlock, feature
from trading_core.schema import FloatArray


@feature(family="momentum", inputs=("close",), lookback=ewm_window(WILDER_14), unit="0 .. 100")
def rsi_14(bars: BarBlock) -> FloatArray:
    """Relative strength index over 14 sessions.

    Formula: 100 G / (G + L), Wilder averages of the rises G and falls L of the close, truncated to `ewm_window`
        changes; 50 when it has not moved.
    NaN: the first 14 rows.
    Reference: Wilder (1978); TA-Lib RSI(14), once that has forgotten its seed.
    """
    move = diff(bars.close)
    rises = ewm_mean(np.maximum(move, 0.0), WILDER_14, 14)
    falls = ewm_mean(np.maximum(-move, 0.0), WILDER_14, 14)
    return ratio(100.0 * rises, rises + falls, undefined=50.0)


@feature(family="momentum", inputs=("high", "low", "close"), lookback=13, unit="0 .. 100")
def stoch_k_14(bars: BarBlock) -> FloatArray:
    """Fast stochastic %K: where the close lies in the range of 14 sessions (Williams %R is this minus 100).

    Formula: 100 (close - low14) / (high14 - low14), low14 and high14 over t-13 .. t; 50 when they are equal.
    NaN: the first 13 rows.
    Reference: Lane (1984); TA-Lib STOCHF(14) and WILLR(14).
    """
    lowest = rolling_min(bars.low, 14)
    return ratio(100.0 * (bars.close - lowest), rolling_max(bars.high, 14) - lowest, undefined=50.0)


@feature(family="momentum", inputs=("close",), lookback=252, unit="simple return")
def mom_252_21(bars: BarBlock) -> FloatArray:
    """Momentum of a year without its last month.

    Formula: close[t-21] / close[t-252] - 1.
    NaN: the first 252 rows.
    Reference: Jegadeesh and Titman (1993), Returns to buying winners and selling losers; the "12-1" convention.
    """
    return ratio(shift(bars.close, 21), shift(bars.close, 252)) - 1.0

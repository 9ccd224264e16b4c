"""How much the price moves, per session (not annualised). Feature contract: `trading_core.features.registry`."""

from __future__ import annotations

import math

import numpy as np

from trading_core.features.common import WILDER_14, atr_currency_14, log_returns
from trading_core.features.kernels import ewm_window, log, ratio, rolling_mean, rolling_std
from trading_core.features.registry import BarBlock, feature
from trading_core.schema import FloatArray

_WILDER_ROWS = ewm_window(WILDER_14)


@feature(family="volatility", inputs=("close",), lookback=20, unit="log return per session")
def vol_20(bars: BarBlock) -> FloatArray:
    """Volatility over 20 sessions.

    Formula: sample standard deviation (divisor 19) of the log returns of t-19 .. t.
    NaN: the first 20 rows.
    Reference: definition.
    """
    return rolling_std(log_returns(bars), 20)


@feature(family="volatility", inputs=("close",), lookback=63, unit="ratio")
def vol_ratio(bars: BarBlock) -> FloatArray:
    """Volatility of a week against that of a quarter.

    Formula: deviation of the last 5 log returns / deviation of the last 63, both samples.
    NaN: the first 63 rows; where the price has not moved for 63 sessions.
    Reference: definition.
    """
    returns = log_returns(bars)
    return ratio(rolling_std(returns, 5), rolling_std(returns, 63))


@feature(family="volatility", inputs=("high", "low", "close"), lookback=_WILDER_ROWS, unit="fraction of the close")
def atr_14(bars: BarBlock) -> FloatArray:
    """Average true range over the close.

    Formula: Wilder average over 14, truncated to `ewm_window` rows, of max(high, close[t-1]) - min(low, close[t-1]),
        divided by close[t].
    NaN: the first 14 rows.
    Reference: Wilder (1978); times the close it is TA-Lib ATR(14), once that has forgotten its seed.
    """
    return ratio(atr_currency_14(bars), bars.close)


@feature(family="volatility", inputs=("high", "low"), lookback=19, unit="log return per session")
def parkinson_20(bars: BarBlock) -> FloatArray:
    """Volatility over 20 sessions, from the bars' ranges.

    Formula: sqrt(mean(ln(high / low)^2) / (4 ln 2)) over t-19 .. t.
    NaN: the first 19 rows.
    Reference: Parkinson (1980), The extreme value method for estimating the variance of the rate of return.
    """
    span = log(bars.high) - log(bars.low)
    return np.sqrt(rolling_mean(span * span, 20) / (4.0 * math.log(2.0)))

"""How much the price moves, per session (not annualised): by the closes.

By the bars' ranges: `volatility_range`. By models: `volatility_model`. Feature contract: `trading_core.features.registry`.
"""

from __future__ import annotations

import math

import numpy as np

from trading_core.features.common import log_returns
from trading_core.features.kernels import (
    ratio,
    rolling_max_drawdown,
    rolling_mean,
    rolling_mean_std,
    rolling_std,
    rolling_sum,
    shift,
)
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.schema import FloatArray


@shared
def deviation_5(bars: BarBlock) -> FloatArray:
    """Sample standard deviation of the last 5 log returns."""
    return rolling_std(log_returns(bars), 5)


@shared
def deviation_20(bars: BarBlock) -> FloatArray:
    """Sample standard deviation of the last 20 log returns."""
    return rolling_std(log_returns(bars), 20)


@shared
def deviation_63(bars: BarBlock) -> FloatArray:
    """Sample standard deviation of the last 63 log returns."""
    return rolling_std(log_returns(bars), 63)


@shared
def deviation_126(bars: BarBlock) -> FloatArray:
    """Sample standard deviation of the last 126 log returns."""
    return rolling_std(log_returns(bars), 126)


@shared
def squared_returns(bars: BarBlock) -> FloatArray:
    """Squares of the log returns."""
    moves = log_returns(bars)
    return moves * moves


@feature(family="volatility", inputs=("close",), lookback=5, unit="log return per session")
def vol_5(bars: BarBlock) -> FloatArray:
    """Volatility over 5 sessions.

    Formula: sample standard deviation (divisor 4) of the log returns of t-4 .. t.
    NaN: the first 5 rows.
    Reference: definition.
    """
    return deviation_5(bars)


@feature(family="volatility", inputs=("close",), lookback=10, unit="log return per session")
def vol_10(bars: BarBlock) -> FloatArray:
    """Volatility over 10 sessions.

    Formula: sample standard deviation (divisor 9) of the log returns of t-9 .. t.
    NaN: the first 10 rows.
    Reference: definition.
    """
    return rolling_std(log_returns(bars), 10)


@feature(family="volatility", inputs=("close",), lookback=20, unit="log return per session")
def vol_20(bars: BarBlock) -> FloatArray:
    """Volatility over 20 sessions.

    Formula: sample standard deviation (divisor 19) of the log returns of t-19 .. t.
    NaN: the first 20 rows.
    Reference: definition.
    """
    return deviation_20(bars)


@feature(family="volatility", inputs=("close",), lookback=63, unit="log return per session")
def vol_63(bars: BarBlock) -> FloatArray:
    """Volatility over 63 sessions.

    Formula: sample standard deviation (divisor 62) of the log returns of t-62 .. t.
    NaN: the first 63 rows.
    Reference: definition.
    """
    return deviation_63(bars)


@feature(family="volatility", inputs=("close",), lookback=126, unit="log return per session")
def vol_126(bars: BarBlock) -> FloatArray:
    """Volatility over 126 sessions.

    Formula: sample standard deviation (divisor 125) of the log returns of t-125 .. t.
    NaN: the first 126 rows.
    Reference: definition.
    """
    return deviation_126(bars)


@feature(family="volatility", inputs=("close",), lookback=252, unit="log return per session")
def vol_252(bars: BarBlock) -> FloatArray:
    """Volatility over 252 sessions.

    Formula: sample standard deviation (divisor 251) of the log returns of t-251 .. t.
    NaN: the first 252 rows.
    Reference: definition.
    """
    return rolling_std(log_returns(bars), 252)


@feature(family="volatility", inputs=("close",), lookback=63, unit="ratio")
def vol_ratio(bars: BarBlock) -> FloatArray:
    """Volatility of a week against that of a quarter.

    Formula: deviation of the last 5 log returns / deviation of the last 63, both samples.
    NaN: the first 63 rows; where the price has not moved for 63 sessions.
    Reference: definition.
    """
    return ratio(deviation_5(bars), deviation_63(bars))


@feature(family="volatility", inputs=("close",), lookback=20, unit="ratio")
def vol_ratio_5_20(bars: BarBlock) -> FloatArray:
    """Volatility of a week against that of a month.

    Formula: deviation of the last 5 log returns / deviation of the last 20, both samples.
    NaN: the first 20 rows; where the last 20 returns are all equal.
    Reference: definition.
    """
    return ratio(deviation_5(bars), deviation_20(bars))


@feature(family="volatility", inputs=("close",), lookback=126, unit="ratio")
def vol_ratio_20_126(bars: BarBlock) -> FloatArray:
    """Volatility of a month against that of half a year.

    Formula: deviation of the last 20 log returns / deviation of the last 126, both samples.
    NaN: the first 126 rows; where the last 126 returns are all equal.
    Reference: definition.
    """
    return ratio(deviation_20(bars), deviation_126(bars))


@feature(family="volatility", inputs=("close",), lookback=82, unit="ratio")
def vol_of_vol_20_63(bars: BarBlock) -> FloatArray:
    """How unsteady the volatility is.

    Formula: s / m, sample deviation s (divisor 62) and mean m of vol_20 over t-62 .. t.
    NaN: the first 82 rows; where the price has not moved for 82 sessions.
    Reference: Baltussen, Van Bekkum and Van der Grient (2018), Unknown unknowns: uncertainty about risk and stock
        returns, with realised in place of implied volatility.
    """
    mean, deviation = rolling_mean_std(deviation_20(bars), 63, ddof=1)
    return ratio(deviation, mean)


@feature(family="volatility", inputs=("close",), lookback=20, unit="log return per session")
def downside_dev_20(bars: BarBlock) -> FloatArray:
    """Downside deviation over 20 sessions.

    Formula: sqrt(mean(min(r, 0)^2)) over t-19 .. t, r the log returns; target 0, divisor 20.
    NaN: the first 20 rows.
    Reference: Sortino and van der Meer (1991), Downside risk.
    """
    falls = np.minimum(log_returns(bars), 0.0)
    return np.sqrt(rolling_mean(falls * falls, 20))


@feature(family="volatility", inputs=("close",), lookback=63, unit="-1 .. 1")
def up_down_variance_63(bars: BarBlock) -> FloatArray:
    """Upside against downside volatility over 63 sessions: -1 all moves down, 0 even, 1 all moves up.

    Formula: (U - D) / (U + D), U and D the sums of squared log returns above and below 0 over t-62 .. t; the ratio
        of upside to downside deviation is sqrt((1 + this) / (1 - this)). 0 where the price has not moved.
    NaN: the first 63 rows.
    Reference: Patton and Sheppard (2015), Good volatility, bad volatility: signed jumps and the persistence of
        volatility, the signed jump variation over the whole.
    """
    moves = log_returns(bars)
    total = rolling_sum(squared_returns(bars), 63)
    return ratio(rolling_sum(moves * np.abs(moves), 63), total, undefined=0.0)


@feature(family="volatility", inputs=("close",), lookback=63, unit="ratio")
def bipower_ratio_63(bars: BarBlock) -> FloatArray:
    """Smooth part of the variance over 63 sessions: near 1 without jumps, lower the more of it came in jumps.

    Formula: (pi / 2) (63 / 62) sum(|r[i]| |r[i-1]|) / sum(r[i]^2), sums over the 62 pairs and 63 log returns of
        t-62 .. t; 1 where the price has not moved.
    NaN: the first 63 rows.
    Reference: Barndorff-Nielsen and Shephard (2004), Power and bipower variation with stochastic volatility and jumps.
    """
    size = np.abs(log_returns(bars))
    pairs = rolling_sum(size * shift(size, 1), 62) * (0.5 * math.pi * 63 / 62)
    return ratio(pairs, rolling_sum(squared_returns(bars), 63), undefined=1.0)


@feature(family="volatility", inputs=("close",), lookback=62, unit="fraction of the peak")
def max_drawdown_63(bars: BarBlock) -> FloatArray:
    """Deepest fall of the close from an earlier close within 63 sessions, 0 .. 1.

    Formula: max(1 - close[j] / close[i]) over t-62 <= i <= j <= t.
    NaN: the first 62 rows; where a close that a fall starts from is 0.
    Reference: Magdon-Ismail and Atiya (2004), Maximum drawdown.
    """
    return rolling_max_drawdown(bars.close, 63)

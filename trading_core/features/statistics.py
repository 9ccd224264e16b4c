"""How the closes of a window are spread and ordered. Feature contract: `trading_core.features.registry`.

The family goes on in `statistics_returns`. The z-score of the close over 20 sessions is 2 sqrt(19/20) times
bollinger_position_20 and is not repeated here.
"""

from __future__ import annotations

import math

import numpy as np

from trading_core.features.common import log_close, log_returns
from trading_core.features.kernels import (
    diff,
    log,
    ratio,
    rolling_entropy,
    rolling_mean,
    rolling_mean_std,
    rolling_quantiles,
    rolling_rank,
    shift,
)
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.schema import FloatArray


def _zscore(x: FloatArray, window: int) -> FloatArray:
    """Distance to the mean of the last `window` bars in their sample deviations; 0 where all are equal."""
    mean, deviation = rolling_mean_std(x, window, ddof=1)
    return ratio(x - mean, deviation, undefined=0.0)


@feature(family="statistics", inputs=("close",), lookback=62, unit="standard deviations")
def close_z_63(bars: BarBlock) -> FloatArray:
    """Close against its mean of 63 sessions, in standard deviations.

    Formula: (close[t] - m) / s, mean m and sample deviation s of close[t-62 .. t]; 0 when they are all equal.
    NaN: the first 62 rows.
    Reference: definition of the z-score.
    """
    return _zscore(bars.close, 63)


@feature(family="statistics", inputs=("close",), lookback=251, unit="standard deviations")
def close_z_252(bars: BarBlock) -> FloatArray:
    """Close against its mean of 252 sessions, in standard deviations.

    Formula: (close[t] - m) / s, mean m and sample deviation s of close[t-251 .. t]; 0 when they are all equal.
    NaN: the first 251 rows.
    Reference: definition of the z-score.
    """
    return _zscore(bars.close, 252)


@feature(family="statistics", inputs=("close",), lookback=62, unit="0 .. 1")
def close_rank_63(bars: BarBlock) -> FloatArray:
    """Rank of the close among those of 63 sessions: 0 = lowest, 1 = highest.

    Formula: (closes below close[t] + half of those equal to it, itself left out) / 62, over close[t-62 .. t].
    NaN: the first 62 rows.
    Reference: definition of the mid-rank.
    """
    return rolling_rank(bars.close, 63)


@shared
def _close_quantiles_63(bars: BarBlock) -> FloatArray:
    """10 %, 50 % and 90 % quantile of the close over 63 sessions, [3, S, R]."""
    return rolling_quantiles(bars.close, 63, (0.1, 0.5, 0.9))


@feature(family="statistics", inputs=("close",), lookback=62, unit="ratio")
def quantile_position_63(bars: BarBlock) -> FloatArray:
    """Where the close lies between the outer deciles of 63 sessions: 0 at the lower, 1 at the upper, beyond them outside.

    Formula: (close[t] - q10) / (q90 - q10), quantiles of close[t-62 .. t]; 0.5 when they are equal.
    NaN: the first 62 rows.
    Reference: quantiles of type 7, Hyndman and Fan (1996), Sample quantiles in statistical packages.
    """
    low, _, high = _close_quantiles_63(bars)
    return ratio(bars.close - low, high - low, undefined=0.5)


@feature(family="statistics", inputs=("close",), lookback=62, unit="simple return")
def median_dist_63(bars: BarBlock) -> FloatArray:
    """Distance of the close from its median of 63 sessions.

    Formula: close[t] / median(close[t-62 .. t]) - 1.
    NaN: the first 62 rows.
    Reference: definition.
    """
    return ratio(bars.close, _close_quantiles_63(bars)[1]) - 1.0


@feature(family="statistics", inputs=("close",), lookback=126, unit="exponent")
def hurst_126(bars: BarBlock) -> FloatArray:
    """Hurst exponent of the log price: 0.5 = a random walk, more = it trends, less = it turns back.

    Formula: least-squares slope of ln K(k) on ln k, k = 2, 4, 8, 16, with K(k) the mean of |p[i] - p[i-k]| over all i
        with both in t-126 .. t, p = ln close.
    NaN: the first 126 rows; where the price does not move over one of the k.
    Reference: Di Matteo (2007), Multi-scaling in finance: the generalised Hurst exponent H(1).
    """
    level = log_close(bars)
    k2, k4, k8, k16 = (rolling_mean(np.abs(diff(level, k)), 127 - k) for k in (2, 4, 8, 16))
    # The four ln k lie at equal distances of ln 2, at -1.5, -0.5, 0.5 and 1.5 of them from their mean.
    return (1.5 * log(ratio(k16, k2)) + 0.5 * log(ratio(k8, k4))) / (5.0 * math.log(2.0))


@feature(family="statistics", inputs=("close",), lookback=62, unit="0 .. 1")
def permutation_entropy_63(bars: BarBlock) -> FloatArray:
    """How evenly the six orders of three closes in a row occur over 63 sessions: 1 = all alike, 0 = always the same one.

    Formula: -sum of p ln p / ln 6, p the shares of the orders of (close[i-2], close[i-1], close[i]), i = t-60 .. t; of
        equal closes the earlier counts as the lower.
    NaN: the first 62 rows.
    Reference: Bandt and Pompe (2002), Permutation entropy: a natural complexity measure for time series, order 3.
    """
    now, last, first = bars.close, shift(bars.close, 1), shift(bars.close, 2)
    order = 4.0 * (first > last) + 2.0 * (first > now) + 1.0 * (last > now)
    return rolling_entropy(np.where(np.isnan(now + last + first), np.nan, order), 61, 8) / math.log(6.0)


@feature(family="statistics", inputs=("close",), lookback=63, unit="0 .. 1")
def sign_entropy_63(bars: BarBlock) -> FloatArray:
    """How evenly the eight sequences of three up or down moves occur over 63 sessions: 1 = all alike.

    Formula: -sum of p ln p / ln 8, p the shares of the words (r[i-2] > 0, r[i-1] > 0, r[i] > 0), i = t-60 .. t, r the
        change of the close.
    NaN: the first 63 rows.
    Reference: Risso (2008), The informational efficiency and the financial crashes: entropy of symbolic returns.
    """
    up = np.where(np.isnan(log_returns(bars)), np.nan, 1.0 * (log_returns(bars) > 0.0))
    return rolling_entropy(4.0 * shift(up, 2) + 2.0 * shift(up, 1) + up, 61, 8) / math.log(8.0)

"""The distribution and the memory of the returns of a window. Feature contract: `trading_core.features.registry`.

The family `statistics` begins in `statistics`. Returns are ln close[t] - ln close[t-1] unless said otherwise.
"""

from __future__ import annotations

import numpy as np

from trading_core.features.common import log_returns, returns
from trading_core.features.kernels import (
    ratio,
    rolling_joint,
    rolling_max,
    rolling_mean,
    rolling_mean_deviation,
    rolling_mean_std,
    rolling_min,
    rolling_quantiles,
    rolling_rank,
    rolling_skew,
    rolling_skew_kurtosis,
    rolling_std,
    shift,
)
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.schema import FloatArray


@feature(family="statistics", inputs=("close",), lookback=20, unit="skewness")
def skew_20(bars: BarBlock) -> FloatArray:
    """Skewness of the returns of 20 sessions.

    Formula: m3 / m2^1.5, central moments (divisor 20) of the log returns of t-19 .. t.
    NaN: the first 20 rows; where the price has not moved within them.
    Reference: Amaya, Christoffersen, Jacobs and Vasquez (2015), Does realized skewness predict the cross-section of
        equity returns?; scipy.stats.skew.
    """
    return rolling_skew(log_returns(bars), 20)


@shared
def _shape_63(bars: BarBlock) -> FloatArray:
    """Skewness and excess kurtosis of the log returns of 63 sessions, [2, S, R]."""
    return np.stack(rolling_skew_kurtosis(log_returns(bars), 63))


@feature(family="statistics", inputs=("close",), lookback=63, unit="skewness")
def skew_63(bars: BarBlock) -> FloatArray:
    """Skewness of the returns of 63 sessions.

    Formula: m3 / m2^1.5, central moments (divisor 63) of the log returns of t-62 .. t.
    NaN: the first 63 rows; where the price has not moved within them.
    Reference: as for skew_20.
    """
    return _shape_63(bars)[0]


@feature(family="statistics", inputs=("close",), lookback=63, unit="excess kurtosis")
def kurtosis_63(bars: BarBlock) -> FloatArray:
    """Excess kurtosis of the returns of 63 sessions: 0 for a normal distribution.

    Formula: m4 / m2^2 - 3, central moments (divisor 63) of the log returns of t-62 .. t.
    NaN: the first 63 rows; where the price has not moved within them.
    Reference: as for skew_20; scipy.stats.kurtosis.
    """
    return _shape_63(bars)[1]


@feature(family="statistics", inputs=("close",), lookback=63, unit="ratio")
def mad_ratio_63(bars: BarBlock) -> FloatArray:
    """Mean absolute deviation of the returns over their standard deviation: 0.8 for a normal distribution, less for fat tails.

    Formula: mean(|r - m|) / s, mean m and population deviation s of the log returns r of t-62 .. t.
    NaN: the first 63 rows; where the price has not moved within them.
    Reference: Geary (1935), The ratio of the mean deviation to the standard deviation as a test of normality.
    """
    return ratio(rolling_mean_deviation(log_returns(bars), 63), rolling_std(log_returns(bars), 63, ddof=0))


@feature(family="statistics", inputs=("close",), lookback=63, unit="standard deviations")
def ret_z_63(bars: BarBlock) -> FloatArray:
    """Surprise in the return against those of the 62 sessions before.

    Formula: (r[t] - m) / s, mean m and sample deviation s of the log returns r of t-62 .. t-1.
    NaN: the first 63 rows; where the price had not moved before.
    Reference: definition of the z-score.
    """
    mean, deviation = rolling_mean_std(log_returns(bars), 62, ddof=1)
    return ratio(log_returns(bars) - shift(mean, 1), shift(deviation, 1))


@feature(family="statistics", inputs=("close",), lookback=63, unit="0 .. 1")
def ret_rank_63(bars: BarBlock) -> FloatArray:
    """Rank of the return among those of 63 sessions: 0 = lowest, 1 = highest.

    Formula: (returns below r[t] + half of those equal to it, itself left out) / 62, over the log returns of t-62 .. t.
    NaN: the first 63 rows.
    Reference: definition of the mid-rank.
    """
    return rolling_rank(log_returns(bars), 63)


@shared
def _return_quantiles_63(bars: BarBlock) -> FloatArray:
    """5 %, 50 % and 95 % quantile of the log returns of 63 sessions, [3, S, R]."""
    return rolling_quantiles(log_returns(bars), 63, (0.05, 0.5, 0.95))


@feature(family="statistics", inputs=("close",), lookback=63, unit="ratio")
def tail_ratio_63(bars: BarBlock) -> FloatArray:
    """Right tail of the returns of 63 sessions over the left one.

    Formula: |q95| / |q05|, quantiles (type 7) of the log returns of t-62 .. t.
    NaN: the first 63 rows; where q05 = 0.
    Reference: definition, as in empyrical's tail_ratio.
    """
    low, _, high = _return_quantiles_63(bars)
    return ratio(np.abs(high), np.abs(low))


@feature(family="statistics", inputs=("close",), lookback=63, unit="-1 .. 1")
def quantile_skew_63(bars: BarBlock) -> FloatArray:
    """Skewness of the returns of 63 sessions that no single outlier decides.

    Formula: (q95 + q05 - 2 q50) / (q95 - q05), quantiles (type 7) of the log returns of t-62 .. t; 0 when q95 = q05.
    NaN: the first 63 rows.
    Reference: Hinkley (1975), On power transformations to symmetry; Bowley's coefficient at the 5 % quantiles.
    """
    low, middle, high = _return_quantiles_63(bars)
    return ratio((high - middle) - (middle - low), high - low, undefined=0.0)


def _autocorrelation(x: FloatArray, lag: int, window: int) -> FloatArray:
    """Pearson's correlation of x[i] and x[i - lag] over the last `window` i; NaN where one of the two does not vary."""
    xx, yy, xy = rolling_joint(x, shift(x, lag), window)
    return ratio(xy, np.sqrt(xx) * np.sqrt(yy))


@feature(family="statistics", inputs=("close",), lookback=64, unit="-1 .. 1")
def autocorr_1_63(bars: BarBlock) -> FloatArray:
    """Autocorrelation of the returns at lag 1 over 63 sessions.

    Formula: Pearson's correlation of r[i] and r[i-1], i = t-62 .. t, r the log return.
    NaN: the first 64 rows; where the price has not moved within them.
    Reference: Lo and MacKinlay (1990), When are contrarian profits due to stock market overreaction?
    """
    return _autocorrelation(log_returns(bars), 1, 63)


@feature(family="statistics", inputs=("close",), lookback=68, unit="-1 .. 1")
def autocorr_5_63(bars: BarBlock) -> FloatArray:
    """Autocorrelation of the returns at lag 5 over 63 sessions.

    Formula: Pearson's correlation of r[i] and r[i-5], i = t-62 .. t, r the log return.
    NaN: the first 68 rows; where the price has not moved within them.
    Reference: as for autocorr_1_63.
    """
    return _autocorrelation(log_returns(bars), 5, 63)


@feature(family="statistics", inputs=("close",), lookback=64, unit="0 .. 1")
def continuation_63(bars: BarBlock) -> FloatArray:
    """Share of the sessions, of 63, that moved the way of the session before.

    Formula: number of i in t-62 .. t with r[i] r[i-1] > 0, over 63, r the log return.
    NaN: the first 64 rows.
    Reference: Cowles and Jones (1937), Some a posteriori probabilities in stock market action: sequences.
    """
    sign = np.sign(log_returns(bars))  # the product of two small returns could vanish
    same = sign * shift(sign, 1)
    return rolling_mean(np.where(np.isnan(same), np.nan, 1.0 * (same > 0.0)), 63)


def _mean_over_deviation(x: FloatArray, window: int) -> FloatArray:
    mean, deviation = rolling_mean_std(x, window, ddof=1)
    return ratio(mean, deviation)


@feature(family="statistics", inputs=("close",), lookback=20, unit="ratio per session")
def sharpe_20(bars: BarBlock) -> FloatArray:
    """Mean return of 20 sessions over their volatility, not annualised.

    Formula: m / s, mean m and sample deviation s of the log returns of t-19 .. t.
    NaN: the first 20 rows; where all returns are equal.
    Reference: Sharpe (1966), Mutual fund performance; without a riskless rate.
    """
    return _mean_over_deviation(log_returns(bars), 20)


@feature(family="statistics", inputs=("close",), lookback=63, unit="ratio per session")
def sharpe_63(bars: BarBlock) -> FloatArray:
    """Mean return of 63 sessions over their volatility, not annualised.

    Formula: m / s, mean m and sample deviation s of the log returns of t-62 .. t.
    NaN: the first 63 rows; where all returns are equal.
    Reference: as for sharpe_20.
    """
    return _mean_over_deviation(log_returns(bars), 63)


@feature(family="statistics", inputs=("close",), lookback=20, unit="0 .. 1")
def up_share_20(bars: BarBlock) -> FloatArray:
    """Share of the last 20 sessions that closed higher.

    Formula: number of i in t-19 .. t with close[i] > close[i-1], over 20.
    NaN: the first 20 rows.
    Reference: Da, Gurun and Warachka (2014), Frog in the pan: continuous information and momentum.
    """
    change = returns(bars)
    return rolling_mean(np.where(np.isnan(change), np.nan, 1.0 * (change > 0.0)), 20)


@feature(family="statistics", inputs=("close",), lookback=20, unit="simple return")
def max_ret_20(bars: BarBlock) -> FloatArray:
    """Largest return of a session within 20, the lottery in a stock.

    Formula: max of close[i] / close[i-1] - 1, i = t-19 .. t.
    NaN: the first 20 rows.
    Reference: Bali, Cakici and Whitelaw (2011), Maxing out: stocks as lotteries and the cross-section of expected returns.
    """
    return rolling_max(returns(bars), 20)


@feature(family="statistics", inputs=("close",), lookback=20, unit="simple return")
def min_ret_20(bars: BarBlock) -> FloatArray:
    """Smallest return of a session within 20.

    Formula: min of close[i] / close[i-1] - 1, i = t-19 .. t.
    NaN: the first 20 rows.
    Reference: as for max_ret_20.
    """
    return rolling_min(returns(bars), 20)

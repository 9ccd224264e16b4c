"""How much the price moves, per session: by the bars' ranges. Family `volatility`.

Feature contract: `trading_core.features.registry`.
"""

from __future__ import annotations

import math

import numpy as np

from trading_core.features.common import (
    WILDER_ROWS,
    atr_currency_14,
    intraday_log,
    log_close,
    log_high,
    log_low,
    log_open,
    overnight_log,
    span,
    true_range,
)
from trading_core.features.kernels import (
    ewm_mean,
    ewm_window,
    ratio,
    rolling_mean,
    rolling_std,
    rolling_sum,
    shift,
)
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.features.volatility import deviation_20
from trading_core.schema import FloatArray

_EMA_LEFT_OUT = 1e-9  # the distance to the average is small against the price
_EMA_20_ROWS = ewm_window(span(20), _EMA_LEFT_OUT) - 1
_PARKINSON = 4.0 * math.log(2.0)
_GARMAN_KLASS = 2.0 * math.log(2.0) - 1.0
_YANG_ZHANG = 0.34 / (1.34 + 21 / 19)  # k = 0.34 / (1.34 + (n + 1) / (n - 1)), n = 20


@shared
def log_range(bars: BarBlock) -> FloatArray:
    """ln(high / low)."""
    return log_high(bars) - log_low(bars)


@shared
def squared_range(bars: BarBlock) -> FloatArray:
    """ln(high / low)^2."""
    width = log_range(bars)
    return width * width


@shared
def parkinson_deviation_20(bars: BarBlock) -> FloatArray:
    """Parkinson's volatility over 20 sessions."""
    return np.sqrt(rolling_mean(squared_range(bars), 20) / _PARKINSON)


@shared
def rogers_satchell_variance_20(bars: BarBlock) -> FloatArray:
    """Mean over 20 sessions of ln(h/c) ln(h/o) + ln(l/c) ln(l/o)."""
    up, down = log_high(bars), log_low(bars)
    begin, end = log_open(bars), log_close(bars)
    return rolling_mean((up - end) * (up - begin) + (down - end) * (down - begin), 20)


@shared
def close_deviation_20(bars: BarBlock) -> FloatArray:
    """Population standard deviation of the last 20 closes, in the price's currency."""
    return rolling_std(bars.close, 20, ddof=0)


@feature(family="volatility", inputs=("high", "low", "close"), lookback=1, unit="fraction of the close")
def true_range_1(bars: BarBlock) -> FloatArray:
    """True range of the session over its close.

    Formula: (max(high, close[t-1]) - min(low, close[t-1])) / close[t].
    NaN: the first row.
    Reference: Wilder (1978); times the close it is TA-Lib TRANGE.
    """
    return ratio(true_range(bars), bars.close)


@feature(family="volatility", inputs=("high", "low", "close"), lookback=WILDER_ROWS, unit="fraction of the close")
def atr_14(bars: BarBlock) -> FloatArray:
    """Average true range over the close.

    Formula: Wilder average over 14, truncated to `ewm_window` rows, of max(high, close[t-1]) - min(low, close[t-1]),
        divided by close[t].
    NaN: the first 14 rows.
    Reference: Wilder (1978); times the close it is TA-Lib ATR(14), once that has forgotten its seed; times 100 it is
        TA-Lib NATR(14).
    """
    return ratio(atr_currency_14(bars), bars.close)


@feature(family="volatility", inputs=("high", "low", "close"), lookback=63, unit="ratio")
def true_range_ratio_5_63(bars: BarBlock) -> FloatArray:
    """True range of a week against that of a quarter.

    Formula: mean of the last 5 true ranges / mean of the last 63. Plain means: Wilder's average over 63 would need 1,008
        rows to forget its seed.
    NaN: the first 63 rows; where the price has not moved for 63 sessions.
    Reference: the true range of Wilder (1978); means as TA-Lib SMA of TRANGE.
    """
    moved = true_range(bars)
    return ratio(rolling_mean(moved, 5), rolling_mean(moved, 63))


@feature(family="volatility", inputs=("close",), lookback=19, unit="fraction of the mean close")
def bollinger_width_20(bars: BarBlock) -> FloatArray:
    """Width of the Bollinger bands over their middle.

    Formula: 4 s / m, mean m and population deviation s of close[t-19 .. t].
    NaN: the first 19 rows.
    Reference: Bollinger (1992), BandWidth; (upper - lower) / middle of TA-Lib BBANDS(20, 2, 2).
    """
    return ratio(4.0 * close_deviation_20(bars), rolling_mean(bars.close, 20))


@feature(
    family="volatility",
    inputs=("high", "low", "close"),
    lookback=max(_EMA_20_ROWS, WILDER_ROWS),
    unit="half-widths of the channel",
)
def keltner_position_20(bars: BarBlock) -> FloatArray:
    """Where the close lies in its Keltner channel: -1 at the lower line, 0 in the middle, 1 at the upper line.

    Formula: (close - EMA(close, 20)) / (2 ATR(14)), the averages truncated to 208 and 249 rows.
    NaN: the first 19 rows; where the price has not moved in any row of the ATR.
    Reference: Keltner (1960) as changed by Raschke (EMA and ATR); TA-Lib EMA(20) and ATR(14), once they have
        forgotten their seeds.
    """
    return ratio(bars.close - ewm_mean(bars.close, span(20), 20, _EMA_LEFT_OUT), 2.0 * atr_currency_14(bars))


@feature(family="volatility", inputs=("high", "low", "close"), lookback=WILDER_ROWS, unit="ratio of widths")
def squeeze_20(bars: BarBlock) -> FloatArray:
    """Width of the Bollinger bands against that of the Keltner channel: below 1 the bands lie within, a squeeze.

    Formula: 2 s / (1.5 ATR(14)), s the population deviation of close[t-19 .. t], ATR as in atr_14.
    NaN: the first 19 rows; where the price has not moved in any row of the ATR.
    Reference: Carter (2005), Mastering the trade, the widths of his squeeze; ATR(14) as elsewhere here.
    """
    return ratio(2.0 * close_deviation_20(bars), 1.5 * atr_currency_14(bars))


@feature(family="volatility", inputs=("high", "low"), lookback=19, unit="log return per session")
def parkinson_20(bars: BarBlock) -> FloatArray:
    """Volatility over 20 sessions, from the bars' ranges.

    Formula: sqrt(mean(ln(high / low)^2) / (4 ln 2)) over t-19 .. t.
    NaN: the first 19 rows.
    Reference: Parkinson (1980), The extreme value method for estimating the variance of the rate of return.
    """
    return parkinson_deviation_20(bars)


@feature(family="volatility", inputs=("high", "low"), lookback=62, unit="log return per session")
def parkinson_63(bars: BarBlock) -> FloatArray:
    """Volatility over 63 sessions, from the bars' ranges.

    Formula: sqrt(mean(ln(high / low)^2) / (4 ln 2)) over t-62 .. t.
    NaN: the first 62 rows.
    Reference: as for parkinson_20.
    """
    return np.sqrt(rolling_mean(squared_range(bars), 63) / _PARKINSON)


@feature(family="volatility", inputs=("open", "high", "low", "close"), lookback=19, unit="log return per session")
def garman_klass_20(bars: BarBlock) -> FloatArray:
    """Volatility within the session over 20 sessions, from open, high, low and close.

    Formula: sqrt(mean(0.5 ln(high / low)^2 - (2 ln 2 - 1) ln(close / open)^2)) over t-19 .. t.
    NaN: the first 19 rows; where bars whose close or open lies outside their range make the mean negative.
    Reference: Garman and Klass (1980), On the estimation of security price volatilities from historical data.
    """
    body = intraday_log(bars)
    return np.sqrt(rolling_mean(0.5 * squared_range(bars) - _GARMAN_KLASS * (body * body), 20))


@feature(family="volatility", inputs=("open", "high", "low", "close"), lookback=19, unit="log return per session")
def rogers_satchell_20(bars: BarBlock) -> FloatArray:
    """Volatility within the session over 20 sessions, whatever the drift.

    Formula: sqrt(mean(ln(h / c) ln(h / o) + ln(l / c) ln(l / o))) over t-19 .. t.
    NaN: the first 19 rows; where bars whose close or open lies outside their range make the mean negative.
    Reference: Rogers and Satchell (1991), Estimating variance from high, low and closing prices.
    """
    return np.sqrt(rogers_satchell_variance_20(bars))


@feature(family="volatility", inputs=("open", "high", "low", "close"), lookback=20, unit="log return per session")
def yang_zhang_20(bars: BarBlock) -> FloatArray:
    """Volatility over 20 sessions with the nights, whatever the drift.

    Formula: sqrt(V_o + k V_c + (1 - k) V_rs), sample variances (divisor 19) V_o of ln(open[i] / close[i-1]) and V_c of
        ln(close[i] / open[i]), V_rs the square of rogers_satchell_20, k = 0.34 / (1.34 + 21 / 19).
    NaN: the first 20 rows; where the sum is negative (bars whose close or open lies outside their range).
    Reference: Yang and Zhang (2000), Drift-independent volatility estimation based on high, low, open and close prices.
    """
    night, day = rolling_std(overnight_log(bars), 20), rolling_std(intraday_log(bars), 20)
    return np.sqrt(night * night + _YANG_ZHANG * (day * day) + (1.0 - _YANG_ZHANG) * rogers_satchell_variance_20(bars))


@feature(family="volatility", inputs=("high", "low"), lookback=20, unit="ratio")
def range_ratio_1_20(bars: BarBlock) -> FloatArray:
    """Range of the session against the 20 sessions before.

    Formula: ln(high / low) of t / mean of those of t-20 .. t-1.
    NaN: the first 20 rows; where none of the 20 had a range.
    Reference: the range as volatility of Alizadeh, Brandt and Diebold (2002), Range-based estimation of stochastic
        volatility models.
    """
    return ratio(log_range(bars), shift(rolling_mean(log_range(bars), 20), 1))


@feature(family="volatility", inputs=("high", "low", "close"), lookback=20, unit="ratio")
def range_vol_ratio_20(bars: BarBlock) -> FloatArray:
    """Realised range against the deviation of the closes over 20 sessions: above 1 the price turns within the session.

    Formula: parkinson_20 / vol_20.
    NaN: the first 20 rows; where the last 20 returns are all equal.
    Reference: the realised range of Martens and van Dijk (2007), Measuring volatility with the realized range.
    """
    return ratio(parkinson_deviation_20(bars), deviation_20(bars))


@feature(family="volatility", inputs=("open", "close"), lookback=20, unit="0 .. 1")
def overnight_vol_share_20(bars: BarBlock) -> FloatArray:
    """Share of the nights in the variance of 20 sessions.

    Formula: N / (N + D), N the sum of ln(open[i] / close[i-1])^2 and D that of ln(close[i] / open[i])^2 over t-19 .. t.
    NaN: the first 20 rows; where the price has not moved for 20 sessions.
    Reference: French and Roll (1986), Stock return variances: the arrival of information and the reaction of traders.
    """
    night, day = overnight_log(bars), intraday_log(bars)
    nights = rolling_sum(night * night, 20)
    return ratio(nights, nights + rolling_sum(day * day, 20))

"""How strong a trend is, and how straight. Feature contract: `trading_core.features.registry`."""

from __future__ import annotations

import numpy as np

from trading_core.features.common import WILDER_ROWS, atr_currency_14, wilder_14
from trading_core.features.kernels import (
    bars_since_max,
    bars_since_min,
    diff,
    ratio,
    rolling_trend,
    shift,
)
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.schema import FloatArray

_WILDER_ROWS = WILDER_ROWS - 1
_SLOPE, _LINE, _R2 = 0, 1, 2  # the layers of _line_20 and _line_63


def _directional_index(moves: FloatArray, against: FloatArray, bars: BarBlock) -> FloatArray:
    """Wilder's average of the moves that outdo those of the other side, in percent of the average true range."""
    alone = np.maximum(moves, 0.0) * (moves > against)
    return ratio(100.0 * wilder_14(alone), atr_currency_14(bars), undefined=0.0)


@shared
def _plus_di(bars: BarBlock) -> FloatArray:
    return _directional_index(diff(bars.high), -diff(bars.low), bars)


@shared
def _minus_di(bars: BarBlock) -> FloatArray:
    return _directional_index(-diff(bars.low), diff(bars.high), bars)


@shared
def _aroon_up(bars: BarBlock) -> FloatArray:
    return 100.0 - 4.0 * bars_since_max(bars.high, 26)


@shared
def _aroon_down(bars: BarBlock) -> FloatArray:
    return 100.0 - 4.0 * bars_since_min(bars.low, 26)


@shared
def _line_20(bars: BarBlock) -> FloatArray:
    """Least-squares line through 20 closes: slope per bar, value at t, R2. [3, S, R]"""
    return np.stack(rolling_trend(bars.close, 20))


@shared
def _line_63(bars: BarBlock) -> FloatArray:
    """As _line_20, through 63 closes. [3, S, R]"""
    return np.stack(rolling_trend(bars.close, 63))


@feature(family="trend", inputs=("high", "low", "close"), lookback=_WILDER_ROWS + 1, unit="0 .. 100")
def plus_di_14(bars: BarBlock) -> FloatArray:
    """Positive directional indicator over 14 sessions: the share of the true range that was new highs.

    Formula: 100 W(U) / W(true range), U = high[t] - high[t-1] where that is positive and more than low[t-1] - low[t],
        else 0; Wilder averages W over 14, truncated to `ewm_window` rows. 0 when there was no range.
    NaN: the first 14 rows.
    Reference: Wilder (1978), New concepts in technical trading systems; TA-Lib PLUS_DI(14), its seed forgotten.
    """
    return _plus_di(bars)


@feature(family="trend", inputs=("high", "low", "close"), lookback=_WILDER_ROWS + 1, unit="0 .. 100")
def minus_di_14(bars: BarBlock) -> FloatArray:
    """Negative directional indicator over 14 sessions: the share of the true range that was new lows.

    Formula: 100 W(D) / W(true range), D = low[t-1] - low[t] where that is positive and more than high[t] - high[t-1],
        else 0; W as for plus_di_14. 0 when there was no range.
    NaN: the first 14 rows.
    Reference: as for plus_di_14; TA-Lib MINUS_DI(14), its seed forgotten.
    """
    return _minus_di(bars)


@feature(family="trend", inputs=("high", "low", "close"), lookback=_WILDER_ROWS + 1, unit="-100 .. 100")
def di_diff_14(bars: BarBlock) -> FloatArray:
    """Direction of the movement over 14 sessions.

    Formula: plus_di_14 - minus_di_14.
    NaN: the first 14 rows.
    Reference: as for plus_di_14.
    """
    return _plus_di(bars) - _minus_di(bars)


@feature(family="trend", inputs=("high", "low", "close"), lookback=2 * _WILDER_ROWS + 1, unit="0 .. 100")
def adx_14(bars: BarBlock) -> FloatArray:
    """Average directional index over 14 sessions: how directed the movement is, whichever way.

    Formula: W(100 |P - M| / (P + M)), P = plus_di_14, M = minus_di_14, Wilder average W over 14, truncated to
        `ewm_window` rows; the index of a bar is 0 when P + M = 0.
    NaN: the first 27 rows.
    Reference: as for plus_di_14; TA-Lib ADX(14), which smooths by Wilder's recursion, its seed forgotten.
    """
    plus, minus = _plus_di(bars), _minus_di(bars)
    return wilder_14(ratio(100.0 * np.abs(plus - minus), plus + minus, undefined=0.0))


@feature(family="trend", inputs=("high",), lookback=25, unit="0 .. 100")
def aroon_up_25(bars: BarBlock) -> FloatArray:
    """How recent the highest high of the last 25 sessions and the one before is: 100 = now.

    Formula: 100 (25 - n) / 25, n = bars since max(high[t-25 .. t]), the latest of equal ones.
    NaN: the first 25 rows.
    Reference: Chande (1995); TA-Lib AROON(25), whose window has 26 bars.
    """
    return _aroon_up(bars)


@feature(family="trend", inputs=("low",), lookback=25, unit="0 .. 100")
def aroon_down_25(bars: BarBlock) -> FloatArray:
    """How recent the lowest low of the last 25 sessions and the one before is: 100 = now.

    Formula: 100 (25 - n) / 25, n = bars since min(low[t-25 .. t]), the latest of equal ones.
    NaN: the first 25 rows.
    Reference: as for aroon_up_25.
    """
    return _aroon_down(bars)


@feature(family="trend", inputs=("high", "low"), lookback=25, unit="-100 .. 100")
def aroon_osc_25(bars: BarBlock) -> FloatArray:
    """Whether the high or the low of the last 25 sessions is the more recent.

    Formula: aroon_up_25 - aroon_down_25.
    NaN: the first 25 rows.
    Reference: Chande (1995); TA-Lib AROONOSC(25).
    """
    return _aroon_up(bars) - _aroon_down(bars)


@feature(family="trend", inputs=("close",), lookback=19, unit="fraction of the close per session")
def linreg_slope_20(bars: BarBlock) -> FloatArray:
    """Slope of the least-squares line through 20 closes, over the close.

    Formula: sum of (i - mean i) close[i] / sum of (i - mean i)^2 over i = t-19 .. t, divided by close[t].
    NaN: the first 19 rows.
    Reference: least squares; times the close it is TA-Lib LINEARREG_SLOPE(20).
    """
    return ratio(_line_20(bars)[_SLOPE], bars.close)


@feature(family="trend", inputs=("close",), lookback=62, unit="fraction of the close per session")
def linreg_slope_63(bars: BarBlock) -> FloatArray:
    """Slope of the least-squares line through 63 closes, over the close.

    Formula: as for linreg_slope_20, i = t-62 .. t.
    NaN: the first 62 rows.
    Reference: least squares; times the close it is TA-Lib LINEARREG_SLOPE(63).
    """
    return ratio(_line_63(bars)[_SLOPE], bars.close)


@feature(family="trend", inputs=("close",), lookback=19, unit="0 .. 1")
def linreg_r2_20(bars: BarBlock) -> FloatArray:
    """How straight the last 20 closes lie: the share of their variance that a line explains.

    Formula: squared correlation of close[i] with i, i = t-19 .. t.
    NaN: the first 19 rows; where the 20 are all equal.
    Reference: least squares; the square of TA-Lib CORREL(close, time, 20).
    """
    return _line_20(bars)[_R2]


@feature(family="trend", inputs=("close",), lookback=62, unit="0 .. 1")
def linreg_r2_63(bars: BarBlock) -> FloatArray:
    """How straight the last 63 closes lie: the share of their variance that a line explains.

    Formula: squared correlation of close[i] with i, i = t-62 .. t.
    NaN: the first 62 rows; where the 63 are all equal.
    Reference: as for linreg_r2_20.
    """
    return _line_63(bars)[_R2]


@feature(family="trend", inputs=("close",), lookback=19, unit="simple return")
def linreg_dist_20(bars: BarBlock) -> FloatArray:
    """Close against the least-squares line through the last 20.

    Formula: close[t] / line[t] - 1, the line through close[t-19 .. t].
    NaN: the first 19 rows.
    Reference: least squares; TA-Lib LINEARREG(20).
    """
    return ratio(bars.close, _line_20(bars)[_LINE]) - 1.0


@feature(family="trend", inputs=("close",), lookback=62, unit="simple return")
def linreg_dist_63(bars: BarBlock) -> FloatArray:
    """Close against the least-squares line through the last 63.

    Formula: close[t] / line[t] - 1, the line through close[t-62 .. t].
    NaN: the first 62 rows.
    Reference: least squares; TA-Lib LINEARREG(63).
    """
    return ratio(bars.close, _line_63(bars)[_LINE]) - 1.0


@feature(family="trend", inputs=("close",), lookback=20, unit="fraction of the close")
def forecast_osc_20(bars: BarBlock) -> FloatArray:
    """Close against what the line through the 20 closes before it had forecast.

    Formula: (close[t] - F[t-1]) / close[t], F[t-1] = line[t-1] + slope[t-1] through close[t-20 .. t-1].
    NaN: the first 20 rows.
    Reference: Chande and Kroll (1994), The new technical trader, as a fraction; F is TA-Lib TSF(20).
    """
    line = _line_20(bars)
    return ratio(bars.close - shift(line[_LINE] + line[_SLOPE], 1), bars.close)

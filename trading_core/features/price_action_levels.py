"""Where the price stands against its recent extremes. Feature contract: `trading_core.features.registry`."""

from __future__ import annotations

import numpy as np

from trading_core.features.kernels import (
    bars_since_max,
    bars_since_min,
    diff,
    ratio,
    rolling_max,
    rolling_mean,
    rolling_min,
    shift,
    streak,
)
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.schema import FloatArray


@shared
def _highest_20(bars: BarBlock) -> FloatArray:
    return rolling_max(bars.high, 20)


@shared
def _lowest_20(bars: BarBlock) -> FloatArray:
    return rolling_min(bars.low, 20)


@shared
def _highest_63(bars: BarBlock) -> FloatArray:
    return rolling_max(bars.high, 63)


@shared
def _lowest_63(bars: BarBlock) -> FloatArray:
    return rolling_min(bars.low, 63)


@shared
def _highest_252(bars: BarBlock) -> FloatArray:
    return rolling_max(bars.high, 252)


@shared
def _lowest_252(bars: BarBlock) -> FloatArray:
    return rolling_min(bars.low, 252)


def _position(close: FloatArray, high: FloatArray, low: FloatArray) -> FloatArray:
    """0 at `low`, 1 at `high`, 0.5 where they are equal."""
    return ratio(close - low, high - low, undefined=0.5)


def _beyond(close: FloatArray, high: FloatArray, low: FloatArray) -> FloatArray:
    """1 above `high`, -1 below `low`, else 0; NaN where one of them is missing."""
    side = (close > high).astype(np.float64) - (close < low).astype(np.float64)
    return np.where(np.isnan(high) | np.isnan(low) | np.isnan(close), np.nan, side)


def _share_of(happened: FloatArray, move: FloatArray, window: int) -> FloatArray:
    """Share of the last `window` bars in which it happened; NaN where one of their moves is missing."""
    return rolling_mean(np.where(np.isnan(move), np.nan, happened), window)


@feature(family="price_action", inputs=("high", "close"), lookback=19, unit="simple return")
def high_dist_20(bars: BarBlock) -> FloatArray:
    """Distance of the close from the highest high of 20 sessions, at most 0.

    Formula: close[t] / max(high[t-19 .. t]) - 1.
    NaN: the first 19 rows.
    Reference: as for high_dist_63.
    """
    return ratio(bars.close, _highest_20(bars)) - 1.0


@feature(family="price_action", inputs=("low", "close"), lookback=19, unit="simple return")
def low_dist_20(bars: BarBlock) -> FloatArray:
    """Distance of the close from the lowest low of 20 sessions, at least 0.

    Formula: close[t] / min(low[t-19 .. t]) - 1.
    NaN: the first 19 rows.
    Reference: as for low_dist_63.
    """
    return ratio(bars.close, _lowest_20(bars)) - 1.0


@feature(family="price_action", inputs=("high", "close"), lookback=62, unit="simple return")
def high_dist_63(bars: BarBlock) -> FloatArray:
    """Distance of the close from the highest high of 63 sessions, at most 0.

    Formula: close[t] / max(high[t-62 .. t]) - 1.
    NaN: the first 62 rows.
    Reference: George and Hwang (2004), The 52-week high and momentum investing, with a quarter for the year.
    """
    return ratio(bars.close, _highest_63(bars)) - 1.0


@feature(family="price_action", inputs=("low", "close"), lookback=62, unit="simple return")
def low_dist_63(bars: BarBlock) -> FloatArray:
    """Distance of the close from the lowest low of 63 sessions, at least 0.

    Formula: close[t] / min(low[t-62 .. t]) - 1.
    NaN: the first 62 rows.
    Reference: as for high_dist_63.
    """
    return ratio(bars.close, _lowest_63(bars)) - 1.0


@feature(family="price_action", inputs=("high", "close"), lookback=125, unit="simple return")
def high_dist_126(bars: BarBlock) -> FloatArray:
    """Distance of the close from the highest high of 126 sessions, at most 0.

    Formula: close[t] / max(high[t-125 .. t]) - 1.
    NaN: the first 125 rows.
    Reference: as for high_dist_63.
    """
    return ratio(bars.close, rolling_max(bars.high, 126)) - 1.0


@feature(family="price_action", inputs=("low", "close"), lookback=125, unit="simple return")
def low_dist_126(bars: BarBlock) -> FloatArray:
    """Distance of the close from the lowest low of 126 sessions, at least 0.

    Formula: close[t] / min(low[t-125 .. t]) - 1.
    NaN: the first 125 rows.
    Reference: as for low_dist_63.
    """
    return ratio(bars.close, rolling_min(bars.low, 126)) - 1.0


@feature(family="price_action", inputs=("high", "close"), lookback=251, unit="simple return")
def high_dist_252(bars: BarBlock) -> FloatArray:
    """Distance of the close from the highest high of 252 sessions, at most 0.

    Formula: close[t] / max(high[t-251 .. t]) - 1.
    NaN: the first 251 rows.
    Reference: George and Hwang (2004), The 52-week high and momentum investing.
    """
    return ratio(bars.close, _highest_252(bars)) - 1.0


@feature(family="price_action", inputs=("low", "close"), lookback=251, unit="simple return")
def low_dist_252(bars: BarBlock) -> FloatArray:
    """Distance of the close from the lowest low of 252 sessions, at least 0.

    Formula: close[t] / min(low[t-251 .. t]) - 1.
    NaN: the first 251 rows.
    Reference: George and Hwang (2004), The 52-week high and momentum investing, for the low.
    """
    return ratio(bars.close, _lowest_252(bars)) - 1.0


@feature(family="price_action", inputs=("high", "low", "close"), lookback=19, unit="0 .. 1")
def range_position_20(bars: BarBlock) -> FloatArray:
    """Where the close lies in the range of 20 sessions: 0 at the lowest low, 1 at the highest high.

    Formula: (close[t] - L) / (H - L), H = max(high[t-19 .. t]), L = min(low[t-19 .. t]); 0.5 when H = L.
    NaN: the first 19 rows.
    Reference: Lane (1984); TA-Lib STOCHF(20) %K over 100.
    """
    return _position(bars.close, _highest_20(bars), _lowest_20(bars))


@feature(family="price_action", inputs=("high", "low", "close"), lookback=62, unit="0 .. 1")
def range_position_63(bars: BarBlock) -> FloatArray:
    """Where the close lies in the range of 63 sessions: 0 at the lowest low, 1 at the highest high.

    Formula: (close[t] - L) / (H - L), H = max(high[t-62 .. t]), L = min(low[t-62 .. t]); 0.5 when H = L.
    NaN: the first 62 rows.
    Reference: Lane (1984); TA-Lib STOCHF(63) %K over 100.
    """
    return _position(bars.close, _highest_63(bars), _lowest_63(bars))


@feature(family="price_action", inputs=("high", "low", "close"), lookback=251, unit="0 .. 1")
def range_position_252(bars: BarBlock) -> FloatArray:
    """Where the close lies in the range of 252 sessions: 0 at the lowest low, 1 at the highest high.

    Formula: (close[t] - L) / (H - L), H = max(high[t-251 .. t]), L = min(low[t-251 .. t]); 0.5 when H = L.
    NaN: the first 251 rows.
    Reference: Lane (1984); TA-Lib STOCHF(252) %K over 100.
    """
    return _position(bars.close, _highest_252(bars), _lowest_252(bars))


@feature(family="price_action", inputs=("high", "low", "close"), lookback=20, unit="-1, 0 or 1")
def breakout_20(bars: BarBlock) -> FloatArray:
    """Close beyond the channel of the 20 sessions before: 1 above its high, -1 below its low, else 0.

    Formula: 1 if close[t] > max(high[t-20 .. t-1]), -1 if close[t] < min(low[t-20 .. t-1]), else 0.
    NaN: the first 20 rows.
    Reference: Donchian's channel; 20 sessions as in the turtle rules, Faith (2007), Way of the turtle.
    """
    return _beyond(bars.close, shift(_highest_20(bars), 1), shift(_lowest_20(bars), 1))


@feature(family="price_action", inputs=("high", "low", "close"), lookback=55, unit="-1, 0 or 1")
def breakout_55(bars: BarBlock) -> FloatArray:
    """Close beyond the channel of the 55 sessions before: 1 above its high, -1 below its low, else 0.

    Formula: 1 if close[t] > max(high[t-55 .. t-1]), -1 if close[t] < min(low[t-55 .. t-1]), else 0.
    NaN: the first 55 rows.
    Reference: Donchian's channel; 55 sessions as in the turtle rules, Faith (2007), Way of the turtle.
    """
    return _beyond(bars.close, shift(rolling_max(bars.high, 55), 1), shift(rolling_min(bars.low, 55), 1))


@feature(family="price_action", inputs=("close",), lookback=251, unit="simple return")
def drawdown_252(bars: BarBlock) -> FloatArray:
    """Loss of the close since the highest close of 252 sessions, at most 0.

    Formula: close[t] / max(close[t-251 .. t]) - 1.
    NaN: the first 251 rows.
    Reference: definition of the drawdown, within a year.
    """
    return ratio(bars.close, rolling_max(bars.close, 252)) - 1.0


@feature(family="price_action", inputs=("high",), lookback=251, unit="0 .. 1")
def since_high_252(bars: BarBlock) -> FloatArray:
    """Bars since the highest high of 252 sessions: 0 = now, 1 = 251 bars ago.

    Formula: k / 251, k the smallest with high[t-k] = max(high[t-251 .. t]).
    NaN: the first 251 rows.
    Reference: Bhootra and Hur (2013), The timing of 52-week high price and momentum.
    """
    return bars_since_max(bars.high, 252) / 251.0


@feature(family="price_action", inputs=("low",), lookback=251, unit="0 .. 1")
def since_low_252(bars: BarBlock) -> FloatArray:
    """Bars since the lowest low of 252 sessions: 0 = now, 1 = 251 bars ago.

    Formula: k / 251, k the smallest with low[t-k] = min(low[t-251 .. t]).
    NaN: the first 251 rows.
    Reference: as for since_high_252.
    """
    return bars_since_min(bars.low, 252) / 251.0


@feature(family="price_action", inputs=("close",), lookback=10, unit="-1 .. 1")
def streak_10(bars: BarBlock) -> FloatArray:
    """Run of rising (positive) or falling (negative) closes, cut at 10 sessions.

    Formula: n / 10, n the signed number of closes in a row, up to t, that moved the same way, at most 10; 0 when the
        close did not move.
    NaN: the first row.
    Reference: definition.
    """
    return streak(diff(bars.close), 10) / 10.0


@feature(family="price_action", inputs=("high",), lookback=20, unit="0 .. 1")
def higher_highs_20(bars: BarBlock) -> FloatArray:
    """Share of the last 20 sessions with a high above the one before.

    Formula: number of i in t-19 .. t with high[i] > high[i-1], over 20.
    NaN: the first 20 rows.
    Reference: definition.
    """
    move = diff(bars.high)
    return _share_of((move > 0.0).astype(np.float64), move, 20)


@feature(family="price_action", inputs=("low",), lookback=20, unit="0 .. 1")
def lower_lows_20(bars: BarBlock) -> FloatArray:
    """Share of the last 20 sessions with a low below the one before.

    Formula: number of i in t-19 .. t with low[i] < low[i-1], over 20.
    NaN: the first 20 rows.
    Reference: definition.
    """
    move = diff(bars.low)
    return _share_of((move < 0.0).astype(np.float64), move, 20)

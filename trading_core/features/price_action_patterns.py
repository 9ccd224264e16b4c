"""Candles: the shape of a bar and of two or three in a row. Feature contract: `trading_core.features.registry`.

Comparisons are exact, so an equality of two prices decides as the formula says.
"""

from __future__ import annotations

import numpy as np

from trading_core.features.common import bar_range, last_close
from trading_core.features.kernels import ratio, rolling_mean, rolling_min, shift
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.schema import FloatArray


@shared
def _body(bars: BarBlock) -> FloatArray:
    """|close - open|"""
    return np.abs(bars.close - bars.open)


@shared
def _last_open(bars: BarBlock) -> FloatArray:
    return shift(bars.open, 1)


@shared
def _last_high(bars: BarBlock) -> FloatArray:
    return shift(bars.high, 1)


@shared
def _last_low(bars: BarBlock) -> FloatArray:
    return shift(bars.low, 1)


def _flag(happened: np.ndarray, needed: FloatArray) -> FloatArray:
    """1 where it happened, else 0; NaN where what it needs is missing."""
    return np.where(np.isnan(needed), np.nan, happened.astype(np.float64))


@feature(family="price_action", inputs=("open", "high", "low", "close"), lookback=0, unit="fraction of the range")
def body_share(bars: BarBlock) -> FloatArray:
    """Share of the bar's range between open and close (its sign is that of bop).

    Formula: |close - open| / (high - low); 0 when high = low.
    NaN: never, on complete bars.
    Reference: Nison (1991), Japanese candlestick charting techniques: the real body; |TA-Lib BOP|.
    """
    return ratio(_body(bars), bar_range(bars), undefined=0.0)


@feature(family="price_action", inputs=("open", "high", "low", "close"), lookback=0, unit="fraction of the range")
def upper_shadow(bars: BarBlock) -> FloatArray:
    """Share of the bar's range above its body.

    Formula: (high - max(open, close)) / (high - low); 0 when high = low.
    NaN: never, on complete bars.
    Reference: as for body_share.
    """
    return ratio(bars.high - np.maximum(bars.open, bars.close), bar_range(bars), undefined=0.0)


@feature(family="price_action", inputs=("open", "high", "low", "close"), lookback=0, unit="fraction of the range")
def lower_shadow(bars: BarBlock) -> FloatArray:
    """Share of the bar's range below its body.

    Formula: (min(open, close) - low) / (high - low); 0 when high = low.
    NaN: never, on complete bars.
    Reference: as for body_share.
    """
    return ratio(np.minimum(bars.open, bars.close) - bars.low, bar_range(bars), undefined=0.0)


@feature(family="price_action", inputs=("open", "high", "low", "close"), lookback=10, unit="0 .. 1")
def doji_10(bars: BarBlock) -> FloatArray:
    """How small the body is against the mean range of the 10 sessions before: 1 = none, 0 = as large as that or larger.

    Formula: max(0, 1 - |close - open| / mean((high - low)[t-10 .. t-1])).
    NaN: the first 10 rows; where the price has not moved within those 10 sessions.
    Reference: Nison (1991); at least 0.9 where TA-Lib CDLDOJI finds a doji.
    """
    usual = shift(rolling_mean(bar_range(bars), 10), 1)
    return np.maximum(1.0 - ratio(_body(bars), usual), 0.0)


@feature(family="price_action", inputs=("high", "low"), lookback=1, unit="0 or 1")
def inside_bar(bars: BarBlock) -> FloatArray:
    """Whether the bar lies within the one before.

    Formula: 1 if high[t] < high[t-1] and low[t] > low[t-1], else 0.
    NaN: the first row.
    Reference: definition.
    """
    high, low = _last_high(bars), _last_low(bars)
    return _flag((bars.high < high) & (bars.low > low), bars.high - high + bars.low - low)


@feature(family="price_action", inputs=("high", "low"), lookback=1, unit="0 or 1")
def outside_bar(bars: BarBlock) -> FloatArray:
    """Whether the bar reaches beyond the one before on both sides.

    Formula: 1 if high[t] > high[t-1] and low[t] < low[t-1], else 0.
    NaN: the first row.
    Reference: definition.
    """
    high, low = _last_high(bars), _last_low(bars)
    return _flag((bars.high > high) & (bars.low < low), bars.high - high + bars.low - low)


@feature(family="price_action", inputs=("open", "close"), lookback=1, unit="-1 .. 1")
def engulfing(bars: BarBlock) -> FloatArray:
    """A body that engulfs the one before, of the other colour: positive = rising, negative = falling.

    Formula: of a rising bar (close >= open) after a falling one: 1 if close[t] > open[t-1] and open[t] < close[t-1], 0.8
        if one of the two is an equality; the negative of it with rising and falling exchanged; else 0.
    NaN: the first row.
    Reference: Nison (1991); TA-Lib CDLENGULFING over 100.
    """
    last_open, last = _last_open(bars), last_close(bars)
    colour = np.where(bars.close >= bars.open, 1.0, -1.0)
    turned = colour * np.where(last >= last_open, 1.0, -1.0) < 0.0
    head, foot = colour * (bars.close - last_open), colour * (last - bars.open)  # beyond the last body, where positive
    whole = (head > 0.0) & (foot > 0.0)
    touching = ((head == 0.0) & (foot > 0.0)) | ((head > 0.0) & (foot == 0.0))
    strength = np.where(whole, 1.0, np.where(touching, 0.8, 0.0))
    return np.where(np.isnan(head + foot), np.nan, np.where(turned, colour * strength, 0.0))


@feature(family="price_action", inputs=("open", "high", "low", "close"), lookback=2, unit="-1, 0 or 1")
def three_bar_reversal(bars: BarBlock) -> FloatArray:
    """A turn over three bars: 1 = upwards, -1 = downwards, else 0.

    Formula: 1 if close[t-2] < open[t-2], low[t-1] < min(low[t-2], low[t]) and close[t] > high[t-1];
        -1 if close[t-2] > open[t-2], high[t-1] > max(high[t-2], high[t]) and close[t] < low[t-1]; else 0.
    NaN: the first 2 rows.
    Reference: definition: a swing point of three bars after a bar of the old direction, confirmed by the close.
    """
    high, low, first = _last_high(bars), _last_low(bars), shift(bars.close - bars.open, 2)
    first_high, first_low = shift(bars.high, 2), shift(bars.low, 2)
    up = (first < 0.0) & (low < np.minimum(first_low, bars.low)) & (bars.close > high)
    down = (first > 0.0) & (high > np.maximum(first_high, bars.high)) & (bars.close < low)
    needed = first + first_high + first_low + high + low + bars.high + bars.low + bars.close
    return _flag(up, needed) - _flag(down, needed)


@feature(family="price_action", inputs=("high", "low"), lookback=6, unit="0 or 1")
def narrow_range_7(bars: BarBlock) -> FloatArray:
    """Whether the bar's range is the smallest of 7 sessions (NR7).

    Formula: 1 if (high - low)[t] < min((high - low)[t-6 .. t-1]), else 0.
    NaN: the first 6 rows.
    Reference: Crabel (1990), Day trading with short term price patterns and opening range breakout.
    """
    width = bar_range(bars)
    before = shift(rolling_min(width, 6), 1)
    return _flag(width < before, width - before)

"""Series that many features are made of, computed once per block. Feature contract: `trading_core.features.registry`."""

from __future__ import annotations

import numpy as np

from trading_core.features.kernels import change, diff, ewm_mean, ewm_window, log, shift
from trading_core.features.registry import BarBlock, shared
from trading_core.schema import FloatArray

WILDER_14 = 13 / 14  # decay of Wilder's smoothing over 14
# A leap of the price that leaves the window shows most in what is a share of such averages (RSI, ADX): with ten times less
# left out than elsewhere they stay within 1e-6 of the endless ones also after the unadjusted distributions of real panels.
WILDER_LEFT_OUT = 1e-8
WILDER_ROWS = ewm_window(WILDER_14, WILDER_LEFT_OUT)


def span(n: int) -> float:
    """Decay of the exponential average of span n, alpha = 2 / (n + 1)."""
    return (n - 1) / (n + 1)


def ema_rows(*spans: int) -> int:
    """Bars before t that the exponential average of an average of ... of these spans depends on."""
    return sum(ewm_window(span(n)) - 1 for n in spans)


def wilder_14(x: FloatArray) -> FloatArray:
    """Wilder's average over 14, truncated to WILDER_ROWS bars."""
    return ewm_mean(x, WILDER_14, 14, WILDER_LEFT_OUT)


@shared
def log_close(bars: BarBlock) -> FloatArray:
    """ln close."""
    return log(bars.close)


@shared
def log_open(bars: BarBlock) -> FloatArray:
    """ln open."""
    return log(bars.open)


@shared
def log_high(bars: BarBlock) -> FloatArray:
    """ln high."""
    return log(bars.high)


@shared
def log_low(bars: BarBlock) -> FloatArray:
    """ln low."""
    return log(bars.low)


@shared
def overnight_log(bars: BarBlock) -> FloatArray:
    """ln open[t] - ln close[t-1]; NaN in the first row."""
    return log_open(bars) - shift(log_close(bars), 1)


@shared
def intraday_log(bars: BarBlock) -> FloatArray:
    """ln close - ln open."""
    return log_close(bars) - log_open(bars)


@shared
def log_returns(bars: BarBlock) -> FloatArray:
    """ln close[t] - ln close[t-1]; NaN in the first row."""
    return diff(log_close(bars))


@shared
def returns(bars: BarBlock) -> FloatArray:
    """close[t] / close[t-1] - 1; NaN in the first row."""
    return change(bars.close, 1)


@shared
def last_close(bars: BarBlock) -> FloatArray:
    """close[t-1]; NaN in the first row."""
    return shift(bars.close, 1)


@shared
def true_range(bars: BarBlock) -> FloatArray:
    """max(high, close[t-1]) - min(low, close[t-1]), Wilder's true range in the price's currency; NaN in the first row."""
    last = last_close(bars)
    return np.maximum(bars.high, last) - np.minimum(bars.low, last)


@shared
def atr_currency_14(bars: BarBlock) -> FloatArray:
    """Wilder's average true range over 14, in the price's currency."""
    return wilder_14(true_range(bars))


@shared
def typical_price(bars: BarBlock) -> FloatArray:
    """(high + low + close) / 3."""
    return (bars.high + bars.low + bars.close) / 3.0


@shared
def dollar_volume(bars: BarBlock) -> FloatArray:
    """close * volume: what was traded, in the price's currency."""
    return bars.close * bars.volume


@shared
def bar_range(bars: BarBlock) -> FloatArray:
    """high - low, in the price's currency."""
    return bars.high - bars.low

"""Momentum of the closes: strength, rates of change, differences of averages.

Feature contract: `trading_core.features.registry`. Those that need the whole bar are in `momentum_bars`. Chande's momentum
oscillator as TA-Lib computes it, with Wilder's averages, is 2 rsi_14 - 100, and TA-Lib's absolute price oscillator over the
close is macd: both are left out.

An average of rises over one of falls can lie far from what it was a window ago, the more so the shorter the window: the
short ones are truncated later than `kernels.TRUNCATED_WEIGHT` asks, to stay within 1e-6 of the endless index on real bars.
"""

from __future__ import annotations

import numpy as np

from trading_core.features.common import WILDER_14, WILDER_LEFT_OUT, WILDER_ROWS, ema_rows, span
from trading_core.features.kernels import (
    TRUNCATED_WEIGHT,
    change,
    diff,
    ewm_mean,
    ewm_window,
    ratio,
    rolling_max,
    rolling_min,
    shift,
)
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.features.trend import ema_12, ema_26
from trading_core.schema import FloatArray


def _wilder(n: int) -> float:
    """Decay of Wilder's smoothing over n."""
    return (n - 1) / n


@shared
def _rises(bars: BarBlock) -> FloatArray:
    return np.maximum(diff(bars.close), 0.0)


@shared
def _falls(bars: BarBlock) -> FloatArray:
    return np.maximum(-diff(bars.close), 0.0)


def _rsi(bars: BarBlock, n: int, left_out: float = TRUNCATED_WEIGHT) -> FloatArray:
    rises = ewm_mean(_rises(bars), _wilder(n), n, left_out)
    falls = ewm_mean(_falls(bars), _wilder(n), n, left_out)
    return ratio(100.0 * rises, rises + falls, undefined=50.0)


@feature(family="momentum", inputs=("close",), lookback=ewm_window(_wilder(2), 1e-12), unit="0 .. 100")
def rsi_2(bars: BarBlock) -> FloatArray:
    """Relative strength index over 2 sessions.

    Formula: 100 G / (G + L), Wilder averages of the rises G and falls L of the close, truncated to `ewm_window`
        changes; 50 when it has not moved.
    NaN: the first 2 rows.
    Reference: Wilder (1978); TA-Lib RSI(2), once that has forgotten its seed.
    """
    return _rsi(bars, 2, 1e-12)


@feature(family="momentum", inputs=("close",), lookback=ewm_window(_wilder(7), 1e-9), unit="0 .. 100")
def rsi_7(bars: BarBlock) -> FloatArray:
    """Relative strength index over 7 sessions.

    Formula: 100 G / (G + L), Wilder averages of the rises G and falls L of the close, truncated to `ewm_window`
        changes; 50 when it has not moved.
    NaN: the first 7 rows.
    Reference: Wilder (1978); TA-Lib RSI(7), once that has forgotten its seed.
    """
    return _rsi(bars, 7, 1e-9)


@feature(family="momentum", inputs=("close",), lookback=WILDER_ROWS, unit="0 .. 100")
def rsi_14(bars: BarBlock) -> FloatArray:
    """Relative strength index over 14 sessions.

    Formula: 100 G / (G + L), Wilder averages of the rises G and falls L of the close, truncated to `ewm_window`
        changes; 50 when it has not moved.
    NaN: the first 14 rows.
    Reference: Wilder (1978); TA-Lib RSI(14), once that has forgotten its seed.
    """
    return _rsi(bars, 14, WILDER_LEFT_OUT)


@feature(family="momentum", inputs=("close",), lookback=ewm_window(_wilder(28)), unit="0 .. 100")
def rsi_28(bars: BarBlock) -> FloatArray:
    """Relative strength index over 28 sessions.

    Formula: 100 G / (G + L), Wilder averages of the rises G and falls L of the close, truncated to `ewm_window`
        changes; 50 when it has not moved.
    NaN: the first 28 rows.
    Reference: Wilder (1978); TA-Lib RSI(28), once that has forgotten its seed.
    """
    return _rsi(bars, 28)


@feature(family="momentum", inputs=("close",), lookback=ewm_window(WILDER_14, 1e-9) + 13, unit="0 .. 100")
def stochrsi_14(bars: BarBlock) -> FloatArray:
    """Where the relative strength index lies in its own range of 14 sessions.

    Formula: 100 (R - min R) / (max R - min R), R = rsi_14 over t-13 .. t; 50 when they are equal.
    NaN: the first 27 rows.
    Reference: Chande and Kroll (1994), The new technical trader; TA-Lib STOCHRSI(14, 14, 3) fast K, its seed forgotten
        (TA-Lib says 0 when they are equal, and ranges over 5 unless told).
    """
    strength = _rsi(bars, 14, 1e-9)
    lowest = rolling_min(strength, 14)
    return ratio(100.0 * (strength - lowest), rolling_max(strength, 14) - lowest, undefined=50.0)


@feature(family="momentum", inputs=("close",), lookback=10, unit="simple return")
def roc_10(bars: BarBlock) -> FloatArray:
    """Rate of change over 10 sessions.

    Formula: close[t] / close[t-10] - 1.
    NaN: the first 10 rows.
    Reference: TA-Lib ROCP(10).
    """
    return change(bars.close, 10)


@feature(family="momentum", inputs=("close",), lookback=20, unit="simple return")
def roc_20(bars: BarBlock) -> FloatArray:
    """Rate of change over 20 sessions.

    Formula: close[t] / close[t-20] - 1.
    NaN: the first 20 rows.
    Reference: TA-Lib ROCP(20).
    """
    return change(bars.close, 20)


@feature(family="momentum", inputs=("close",), lookback=126, unit="simple return")
def roc_126(bars: BarBlock) -> FloatArray:
    """Rate of change over 126 sessions.

    Formula: close[t] / close[t-126] - 1.
    NaN: the first 126 rows.
    Reference: TA-Lib ROCP(126).
    """
    return change(bars.close, 126)


@feature(family="momentum", inputs=("close",), lookback=252, unit="simple return")
def roc_252(bars: BarBlock) -> FloatArray:
    """Rate of change over 252 sessions.

    Formula: close[t] / close[t-252] - 1.
    NaN: the first 252 rows.
    Reference: TA-Lib ROCP(252).
    """
    return change(bars.close, 252)


@feature(family="momentum", inputs=("close",), lookback=63, unit="simple return")
def mom_63_21(bars: BarBlock) -> FloatArray:
    """Momentum of a quarter without its last month.

    Formula: close[t-21] / close[t-63] - 1.
    NaN: the first 63 rows.
    Reference: as for mom_252_21.
    """
    return ratio(shift(bars.close, 21), shift(bars.close, 63)) - 1.0


@feature(family="momentum", inputs=("close",), lookback=126, unit="simple return")
def mom_126_21(bars: BarBlock) -> FloatArray:
    """Momentum of a half year without its last month.

    Formula: close[t-21] / close[t-126] - 1.
    NaN: the first 126 rows.
    Reference: as for mom_252_21.
    """
    return ratio(shift(bars.close, 21), shift(bars.close, 126)) - 1.0


@feature(family="momentum", inputs=("close",), lookback=252, unit="simple return")
def mom_252_21(bars: BarBlock) -> FloatArray:
    """Momentum of a year without its last month.

    Formula: close[t-21] / close[t-252] - 1.
    NaN: the first 252 rows.
    Reference: Jegadeesh and Titman (1993), Returns to buying winners and selling losers; the "12-1" convention.
    """
    return ratio(shift(bars.close, 21), shift(bars.close, 252)) - 1.0


@feature(family="momentum", inputs=("close",), lookback=ema_rows(15, 15, 15) + 1, unit="simple return per session")
def trix_15(bars: BarBlock) -> FloatArray:
    """Rate of change of the triple-smoothed close.

    Formula: E3[t] / E3[t-1] - 1, E3 = EMA(EMA(EMA(close, 15), 15), 15).
    NaN: the first 43 rows.
    Reference: Hutson (1983); a hundredth of TA-Lib TRIX(15), once that has forgotten its seed.
    """
    decay = span(15)
    return change(ewm_mean(ewm_mean(ewm_mean(bars.close, decay, 15), decay, 15), decay, 15), 1)


@feature(family="momentum", inputs=("close",), lookback=ema_rows(25, 13) + 1, unit="-100 .. 100")
def tsi_25_13(bars: BarBlock) -> FloatArray:
    """True strength index: the double-smoothed change of the close over that of its size.

    Formula: 100 EMA(EMA(m, 25), 13) / EMA(EMA(|m|, 25), 13), m = close[t] - close[t-1]; 0 when it has not moved.
    NaN: the first 37 rows.
    Reference: Blau (1991), True strength index.
    """
    move = diff(bars.close)
    net = ewm_mean(ewm_mean(move, span(25), 25), span(13), 13)
    gross = ewm_mean(ewm_mean(np.abs(move), span(25), 25), span(13), 13)
    return ratio(100.0 * net, gross, undefined=0.0)


@feature(family="momentum", inputs=("close",), lookback=ema_rows(26), unit="fraction of the slow average")
def ppo_12_26(bars: BarBlock) -> FloatArray:
    """Percentage price oscillator: the fast average of MACD against the slow one.

    Formula: EMA(close, 12) / EMA(close, 26) - 1.
    NaN: the first 25 rows.
    Reference: Appel (1979); a hundredth of TA-Lib PPO(12, 26) with its default, exponential averages, its seed forgotten.
    """
    return ratio(ema_12(bars), ema_26(bars)) - 1.0
